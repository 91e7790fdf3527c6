//! Numbers that one thread writes and any may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with one owner: adding is a load and a store, not a locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. Only the counter's owner calls this.
    pub fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + more, Ordering::Release);
    }

    /// The count at some present moment.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A number that goes up and down, with one owner.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it. Only the gauge's owner calls this.
    pub fn set(&self, present: u64) {
        self.0.store(present, Ordering::Release);
    }

    /// What it was set to last.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
