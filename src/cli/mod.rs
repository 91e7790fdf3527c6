//! Flags, variables and subcommands, read into values.

mod arguments;
mod documents;
mod query_arguments;
pub mod stdout;
mod values;
mod version_line;

use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use self::arguments::{Arguments, Command};
use self::values::{
    ack, admin_listen, batch_events, data_dir, duration, io, listen, log_format, optional_count,
    or_default, size,
};
use crate::commands::journal::{Inspection, JournalQuestion, Output};
use crate::commands::reconcile::Reconciliation;
use crate::commands::report::Report;
use crate::os::limits;
use crate::server::config::Config;
use crate::sink::dsn;

/// What the process is asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Config>),
    /// Try everything that is set.
    Check(Box<Config>, Output),
    /// Look at a journal.
    Inspect(Inspection, JournalQuestion),
    /// Say what landed.
    Report(Report),
    /// Compare what was promised with what landed.
    Reconcile(Reconciliation),
    /// Write this to standard output: the version, completions, a manual page.
    Print(Vec<u8>),
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting has a value that it does not take.
    #[error("{setting}: {value:?} is not accepted; {accepted}")]
    Value {
        /// Flag and variable.
        setting: &'static str,
        /// As written.
        value: String,
        /// What the setting takes.
        accepted: String,
    },
    /// The datasource is wrong. Not quoted: it holds a password.
    #[error("--datasource (HAKARU_DATASOURCENAME): {0}")]
    DataSource(#[from] dsn::DsnError),
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
            Err(asked) if asked.kind() == ErrorKind::DisplayVersion => {
                return Ok(Self::Print(version_line::version_line().into()));
            }
            read => read?,
        };
        let command = arguments.command.take();
        let config = |arguments| -> Result<_, ConfigError> {
            let log_filter = std::env::var("HAKARU_LOG").unwrap_or_default();
            Ok(Box::new(read(arguments, log_filter)?))
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
                let inspection = Inspection::new(&data_dir(arguments.data_dir), output(json));
                Invocation::Inspect(inspection, question.into())
            }
            Some(Command::Report(given)) => {
                Invocation::Report(given.read(arguments.datasource.parse()?)?)
            }
            Some(Command::Reconcile(given)) => {
                let data_dir = data_dir(arguments.data_dir);
                Invocation::Reconcile(given.read(arguments.datasource.parse()?, data_dir)?)
            }
        })
    }
}

/// The settings of serving.
fn read(given: Arguments, log_filter: String) -> Result<Config, ConfigError> {
    let default_filter = if log_filter.is_empty() {
        "info".to_owned()
    } else {
        log_filter
    };
    if let Err(fault) = env_filter::Builder::new().try_parse(&default_filter) {
        let accepted =
            format!("accepted: a level or target=level, as env_logger reads it ({fault})");
        return Err(ConfigError::Value {
            setting: "HAKARU_LOG",
            value: default_filter,
            accepted,
        });
    }
    Ok(Config {
        // Not the default: a secret that was not set must not send rows to a local file.
        datasource: given.datasource.parse()?,
        listen: listen(&or_default("listen", &given.listen))?,
        cores: optional_count("--cores (HAKARU_CORES)", &given.cores, 1024)?,
        ack: ack(&or_default("ack", &given.ack))?,
        data_dir: data_dir(given.data_dir),
        batch_events: batch_events(&or_default("batch_events", &given.batch_events))?,
        journal_limit: size(
            "--journal-limit (HAKARU_JOURNAL_LIMIT)",
            &or_default("journal_limit", &given.journal_limit),
        )?,
        journal_keep: duration(
            "--journal-keep (HAKARU_JOURNAL_KEEP)",
            &or_default("journal_keep", &given.journal_keep),
            Duration::ZERO..=Duration::from_secs(365 * 24 * 3600),
            "accepted: a duration such as 10min or 1h, 0 to 8760h",
        )?,
        linger: duration(
            "--linger (HAKARU_LINGER)",
            &or_default("linger", &given.linger),
            Duration::from_millis(1)..=Duration::from_secs(3600),
            "accepted: a duration such as 500ms or 1s, 1ms to 1h",
        )?,
        db_connections: optional_count(
            "--db-connections (HAKARU_DB_CONNECTIONS)",
            &given.db_connections,
            10_000,
        )?,
        max_connections: optional_count(
            "--max-connections (HAKARU_MAX_CONNECTIONS)",
            &given.max_connections,
            limits::CONNECTIONS_MAX,
        )?,
        drain_timeout: duration(
            "--drain-timeout (HAKARU_DRAIN_TIMEOUT)",
            &or_default("drain_timeout", &given.drain_timeout),
            Duration::from_millis(1)..=Duration::from_secs(3600),
            "accepted: a duration such as 500ms or 30s, 1ms to 1h",
        )?,
        admin_listen: admin_listen(&given.admin_listen)?,
        log_format: log_format(&given.log_format)?,
        log_filter: default_filter,
        io: io(&or_default("io", &given.io))?,
    })
}

impl From<clap::Error> for ConfigError {
    /// What clap says in many lines, in one, and without any value: it could be a password.
    fn from(fault: clap::Error) -> Self {
        if !fault.use_stderr() {
            return Self::Help(fault);
        }
        let named = match fault.get(ContextKind::InvalidArg) {
            // What was given may stand behind the name.
            Some(ContextValue::String(argument)) if argument.starts_with("--") => {
                argument.split(['=', ' ']).next().unwrap_or_default()
            }
            Some(ContextValue::String(argument)) if argument.starts_with('<') => argument,
            _ if fault.kind() == ErrorKind::UnknownArgument => {
                "what stands without a flag (a value that begins with a dash is given as --flag=VALUE)"
            }
            _ => "what stands without a flag",
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
