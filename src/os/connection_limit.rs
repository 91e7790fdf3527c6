//! The bound on open connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound on open connections, of all shards together.
#[derive(Debug)]
pub struct ConnectionLimit {
    open: AtomicUsize,
    max: usize,
    /// Shards that wait for a slot and have no idle connection of their own to close.
    seeking: AtomicUsize,
}

impl ConnectionLimit {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max,
            seeking: AtomicUsize::new(0),
        }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that may be open at once.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Takes a slot, if one is free. The slot is free again when the permit is dropped.
    pub fn acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let more = |open| (open < self.max).then_some(open + 1);
        let taken = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| ConnectionPermit(Arc::clone(self)))
    }

    /// Asks the other shards to close an idle connection, until the value is dropped.
    pub fn seek(self: &Arc<Self>) -> SlotSought {
        self.seeking.fetch_add(1, Ordering::Relaxed);
        SlotSought(Arc::clone(self))
    }

    /// Slots that are asked for in this way.
    pub fn sought(&self) -> usize {
        self.seeking.load(Ordering::Relaxed)
    }
}

/// A shard waits for a slot that another must free.
#[derive(Debug)]
pub struct SlotSought(Arc<ConnectionLimit>);

impl Drop for SlotSought {
    fn drop(&mut self) {
        self.0.seeking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one open connection.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimit>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
