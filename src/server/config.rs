//! Everything that can be set for serving, checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::ack::Ack;
use crate::event::batch::BatchEvents;
use crate::http::paths::EventPath;
use crate::os::io_driver::IoChoice;
use crate::os::logging::LogFormat;
use crate::sink::dsn::DataSource;

/// Where the admin port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminListen {
    /// At the default address, if it is free. If it is taken, the server starts without an admin port.
    Default(SocketAddr),
    /// There and nowhere else.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl fmt::Display for AdminListen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(address) | Self::At(address) => address.fmt(out),
            Self::Off => out.write_str("off"),
        }
    }
}

/// Which journals are stored beside those of the database that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopt {
    /// Those that were written for any database.
    Any,
}

impl Adopt {
    /// Each choice there is.
    pub const ALL: [Self; 1] = [Self::Any];
}

impl fmt::Display for Adopt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("any"),
        }
    }
}

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where rows go.
    pub datasource: DataSource,
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Paths that take events besides the usual one.
    pub event_paths: Vec<EventPath>,
    /// Most bytes of a body with events, before and after inflating.
    pub body_limit: usize,
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
    /// `None`: a journal goes only into the database that it was written for.
    pub adopt: Option<Adopt>,
    /// Most bytes of the dead-letter file.
    pub dead_letter_limit: u64,
    /// A batch is sealed when it holds this many events …
    pub batch_events: BatchEvents,
    /// … or when its oldest event is this old.
    pub linger: Duration,
    /// Most connections to the database; `None`: one a shard.
    pub db_connections: Option<usize>,
    /// Most HTTP connections open at once; `None`: what open files and memory allow.
    pub max_connections: Option<usize>,
    /// Longest time from the signal to the exit.
    pub drain_timeout: Duration,
    /// Where the admin port is.
    pub admin_listen: AdminListen,
    /// `None`: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// The filter of log lines, in env_logger's syntax.
    pub log_filter: String,
    /// The I/O driver.
    pub io: IoChoice,
}
