//! The watchdog is fed only while every event loop turns.

use std::time::{Duration, Instant};

use super::systemd;
use crate::metrics::Metrics;

/// How long there is nothing to do without a watchdog, or before the server serves.
pub(super) const UNWATCHED: Duration = Duration::from_secs(3600);

/// Feeds whoever watches the process.
pub(super) struct Watchdog {
    /// How often it is to be fed; `None`: there is none.
    every: Option<Duration>,
    due: Instant,
    /// The heartbeat of each shard when it was last fed.
    heartbeats: Vec<u64>,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        Self {
            every: systemd::watchdog(),
            due: Instant::now(),
            heartbeats: Vec::new(),
        }
    }

    /// Feeds it if it is due and every shard's heart has beaten since; says when to come again.
    pub(super) fn feed(&mut self, metrics: &Metrics) -> Duration {
        let Some(every) = self.every else {
            return UNWATCHED;
        };
        let left = self.due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return left;
        }
        let shards = metrics.shards().iter();
        let heartbeats: Vec<u64> = shards.map(|shard| shard.heartbeat.get()).collect();
        // A first look finds none to compare with.
        let all_beat = heartbeats
            .iter()
            .enumerate()
            .all(|(shard, now)| self.heartbeats.get(shard) != Some(now));
        self.due = Instant::now() + every;
        if all_beat {
            systemd::alive();
            self.heartbeats = heartbeats;
        } else {
            log::error!(
                event = "event_loop_stalled";
                "an event loop has not turned for {every:?}: systemd is not told that the process is alive, \
                 and restarts it if that goes on"
            );
        }
        every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_not_fed_while_a_heart_stands_still() {
        let (metrics, recorders) = Metrics::new(2, 1);
        let mut watchdog = Watchdog {
            every: Some(Duration::ZERO),
            due: Instant::now(),
            heartbeats: Vec::new(),
        };
        watchdog.feed(&metrics);
        assert_eq!(watchdog.heartbeats, [0, 0]);
        recorders.shards[0].add(|counters| &counters.heartbeat, 1);
        watchdog.feed(&metrics);
        assert_eq!(watchdog.heartbeats, [0, 0], "one stands still");
        recorders.shards[1].add(|counters| &counters.heartbeat, 1);
        watchdog.feed(&metrics);
        assert_eq!(watchdog.heartbeats, [1, 1]);
    }
}
