//! The sum of everything that grows with load, known before it is served.

use crate::event::batch::{Batch, BatchEvents};
use crate::handoff::BATCHES_PER_SHARD;
use crate::journal::record::PAYLOAD_BYTES_MAX;
use crate::server::config::Config;
use crate::shard::connection::CONNECTION_BYTES_MAX;

/// The most memory that what grows with load can take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryBound {
    /// All batches of all shards, full of the longest names.
    pub(crate) batches: usize,
    /// The journals: the group that gathers and the blocks of the one that is written, each in memory
    /// that has grown by doubling.
    pub(crate) journals: usize,
    /// All writers, each binding and sending the largest statement.
    pub(crate) writers: usize,
    /// All connections, each in the middle of the largest head.
    pub(crate) connections: usize,
}

impl MemoryBound {
    /// The bound of so many shards and writers, and `connections` connections of all shards together.
    pub(crate) fn new(
        shards: usize,
        writers: usize,
        connections: usize,
        events: BatchEvents,
    ) -> Self {
        Self {
            // One more a shard, that is read back from the journal.
            batches: shards * (BATCHES_PER_SHARD + 1) * Batch::bytes_max(events),
            journals: shards * 4 * PAYLOAD_BYTES_MAX,
            writers: writers * crate::sink::mysql::statement_bytes_max(events),
            connections: connections.saturating_mul(CONNECTION_BYTES_MAX),
        }
    }

    /// All of it.
    pub(crate) fn sum(self) -> usize {
        self.batches
            .saturating_add(self.journals)
            .saturating_add(self.writers)
            .saturating_add(self.connections)
    }
}

/// Logs all bounds of a server and their sum.
pub(super) fn log(config: &Config, shards: usize, writers: usize, connections: usize) {
    let bound = MemoryBound::new(shards, writers, connections, config.batch_events);
    log::info!(
        event = "bounds",
        connections_max = connections,
        database_connections_max = writers,
        batches_max = shards * BATCHES_PER_SHARD,
        batch_events_max = config.batch_events.get(),
        batches_bytes_max = bound.batches,
        journals_bytes_max = bound.journals,
        writers_bytes_max = bound.writers,
        connections_bytes_max = bound.connections,
        memory_bytes_max = bound.sum();
        "bounds"
    );
}
