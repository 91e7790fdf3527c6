//! What the threads of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::threads::Threads;
use crate::event::rule::{EventRule, SharedEventRule};
use crate::journal::quota::JournalBound;
use crate::journal::served_database::ServedDatabase;
use crate::metrics::Metrics;
use crate::os::connection_limit::ConnectionLimit;

/// What all of them use, one of each per server.
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) event_rule: Arc<SharedEventRule>,
    /// Whether the process drains.
    pub(super) draining: Arc<AtomicBool>,
    /// The bound on connections, of all shards together.
    pub(super) slots: Arc<ConnectionLimit>,
    /// The bound on the journal's bytes, of all shards together.
    pub(super) quota: JournalBound,
    /// Of these, the bytes in lanes that no shard writes.
    pub(super) elsewhere: Arc<AtomicU64>,
    /// The database that events are promised to.
    pub(super) served: Arc<ServedDatabase>,
    pub(super) threads: Threads,
}

impl Shared {
    /// With the bounds on connections and on the bytes of the journal, and the database that is served.
    pub(super) fn new(
        metrics: Metrics,
        connections: usize,
        journal_limit: u64,
        served: ServedDatabase,
        threads: Threads,
    ) -> Self {
        let elsewhere = Arc::default();
        Self {
            metrics: Arc::new(metrics),
            event_rule: Arc::new(SharedEventRule::new(EventRule::DEPLOYED)),
            draining: Arc::default(),
            slots: Arc::new(ConnectionLimit::new(connections)),
            quota: JournalBound::new(journal_limit, Arc::clone(&elsewhere)),
            elsewhere,
            served: Arc::new(served),
            threads,
        }
    }
}
