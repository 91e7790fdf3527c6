//! Reads flags, variables and subcommands into values.

mod arguments;
mod database_arguments;
mod documents;
mod journal_arguments;
mod letter_arguments;
mod parsers;
mod query_arguments;
pub mod stdout;
mod version_line;

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub use self::arguments::settings;
pub use self::parsers::Refusal;

use self::arguments::{Arguments, Command, Variables};
use crate::commands::dead_letters::LetterRequest;
use crate::commands::journal::{Inspection, JournalQuestion, Output};
use crate::commands::reconcile::Reconciliation;
use crate::commands::report::Report;
use crate::server::config::Config;

/// What the process is asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Config>),
    /// Try all settings.
    Check(Box<Config>, Output),
    /// Read a journal.
    Inspect(Inspection, JournalQuestion),
    /// Report the stored events.
    Report(Report),
    /// Compare expected events with the rows.
    Reconcile(Reconciliation),
    /// List dead letters, replay or drop them.
    DeadLetters(LetterRequest),
    /// Write this to standard output: the version, completions or a manual page.
    Print(Vec<u8>),
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting has a value that is not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The command line itself is wrong.
    #[error("{0}; see hakaru --help")]
    Arguments(String),
    /// Help was asked for.
    #[error("{0}")]
    Help(clap::Error),
}

impl Invocation {
    /// Reads the process's own flags and variables.
    pub fn from_process() -> Result<Self, ConfigError> {
        let mut arguments = match Arguments::read(std::env::args_os()) {
            Err(fault) if fault.kind() == ErrorKind::DisplayVersion => {
                return Ok(Self::Print(version_line::version_line().into()));
            }
            read => read?,
        };
        let command = arguments.command.take();
        let config = |arguments: Arguments| -> Result<_, ConfigError> {
            Ok(Box::new(arguments.config(Variables::read()?)?))
        };
        let output = |json| if json { Output::Json } else { Output::Text };
        Ok(match command {
            None => Invocation::Serve(config(arguments)?),
            Some(Command::Check { json }) => Invocation::Check(config(arguments)?, output(json)),
            Some(Command::Completions { shell }) => {
                Invocation::Print(documents::completions(shell))
            }
            Some(Command::Man { names }) => Invocation::Print(documents::manual(&names)?),
            Some(Command::Journal { json, question }) => {
                let inspection = Inspection::new(&arguments.data_dir, output(json));
                Invocation::Inspect(inspection, question.into())
            }
            Some(Command::DeadLetters(given)) => {
                Invocation::DeadLetters(given.request(arguments.data_dir)?)
            }
            Some(Command::Report(given)) => {
                let (datasource, _) = arguments.places()?;
                Invocation::Report(given.report(datasource)?)
            }
            Some(Command::Reconcile(given)) => {
                let (datasource, data_dir) = arguments.places()?;
                Invocation::Reconcile(given.reconciliation(datasource, data_dir)?)
            }
        })
    }
}

impl From<clap::Error> for ConfigError {
    /// Shortens the many lines of clap to one. It holds no value of the command line, which could be a password.
    fn from(fault: clap::Error) -> Self {
        if !fault.use_stderr() {
            return Self::Help(fault);
        }
        let named = match fault.get(ContextKind::InvalidArg) {
            // The name may be followed by the value.
            Some(ContextValue::String(argument)) if argument.starts_with("--") => {
                argument.split(['=', ' ']).next().unwrap_or_default()
            }
            Some(ContextValue::String(argument)) if argument.starts_with('<') => argument,
            _ if fault.kind() == ErrorKind::UnknownArgument => {
                "an argument without a flag (a value that begins with a dash must be given as --flag=VALUE)"
            }
            _ => "an argument without a flag",
        };
        let text = match (fault.kind(), &fault.get(ContextKind::InvalidArg)) {
            (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
                format!("{}: missing", missing.join(", "))
            }
            (kind, _) => format!("{named}: {kind}"),
        };
        let accepted = [ContextKind::ValidValue, ContextKind::ValidSubcommand];
        let accepted = accepted.into_iter().find_map(|kind| match fault.get(kind) {
            Some(ContextValue::Strings(values)) if !values.is_empty() => Some(values.join(", ")),
            _ => None,
        });
        Self::Arguments(match accepted {
            Some(accepted) => format!("{text}; accepted: {accepted}"),
            None => text,
        })
    }
}

#[cfg(test)]
mod tests;
