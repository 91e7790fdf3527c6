//! The waits and log lines of a writer while nothing can be stored.

use std::time::{Duration, Instant};

use crate::os::clock;
use crate::sink::SinkError;

/// The first wait between attempts. Each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait between attempts. Each wait is shortened at random by up to half, so that many nodes do not try
/// at the same time.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The first wait if an operator must act.
const BACKOFF_STOP_MIN: Duration = Duration::from_secs(1);

/// The same error is logged at most this often.
const OUTAGE_LOG_EVERY: Duration = Duration::from_secs(10);

/// An outage of the database: since when, what was logged, and how long to wait.
pub(super) struct Outage {
    writer: usize,
    since: Option<Instant>,
    logged: Option<(Instant, SinkError)>,
    backoff: Duration,
}

impl Outage {
    pub(super) fn new(writer: usize) -> Self {
        Self {
            writer,
            since: None,
            logged: None,
            backoff: BACKOFF_MIN,
        }
    }

    /// Logs an error, unless the last line was the same error less than [`OUTAGE_LOG_EVERY`] ago.
    pub(super) fn report(&mut self, fault: &SinkError) {
        self.since.get_or_insert_with(clock::now);
        let is_known = self
            .logged
            .as_ref()
            .is_some_and(|(at, logged)| logged == fault && clock::since(*at) < OUTAGE_LOG_EVERY);
        if is_known {
            return;
        }
        let writer = self.writer;
        match fault {
            SinkError::Stop(error) => log::error!(
                event = "storing_stopped", writer, code = error.code;
                "writer {writer}: nothing can be stored until this is fixed: {error}; hakaru tries again by itself"
            ),
            SinkError::OutcomeUnknown(error) => log::warn!(
                event = "commit_outcome_unknown", writer, code = error.code;
                "writer {writer}: the connection was lost during COMMIT ({error}); hakaru reads the \
                 checkpoint to find out whether the batch is stored"
            ),
            SinkError::Reconnect(error) => log::warn!(
                event = "database_unreachable", writer, code = error.code;
                "writer {writer}: the database cannot be used: {error}; hakaru tries again on a new connection"
            ),
            SinkError::Retry(error) => log::warn!(
                event = "transaction_retried", writer, code = error.code;
                "writer {writer}: the transaction failed: {error}; hakaru tries again"
            ),
        }
        self.logged = Some((clock::now(), fault.clone()));
    }

    /// Whether there was an error after the last write that succeeded.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Ends the outage, if there is one, and logs that.
    pub(super) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = clock::since(since).as_secs_f64();
            log::info!(
                event = "storing_resumed", writer = self.writer, seconds;
                "writer {}: stores again, after {seconds:.1} s", self.writer
            );
            self.logged = None;
            self.backoff = BACKOFF_MIN;
        }
    }

    /// The wait before the next attempt.
    pub(super) fn backoff(&mut self, fault: &SinkError) -> Duration {
        if matches!(fault, SinkError::Stop(_)) {
            self.backoff = self.backoff.max(BACKOFF_STOP_MIN);
        }
        let wait = self.backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        wait
    }
}
