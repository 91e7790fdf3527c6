//! Counters, gauges and histograms. One [`Recorder`] changes each; any thread may read it.

mod counter;
mod database;
mod histogram;
mod names;
mod recorder;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::counter::{Counter, Gauge};
pub use self::database::{ErrorClass, RecentError, Settled, WriterCounters};
pub use self::histogram::{Histogram, Snapshot};
pub use self::names::{FrequentNames, SAMPLED_ONE_IN};
pub use self::recorder::Recorder;
use crate::http::query::Rejection;
use crate::http::response::Status;

/// Why a batch was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealCause {
    /// It is full by count.
    Count,
    /// It is full by bytes of names.
    Bytes,
    /// Its oldest event is as old as `--linger`.
    Age,
    /// A request waits until its rows are stored, or newer events are only on disk.
    Wanted,
    /// Its lane was closed after an error.
    LaneClosed,
    /// The process drains.
    Drain,
}

impl SealCause {
    /// All causes, each at the index of its discriminant.
    pub const ALL: [Self; 6] = [
        Self::Count,
        Self::Bytes,
        Self::Age,
        Self::Wanted,
        Self::LaneClosed,
        Self::Drain,
    ];

    /// The value of the label `cause`.
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

/// The counters of one shard. Aligned so that two shards share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Events accepted: in memory with `--ack received`, else durable in the journal.
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
    /// Incremented once a second while the event loop runs.
    pub heartbeat: Counter,
    /// Batches that wait for the writer or are being stored. Updated once a second.
    pub batches_under_way: Gauge,
    /// Events of the open batch. Updated once a second.
    pub events_open: Gauge,
    /// When the oldest event of the open batch was received, in Unix milliseconds. 0: it is empty.
    /// Updated once a second.
    pub oldest_open_at: Gauge,
}

impl ShardCounters {
    /// The counter of events refused with 400 for one reason.
    pub fn rejected(&self, rejection: Rejection) -> &Counter {
        &self.rejected[rejection as usize]
    }

    /// The counter of answers with one status, sent or about to be sent.
    pub fn answered(&self, status: Status) -> &Counter {
        &self.answered[status as usize]
    }

    /// The counter of batches sealed for one cause.
    pub fn seals(&self, cause: SealCause) -> &Counter {
        &self.seals[cause as usize]
    }
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardCounters>>,
    writers: Vec<Arc<WriterCounters>>,
    /// Events that earlier processes left to this one. The janitor updates it.
    found: Arc<AtomicU64>,
}

impl Metrics {
    /// The counters of `shards` shards and `writers` writers, all 0, and their recorders.
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

    /// The number of events that earlier processes left to this one, for the janitor to update.
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
        // Settled events are read before received ones: none is counted as settled and not as received.
        let mut settled = Settled::default();
        for writer in &self.writers {
            let more = writer.settled();
            settled.stored += more.stored;
            settled.duplicates += more.duplicates;
            settled.dead_lettered += more.dead_lettered;
            settled.lost += more.lost;
            settled.passed += more.passed;
        }
        let count =
            |pick: fn(&ShardCounters) -> u64| self.shards.iter().map(|shard| pick(shard)).sum();
        let recovered = self.found.load(Ordering::Relaxed);
        Totals {
            stored: settled.stored,
            duplicates: settled.duplicates,
            dead_lettered: settled.dead_lettered,
            lost: settled.lost,
            passed: settled.passed,
            recovered,
            received: recovered + count(|shard| shard.received.get()),
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

/// The recorders of all shards and writers.
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

/// Sums over all threads. They keep the identity `received = stored + duplicates + dead_lettered + lost + pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Events that this process accepted, and unstored events that earlier processes left.
    pub received: u64,
    /// Those of them that earlier processes left.
    pub recovered: u64,
    /// Events in the database.
    pub stored: u64,
    /// Events that made no row, since the table has their ids.
    pub duplicates: u64,
    /// Events in the dead-letter file.
    pub dead_lettered: u64,
    /// Events that were promised and that the disk has lost.
    pub lost: u64,
    /// Positions of lanes that are passed.
    passed: u64,
    /// Events that were refused with 400, by reason, in the order of [`Rejection::ALL`].
    pub rejected: [u64; Rejection::ALL.len()],
    /// Events that were refused with 503.
    pub shed: u64,
}

impl Totals {
    /// Events whose end is known.
    pub fn settled(&self) -> u64 {
        self.stored + self.duplicates + self.dead_lettered + self.lost
    }

    /// Events at positions of lanes that are not passed: what will become of them is open. It is not the rest of
    /// the identity but counted by positions, so that an event that is lost to the counts is noticed.
    pub fn pending(&self) -> u64 {
        self.received.saturating_sub(self.passed)
    }

    /// The reasons of rejected events, for display.
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
        let settle = |stored, duplicates, dead_lettered, lost, passed| {
            let settled = Settled {
                stored,
                duplicates,
                dead_lettered,
                lost,
                passed,
            };
            writer.settle(settled, false);
            let totals = metrics.totals();
            (totals.pending(), totals.received - totals.settled())
        };
        assert_eq!(settle(5, 3, 1, 0, 9), (3, 3));
        assert_eq!(settle(0, 0, 0, 2, 2), (1, 1));
        // A position that is passed without a trace shows.
        assert_eq!(settle(0, 0, 0, 0, 1), (0, 1));
        let totals = metrics.totals();
        assert_eq!((totals.received, totals.lost), (12, 2));
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
    fn each_status_and_cause_has_its_own_index() {
        let indices = Status::ALL.map(|status| status as usize);
        assert!(indices.into_iter().eq(0..Status::ALL.len()));
        let indices = SealCause::ALL.map(|cause| cause as usize);
        assert!(indices.into_iter().eq(0..SealCause::ALL.len()));
    }
}
