//! A shard's journal in memory: the group that gathers, the group at the disk, and how much room is left.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::event::position::Position;
use crate::journal::blocks::Blocks;
use crate::journal::commit::{DiskThread, Order, REOPEN_AFTER, Report, Write, Written};
use crate::journal::handle::LaneHandle;
use crate::journal::lane::Lane;
use crate::journal::record::{
    EVENT_BYTES_MAX, PAYLOAD_BYTES_MAX, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, append_event,
    begin_record,
};
use crate::journal::segment::SEGMENT_BYTES;

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
    /// Bytes that the present lanes hold. Each shard says so now and then, so that it is behind by
    /// [`MARK_BYTES`] a shard at most.
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
struct Room {
    bound: JournalBound,
    written: u64,
    durable: u64,
    stored: u64,
    /// Bytes written before each position, for the bytes that are not stored.
    marks: VecDeque<(Position, u64)>,
    /// What the others were told that this lane holds.
    told: u64,
}

impl Room {
    fn new(bound: JournalBound) -> Self {
        Self {
            bound,
            written: 0,
            durable: 0,
            stored: 0,
            marks: VecDeque::new(),
            told: 0,
        }
    }

    fn clear(&mut self) {
        self.marks.clear();
        (self.written, self.durable, self.stored) = (0, 0, 0);
        self.tell();
    }

    /// Tells the other shards what this lane holds.
    fn tell(&mut self) {
        let holds = self.written - self.stored;
        let present = &self.bound.present;
        if holds >= self.told {
            present.fetch_add(holds - self.told, Ordering::Relaxed);
        } else {
            present.fetch_sub(self.told - holds, Ordering::Relaxed);
        }
        self.told = holds;
    }

    /// Notes that everything written is durable, which is everything before `durable`.
    fn mark(&mut self, durable: Position) {
        self.durable = self.written;
        let last = self.marks.back().map_or(self.stored, |&(_, bytes)| bytes);
        if self.durable - last >= MARK_BYTES {
            self.marks.push_back((durable, self.durable));
        }
    }

    /// Bytes that may still be written, when everything before `stored` is stored.
    fn left(&mut self, stored: Position, durable: Position) -> u64 {
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
        if holds.abs_diff(self.told) >= MARK_BYTES {
            self.tell();
        }
        let bound = &self.bound;
        let present = bound.present.load(Ordering::Relaxed);
        let others = present.saturating_sub(self.told) + bound.elsewhere.load(Ordering::Relaxed);
        bound.bytes_max.saturating_sub(others + holds)
    }
}

/// The lane that is written.
#[derive(Debug)]
struct Present {
    handle: Arc<LaneHandle>,
    lane: Lane,
    file: Arc<File>,
    next: NextSegment,
}

/// Whether the segment behind the present one is there.
#[derive(Debug)]
enum NextSegment {
    Unasked,
    Asked,
    Ready(Arc<File>),
    /// The disk had no room; not asked for again at once.
    Refused(Instant),
}

/// What of a journal is in memory.
#[derive(Debug)]
pub(super) struct Journal {
    disk: DiskThread,
    room: Room,
    /// `None` while there is no lane to write to.
    present: Option<Present>,
    /// The record of the next group.
    gathering: Vec<u8>,
    gathered: u32,
    /// Events of the group that is at the disk.
    in_flight: u32,
    /// `None` while a group is at the disk.
    blocks: Option<Blocks>,
    /// When the last group went to the disk.
    written_at: Instant,
}

impl Journal {
    pub(super) fn new(disk: DiskThread, bound: JournalBound) -> Self {
        let mut journal = Self {
            disk,
            room: Room::new(bound),
            present: None,
            gathering: Vec::new(),
            gathered: 0,
            in_flight: 0,
            blocks: Some(Blocks::default()),
            written_at: Instant::now(),
        };
        begin_record(&mut journal.gathering);
        journal.order(Order::Lane(Duration::ZERO));
        journal
    }

    /// Whether an event more may be taken.
    pub(super) fn has_room(&mut self, stored: Position, durable: Position) -> bool {
        self.room.left(stored, durable) >= self.gathering.len() as u64
            && self.gathering.len() + EVENT_BYTES_MAX <= RECORD_HEAD_BYTES + PAYLOAD_BYTES_MAX
    }

    /// Tells the other shards what this lane holds, when everything before `stored` is stored.
    pub(super) fn tell(&mut self, stored: Position, durable: Position) {
        self.room.left(stored, durable);
        self.room.tell();
    }

    pub(super) fn gather(&mut self, event: Event<'_>) {
        append_event(&mut self.gathering, event);
        self.gathered += 1;
    }

    /// Whether a group can go to the disk now. Where it needs another segment, that is asked for.
    pub(super) fn is_ready(&mut self) -> bool {
        if self.gathered == 0 || self.blocks.is_none() {
            return false;
        }
        let is_ready = self.present.as_ref().is_some_and(|present| {
            fits(present, &self.gathering) || matches!(present.next, NextSegment::Ready(_))
        });
        self.ask_ahead();
        is_ready
    }

    /// Asks for the next segment before it is needed.
    fn ask_ahead(&mut self) {
        let Some(present) = &mut self.present else {
            return;
        };
        let is_wanted = present.lane.is_half_full() || !fits(present, &self.gathering);
        let is_unasked = match present.next {
            NextSegment::Unasked => true,
            NextSegment::Refused(at) => {
                at.elapsed() > REOPEN_AFTER || !fits(present, &self.gathering)
            }
            NextSegment::Asked | NextSegment::Ready(_) => false,
        };
        if is_wanted && is_unasked {
            let number = present.lane.next_segment();
            let order = Order::Segment(Arc::clone(&present.handle), number);
            if self.disk.order(order).is_ok() {
                present.next = NextSegment::Asked;
            }
        }
    }

    /// The group that has gathered, to be written; the next one gathers.
    pub(super) fn begin_write(&mut self) -> Option<Write> {
        if !self.is_ready() {
            return None;
        }
        let present = self.present.as_mut()?;
        let mut blocks = self.blocks.take()?;
        if !fits(present, &self.gathering)
            && let NextSegment::Ready(file) =
                std::mem::replace(&mut present.next, NextSegment::Unasked)
        {
            present.file = file;
            present.lane.go_to_next_segment(&mut blocks);
        }
        let events = std::mem::take(&mut self.gathered);
        let offset = present.lane.stage(&mut self.gathering, events, &mut blocks);
        self.in_flight = events;
        self.room.written += self.gathering.len() as u64;
        begin_record(&mut self.gathering);
        self.written_at = Instant::now();
        Some(Write {
            file: Arc::clone(&present.file),
            offset,
            blocks,
        })
    }

    /// Takes the blocks of a write back; says what was in it and how long it took.
    pub(super) fn end_write(&mut self, blocks: Blocks) -> Written {
        self.blocks = Some(blocks);
        Written {
            events: std::mem::take(&mut self.in_flight),
            took: self.written_at.elapsed(),
        }
    }

    /// Notes that everything written is durable.
    pub(super) fn mark(&mut self, durable: Position) {
        self.room.mark(durable);
    }

    /// Whether nothing is at the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.blocks.is_some()
    }

    /// Events that are not durable.
    pub(super) fn unwritten(&self) -> u32 {
        self.gathered + self.in_flight
    }

    pub(super) fn report(&self) -> Option<Report> {
        self.disk.report()
    }

    /// Has the disk thread do something. If it is gone, so is the process in a moment.
    pub(super) fn order(&self, order: Order) {
        if self.disk.order(order).is_err() {
            log::debug!("the disk thread takes no order");
        }
    }

    /// Writes to a new lane from now on.
    pub(super) fn open(&mut self, handle: Arc<LaneHandle>, file: Arc<File>) {
        let mut blocks = self.blocks.take().unwrap_or_default();
        let lane = Lane::new(handle.id, SEGMENT_BYTES, &mut blocks);
        self.blocks = Some(blocks);
        self.present = Some(Present {
            handle,
            lane,
            file,
            next: NextSegment::Unasked,
        });
    }

    /// Takes in the segment that was asked for. Its failure is one of the lane only if it is needed now.
    pub(super) fn add_segment(&mut self, made: io::Result<Arc<File>>) -> io::Result<()> {
        let Some(present) = &mut self.present else {
            // Of a lane that was closed in the meantime.
            return Ok(());
        };
        match made {
            Ok(file) => present.next = NextSegment::Ready(file),
            Err(fault) if fits(present, &self.gathering) => {
                log::debug!("lane {}: no segment more: {fault}", present.handle.id);
                present.next = NextSegment::Refused(Instant::now());
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Writes no more to the lane, forgets what was not written, and wants another.
    pub(super) fn close(&mut self, reopen_after: Duration) {
        self.present = None;
        begin_record(&mut self.gathering);
        self.gathered = 0;
        self.in_flight = 0;
        self.room.clear();
        self.order(Order::Lane(reopen_after));
    }
}

fn fits(present: &Present, record: &[u8]) -> bool {
    let bytes = record.len().next_multiple_of(RECORD_ALIGNMENT);
    present.lane.fits(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes_max: u64, elsewhere: u64) -> Room {
        Room::new(JournalBound::new(
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
        let mut other = Room::new(one.bound.clone());
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
