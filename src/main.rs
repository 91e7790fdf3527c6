//! Parses, runs, prints the error, picks the exit code.

use std::io::Write;
use std::process::ExitCode;

use hakaru::config::{Config, ConfigError};
use hakaru::{command_line, logging, server};

/// A fault while running, or a resource that could not be had.
const FAULT: u8 = 1;

/// A setting that is not accepted.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(ConfigError::Help(asked)) => {
            return match asked.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(FAULT),
            };
        }
        Err(fault) => {
            complain(&fault.to_string());
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    logging::start(config.log_format, &config.log_filter);
    if let Err(fault) = command_line::hide_passwords() {
        log::warn!("a password given as a flag can be seen in the process list: {fault}");
    }
    match server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&fault.to_string());
            ExitCode::from(if fault.is_configuration() {
                BAD_CONFIGURATION
            } else {
                FAULT
            })
        }
    }
}

/// One line on standard error.
fn complain(text: &str) {
    // With standard error closed there is nobody to tell; the exit code still does.
    drop(writeln!(
        std::io::stderr(),
        "hakaru: {}",
        text.replace('\n', " ")
    ));
}
