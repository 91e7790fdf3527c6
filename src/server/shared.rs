//! What the threads of a server share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::threads::Threads;
use crate::event::SharedNameRule;
use crate::journal::quota::JournalBound;
use crate::metrics::Metrics;
use crate::os::connection_limit::ConnectionLimit;

/// All of it; cheap to clone one by one.
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) name_rule: Arc<SharedNameRule>,
    /// Whether the process drains.
    pub(super) draining: Arc<AtomicBool>,
    /// The bound on connections, of all shards together.
    pub(super) slots: Arc<ConnectionLimit>,
    /// The bound on the journal's bytes, of all shards together.
    pub(super) quota: JournalBound,
    pub(super) threads: Threads,
}
