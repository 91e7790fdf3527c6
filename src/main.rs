//! Parses, runs, prints the error, picks the exit code.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use hakaru::cli::stdout::standard_output;
use hakaru::cli::{ConfigError, Invocation};
use hakaru::commands::check;
use hakaru::commands::reconcile::ReconcileError;
use hakaru::os::printable::Printable;
use hakaru::os::process_list;
use hakaru::server;
use hakaru::server::config::Config;
use hakaru::server::upgrade::Program;

/// A fault while running, a journal that is damaged, or a check that failed.
const FAULT: u8 = 1;

/// A setting that is not accepted.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    match Invocation::from_process() {
        Ok(Invocation::Serve(config)) => serve(&config),
        Ok(Invocation::Check(config, output)) => {
            ended(check::run(&config, output, &mut standard_output()))
        }
        Ok(Invocation::Inspect(inspection, question)) => {
            ended(inspection.answer(&question, standard_output()))
        }
        Ok(Invocation::Report(report)) => answer(|out| Ok(report.run(out).map(|()| true)?)),
        Ok(Invocation::Reconcile(asked)) => answer(|out| asked.run(out)),
        Ok(Invocation::Print(text)) => ended(standard_output().write_all(&text)),
        Err(ConfigError::Help(asked)) => ended(asked.print()),
        Err(fault) => complain(&fault.to_string(), BAD_CONFIGURATION),
    }
}

fn serve(config: &Config) -> ExitCode {
    let program = match Program::of_this_process() {
        Ok(program) => program,
        Err(fault) => return complain(&format!("start: {fault}"), FAULT),
    };
    match server::run(config, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) if fault.is_configuration() => complain(&fault.to_string(), BAD_CONFIGURATION),
        Err(fault) => complain(&fault.to_string(), FAULT),
    }
}

/// Asks the database; `true`: what was found is as it should be.
fn answer(question: impl Fn(&mut dyn Write) -> Result<bool, ReconcileError>) -> ExitCode {
    // It may take minutes. Where the password cannot be hidden, the answer is still wanted.
    drop(process_list::hide_passwords());
    match question(&mut BufWriter::new(standard_output())) {
        Ok(agrees) => ExitCode::from(if agrees { 0 } else { FAULT }),
        Err(fault) if fault.is_usage() => complain(&fault.to_string(), BAD_CONFIGURATION),
        Err(fault) => complain(&fault.to_string(), FAULT),
    }
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
    drop(writeln!(std::io::stderr(), "hakaru: {}", Printable(text)));
    ExitCode::from(code)
}
