//! Tells that a database does not answer, while a writer waits for it: the writer itself can only tell when the timeout of
//! its connection is over.

use std::time::Duration;

use crate::event::UnixMillis;
use crate::metrics::Metrics;

/// How often it is looked how long writers wait.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How long an attempt to store may take before it is logged, in milliseconds.
const PATIENCE_MILLIS: u64 = 5_000;

/// Least time between two lines about one writer, in milliseconds.
const TELL_EVERY_MILLIS: u64 = 60_000;

/// When the last line about each writer was logged, in Unix milliseconds.
#[derive(Default)]
pub(super) struct Unanswered {
    told_at: Vec<u64>,
}

impl Unanswered {
    /// Logs which writers wait for the database.
    pub(super) fn look(&mut self, metrics: &Metrics) {
        let now = UnixMillis::now().0;
        let writers = metrics.writers();
        self.told_at.resize(writers.len(), 0);
        for (writer, (counters, told_at)) in writers.iter().zip(&mut self.told_at).enumerate() {
            let since = counters.attempt_since.get();
            let waited = now.saturating_sub(since);
            let is_late = since > 0 && waited >= PATIENCE_MILLIS;
            if !is_late || now.saturating_sub(*told_at) < TELL_EVERY_MILLIS {
                continue;
            }
            *told_at = now;
            let seconds = waited / 1000;
            log::warn!(
                event = "database_slow", writer, seconds;
                "writer {writer}: the database has not stored a batch within {seconds} s, or does not answer; hakaru waits \
                 for it as long as the timeouts of the datasource say, and then tries again on a new connection"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_waits_long_is_told_of_once_a_minute() {
        let (metrics, recorders) = Metrics::new(1, 2);
        let mut unanswered = Unanswered::default();
        let now = UnixMillis::now().0;
        recorders.writers[0].set(|counters| &counters.attempt_since, now);
        unanswered.look(&metrics);
        assert_eq!(unanswered.told_at, [0, 0]);
        recorders.writers[0].set(|counters| &counters.attempt_since, now - PATIENCE_MILLIS);
        unanswered.look(&metrics);
        let told_at = unanswered.told_at.clone();
        assert!(told_at[0] >= now && told_at[1] == 0, "{told_at:?}");
        recorders.writers[0].set(
            |counters| &counters.attempt_since,
            now - PATIENCE_MILLIS - 1,
        );
        unanswered.look(&metrics);
        assert_eq!(unanswered.told_at, told_at);
    }
}
