//! The end of a lane that is being written: where the next record goes. No I/O.

use super::blocks::{BLOCK_BYTES, Blocks};
use super::record::{
    FIRST_BLOCK, FormatVersion, SPARE_BLOCK, SegmentId, SegmentNumber, finish_record, segment_head,
};
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;

/// The end of a lane that is being written. Must not be used after a failed write: what the file holds is
/// unknown then.
///
/// While records fit into the last block, it is written with one more of them in turn to its own place and to
/// the spare block of the segment. So a write never touches the place that has what is durable.
#[derive(Debug)]
pub struct LaneCursor {
    segment: SegmentId,
    segment_bytes: u64,
    /// Where the last record that begins a block was written.
    block: u64,
    /// Bytes of the records from there on.
    filled: usize,
    /// Whether the last block was written to the spare block last.
    is_in_spare: bool,
    /// Position of the next event.
    position: Position,
}

/// Where a record is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// Offset in the segment at which to write the blocks.
    pub offset: u64,
    /// Bytes of the segment that are used for the first time.
    pub new_bytes: u64,
}

impl LaneCursor {
    /// A new lane, at the start of its first segment.
    pub fn new(lane: LaneId, segment_bytes: u64, blocks: &mut Blocks) -> Self {
        let number = SegmentNumber(0);
        let mut new = Self {
            segment: SegmentId { lane, number },
            segment_bytes,
            block: 0,
            filled: 0,
            is_in_spare: false,
            position: Position::START,
        };
        new.begin_segment(number, blocks);
        new
    }

    fn begin_segment(&mut self, number: SegmentNumber, blocks: &mut Blocks) {
        if number > SegmentNumber(0) {
            reached("journal: next segment begun");
        }
        self.segment.number = number;
        (self.block, self.filled, self.is_in_spare) = (FIRST_BLOCK, 0, false);
        let head = segment_head(FormatVersion::Three, self.segment, self.position);
        blocks.restart(&head);
        // The spare block.
        blocks.add_block(&[0; BLOCK_BYTES]);
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
        self.filled == 0
            || self.fits_into_block(record_bytes)
            || self.next_block() + record_bytes as u64 <= self.segment_bytes
    }

    fn fits_into_block(&self, record_bytes: usize) -> bool {
        self.filled > 0 && self.filled + record_bytes <= BLOCK_BYTES
    }

    /// Where the block after the last record starts.
    fn next_block(&self) -> u64 {
        self.block + self.filled.next_multiple_of(BLOCK_BYTES) as u64
    }

    /// The number of the current segment.
    pub fn segment(&self) -> SegmentNumber {
        self.segment.number
    }

    /// Whether the next segment will be needed soon.
    pub fn is_half_full(&self) -> bool {
        self.block > self.segment_bytes / 2
    }

    /// Completes a record of `events` events, at least one, and adds it to `blocks`, which are then to be
    /// written. The record is durable when that write has ended.
    pub fn stage(&mut self, record: &mut Vec<u8>, events: u32, blocks: &mut Blocks) -> Staged {
        finish_record(record, self.segment, self.position, events);
        self.position = self.position.plus(events as usize);
        if self.fits_into_block(record.len()) {
            blocks.extend_last(record);
            self.filled += record.len();
            self.is_in_spare = !self.is_in_spare && !planted(Bug::DurableBlockRewritten);
            let offset = if self.is_in_spare {
                reached("journal: spare block written");
                SPARE_BLOCK
            } else {
                self.block
            };
            return Staged {
                offset,
                new_bytes: 0,
            };
        }
        let (last, next) = (self.block, self.next_block());
        // What is only in the spare block is written to its own place together with the record after it.
        let (offset, used) = match (self.filled, self.is_in_spare) {
            (0, _) => (0, 0),
            (_, true) => (last, next),
            (_, false) => (next, next),
        };
        if offset == next {
            blocks.restart(record);
        } else {
            blocks.add_block(record);
        }
        (self.block, self.filled, self.is_in_spare) = (next, record.len(), false);
        let new_bytes = self.next_block() - used;
        Staged { offset, new_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{RECORD_HEAD_BYTES, begin_record};

    const BLOCK: u64 = BLOCK_BYTES as u64;

    /// For records of these sizes: which blocks are written, first and number, and how many of them are new.
    fn writes(records: &[usize]) -> Vec<(u64, usize, u64)> {
        let mut blocks = Blocks::default();
        let lane = LaneId::random().unwrap();
        let mut cursor = LaneCursor::new(lane, 1 << 20, &mut blocks);
        let staged = records.iter().map(|&bytes| {
            let mut record = Vec::new();
            begin_record(&mut record);
            record.resize(bytes.max(RECORD_HEAD_BYTES), 1);
            let Staged { offset, new_bytes } = cursor.stage(&mut record, 1, &mut blocks);
            let written = blocks.as_slice().len() / BLOCK_BYTES;
            (offset / BLOCK, written, new_bytes / BLOCK)
        });
        staged.collect()
    }

    #[test]
    fn a_block_that_is_not_full_is_written_to_two_places_in_turn() {
        let written = writes(&[1000, 1000, 1000, 1000, 1000, 1000]);
        // The first write has the head and the spare block too.
        assert_eq!(written[..4], [(0, 3, 3), (1, 1, 0), (2, 1, 0), (1, 1, 0)]);
        // The full block is only in the spare block: it is written together with the next one.
        assert_eq!(written[4..], [(2, 2, 1), (1, 1, 0)]);
        // It is in its own place: only the next one is written.
        assert_eq!(
            writes(&[1000, 1000, 2000, 1000])[2..],
            [(2, 1, 0), (3, 1, 1)]
        );
        assert_eq!(
            writes(&[4096, 48, 4048, 48])[1..],
            [(3, 1, 1), (1, 1, 0), (3, 2, 1)]
        );
    }

    #[test]
    fn nothing_follows_a_long_record_in_its_last_block() {
        assert_eq!(writes(&[5000, 48, 48]), [(0, 4, 4), (4, 1, 1), (1, 1, 0)]);
        assert_eq!(writes(&[48, 48, 5000, 48])[2..], [(2, 3, 2), (5, 1, 1)]);
    }
}
