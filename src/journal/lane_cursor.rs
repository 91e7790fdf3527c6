//! One ordered log, as the one who writes it sees it: where the next record goes. No I/O.

use super::blocks::{BLOCK_BYTES, Blocks};
use super::record::{SEGMENT_HEAD_BYTES, SegmentId, SegmentNumber, finish_record, segment_head};
use crate::event::position::{LaneId, Position};

/// The place behind the last record of a lane. After a failed write it is worth nothing: what a file
/// holds then is not known, and must not be built on.
#[derive(Debug)]
pub struct LaneCursor {
    segment: SegmentId,
    segment_bytes: u64,
    /// Of the next record, in the segment.
    offset: u64,
    /// Of the next event.
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

    /// The segment behind the present one.
    pub fn next_segment(&self) -> SegmentNumber {
        SegmentNumber(self.segment.number.0 + 1)
    }

    /// Goes on in the next segment, whose file must be there.
    pub fn go_to_next_segment(&mut self, blocks: &mut Blocks) {
        self.begin_segment(self.next_segment(), blocks);
    }

    /// Whether a record of so many bytes has room in the present segment. The first always has.
    pub fn fits(&self, record_bytes: usize) -> bool {
        self.offset == SEGMENT_HEAD_BYTES as u64
            || self.offset + record_bytes as u64 <= self.segment_bytes
    }

    /// Whether the next segment will be wanted soon.
    pub fn is_half_full(&self) -> bool {
        self.offset > self.segment_bytes / 2
    }

    /// Completes a record of `events` events, at least one, and puts it at the end of `blocks`. They
    /// are to be written at the offset that is given back, and the record is durable then.
    pub fn stage(&mut self, record: &mut Vec<u8>, events: u32, blocks: &mut Blocks) -> u64 {
        finish_record(record, self.segment, self.position, events);
        blocks.add(record);
        let block = self.offset - self.offset % BLOCK_BYTES as u64;
        self.offset += record.len() as u64;
        self.position = self.position.plus(events as usize);
        block
    }
}
