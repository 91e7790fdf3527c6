//! The command line as clap reads it: texts, not yet checked.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser};

use super::query_arguments::{ReconcileArguments, ReportArguments};
use crate::commands::journal::JournalQuestion;

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
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// Where rows go: user:pass@tcp(host:port)/db?params, mysql://…, or sqlite:PATH
    #[arg(
        long,
        env = "HAKARU_DATASOURCENAME",
        global = true,
        value_name = "DSN",
        hide_env_values = true
    )]
    #[arg(default_value = "sqlite:hakaru-data/eventlog.db")]
    pub(super) datasource: String,

    /// Address and port to take requests on
    #[arg(
        long,
        env = "HAKARU_LISTEN",
        value_name = "HOST:PORT",
        default_value = "0.0.0.0:8081"
    )]
    pub(super) listen: String,

    /// Number of pinned event loops [default: all cores the process may use]
    #[arg(
        long,
        env = "HAKARU_CORES",
        value_name = "N",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) cores: String,

    /// What a 200 promises: received (the event is in memory), journaled (on disk), stored (in the
    /// database)
    #[arg(
        long,
        env = "HAKARU_ACK",
        value_name = "PROMISE",
        default_value = "journaled"
    )]
    pub(super) ack: String,

    /// Directory for the journal and dead letters
    #[arg(
        long,
        env = "HAKARU_DATA_DIR",
        global = true,
        value_name = "DIR",
        default_value = "hakaru-data"
    )]
    pub(super) data_dir: OsString,

    /// Disk that events which are not stored may take before 503
    #[arg(
        long,
        env = "HAKARU_JOURNAL_LIMIT",
        value_name = "SIZE",
        default_value = "4GiB"
    )]
    pub(super) journal_limit: String,

    /// How long journal segments are kept after their events were stored
    #[arg(
        long,
        env = "HAKARU_JOURNAL_KEEP",
        value_name = "DURATION",
        default_value = "10min"
    )]
    pub(super) journal_keep: String,

    /// A batch is handed over when it holds this many events …
    #[arg(
        long,
        env = "HAKARU_BATCH_EVENTS",
        value_name = "N",
        default_value = "5000"
    )]
    pub(super) batch_events: String,

    /// … or when its oldest event is this old
    #[arg(
        long,
        env = "HAKARU_LINGER",
        value_name = "DURATION",
        default_value = "1s"
    )]
    pub(super) linger: String,

    /// Most connections ever open to the database [default: one a core]
    #[arg(
        long,
        env = "HAKARU_DB_CONNECTIONS",
        value_name = "N",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) db_connections: String,

    /// HTTP connections open at once [default: from the limit of open files]
    #[arg(
        long,
        env = "HAKARU_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) max_connections: String,

    /// Longest time from SIGTERM to the exit
    #[arg(
        long,
        env = "HAKARU_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(super) drain_timeout: String,

    /// Address and port of metrics, readiness and the status page, or off [default: 127.0.0.1:9081]
    #[arg(
        long,
        env = "HAKARU_ADMIN_LISTEN",
        value_name = "HOST:PORT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) admin_listen: String,

    /// Log lines as text or json [default: text on a terminal, else json]
    #[arg(
        long,
        env = "HAKARU_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) log_format: String,

    /// I/O driver: auto, io_uring, epoll
    #[arg(
        long,
        allow_hyphen_values = true,
        hide_env_values = true,
        env = "HAKARU_IO",
        value_name = "DRIVER",
        default_value = "auto"
    )]
    pub(super) io: String,
}

impl Arguments {
    /// Flags, variables and subcommands. A setting may stand before a subcommand and behind it.
    pub(super) fn table() -> clap::Command {
        Self::command().mut_args(|setting| setting.global(true).help_heading("Settings"))
    }

    /// Reads a command line, the program's name first.
    pub(super) fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::table().try_get_matches_from(words)?)
    }
}

/// What to look at in a journal.
#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalQuestions {
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

/// What to do other than serving.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Tries every setting without serving and says what to do; exit code 1 where something is wrong
    ///
    /// A line for each thing that was looked at: ok, warning or error, and what to do. Leaves nothing behind.
    Check {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },

    /// Writes the completions of a shell to standard output
    Completions {
        /// Whose
        shell: clap_complete::Shell,
    },

    /// Writes a manual page to standard output
    Man {
        /// The command whose page it is, such as `journal list` [default: hakaru itself]
        #[arg(value_name = "COMMAND")]
        names: Vec<String>,
    },

    /// Looks at the journal of a data directory; a server may run meanwhile
    Journal {
        /// One JSON object a line
        #[arg(long, global = true)]
        json: bool,

        #[command(subcommand)]
        question: JournalQuestions,
    },
    /// Says what landed: events and sums by name, and over time
    Report(ReportArguments),

    /// Compares a number or a list of events with the rows (exit code 1 where they do not agree)
    Reconcile(ReconcileArguments),
}

impl From<JournalQuestions> for JournalQuestion {
    fn from(asked: JournalQuestions) -> Self {
        match asked {
            JournalQuestions::List => Self::List,
            JournalQuestions::Dump { lane } => Self::Dump { lane },
            JournalQuestions::Verify => Self::Verify,
        }
    }
}
