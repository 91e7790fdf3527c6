//! All flags, variables and subcommands. Each setting is defined once, with its names, its default and its meaning.
//! Help, messages, completions, the manual pages and README's table are made from these definitions.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, CommandFactory, FromArgMatches, Parser};

use super::database_arguments::DatabaseArguments;
use super::journal_arguments::JournalQuestions;
use super::letter_arguments::DeadLettersArguments;
use super::parsers::{
    DURATION_MIN, Directory, HOUR, Optional, Parsed, Refusal, YEAR, admin_listen, batch_events,
    body_limit, count, disk_limit, duration, event_path, listen, log_filter, name_of, one_of,
};
use super::query_arguments::{ReconcileArguments, ReportArguments};
use crate::event::ack::Ack;
use crate::event::batch::BatchEvents;
use crate::http::paths::EventPath;
use crate::os::io_driver::IoChoice;
use crate::os::limits;
use crate::os::logging::LogFormat;
use crate::server::config::{AdminListen, Adopt, Config};
use crate::sink::dsn::DataSource;

/// Collects events over HTTP and stores each one in MySQL or SQLite.
///
/// Every flag can be given by the variable named beside it; the flag wins.
#[derive(Debug, Parser)]
#[command(
    name = "hakaru",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = Variables::help()
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    database: DatabaseArguments,

    /// Address and port to take requests on
    #[arg(
        long,
        env = "HAKARU_LISTEN",
        value_name = "HOST:PORT",
        default_value = "0.0.0.0:8081",
        value_parser = listen()
    )]
    listen: Parsed<SocketAddr>,

    /// Another path that takes events, besides /hakaru, with its .gif and its .js; may be repeated, or several with commas between
    /// [default: none]
    #[arg(
        long,
        env = "HAKARU_EVENT_PATH",
        value_name = "PATH",
        default_value = "",
        hide_default_value = true,
        value_delimiter = ',',
        value_parser = Optional(event_path())
    )]
    event_path: Vec<Parsed<Option<EventPath>>>,

    /// Largest body of a request with events, also when it is inflated
    #[arg(
        long,
        env = "HAKARU_BODY_LIMIT",
        value_name = "SIZE",
        default_value = "1MiB",
        value_parser = body_limit()
    )]
    body_limit: Parsed<usize>,

    /// Number of event loops, each pinned to a core [default: all cores the process may use]
    #[arg(
        long,
        env = "HAKARU_CORES",
        value_name = "N",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(count(1024))
    )]
    cores: Parsed<Option<usize>>,

    /// What a 200 promises: the event is in memory (`received`), on disk (`journaled`), or committed in
    /// the database (`stored`)
    #[arg(
        long,
        env = "HAKARU_ACK",
        value_name = "PROMISE",
        default_value = "journaled",
        value_parser = one_of(&Ack::ALL)
    )]
    ack: Parsed<Ack>,

    /// Directory for the journal and dead letters; does not move the SQLite file
    #[arg(
        long,
        env = "HAKARU_DATA_DIR",
        value_name = "DIR",
        default_value = "hakaru-data",
        value_parser = Directory
    )]
    pub(super) data_dir: PathBuf,

    /// Disk space that unstored events may take; when it is full, requests are answered 503
    #[arg(
        long,
        env = "HAKARU_JOURNAL_LIMIT",
        value_name = "SIZE",
        default_value = "4GiB",
        value_parser = disk_limit()
    )]
    journal_limit: Parsed<u64>,

    /// How long journal segments are kept after their events were stored
    #[arg(
        long,
        env = "HAKARU_JOURNAL_KEEP",
        value_name = "DURATION",
        default_value = "10min",
        value_parser = duration(Duration::ZERO..=YEAR)
    )]
    journal_keep: Parsed<Duration>,

    /// With any: also store journals that were written for another database [default: only those of the
    /// database that is served]
    #[arg(
        long,
        env = "HAKARU_ADOPT",
        value_name = "WHICH",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(one_of(&Adopt::ALL))
    )]
    adopt: Parsed<Option<Adopt>>,

    /// Size of the dead-letter file above which no more dead letters are written: storing stops, and the journal keeps the events
    #[arg(
        long,
        env = "HAKARU_DEAD_LETTER_LIMIT",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = disk_limit()
    )]
    dead_letter_limit: Parsed<u64>,

    /// Number of events at which a batch is handed to its writer
    #[arg(
        long,
        env = "HAKARU_BATCH_EVENTS",
        value_name = "N",
        default_value = "5000",
        value_parser = batch_events()
    )]
    batch_events: Parsed<BatchEvents>,

    /// Age of its oldest event at which a batch is handed to its writer, full or not
    #[arg(
        long,
        env = "HAKARU_LINGER",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = duration(DURATION_MIN..=HOUR)
    )]
    linger: Parsed<Duration>,

    /// Most connections open to the database; more than one per core are not used [default: one per core]
    #[arg(
        long,
        env = "HAKARU_DB_CONNECTIONS",
        value_name = "N",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(count(10_000))
    )]
    db_connections: Parsed<Option<usize>>,

    /// Most HTTP connections open at once; then the one that is idle longest is closed for each new one [default: from open files and memory]
    #[arg(
        long,
        env = "HAKARU_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(count(limits::CONNECTIONS_MAX))
    )]
    max_connections: Parsed<Option<usize>>,

    /// Longest time from SIGTERM to the exit
    #[arg(
        long,
        env = "HAKARU_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = duration(DURATION_MIN..=HOUR)
    )]
    drain_timeout: Parsed<Duration>,

    /// Address and port of metrics, readiness and the status page, or `off`
    #[arg(
        long,
        env = "HAKARU_ADMIN_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9081",
        value_parser = admin_listen()
    )]
    admin_listen: Parsed<AdminListen>,

    /// Log lines on standard error as `text` or `json` [default: `text` on a terminal, else
    /// `json`]
    #[arg(
        long,
        env = "HAKARU_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(one_of(&LogFormat::ALL))
    )]
    log_format: Parsed<Option<LogFormat>>,

    /// I/O driver: `io_uring`, `epoll`, or `auto`, which falls back from io_uring to epoll with a warning
    /// that gives the reason
    #[arg(
        long,
        env = "HAKARU_IO",
        value_name = "DRIVER",
        default_value = "auto",
        value_parser = one_of(&IoChoice::ALL)
    )]
    io: Parsed<IoChoice>,
}

/// The settings that have a variable and no flag.
#[derive(Debug, Parser)]
pub(super) struct Variables {
    /// Which log lines are written, as env_logger filters them: `info`, `off`, `hakaru::writer=debug`;
    /// `debug` shows each batch with its times
    #[arg(env = "HAKARU_LOG", default_value = "info", value_parser = log_filter())]
    log_filter: Parsed<String>,
}

impl Variables {
    /// Reads the process's variables.
    pub(super) fn read() -> Result<Self, clap::Error> {
        Self::try_parse_from(["hakaru"])
    }

    /// Reads this text as the value of the variable.
    #[cfg(test)]
    pub(super) fn of(log_filter: &str) -> Self {
        Self::parse_from(["hakaru", log_filter])
    }

    /// The text that the help shows after the flags.
    fn help() -> String {
        let table = Self::command();
        let line = |variable| {
            let meaning = Arg::get_help(variable).cloned().unwrap_or_default();
            format!("{}: {meaning}", name_of(Some(variable)))
        };
        let lines: Vec<_> = table.get_arguments().map(line).collect();
        lines.join("\n")
    }
}

/// Every setting, with its flag, variable, default and meaning.
pub fn settings() -> Vec<Arg> {
    let (flags, variables) = (Arguments::command(), Variables::command());
    let settings = flags.get_arguments().chain(variables.get_arguments());
    settings.cloned().collect()
}

impl Arguments {
    /// Flags, variables and subcommands. A setting may be given before a subcommand and after it.
    pub(super) fn table() -> clap::Command {
        Self::command().mut_args(|setting| setting.global(true).help_heading("Settings"))
    }

    /// Reads a command line, the program's name first.
    pub(super) fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::table().try_get_matches_from(words)?)
    }

    /// The data source alone, and the data directory.
    pub(super) fn places(self) -> Result<(DataSource, PathBuf), Refusal> {
        let datasource = self.database.source()?;
        Ok((datasource, self.data_dir))
    }

    /// The settings of serving.
    pub(super) fn config(self, variables: Variables) -> Result<Config, Refusal> {
        Ok(Config {
            datasource: self.database.source()?,
            listen: self.listen?,
            event_paths: further_paths(self.event_path)?,
            body_limit: self.body_limit?,
            cores: self.cores?,
            ack: self.ack?,
            data_dir: self.data_dir,
            batch_events: self.batch_events?,
            journal_limit: self.journal_limit?,
            journal_keep: self.journal_keep?,
            adopt: self.adopt?,
            dead_letter_limit: self.dead_letter_limit?,
            linger: self.linger?,
            db_connections: self.db_connections?,
            max_connections: self.max_connections?,
            drain_timeout: self.drain_timeout?,
            admin_listen: self.admin_listen?,
            log_format: self.log_format?,
            log_filter: variables.log_filter?,
            io: self.io?,
        })
    }
}

/// The paths that were given.
fn further_paths(given: Vec<Parsed<Option<EventPath>>>) -> Parsed<Vec<EventPath>> {
    given.into_iter().filter_map(Result::transpose).collect()
}

/// The commands other than serving.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Tries every setting without serving and reports what to do; exit code 1 if there is an error
    ///
    /// Writes a line for each thing that is checked: ok, warning or error, and what to do. Leaves no rows, tables
    /// or files.
    Check {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },

    /// Writes the completions of a shell to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Writes a manual page to standard output
    Man {
        /// The command whose page it is, such as `journal list` [default: hakaru itself]
        #[arg(value_name = "COMMAND")]
        names: Vec<String>,
    },

    /// Works on the journal of a data directory; a server may run meanwhile
    Journal {
        /// One JSON object per line
        #[arg(long, global = true)]
        json: bool,

        #[command(subcommand)]
        question: JournalQuestions,
    },
    /// Lists the events that the database refused, has them stored again, or drops them
    ///
    /// A server may run meanwhile.
    DeadLetters(DeadLettersArguments),

    /// Reports the stored events: counts and sums by name, and over time
    Report(ReportArguments),

    /// Compares a number or a list of expected events with the rows (exit code 1 if they do not agree)
    Reconcile(ReconcileArguments),
}
