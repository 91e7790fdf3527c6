//! The end of a server: shards end, then writers, then the janitor.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::threads::Notice;
use super::{Server, ServerError, thread_ended};
use crate::event::UnixMillis;
use crate::event::ack::Ack;

/// How long the janitor may take for its last look.
pub(super) const JANITOR_PATIENCE: Duration = Duration::from_secs(1);

/// How long an attempt to store may take in a drain, where the journal has what the database lacks.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked how long attempts take.
const ATTEMPT_POLL: Duration = Duration::from_millis(100);

impl Server {
    /// Lets shards end, then writers; returns when both have, or the time is over, or only a database is waited for that
    /// hangs, and the journal has what it lacks. A signal beyond `signals_allowed` ends it at once.
    pub(super) fn drain(
        &mut self,
        timeout: Duration,
        signals_allowed: usize,
    ) -> Result<(), ServerError> {
        let deadline = Instant::now() + timeout;
        let mut signals_left = signals_allowed;
        let mut outcome = Ok(());
        while self.shards_running > 0 || self.writers_running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.recv_timeout(left.min(ATTEMPT_POLL)) {
                Err(RecvTimeoutError::Timeout) if left > ATTEMPT_POLL => {
                    if self.is_unanswered() {
                        log::warn!(
                            event = "storing_given_up";
                            "the process drains and the database has not stored a batch within {ATTEMPT_PATIENCE:?}; \
                             events that are not stored stay in the journal for the next start"
                        );
                        return outcome;
                    }
                }
                Ok(Notice::Signal) if signals_left > 0 => signals_left -= 1,
                Ok(Notice::Accepts | Notice::Reload | Notice::Successor(_)) => {}
                Ok(Notice::Signal) => {
                    let pending = self.shared.metrics.totals().pending();
                    let fate = if self.is_journaled() {
                        "stay in the journal for the next start"
                    } else {
                        "are lost"
                    };
                    return Err(ServerError::Aborted { pending, fate });
                }
                Ok(Notice::Ended(role, ended)) => {
                    self.count_ended(role);
                    outcome = outcome.and(ended.map_err(|how| thread_ended(role, how)));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let pending = self.shared.metrics.totals().pending();
                    if pending == 0 || self.is_journaled() {
                        return outcome;
                    }
                    return Err(ServerError::NotDrained { timeout, pending });
                }
            }
        }
        outcome
    }

    /// Has the janitor take a last look. Where a shard did not end it has none: then its last figures stand.
    pub(super) fn end_janitor(&mut self) -> Result<(), ServerError> {
        self.opened = None;
        let deadline = Instant::now() + JANITOR_PATIENCE;
        let mut outcome = Ok(());
        while self.is_janitor_running {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.recv_timeout(left) {
                Ok(Notice::Ended(role, ended)) => {
                    self.count_ended(role);
                    outcome = outcome.and(ended.map_err(|how| thread_ended(role, how)));
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        outcome
    }

    /// Whether nothing is left but writers that wait for a database that hangs, and may leave their events in the journal.
    /// With [`Ack::Stored`] senders wait for it too.
    fn is_unanswered(&self) -> bool {
        let now = UnixMillis::now();
        let is_late = |since: u64| {
            since > 0 && u128::from(now.0.saturating_sub(since)) >= ATTEMPT_PATIENCE.as_millis()
        };
        let writers = self.shared.metrics.writers().iter();
        let late = writers.filter(|writer| is_late(writer.attempt_since.get()));
        self.ack == Ack::Journaled
            && self.shards_running == 0
            && late.count() == self.writers_running
    }
}
