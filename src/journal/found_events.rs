//! The events that earlier processes left: each lane's part of their number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::position::Position;

/// The part of one lane. The janitor updates it each second, and the writer before it counts what becomes of the
/// events.
#[derive(Debug)]
pub(super) struct FoundEvents {
    total: Arc<AtomicU64>,
    /// Where the lane ended when it was found, or up to where it was read since.
    end: AtomicU64,
    published: Mutex<u64>,
}

impl FoundEvents {
    /// A part of `total`, 0 so far.
    pub(super) fn new(total: Arc<AtomicU64>, end: Position) -> Self {
        Self {
            total,
            end: AtomicU64::new(end.0),
            published: Mutex::new(0),
        }
    }

    /// Where the lane ended when it was found, as far as is known.
    pub(super) fn end(&self) -> Position {
        Position(self.end.load(Ordering::Acquire))
    }

    /// Notes that the lane has events up to `end` at least.
    pub(super) fn reaches(&self, end: Position) {
        self.end.fetch_max(end.0, Ordering::AcqRel);
    }

    /// Replaces the part in the total by what `events` returns.
    pub(super) fn publish(&self, events: impl FnOnce() -> u64) {
        let published = self.published.lock();
        let mut published = published.unwrap_or_else(PoisonError::into_inner);
        let events = events();
        // Wraps around where it shrinks.
        let more = events.wrapping_sub(*published);
        self.total.fetch_add(more, Ordering::Relaxed);
        *published = events;
    }
}
