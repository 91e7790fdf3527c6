//! The end of a lane that is being written: where the next record goes. No I/O.

use super::blocks::{BLOCK_BYTES, Blocks};
use super::record::{SEGMENT_HEAD_BYTES, SegmentId, SegmentNumber, finish_record, segment_head};
use crate::event::position::{LaneId, Position};

/// The end of a lane that is being written. Must not be used after a failed write: what the file holds is
/// unknown then.
#[derive(Debug)]
pub struct LaneCursor {
    segment: SegmentId,
    segment_bytes: u64,
    /// Offset of the next record in the segment.
    offset: u64,
    /// Position of the next event.
    position: Position,
}

impl LaneCursor {
    /// A new lane, at the start of its first segment.
    pub fn new(lane: LaneId, segment_bytes: u64, blocks: &mut Blocks) -> Self {
        let number = SegmentNumber(0);
        let mut new = Self {
            segment: SegmentId { lane, number },
            segment_bytes,
            offset: 0,
            position: Position::START,
        };
        new.begin_segment(number, blocks);
        new
    }

    fn begin_segment(&mut self, number: SegmentNumber, blocks: &mut Blocks) {
        self.segment.number = number;
        self.offset = SEGMENT_HEAD_BYTES as u64;
        blocks.restart(&segment_head(self.segment, self.position));
    }

    /// The number of the segment after the current one.
    pub fn next_segment(&self) -> SegmentNumber {
        SegmentNumber(self.segment.number.0 + 1)
    }

    /// Moves to the start of the next segment. Its file must exist.
    pub fn go_to_next_segment(&mut self, blocks: &mut Blocks) {
        self.begin_segment(self.next_segment(), blocks);
    }

    /// Whether a record of `record_bytes` fits into the current segment. The first record always fits.
    pub fn fits(&self, record_bytes: usize) -> bool {
        self.offset == SEGMENT_HEAD_BYTES as u64
            || self.offset + record_bytes as u64 <= self.segment_bytes
    }

    /// Whether the next segment will be needed soon.
    pub fn is_half_full(&self) -> bool {
        self.offset > self.segment_bytes / 2
    }

    /// Completes a record of `events` events, at least one, and appends it to `blocks`. Returns the offset
    /// at which to write `blocks`. The record is durable when that write has ended.
    pub fn stage(&mut self, record: &mut Vec<u8>, events: u32, blocks: &mut Blocks) -> u64 {
        finish_record(record, self.segment, self.position, events);
        blocks.add(record);
        let block = self.offset - self.offset % BLOCK_BYTES as u64;
        self.offset += record.len() as u64;
        self.position = self.position.plus(events as usize);
        block
    }
}
