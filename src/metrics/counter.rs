//! Numbers that one thread changes and any may read. They are changed through a [`super::Recorder`] alone.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A load and a store, not a locked instruction: the recorder is the only one that adds.
    pub(super) fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + more, Ordering::Release);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub(super) fn set(&self, present: u64) {
        self.0.store(present, Ordering::Release);
    }

    /// What it was set to last.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
