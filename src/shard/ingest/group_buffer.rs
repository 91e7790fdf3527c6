//! A shard's journal in memory: the group that gathers, the group at the disk, and how much room is left.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::event::position::Position;
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::{
    DiskOrder, DiskReport, DiskThread, REOPEN_AFTER, Write, Written,
};
use crate::journal::lane::Lane;
use crate::journal::lane_handle::LaneHandle;
use crate::journal::quota::{JournalBound, LaneUsage};
use crate::journal::record::{
    EVENT_BYTES_MAX, PAYLOAD_BYTES_MAX, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, append_event,
    begin_record,
};
use crate::journal::segment::SEGMENT_BYTES;

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
    usage: LaneUsage,
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
            usage: LaneUsage::new(bound),
            present: None,
            gathering: Vec::new(),
            gathered: 0,
            in_flight: 0,
            blocks: Some(Blocks::default()),
            written_at: Instant::now(),
        };
        begin_record(&mut journal.gathering);
        journal.order(DiskOrder::Lane(Duration::ZERO));
        journal
    }

    /// Whether an event more may be taken.
    pub(super) fn has_room(&mut self, stored: Position, durable: Position) -> bool {
        self.usage.left(stored, durable) >= self.gathering.len() as u64
            && self.gathering.len() + EVENT_BYTES_MAX <= RECORD_HEAD_BYTES + PAYLOAD_BYTES_MAX
    }

    /// Tells the other shards what this lane holds, when everything before `stored` is stored.
    pub(super) fn publish_gauges(&mut self, stored: Position, durable: Position) {
        self.usage.left(stored, durable);
        self.usage.publish();
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
            let order = DiskOrder::Segment(Arc::clone(&present.handle), number);
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
        self.usage.write(self.gathering.len() as u64);
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
        self.usage.mark(durable);
    }

    /// Whether nothing is at the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.blocks.is_some()
    }

    /// Events that are not durable.
    pub(super) fn unwritten(&self) -> u32 {
        self.gathered + self.in_flight
    }

    pub(super) fn report(&self) -> Option<DiskReport> {
        self.disk.report()
    }

    /// Has the disk thread do something. If it is gone, so is the process in a moment.
    pub(super) fn order(&self, order: DiskOrder) {
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
        self.usage.clear();
        self.order(DiskOrder::Lane(reopen_after));
    }
}

fn fits(present: &Present, record: &[u8]) -> bool {
    let bytes = record.len().next_multiple_of(RECORD_ALIGNMENT);
    present.lane.fits(bytes)
}
