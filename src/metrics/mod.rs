//! What is counted and measured: each number has one [`Recorder`], and may be read by any thread.

mod counter;
mod database;
mod histogram;
mod names;
mod recorder;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::counter::{Counter, Gauge};
pub use self::database::{ErrorClass, Remembered, WriterCounters};
pub use self::histogram::{Histogram, Snapshot};
pub use self::names::{FrequentNames, SAMPLED_ONE_IN};
pub use self::recorder::Recorder;
use crate::http::query::Rejection;
use crate::http::response::Status;

/// Why a batch was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealCause {
    /// It holds as many events as it may.
    Count,
    /// It holds as many bytes of names as it may.
    Bytes,
    /// Its oldest event has waited for `--linger`.
    Age,
    /// Somebody waits for its rows.
    Wanted,
    /// The lane was closed by a fault.
    LaneClosed,
    /// The process ends.
    Drain,
}

impl SealCause {
    /// All of them, each at its own index.
    pub const ALL: [Self; 6] = [
        Self::Count,
        Self::Bytes,
        Self::Age,
        Self::Wanted,
        Self::LaneClosed,
        Self::Drain,
    ];

    /// One word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Wanted => "wanted",
            Self::LaneClosed => "lane_closed",
            Self::Drain => "drain",
        }
    }
}

/// What one shard counts. Aligned so that shards share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Events taken: each was answered 200.
    pub received: Counter,
    /// Events answered 503.
    pub shed: Counter,
    rejected: [Counter; Rejection::ALL.len()],
    answered: [Counter; Status::ALL.len()],
    /// Time of a journal write, from its start to its end on the disk, in microseconds.
    pub sync_time: Histogram,
    /// Events of each sealed batch.
    pub batch_events: Histogram,
    seals: [Counter; SealCause::ALL.len()],
    /// Goes up once a second while the event loop turns.
    pub heartbeat: Counter,
    /// Batches that wait for the writer or are being stored. Told once a second.
    pub batches_under_way: Gauge,
    /// Events of the open batch. Told once a second.
    pub events_open: Gauge,
    /// When the oldest event of the open batch was received, in Unix milliseconds; 0: it is empty.
    /// Told once a second.
    pub oldest_open_at: Gauge,
}

impl ShardCounters {
    /// The counter of one reason.
    pub fn rejected(&self, rejection: Rejection) -> &Counter {
        &self.rejected[rejection as usize]
    }

    /// The counter of answers with one status, of those that were sent or are about to be.
    pub fn answered(&self, status: Status) -> &Counter {
        &self.answered[status as usize]
    }

    /// The counter of one cause.
    pub fn seals(&self, cause: SealCause) -> &Counter {
        &self.seals[cause as usize]
    }
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardCounters>>,
    writers: Vec<Arc<WriterCounters>>,
    /// Events of earlier processes that are in the journal and not stored, a second ago at most.
    found: Arc<AtomicU64>,
}

impl Metrics {
    /// Zeros for so many shards and writers, and who may change them.
    pub fn new(shards: usize, writers: usize) -> (Self, Recorders) {
        let (shard_recorders, shards) = recorders(shards);
        let (writer_recorders, writers) = recorders(writers);
        let metrics = Self {
            shards,
            writers,
            found: Arc::default(),
        };
        let recorders = Recorders {
            shards: shard_recorders,
            writers: writer_recorders,
        };
        (metrics, recorders)
    }

    /// Where the janitor says how many events of earlier processes are not stored.
    pub fn found(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.found)
    }

    /// The counters of all shards.
    pub fn shards(&self) -> &[Arc<ShardCounters>] {
        &self.shards
    }

    /// The counters of all writers.
    pub fn writers(&self) -> &[Arc<WriterCounters>] {
        &self.writers
    }

    /// Sums over all threads.
    pub fn totals(&self) -> Totals {
        // What ends is read before what begins: no event is seen stored and not yet received.
        let stored = self.writers.iter().map(|writer| writer.stored.get()).sum();
        let dead_lettered = self
            .writers
            .iter()
            .map(|writer| writer.dead_lettered.get())
            .sum();
        let recovered: u64 = self
            .writers
            .iter()
            .map(|writer| writer.recovered.get())
            .sum();
        let count =
            |pick: fn(&ShardCounters) -> u64| self.shards.iter().map(|shard| pick(shard)).sum();
        Totals {
            stored,
            dead_lettered,
            recovered,
            received: recovered
                + self.found.load(Ordering::Relaxed)
                + count(|shard| shard.received.get()),
            shed: count(|shard| shard.shed.get()),
            rejected: Rejection::ALL.map(|rejection| {
                self.shards
                    .iter()
                    .map(|shard| shard.rejected(rejection).get())
                    .sum()
            }),
        }
    }
}

/// Who changes the counters of each shard and of each writer.
#[derive(Debug)]
pub struct Recorders {
    /// One per shard, in order.
    pub shards: Vec<Recorder<ShardCounters>>,
    /// One per writer, in order.
    pub writers: Vec<Recorder<WriterCounters>>,
}

fn recorders<T: Default>(count: usize) -> (Vec<Recorder<T>>, Vec<Arc<T>>) {
    (0..count).map(|_| Recorder::new(T::default())).unzip()
}

/// The identity: `received = stored + dead_lettered + pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Events taken, by this process or by an earlier one that left them to it.
    pub received: u64,
    /// Those of them that an earlier process took and that were stored since.
    pub recovered: u64,
    /// Events in the database.
    pub stored: u64,
    /// Events in the dead-letter file.
    pub dead_lettered: u64,
    /// Events that were refused with 400, by reason, in the order of [`Rejection::ALL`].
    pub rejected: [u64; Rejection::ALL.len()],
    /// Events that were refused with 503.
    pub shed: u64,
}

impl Totals {
    /// Events taken and neither stored nor dead-lettered yet.
    pub fn pending(&self) -> u64 {
        self.received
            .saturating_sub(self.stored + self.dead_lettered)
    }

    /// Rejections by reason, those that happened.
    pub fn rejected_by_reason(&self) -> RejectedByReason<'_> {
        RejectedByReason(self)
    }
}

/// Displays `reason=count` for each reason that occurred, or `none`.
#[derive(Debug)]
pub struct RejectedByReason<'a>(&'a Totals);

impl fmt::Display for RejectedByReason<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = Rejection::ALL
            .iter()
            .zip(self.0.rejected)
            .filter(|(_, count)| *count > 0);
        let mut separator = "";
        for (rejection, count) in counted {
            write!(out, "{separator}{}={count}", rejection.label())?;
            separator = " ";
        }
        if separator.is_empty() {
            out.write_str("none")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_threads_and_keeps_the_identity() {
        let (metrics, recorders) = Metrics::new(2, 1);
        let [shard, other] = &recorders.shards[..] else {
            panic!()
        };
        shard.add(|counters| &counters.received, 5);
        other.add(|counters| &counters.received, 7);
        other.add(|counters| counters.rejected(Rejection::ValueTooLarge), 3);
        let writer = &recorders.writers[0];
        writer.add(|counters| &counters.stored, 8);
        writer.add(|counters| &counters.dead_lettered, 1);
        let totals = metrics.totals();
        assert_eq!((totals.received, totals.pending()), (12, 3));
        assert_eq!(totals.rejected_by_reason().to_string(), "value_too_large=3");
        assert_eq!(
            Metrics::new(1, 1)
                .0
                .totals()
                .rejected_by_reason()
                .to_string(),
            "none"
        );
    }

    #[test]
    fn each_status_and_cause_has_its_own_place() {
        let places = Status::ALL.map(|status| status as usize);
        assert!(places.into_iter().eq(0..Status::ALL.len()));
        let places = SealCause::ALL.map(|cause| cause as usize);
        assert!(places.into_iter().eq(0..SealCause::ALL.len()));
    }
}
