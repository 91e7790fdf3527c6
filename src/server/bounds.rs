//! The sum of everything that grows with load, known before it is served.

use crate::admin::ADMIN_BYTES_MAX;
use crate::event::batch::{Batch, BatchEvents};
use crate::handoff::BATCHES_PER_SHARD;
use crate::journal::quota::marks_bytes_max;
use crate::journal::reader::WINDOW_BYTES_MAX;
use crate::journal::record::PAYLOAD_BYTES_MAX;
use crate::os::io_driver::RING_BYTES_MAX;
use crate::os::limits;
use crate::os::logging::QUEUE_BYTES_MAX;
use crate::server::config::Config;
use crate::server::writers;
use crate::shard::connection::CONNECTION_BYTES_MAX;
use crate::shard::service::Bodies;
use crate::writer::READ_AT_ONCE;

/// Where `--max-connections` is not set, connections fill memory to three quarters: the kernel keeps buffers of
/// sockets and files in the rest, and others may run beside us.
const FILLED_QUARTERS: u64 = 3;

/// Connections that are allowed in any case where `--max-connections` is not set.
const CONNECTIONS_LEAST: usize = 128;

/// What bounds depend on besides connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) shards: usize,
    pub(crate) writers: usize,
    pub(crate) batch_events: BatchEvents,
    /// Bytes of the journal of all shards together.
    pub(crate) journal_limit: u64,
    /// Bytes of the largest body with events.
    pub(crate) body_limit: usize,
}

impl Sizes {
    /// The bounds of a server with `shards` shards.
    pub(crate) fn new(config: &Config, shards: usize) -> Self {
        Self {
            shards,
            writers: writers::count(config, shards),
            batch_events: config.batch_events,
            journal_limit: config.journal_limit,
            body_limit: config.body_limit,
        }
    }
}

/// The most memory that what grows with load can take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryBound {
    /// All batches of all shards, full of the longest names.
    pub(crate) batches: usize,
    /// The journals: the group that gathers and the blocks of the one that is written, each in memory
    /// that has grown by doubling; what is read back; and marks of what is not stored.
    pub(crate) journals: usize,
    /// All writers, each binding and sending the largest statement.
    pub(crate) writers: usize,
    /// All connections, each in the middle of the largest head.
    pub(crate) connections: usize,
    /// All bodies with events that are being received, and the one that is read.
    pub(crate) bodies: usize,
    /// The admin port, the queue of the log, the rings.
    pub(crate) others: usize,
}

/// What the sum is too large by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// The number of connections that there is memory for.
    Connections(usize),
    /// What there is without any connection.
    Others,
}

impl MemoryBound {
    /// The bound of a server of these sizes, with `connections` connections of all shards together.
    pub(crate) fn new(sizes: Sizes, connections: usize) -> Self {
        let Sizes {
            shards,
            writers,
            batch_events,
            journal_limit,
            body_limit,
        } = sizes;
        // Those of the writers, and that of the janitor.
        let readers = writers * READ_AT_ONCE + 1;
        let journals = shards * 4 * PAYLOAD_BYTES_MAX + readers * WINDOW_BYTES_MAX;
        #[expect(clippy::cast_possible_truncation, reason = "less than a MiB")]
        let rings = shards * RING_BYTES_MAX as usize;
        Self {
            // One more a shard, that is read back from the journal.
            batches: shards * (BATCHES_PER_SHARD + 1) * Batch::bytes_max(batch_events),
            journals: journals.saturating_add(marks_bytes_max(journal_limit, shards)),
            writers: writers * crate::sink::mysql::statement_bytes_max(batch_events),
            connections: connections.saturating_mul(CONNECTION_BYTES_MAX),
            bodies: shards * Bodies::bytes_max(body_limit),
            others: ADMIN_BYTES_MAX + QUEUE_BYTES_MAX + rings,
        }
    }

    /// All of it.
    pub(crate) fn sum(self) -> usize {
        self.without_connections().saturating_add(self.connections)
    }

    fn without_connections(self) -> usize {
        self.batches
            .saturating_add(self.journals)
            .saturating_add(self.writers)
            .saturating_add(self.bodies)
            .saturating_add(self.others)
    }

    /// Connections for which `bytes` of memory have room beside everything else.
    fn connections_that_fit(self, bytes: u64) -> usize {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        bytes.saturating_sub(self.without_connections()) / CONNECTION_BYTES_MAX
    }

    /// What is too much where there are `bytes` of memory, if anything is.
    pub(crate) fn excess(self, bytes: u64) -> Option<Excess> {
        if self.sum() as u64 <= bytes {
            return None;
        }
        Some(match self.connections_that_fit(bytes) {
            0 => Excess::Others,
            fit => Excess::Connections(fit),
        })
    }
}

/// HTTP connections that may be open at once: as many as are `set`, or else as open files and `memory` allow.
pub(crate) fn connections_max(
    set: Option<usize>,
    open_files: usize,
    memory: Option<u64>,
    sizes: Sizes,
) -> usize {
    let default = || {
        let files = limits::connections_that_fit(open_files, sizes.shards);
        let rest = MemoryBound::new(sizes, 0);
        let fit = memory.map(|bytes| rest.connections_that_fit(bytes / 4 * FILLED_QUARTERS));
        fit.map_or(files, |fit| files.min(fit.max(CONNECTIONS_LEAST)))
    };
    set.unwrap_or_else(default)
}

/// Logs all bounds of a server and their sum, and where that is more than the `memory` there is.
pub(super) fn log(sizes: Sizes, connections: usize, memory: Option<u64>) {
    let bound = MemoryBound::new(sizes, connections);
    log::info!(
        event = "bounds",
        connections_max = connections,
        database_connections_max = sizes.writers,
        batches_max = sizes.shards * BATCHES_PER_SHARD,
        batch_events_max = sizes.batch_events.get(),
        batches_bytes_max = bound.batches,
        journals_bytes_max = bound.journals,
        writers_bytes_max = bound.writers,
        connections_bytes_max = bound.connections,
        bodies_bytes_max = bound.bodies,
        others_bytes_max = bound.others,
        memory_bytes_max = bound.sum(),
        memory_bytes = memory;
        "bounds"
    );
    let Some(memory) = memory else {
        return;
    };
    let advice = match bound.excess(memory) {
        None => return,
        Some(Excess::Connections(fit)) => format!("--max-connections {fit}, or more memory"),
        Some(Excess::Others) => {
            "more memory, or a lower --batch-events, --body-limit, --cores or --journal-limit"
                .to_owned()
        }
    };
    log::warn!(
        event = "memory_bound_too_high", memory_bytes_max = bound.sum(), memory_bytes = memory;
        "up to {} MiB of memory may be taken under load, and the machine or the cgroup has {} MiB: the kernel may \
         end the process then. Advised: {advice}",
        bound.sum() >> 20, memory >> 20
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn sizes() -> Sizes {
        Sizes {
            shards: 2,
            writers: 2,
            batch_events: BatchEvents::new(5000).unwrap(),
            journal_limit: 4 << 30,
            body_limit: 1 << 20,
        }
    }

    #[test]
    fn the_default_of_connections_fits_into_memory_and_open_files() {
        let max = |memory| connections_max(None, 1_000_000, memory, sizes());
        let files = limits::connections_that_fit(1_000_000, 2);
        assert_eq!(max(None), files);
        assert_eq!(max(Some(1024 * 1024 * MIB)), files);
        let some = max(Some(1024 * MIB));
        assert!((1_000..100_000).contains(&some), "{some}");
        let bound = MemoryBound::new(sizes(), some);
        assert!(bound.sum() as u64 <= 768 * MIB);
        assert_eq!(bound.excess(1024 * MIB), None);
        assert_eq!(max(Some(16 * MIB)), CONNECTIONS_LEAST);
        // What is set holds.
        let set = Some(7_000_000);
        assert_eq!(connections_max(set, 1_000, Some(MIB), sizes()), 7_000_000);
    }

    #[test]
    fn a_sum_that_is_too_large_says_what_would_fit() {
        let excess =
            |connections, mib: u64| MemoryBound::new(sizes(), connections).excess(mib * MIB);
        let Some(Excess::Connections(fit)) = excess(1_000_000, 1024) else {
            panic!("{:?}", excess(1_000_000, 1024));
        };
        assert_eq!(excess(fit, 1024), None);
        assert_eq!(excess(fit + 1, 1024), Some(Excess::Connections(fit)));
        assert_eq!(excess(1_000_000, 16), Some(Excess::Others));
    }

    #[test]
    fn a_long_journal_is_counted() {
        let sum = |journal_limit| {
            let sizes = Sizes {
                journal_limit,
                ..sizes()
            };
            MemoryBound::new(sizes, 0).sum()
        };
        assert_eq!(sum(1 << 40) - sum(0), 512 << 20);
    }
}
