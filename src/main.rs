//! Parses, runs, prints the error, picks the exit code.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use hakaru::config::{Config, ConfigError, Invocation, JournalQuestion};
use hakaru::journal::inspect::{InspectError, Inspection};
use hakaru::{check, command_line, logging, server};

/// A fault while running, a journal that is damaged, or a check that failed.
const FAULT: u8 = 1;

/// A setting that is not accepted.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    match Config::from_process() {
        Ok(Invocation::Serve(config)) => serve(&config),
        Ok(Invocation::Check(config, output)) => {
            ended(check::run(&config, output, &mut std::io::stdout().lock()))
        }
        Ok(Invocation::Inspect(inspection, question)) => ended(inspect(&inspection, &question)),
        Ok(Invocation::Print(text)) => ended(std::io::stdout().write_all(&text)),
        Err(ConfigError::Help(asked)) => ended(asked.print()),
        Err(fault) => complain(&fault.to_string(), BAD_CONFIGURATION),
    }
}

fn serve(config: &Config) -> ExitCode {
    logging::start(config.log_format, &config.log_filter);
    if let Err(fault) = command_line::hide_passwords() {
        log::warn!("a password given as a flag can be seen in the process list: {fault}");
    }
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) if fault.is_configuration() => complain(&fault.to_string(), BAD_CONFIGURATION),
        Err(fault) => complain(&fault.to_string(), FAULT),
    }
}

fn inspect(inspection: &Inspection, question: &JournalQuestion) -> Result<(), InspectError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let answered = match question {
        JournalQuestion::List => inspection.list(&mut out),
        JournalQuestion::Dump { lane } => inspection.dump(&mut out, lane),
        JournalQuestion::Verify => inspection.verify(&mut out),
    };
    // What was found comes before what is wrong with it.
    out.flush().map_err(InspectError::Output).and(answered)
}

/// The end of what does not serve.
fn ended<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => complain(&fault.to_string(), FAULT),
    }
}

/// One line on standard error.
fn complain(text: &str, code: u8) -> ExitCode {
    // With standard error closed there is nobody to tell; the exit code still does.
    drop(writeln!(
        std::io::stderr(),
        "hakaru: {}",
        text.replace('\n', " ")
    ));
    ExitCode::from(code)
}
