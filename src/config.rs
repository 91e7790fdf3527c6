//! Flags and environment variables, read into one validated [`Config`].

pub mod dsn;
mod dsn_params;
mod units;

use std::ffi::OsString;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};

use crate::batch::BatchEvents;
use crate::journal::inspect::{Inspection, Output};
use crate::limits;
use dsn::DataSource;

/// What a 200 promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// The event is in memory and will be stored unless the process or the machine dies first.
    Received,
    /// The event is on disk, written and synced.
    Journaled,
    /// The event is committed in the database.
    Stored,
}

impl fmt::Display for Ack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received => out.write_str("received"),
            Self::Journaled => out.write_str("journaled"),
            Self::Stored => out.write_str("stored"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which I/O driver a shard may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring, or epoll with a warning where the kernel refuses it.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where rows go.
    pub datasource: DataSource,
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Number of shards; `None`: as many cores as the process may use.
    pub cores: Option<usize>,
    /// What a 200 promises.
    pub ack: Ack,
    /// Journal and dead letters.
    pub data_dir: PathBuf,
    /// Most bytes of disk that events which are not stored may take, of all shards together.
    pub journal_limit: u64,
    /// How long segments are kept after their events were stored.
    pub journal_keep: Duration,
    /// A batch is sealed when it holds this many events …
    pub batch_events: BatchEvents,
    /// … or when its oldest event is this old.
    pub linger: Duration,
    /// Most connections to the database; `None`: one a shard.
    pub db_connections: Option<usize>,
    /// Most HTTP connections open at once; `None`: what the fd limit allows.
    pub max_connections: Option<usize>,
    /// Longest time from the signal to the exit.
    pub drain_timeout: Duration,
    /// `None`: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// The filter of log lines, in env_logger's syntax.
    pub log_filter: String,
    /// The I/O driver.
    pub io: IoChoice,
}

/// What the process is asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Config>),
    /// Look at a journal.
    Inspect(Inspection, JournalQuestion),
}

/// What to look at in a journal.
#[derive(Debug, clap::Subcommand)]
pub enum JournalQuestion {
    /// Lists the lanes: who owns them, how much they hold
    List,
    /// Writes every event of a lane
    Dump {
        /// The lane, as `list` shows it
        lane: String,
    },
    /// Reads everything and says what is damaged (exit code 1)
    Verify,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Looks at the journal of a data directory; a server may run meanwhile
    Journal {
        /// One JSON object a line
        #[arg(long, global = true)]
        json: bool,

        #[command(subcommand)]
        question: JournalQuestion,
    },
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
    /// Help or the version was asked for.
    #[error("{0}")]
    Help(clap::Error),
}

/// Collects events over HTTP and stores each one in MySQL or SQLite.
///
/// Every flag can be given by the variable named beside it; the flag wins.
#[derive(Debug, Parser)]
#[command(
    name = "hakaru",
    version,
    max_term_width = 100,
    args_override_self = true
)]
#[command(
    after_help = "HAKARU_LOG filters log lines, as env_logger reads it: info, debug, hakaru::writer=debug, off"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Where rows go: user:pass@tcp(host:port)/db?params, mysql://…, or sqlite:PATH
    #[arg(
        long,
        env = "HAKARU_DATASOURCENAME",
        value_name = "DSN",
        hide_env_values = true
    )]
    #[arg(default_value = "sqlite:hakaru-data/eventlog.db")]
    datasource: String,

    /// Address and port to take requests on
    #[arg(
        long,
        env = "HAKARU_LISTEN",
        value_name = "HOST:PORT",
        default_value = "0.0.0.0:8081"
    )]
    listen: String,

    /// Number of pinned event loops [default: all cores the process may use]
    #[arg(
        long,
        env = "HAKARU_CORES",
        value_name = "N",
        default_value = "",
        hide_default_value = true
    )]
    cores: String,

    /// What a 200 promises: received (the event is in memory), journaled (on disk), stored (in the
    /// database)
    #[arg(
        long,
        env = "HAKARU_ACK",
        value_name = "PROMISE",
        default_value = "journaled"
    )]
    ack: String,

    /// Directory for the journal and dead letters
    #[arg(
        long,
        env = "HAKARU_DATA_DIR",
        global = true,
        value_name = "DIR",
        default_value = "hakaru-data"
    )]
    data_dir: OsString,

    /// Disk that events which are not stored may take before 503
    #[arg(
        long,
        env = "HAKARU_JOURNAL_LIMIT",
        value_name = "SIZE",
        default_value = "4GiB"
    )]
    journal_limit: String,

    /// How long journal segments are kept after their events were stored
    #[arg(
        long,
        env = "HAKARU_JOURNAL_KEEP",
        value_name = "DURATION",
        default_value = "10min"
    )]
    journal_keep: String,

    /// A batch is handed over when it holds this many events …
    #[arg(
        long,
        env = "HAKARU_BATCH_EVENTS",
        value_name = "N",
        default_value = "5000"
    )]
    batch_events: String,

    /// … or when its oldest event is this old
    #[arg(
        long,
        env = "HAKARU_LINGER",
        value_name = "DURATION",
        default_value = "1s"
    )]
    linger: String,

    /// Most connections ever open to the database [default: one a core]
    #[arg(
        long,
        env = "HAKARU_DB_CONNECTIONS",
        value_name = "N",
        default_value = "",
        hide_default_value = true
    )]
    db_connections: String,

    /// HTTP connections open at once [default: from the limit of open files]
    #[arg(
        long,
        env = "HAKARU_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "",
        hide_default_value = true
    )]
    max_connections: String,

    /// Longest time from SIGTERM to the exit
    #[arg(
        long,
        env = "HAKARU_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    drain_timeout: String,

    /// Log lines as text or json [default: text on a terminal, else json]
    #[arg(
        long,
        env = "HAKARU_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    log_format: String,

    /// I/O driver: auto, io_uring, epoll
    #[arg(
        long,
        allow_hyphen_values = true,
        hide_env_values = true,
        env = "HAKARU_IO",
        value_name = "DRIVER",
        default_value = "auto"
    )]
    io: String,
}

impl Config {
    /// Reads the process's own flags and variables.
    pub fn from_process() -> Result<Invocation, ConfigError> {
        let mut arguments = Arguments::try_parse()?;
        if let Some(Command::Journal { json, question }) = arguments.command.take() {
            let output = if json { Output::Json } else { Output::Text };
            let inspection = Inspection::new(&data_dir(arguments.data_dir), output);
            return Ok(Invocation::Inspect(inspection, question));
        }
        let log_filter = std::env::var("HAKARU_LOG").unwrap_or_default();
        Ok(Invocation::Serve(Box::new(Self::read(
            arguments, log_filter,
        )?)))
    }

    fn read(given: Arguments, log_filter: String) -> Result<Self, ConfigError> {
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
        Ok(Self {
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
            log_format: log_format(&given.log_format)?,
            log_filter: default_filter,
            io: io(&or_default("io", &given.io))?,
        })
    }
}

impl From<clap::Error> for ConfigError {
    /// What clap says in many lines, in one, and without any value: it could be a password.
    fn from(fault: clap::Error) -> Self {
        if !fault.use_stderr() {
            return Self::Help(fault);
        }
        let argument = match fault.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) if argument.starts_with("--") => {
                argument.split(['=', ' ']).next().unwrap_or_default()
            }
            _ => "what stands without a flag",
        };
        Self::Arguments(format!("{argument}: {}", fault.kind()))
    }
}

/// An empty variable, as deployment files leave them, is as good as none.
fn or_default(argument: &'static str, given: &str) -> String {
    if given.is_empty() {
        default_of(argument)
    } else {
        given.to_owned()
    }
}

/// The default in the table of arguments.
fn default_of(argument: &str) -> String {
    let command = <Arguments as clap::CommandFactory>::command();
    let found = command
        .get_arguments()
        .find(|known| known.get_id() == argument);
    let value = found.and_then(|argument| argument.get_default_values().first());
    value
        .map(|value| value.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn data_dir(given: OsString) -> PathBuf {
    if given.is_empty() {
        default_of("data_dir").into()
    } else {
        given.into()
    }
}

fn refused(setting: &'static str, value: &str, accepted: impl Into<String>) -> ConfigError {
    // A DSN in the wrong place has a password in it.
    let value = if value.contains('@') { "***" } else { value };
    ConfigError::Value {
        setting,
        value: value.to_owned(),
        accepted: accepted.into(),
    }
}

fn listen(text: &str) -> Result<SocketAddr, ConfigError> {
    const SETTING: &str = "--listen (HAKARU_LISTEN)";
    // Go programs write `:8081` for every address.
    let whole = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    match whole
        .to_socket_addrs()
        .map(|mut addresses| addresses.next())
    {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(refused(SETTING, text, "the name has no address")),
        Err(fault) => {
            let accepted = format!("accepted: ADDRESS:PORT, such as 0.0.0.0:8081 ({fault})");
            Err(refused(SETTING, text, accepted))
        }
    }
}

fn optional_count(
    setting: &'static str,
    text: &str,
    most: usize,
) -> Result<Option<usize>, ConfigError> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(count) if (1..=most).contains(&count) => Ok(Some(count)),
        _ => Err(refused(
            setting,
            text,
            format!("accepted: a number, 1 to {most}"),
        )),
    }
}

fn batch_events(text: &str) -> Result<BatchEvents, ConfigError> {
    text.parse().ok().and_then(BatchEvents::new).ok_or_else(|| {
        let (least, most) = BatchEvents::RANGE.into_inner();
        let accepted = format!("accepted: a number, {least} to {most}");
        refused("--batch-events (HAKARU_BATCH_EVENTS)", text, accepted)
    })
}

fn duration(
    setting: &'static str,
    text: &str,
    range: std::ops::RangeInclusive<Duration>,
    accepted: &'static str,
) -> Result<Duration, ConfigError> {
    match units::duration(text) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(refused(setting, text, accepted)),
    }
}

/// Least bytes of a journal: one segment is taken at once.
const JOURNAL_BYTES_MIN: u64 = 1024 * 1024;

fn size(setting: &'static str, text: &str) -> Result<u64, ConfigError> {
    match units::size(text) {
        Some(bytes) if bytes >= JOURNAL_BYTES_MIN => Ok(bytes),
        _ => Err(refused(
            setting,
            text,
            "accepted: a size such as 64MiB or 4GiB, at least 1MiB",
        )),
    }
}

fn ack(text: &str) -> Result<Ack, ConfigError> {
    match text {
        "received" => Ok(Ack::Received),
        "journaled" => Ok(Ack::Journaled),
        "stored" => Ok(Ack::Stored),
        _ => Err(refused(
            "--ack (HAKARU_ACK)",
            text,
            "accepted: received, journaled, stored",
        )),
    }
}

fn log_format(text: &str) -> Result<Option<LogFormat>, ConfigError> {
    match text {
        "" => Ok(None),
        "text" => Ok(Some(LogFormat::Text)),
        "json" => Ok(Some(LogFormat::Json)),
        _ => Err(refused(
            "--log-format (HAKARU_LOG_FORMAT)",
            text,
            "accepted: text, json",
        )),
    }
}

fn io(text: &str) -> Result<IoChoice, ConfigError> {
    match text {
        "auto" => Ok(IoChoice::Auto),
        "io_uring" => Ok(IoChoice::IoUring),
        "epoll" => Ok(IoChoice::Epoll),
        _ => Err(refused(
            "--io (HAKARU_IO)",
            text,
            "accepted: auto, io_uring, epoll",
        )),
    }
}

#[cfg(test)]
mod tests;
