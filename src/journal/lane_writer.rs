//! Writes a whole lane on one thread: what `hakaru dead-letters replay` puts into the journal.

use std::io;
use std::path::{Path, PathBuf};

use super::blocks::Blocks;
use super::lane_cursor::LaneCursor;
use super::record::{RECORD_ALIGNMENT, SegmentNumber};
use super::segment::make_segment;
use crate::event::position::LaneId;
use crate::os::fs::File;

/// A lane that is being written. A failed operation consumes it.
#[derive(Debug)]
pub struct LaneWriter {
    directory: PathBuf,
    segment_bytes: u64,
    lane: LaneCursor,
    blocks: Blocks,
    file: File,
    next: Option<File>,
}

impl LaneWriter {
    /// A new lane in an existing directory.
    pub fn create(directory: &Path, id: LaneId, segment_bytes: u64) -> io::Result<Self> {
        let file = make_segment(directory, SegmentNumber(0), segment_bytes)?;
        let mut blocks = Blocks::default();
        let lane = LaneCursor::new(id, segment_bytes, &mut blocks);
        Ok(Self {
            directory: directory.to_owned(),
            segment_bytes,
            lane,
            blocks,
            file,
            next: None,
        })
    }

    /// Appends a record of `events` events and returns when it is on the disk.
    pub fn append(mut self, record: &mut Vec<u8>, events: u32) -> io::Result<Self> {
        let fits = self
            .lane
            .fits(record.len().next_multiple_of(RECORD_ALIGNMENT));
        if self.next.is_none() && (self.lane.is_half_full() || !fits) {
            let number = self.lane.next_segment();
            let next = make_segment(&self.directory, number, self.segment_bytes)?;
            self.next = Some(next);
        }
        if !fits && let Some(next) = self.next.take() {
            self.file = next;
            self.lane.go_to_next_segment(&mut self.blocks);
        }
        let staged = self.lane.stage(record, events, &mut self.blocks);
        self.file
            .write_all_at(self.blocks.as_slice(), staged.offset)?;
        Ok(self)
    }
}
