//! The state of a server: whether it is ready, and whether the sink takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::event::UnixMillis;
use crate::event::ack::Ack;
use crate::event::rule::{Ids, SharedEventRule};
use crate::journal::quota::JournalBound;
use crate::journal::served_database::ServedDatabase;
use crate::metrics::Metrics;
use crate::os::connection_limit::ConnectionLimit;
use crate::sink::PROBE_EVERY;

/// An older last write does not count. Without work, writers probe the database every [`PROBE_EVERY`].
const LAST_WRITE_AGE_MAX: Duration = Duration::from_secs(3 * PROBE_EVERY.as_secs());

/// How long a server counts as shedding after it shed an event.
const SHEDDING_FOR: Duration = Duration::from_secs(5);

/// What does not change while a server runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What a 200 promises.
    pub ack: Ack,
    /// The same in words.
    pub promise: String,
    /// The I/O driver of the shards.
    pub io: String,
    /// The address of the event port.
    pub listen: String,
    /// The kind of the database: `MySQL` or `SQLite`.
    pub database_kind: &'static str,
    /// Its address, without the password.
    pub database: String,
    /// Most batches of all shards together.
    pub batches_max: usize,
    /// When the process began.
    pub started_at: UnixMillis,
    /// Why what is promised may not hold in the data directory.
    pub data_dir_warning: Option<String>,
}

/// The stage of a server between its start and its end. Set by the main thread.
#[derive(Debug, Default)]
pub struct Stage(AtomicU8);

impl Stage {
    const SERVING: u8 = 1;
    const DRAINING: u8 = 2;
    const HANDED_OVER: u8 = 3;

    /// The server answers requests from now on.
    pub fn serve(&self) {
        self.0.store(Self::SERVING, Ordering::Release);
    }

    /// The server accepts no new connections from now on.
    pub fn drain(&self) {
        self.0.store(Self::DRAINING, Ordering::Release);
    }

    /// As [`Self::drain`], and a successor serves the listening sockets.
    pub fn hand_over(&self) {
        self.0.store(Self::HANDED_OVER, Ordering::Release);
    }

    /// Whether a successor serves the listening sockets.
    pub fn is_handed_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::HANDED_OVER
    }
}

/// Whether a load balancer should send requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// Yes.
    Ready,
    /// No: events were answered 503 a few seconds ago.
    Shedding,
    /// No: the process is about to end.
    Draining,
}

impl Readiness {
    /// The name in `/stats.json`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Shedding => "shedding",
            Self::Draining => "draining",
        }
    }

    /// Why the server is not ready.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Starting => Some("starting: requests are not taken yet"),
            Self::Shedding => Some(
                "shedding: all that may wait for disk or database is full, events are answered 503",
            ),
            Self::Draining => {
                Some("draining: no new connections are taken, the process is about to end")
            }
        }
    }
}

/// Everything that the admin port reads.
#[derive(Debug)]
pub struct Overview {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Open connections and their bound.
    pub slots: Arc<ConnectionLimit>,
    /// The journal's bytes and their bound; `None` without a journal.
    pub journal: Option<JournalBound>,
    /// The database that is served.
    pub served: Arc<ServedDatabase>,
    /// What the columns of the database take.
    pub event_rule: Arc<SharedEventRule>,
    /// The stage of the server.
    pub stage: Arc<Stage>,
    /// What does not change.
    pub facts: Facts,
}

/// The number of shed events, and when it was last seen to grow.
#[derive(Debug, Default)]
pub struct ShedSeen {
    count: u64,
    at: Option<Instant>,
}

impl Overview {
    /// Whether an event whose id the table has is no second row.
    pub fn are_ids_stored(&self) -> bool {
        self.event_rule.get().ids == Ids::Stored
    }

    /// Whether requests should be sent here, now.
    pub fn readiness(&self, seen: &mut ShedSeen) -> Readiness {
        let shed = self.metrics.totals().shed;
        if shed > seen.count {
            *seen = ShedSeen {
                count: shed,
                at: Some(Instant::now()),
            };
        }
        match self.stage.0.load(Ordering::Acquire) {
            Stage::DRAINING => Readiness::Draining,
            // A request on an old connection asks about the address, which the successor serves.
            Stage::HANDED_OVER => Readiness::Ready,
            Stage::SERVING if seen.at.is_some_and(|at| at.elapsed() < SHEDDING_FOR) => {
                Readiness::Shedding
            }
            Stage::SERVING => Readiness::Ready,
            _ => Readiness::Starting,
        }
    }

    /// Why the sink is not healthy; `None` if each writer has written lately, and no lane is held or waits.
    pub fn sink_unhealthy_reason(&self) -> Option<String> {
        let reason = self.writer_reason();
        let (held, _) = self.served.held();
        let waiting = self.served.waiting();
        if reason.is_some() {
            reason
        } else if held > 0 {
            Some(format!(
                "{held} lanes of the journal wait for `hakaru journal settle`, see `hakaru journal list`"
            ))
        } else if waiting > 0 {
            Some(format!(
                "{waiting} lanes of the journal cannot be taken over or read at present, the log says why"
            ))
        } else {
            None
        }
    }

    fn writer_reason(&self) -> Option<String> {
        let now = UnixMillis::now().0;
        let writers = self.metrics.writers().iter().enumerate();
        writers
            .filter_map(|(index, writer)| {
                let last_write_at = writer.last_write_at.get();
                let age = Duration::from_millis(now.saturating_sub(last_write_at));
                if let Some(outage) = writer.outage() {
                    Some(format!("writer {index}: {outage}"))
                } else if last_write_at == 0 {
                    Some(format!(
                        "writer {index}: the database has not taken a write yet"
                    ))
                } else if age > LAST_WRITE_AGE_MAX {
                    let seconds = age.as_secs();
                    Some(format!(
                        "writer {index}: the last write that succeeded was {seconds} s ago"
                    ))
                } else {
                    None
                }
            })
            .next()
    }

    /// The age of the oldest event that is not stored, in seconds. 0 if all events are stored.
    pub fn oldest_age_seconds(&self) -> f64 {
        let metrics = &self.metrics;
        let open = metrics.shards().iter().map(|shard| &shard.oldest_open_at);
        let storing = metrics.writers().iter().map(|writer| &writer.oldest_at);
        let times = open.chain(storing).map(|at| at.get());
        let oldest = times.filter(|&at| at > 0).min();
        oldest.map_or(0.0, |at| {
            UnixMillis::now().0.saturating_sub(at) as f64 / 1000.0
        })
    }
}
