//! Parses the command line, runs the command, prints its error and sets the exit code.

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

/// Exit code of an error while running, a damaged journal, a failed check, or rows that do not agree.
const FAULT: u8 = 1;

/// Exit code of a setting that is not accepted.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    match Invocation::from_process() {
        Ok(Invocation::Serve(config)) => serve(&config),
        Ok(Invocation::Check(config, output)) => {
            exit_code(check::run(&config, output, &mut standard_output()))
        }
        Ok(Invocation::Inspect(inspection, question)) => {
            exit_code(inspection.answer(&question, standard_output()))
        }
        Ok(Invocation::DeadLetters(request)) => exit_code(request.run(standard_output())),
        Ok(Invocation::Report(report)) => query(|out| Ok(report.run(out).map(|()| true)?)),
        Ok(Invocation::Reconcile(reconciliation)) => query(|out| reconciliation.run(out)),
        Ok(Invocation::Print(text)) => exit_code(standard_output().write_all(&text)),
        Err(ConfigError::Help(help)) => exit_code(help.print()),
        Err(fault) => fail(&fault.to_string(), BAD_CONFIGURATION),
    }
}

fn serve(config: &Config) -> ExitCode {
    let program = match Program::of_this_process() {
        Ok(program) => program,
        Err(fault) => return fail(&format!("start: {fault}"), FAULT),
    };
    match server::run(config, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) if fault.is_configuration() => fail(&fault.to_string(), BAD_CONFIGURATION),
        Err(fault) => fail(&fault.to_string(), FAULT),
    }
}

/// Runs a command that queries the database. Its result is `true` if the rows agree.
fn query(command: impl Fn(&mut dyn Write) -> Result<bool, ReconcileError>) -> ExitCode {
    // A query may take minutes, in which a password could be seen. If it cannot be hidden, the query still runs.
    drop(process_list::hide_passwords());
    match command(&mut BufWriter::new(standard_output())) {
        Ok(agrees) => ExitCode::from(if agrees { 0 } else { FAULT }),
        Err(fault) if fault.is_usage() => fail(&fault.to_string(), BAD_CONFIGURATION),
        Err(fault) => fail(&fault.to_string(), FAULT),
    }
}

/// The exit code of a command other than serving. Prints its error.
fn exit_code<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fail(&fault.to_string(), FAULT),
    }
}

/// Prints one line on standard error.
fn fail(text: &str, code: u8) -> ExitCode {
    // If standard error is closed, only the exit code reports the error.
    drop(writeln!(std::io::stderr(), "hakaru: {}", Printable(text)));
    ExitCode::from(code)
}
