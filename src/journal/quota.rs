//! How much of the disk events may take that are not stored: of all lanes, and of the one that is written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::position::Position;

/// Bytes between two notes of how much was written: while more is written than stored, the journal's
/// bound is kept to within this.
const MARK_BYTES: u64 = 64 * 1024;

/// The bound on what the journals of all shards hold that is not stored; shared by all of them.
#[derive(Debug, Clone)]
pub struct JournalBound {
    /// Bytes of all of them.
    bytes_max: u64,
    /// Bytes that lanes hold which no shard writes: of earlier processes, or closed.
    elsewhere: Arc<AtomicU64>,
    /// Bytes that the present lanes hold. Each shard adds to it now and then, so that it is
    /// at most [`MARK_BYTES`] per shard out of date.
    present: Arc<AtomicU64>,
}

impl JournalBound {
    /// At most `bytes_max` together; the janitor counts what is `elsewhere`.
    pub fn new(bytes_max: u64, elsewhere: Arc<AtomicU64>) -> Self {
        Self {
            bytes_max,
            elsewhere,
            present: Arc::default(),
        }
    }

    /// Most bytes of disk that events which are not stored may take.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that are taken by them, a second ago at most.
    pub fn bytes(&self) -> u64 {
        self.present.load(Ordering::Relaxed) + self.elsewhere.load(Ordering::Relaxed)
    }
}

/// Bytes of the present lane.
#[derive(Debug)]
pub struct LaneUsage {
    bound: JournalBound,
    written: u64,
    durable: u64,
    stored: u64,
    /// Bytes written before each position, for the bytes that are not stored.
    marks: VecDeque<(Position, u64)>,
    /// Bytes that other shards see as held by this lane.
    published: u64,
}

impl LaneUsage {
    /// Of a lane to which nothing was written yet.
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

    /// Another lane takes its place; the janitor counts this one from now on.
    pub fn clear(&mut self) {
        self.marks.clear();
        (self.written, self.durable, self.stored) = (0, 0, 0);
        self.publish();
    }

    /// Shows the other shards how many bytes this lane holds.
    pub fn publish(&mut self) {
        let holds = self.written - self.stored;
        let present = &self.bound.present;
        if holds >= self.published {
            present.fetch_add(holds - self.published, Ordering::Relaxed);
        } else {
            present.fetch_sub(self.published - holds, Ordering::Relaxed);
        }
        self.published = holds;
    }

    /// Notes that `bytes` are on their way to the disk.
    pub fn write(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Notes that everything written is durable, which is everything before `durable`.
    pub fn mark(&mut self, durable: Position) {
        self.durable = self.written;
        let last = self.marks.back().map_or(self.stored, |&(_, bytes)| bytes);
        if self.durable - last >= MARK_BYTES {
            self.marks.push_back((durable, self.durable));
        }
    }

    /// Bytes that may still be written, when everything before `stored` is stored.
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
        let present = bound.present.load(Ordering::Relaxed);
        let others =
            present.saturating_sub(self.published) + bound.elsewhere.load(Ordering::Relaxed);
        bound.bytes_max.saturating_sub(others + holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes_max: u64, elsewhere: u64) -> LaneUsage {
        LaneUsage::new(JournalBound::new(
            bytes_max,
            Arc::new(AtomicU64::new(elsewhere)),
        ))
    }

    #[test]
    fn what_is_stored_gives_room_again_however_little_it_is() {
        let mut room = room(1000, 0);
        room.written = 900;
        room.mark(Position(9));
        assert_eq!(room.left(Position(5), Position(9)), 100);
        assert_eq!(room.left(Position(9), Position(9)), 1000);
    }

    #[test]
    fn marks_follow_what_is_stored_while_more_is_written() {
        let mut room = room(2 * MARK_BYTES, 0);
        for group in 1..=2 {
            room.written += MARK_BYTES;
            room.mark(Position(group * 10));
        }
        let (durable, half) = (Position(20), 2 * MARK_BYTES);
        assert_eq!(room.left(Position(0), durable), 0);
        assert_eq!(room.left(Position(9), durable), 0);
        assert_eq!(room.left(Position(10), durable), MARK_BYTES);
        assert_eq!(room.left(durable, durable), half);
    }

    #[test]
    fn what_others_hold_counts_too() {
        let mut one = room(4 * MARK_BYTES, MARK_BYTES);
        let mut other = LaneUsage::new(one.bound.clone());
        let start = Position::START;
        assert_eq!(one.left(start, start), 3 * MARK_BYTES);
        other.written = 2 * MARK_BYTES;
        assert_eq!(other.left(start, Position(1)), MARK_BYTES);
        assert_eq!(one.left(start, start), MARK_BYTES);
        other.clear();
        assert_eq!(one.left(start, start), 3 * MARK_BYTES);
        assert_eq!(room(10, 20).left(start, start), 0);
    }
}
