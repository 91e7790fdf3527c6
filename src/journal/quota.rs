//! The bound on the disk space of unstored events, `--journal-limit`, and what each lane uses of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::position::Position;

/// Bytes written between two marks. While a lane has unstored events, its usage is known to within this.
const MARK_BYTES: u64 = 64 * 1024;

/// The bound on unstored bytes in the journal. All shards share it.
#[derive(Debug, Clone)]
pub struct JournalBound {
    /// Most unstored bytes of all lanes together.
    bytes_max: u64,
    /// Unstored bytes of lanes that no shard writes: lanes of earlier processes, and closed lanes.
    inactive: Arc<AtomicU64>,
    /// Unstored bytes of the lanes that shards write. A shard updates its part when it has changed by
    /// [`MARK_BYTES`], and once a second.
    active: Arc<AtomicU64>,
}

impl JournalBound {
    /// A bound of `bytes_max`. The janitor sets `inactive`.
    pub fn new(bytes_max: u64, inactive: Arc<AtomicU64>) -> Self {
        Self {
            bytes_max,
            inactive,
            active: Arc::default(),
        }
    }

    /// Most bytes that unstored events may take on disk.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that unstored events take on disk. Up to a second old.
    pub fn bytes(&self) -> u64 {
        self.active.load(Ordering::Relaxed) + self.inactive.load(Ordering::Relaxed)
    }
}

/// What the lane that a shard writes uses of the bound.
#[derive(Debug)]
pub struct LaneUsage {
    bound: JournalBound,
    /// Bytes written, bytes of them that are durable, bytes of them that are stored.
    written: u64,
    durable: u64,
    stored: u64,
    /// Positions that are not stored yet, each with the number of bytes written before it.
    marks: VecDeque<(Position, u64)>,
    /// This lane's part of [`JournalBound::active`].
    published: u64,
}

/// The most memory that the marks of all shards take, in bytes: one for each `MARK_BYTES` that are not stored, in
/// memory that has grown by doubling.
pub fn marks_bytes_max(journal_bytes_max: u64, shards: usize) -> usize {
    let marks = usize::try_from(journal_bytes_max / MARK_BYTES).unwrap_or(usize::MAX);
    let marks = marks.saturating_add(shards);
    marks.saturating_mul(2 * size_of::<(Position, u64)>())
}

impl LaneUsage {
    /// The usage of a new lane.
    pub fn new(bound: JournalBound) -> Self {
        Self {
            bound,
            written: 0,
            durable: 0,
            stored: 0,
            marks: VecDeque::new(),
            published: 0,
        }
    }

    /// Starts again for a new lane. The janitor counts the closed one from now on.
    pub fn clear(&mut self) {
        self.marks.clear();
        (self.written, self.durable, self.stored) = (0, 0, 0);
        self.publish();
    }

    /// Updates this lane's part of the sum over all shards.
    pub fn publish(&mut self) {
        let holds = self.written - self.stored;
        let active = &self.bound.active;
        if holds >= self.published {
            active.fetch_add(holds - self.published, Ordering::Relaxed);
        } else {
            active.fetch_sub(self.published - holds, Ordering::Relaxed);
        }
        self.published = holds;
    }

    /// Counts `bytes` whose write begins.
    pub fn write(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Notes that everything written is durable: the events before `durable`.
    pub fn mark(&mut self, durable: Position) {
        self.durable = self.written;
        let last = self.marks.back().map_or(self.stored, |&(_, bytes)| bytes);
        if self.durable - last >= MARK_BYTES {
            self.marks.push_back((durable, self.durable));
        }
    }

    /// Bytes that may still be written, given that events before `stored` are stored.
    pub fn left(&mut self, stored: Position, durable: Position) -> u64 {
        while let Some(&(position, bytes)) = self.marks.front() {
            if position > stored {
                break;
            }
            self.stored = bytes;
            self.marks.pop_front();
        }
        if stored >= durable {
            self.stored = self.durable;
        }
        let holds = self.written - self.stored;
        if holds.abs_diff(self.published) >= MARK_BYTES {
            self.publish();
        }
        let bound = &self.bound;
        let active = bound.active.load(Ordering::Relaxed);
        let others = active.saturating_sub(self.published) + bound.inactive.load(Ordering::Relaxed);
        bound.bytes_max.saturating_sub(others + holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(bytes_max: u64, inactive: u64) -> LaneUsage {
        LaneUsage::new(JournalBound::new(
            bytes_max,
            Arc::new(AtomicU64::new(inactive)),
        ))
    }

    #[test]
    fn a_lane_that_is_stored_completely_uses_nothing_even_without_a_mark() {
        let mut usage = usage(1000, 0);
        usage.written = 900;
        usage.mark(Position(9));
        assert_eq!(usage.left(Position(5), Position(9)), 100);
        assert_eq!(usage.left(Position(9), Position(9)), 1000);
    }

    #[test]
    fn what_is_stored_is_freed_up_to_the_last_mark() {
        let mut usage = usage(2 * MARK_BYTES, 0);
        for group in 1..=2 {
            usage.written += MARK_BYTES;
            usage.mark(Position(group * 10));
        }
        let (durable, half) = (Position(20), 2 * MARK_BYTES);
        assert_eq!(usage.left(Position(0), durable), 0);
        assert_eq!(usage.left(Position(9), durable), 0);
        assert_eq!(usage.left(Position(10), durable), MARK_BYTES);
        assert_eq!(usage.left(durable, durable), half);
    }

    #[test]
    fn other_lanes_count_too() {
        let mut one = usage(4 * MARK_BYTES, MARK_BYTES);
        let mut other = LaneUsage::new(one.bound.clone());
        let start = Position::START;
        assert_eq!(one.left(start, start), 3 * MARK_BYTES);
        other.written = 2 * MARK_BYTES;
        assert_eq!(other.left(start, Position(1)), MARK_BYTES);
        assert_eq!(one.left(start, start), MARK_BYTES);
        other.clear();
        assert_eq!(one.left(start, start), 3 * MARK_BYTES);
        assert_eq!(usage(10, 20).left(start, start), 0);
    }

    #[test]
    fn a_journal_of_a_tebibyte_is_half_a_gibibyte_of_marks() {
        assert_eq!(marks_bytes_max(1 << 40, 0), 512 << 20);
    }
}
