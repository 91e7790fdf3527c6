//! What the threads of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::threads::Threads;
use crate::event::{NameRule, SharedNameRule};
use crate::journal::quota::JournalBound;
use crate::metrics::Metrics;
use crate::os::connection_limit::ConnectionLimit;

/// What all of them use, one of each per server.
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) name_rule: Arc<SharedNameRule>,
    /// Whether the process drains.
    pub(super) draining: Arc<AtomicBool>,
    /// The bound on connections, of all shards together.
    pub(super) slots: Arc<ConnectionLimit>,
    /// The bound on the journal's bytes, of all shards together.
    pub(super) quota: JournalBound,
    /// Of these, the bytes in lanes that no shard writes.
    pub(super) elsewhere: Arc<AtomicU64>,
    pub(super) threads: Threads,
}

impl Shared {
    /// For so many connections, and so many bytes of a journal.
    pub(super) fn new(
        metrics: Metrics,
        connections: usize,
        journal_limit: u64,
        threads: Threads,
    ) -> Self {
        let elsewhere = Arc::default();
        Self {
            metrics: Arc::new(metrics),
            name_rule: Arc::new(SharedNameRule::new(NameRule::DEPLOYED)),
            draining: Arc::default(),
            slots: Arc::new(ConnectionLimit::new(connections)),
            quota: JournalBound::new(journal_limit, Arc::clone(&elsewhere)),
            elsewhere,
            threads,
        }
    }
}
