//! The lane that a shard appends events to at present.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batches::PresentLane;
use super::group_buffer::GroupBuffer;
use crate::event::Event;
use crate::event::position::Position;
use crate::handoff::Span;
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::{DiskOrder, DiskThread};
use crate::journal::lane_cursor::LaneCursor;
use crate::journal::lane_end::{ClosedLane, FailedWrite};
use crate::journal::lane_handle::DiskLane;
use crate::journal::quota::{JournalBound, LaneUsage};
use crate::journal::segment::segment_bytes;
use crate::os::fs::File;

/// What a shard needs to open lanes. It outlives each of them.
#[derive(Debug)]
pub(super) struct LaneMaker {
    pub(super) disk: DiskThread,
    bound: JournalBound,
}

impl LaneMaker {
    /// Asks for the first lane.
    pub(super) fn new(disk: DiskThread, bound: JournalBound) -> Self {
        let maker = Self { disk, bound };
        maker.order(DiskOrder::Lane(Duration::ZERO, None));
        maker
    }

    /// Sends an order to the disk thread. If the thread has ended, the process is about to end.
    pub(super) fn order(&self, order: DiskOrder) {
        if self.disk.order(order).is_err() {
            log::debug!("the disk thread takes no order");
        }
    }
}

/// The state of the segment after the present one.
#[derive(Debug)]
pub(super) enum NextSegment {
    NotRequested,
    Requested,
    Ready(File),
    /// It could not be made at this time. It is requested again after a while, or as soon as it is needed.
    Failed(Instant),
}

/// A lane that events are appended to.
#[derive(Debug)]
pub(super) struct OpenLane {
    pub(super) maker: LaneMaker,
    pub(super) lane: Arc<DiskLane>,
    pub(super) cursor: LaneCursor,
    /// The present segment, until the first write to it hands the file to the task or thread that writes.
    pub(super) segment: Option<File>,
    pub(super) next_segment: NextSegment,
    pub(super) group: GroupBuffer,
    pub(super) usage: LaneUsage,
    /// Offset of the last write in its segment.
    pub(super) write_offset: u64,
    pub(super) failed_write: Option<FailedWrite>,
    /// Position of the next event.
    pub(super) next: Position,
    /// Every event before this position is on the disk.
    pub(super) durable: Position,
    /// From this position on events are kept only on disk, because no batch was free.
    pub(super) spilled_from: Option<Position>,
}

impl OpenLane {
    /// An empty lane with its first segment.
    pub(super) fn new(maker: LaneMaker, lane: Arc<DiskLane>, segment: File) -> Self {
        let mut blocks = Blocks::default();
        let cursor = LaneCursor::new(lane.id, segment_bytes(), &mut blocks);
        Self {
            usage: LaneUsage::new(maker.bound.clone()),
            maker,
            lane,
            cursor,
            segment: Some(segment),
            next_segment: NextSegment::NotRequested,
            group: GroupBuffer::new(blocks),
            write_offset: 0,
            failed_write: None,
            next: Position::START,
            durable: Position::START,
            spilled_from: None,
        }
    }

    pub(super) fn present(&self) -> PresentLane<'_> {
        PresentLane::Disk(&self.lane, self.durable)
    }

    /// Whether another event may be appended.
    pub(super) fn has_room(&mut self) -> bool {
        self.group.has_room()
            && self.group.bytes() <= self.usage.left(self.lane.stored(), self.durable)
    }

    /// Whether the journal may take so many bytes more.
    pub(super) fn has_disk_for(&mut self, bytes: usize) -> bool {
        let left = self.usage.left(self.lane.stored(), self.durable);
        self.group.bytes() + bytes as u64 <= left
    }

    /// Appends an event to the group that is collected. Returns its position.
    pub(super) fn append(&mut self, event: Event<'_>) -> Position {
        self.group.push(event);
        let position = self.next;
        self.next = position.plus(1);
        position
    }

    /// Publishes how many bytes this lane holds, for the limit that all shards share.
    pub(super) fn publish_usage(&mut self) {
        self.usage.left(self.lane.stored(), self.durable);
        self.usage.publish();
    }

    /// Whether no write is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.group.is_idle()
    }

    /// Events that are not durable.
    pub(super) fn unwritten(&self) -> u32 {
        self.group.unwritten()
    }

    /// The events that are only on disk, for the writer to read back. From now on events are kept in memory
    /// too.
    pub(super) fn take_span(&mut self) -> Option<Span> {
        let from = self.spilled_from.take()?;
        Some(Span {
            lane: Arc::clone(&self.lane),
            from,
            to: self.next,
        })
    }

    /// Closes the lane, and orders another one after `reopen_after`.
    pub(super) fn close(mut self, reopen_after: Duration) -> LaneMaker {
        self.usage.clear();
        self.lane.set_end(self.durable);
        let (maker, closed) = self.closed();
        maker.order(DiskOrder::Lane(reopen_after, Some(closed)));
        maker
    }

    /// Has it written down where the lane ends, unless a write is under way, and ends the disk thread.
    pub(super) fn end(self) {
        if self.is_idle() {
            let (maker, closed) = self.closed();
            maker.order(DiskOrder::End(closed));
            maker.disk.wait();
        }
    }

    fn closed(self) -> (LaneMaker, ClosedLane) {
        let closed = ClosedLane {
            lane: self.lane,
            end: self.durable,
            failed_write: self.failed_write,
        };
        (self.maker, closed)
    }
}
