//! How a writer waits and what it says while nothing can be stored.

use std::time::{Duration, Instant};

use crate::sink::SinkError;

/// Waits between attempts grow from this …
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// … to this, each drawn at random up to its bound, so that many nodes do not come back in step.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where somebody must act, they begin with this.
const BACKOFF_STOP_MIN: Duration = Duration::from_secs(1);

/// The same outage is logged this often at most.
const OUTAGE_LOG_EVERY: Duration = Duration::from_secs(10);

/// A time in which nothing is stored: how long to wait, and how often to say so.
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

    /// Logs what happened, unless the same was logged a moment ago.
    pub(super) fn happened(&mut self, fault: &SinkError) {
        self.since.get_or_insert_with(Instant::now);
        let is_known = self
            .logged
            .as_ref()
            .is_some_and(|(at, logged)| logged == fault && at.elapsed() < OUTAGE_LOG_EVERY);
        if is_known {
            return;
        }
        let writer = self.writer;
        match fault {
            SinkError::Stop(said) => log::error!(
                event = "storing_stopped", writer, code = said.code;
                "writer {writer}: nothing can be stored until this is fixed: {said}; tried again by itself"
            ),
            SinkError::OutcomeUnknown(said) => log::warn!(
                event = "commit_outcome_unknown", writer, code = said.code;
                "writer {writer}: the connection was lost during COMMIT ({said}); the checkpoint will \
                 tell whether the batch is stored"
            ),
            SinkError::Reconnect(said) => log::warn!(
                event = "database_unreachable", writer, code = said.code;
                "writer {writer}: not stored, tried again on a new connection: {said}"
            ),
            SinkError::Retry(said) => log::warn!(
                event = "transaction_retried", writer, code = said.code;
                "writer {writer}: not stored, tried again: {said}"
            ),
        }
        self.logged = Some((Instant::now(), fault.clone()));
    }

    /// Whether the last that was heard was outage.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            log::info!(
                event = "storing_resumed", writer = self.writer, seconds;
                "writer {}: stores again, after {seconds:.1} s", self.writer
            );
            self.logged = None;
            self.backoff = BACKOFF_MIN;
        }
    }

    /// The wait before the next attempt; slow from the first where somebody must act.
    pub(super) fn backoff(&mut self, fault: &SinkError) -> Duration {
        if matches!(fault, SinkError::Stop(_)) {
            self.backoff = self.backoff.max(BACKOFF_STOP_MIN);
        }
        let wait = self.backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        wait
    }
}
