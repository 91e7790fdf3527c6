//! Why a server ends with an error.

use std::io;
use std::time::Duration;

use crate::os::io_driver::IoUringRefused;
use crate::os::limits::LimitError;
use crate::server::config::AdminListen;
use crate::sink::SinkError;

/// Why the server ended otherwise than by draining.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be made.
    #[error("--data-dir (HAKARU_DATA_DIR): {path}: {fault}")]
    DataDir {
        /// As set.
        path: String,
        /// What the system said.
        fault: io::Error,
    },
    /// The address cannot be listened on.
    #[error("--listen (HAKARU_LISTEN): {address}: {fault}")]
    Listen {
        /// As set.
        address: String,
        /// What the system said.
        fault: io::Error,
    },
    /// The admin port cannot be had at the address that was asked for.
    #[error("--admin-listen (HAKARU_ADMIN_LISTEN): {address}: {fault}")]
    AdminListen {
        /// As set.
        address: AdminListen,
        /// What the system said.
        fault: io::Error,
    },
    /// A limit that was set is beyond what the process may use.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// io_uring was asked for and is not to be had.
    #[error(transparent)]
    IoUring(#[from] IoUringRefused),
    /// The table that makes an event one row is missing and may not be made.
    #[error("--datasource (HAKARU_DATASOURCENAME): {0}")]
    Checkpoints(SinkError),
    /// A thread, a pipe or a signal could not be set up.
    #[error("start: {0}")]
    Start(io::Error),
    /// A thread ended that should not have.
    #[error("{0}")]
    ThreadEnded(String),
    /// The time to drain was over before everything was stored.
    #[error("not drained within {timeout:?}: {pending} events are lost")]
    NotDrained {
        /// The drain timeout.
        timeout: Duration,
        /// Events taken and not stored.
        pending: u64,
    },
    /// A second signal.
    #[error("ended at once by a second signal: {pending} events {fate}")]
    Aborted {
        /// Events taken and not stored.
        pending: u64,
        /// What becomes of them.
        fate: &'static str,
    },
}

impl ServerError {
    /// Whether a setting is to blame: nothing was served yet, and another value is needed.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::DataDir { .. }
                | Self::Listen { .. }
                | Self::AdminListen { .. }
                | Self::IoUring(_)
                | Self::Checkpoints(_)
                | Self::Limit(LimitError::TooFewCores { .. })
        )
    }
}
