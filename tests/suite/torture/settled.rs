//! How long is waited until everything is stored.

use std::thread;
use std::time::{Duration, Instant};

use super::checker::Found;
use crate::support::DEADLINE;

/// Most time without another row or letter: longer than all waits of hakaru. Many events may take longer together.
const SETTLED: Duration = Duration::from_secs(DEADLINE.as_secs() / 2);

/// What is stored by itself is stored by then, so that a person may decide about the rest.
const UNDISTURBED: Duration = Duration::from_secs(2);

/// A wait for everything to be stored.
pub struct Settling {
    start: Instant,
    looked: Instant,
    changed: Instant,
    stored: usize,
}

impl Settling {
    pub fn begin() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            looked: now,
            changed: now,
            stored: 0,
        }
    }

    /// Notes what is stored now. Whether nothing more is to be expected.
    pub fn is_late(&mut self, found: &Found) -> bool {
        let rows: usize = found.rows.iter().flat_map(|rows| rows.values()).sum();
        let stored = rows + found.letters.len();
        if stored != self.stored {
            self.stored = stored;
            self.changed = Instant::now();
        }
        self.changed.elapsed() > SETTLED
    }

    /// Whether a person may decide.
    pub fn is_undisturbed(&self) -> bool {
        self.start.elapsed() > UNDISTURBED
    }

    /// Waits as long as the last look took, so that looking leaves the machine to those that store.
    pub fn pause(&mut self) {
        let took = self.looked.elapsed();
        thread::park_timeout(took.max(Duration::from_millis(20)));
        self.looked = Instant::now();
    }
}
