//! Reads around blocks that the disk does not read.

use std::collections::BTreeSet;
use std::io;

use crate::journal::blocks::BLOCK_BYTES;
use crate::journal::record::{FormatVersion, SPARE_BLOCK, SegmentNumber};
use crate::os::fs::{File, is_unreadable};

/// What unreadable bytes are replaced by: neither zeros nor part of a record.
const UNREADABLE: u8 = 0xA5;

/// Blocks of a lane that are taken for damaged because the disk does not read them.
#[derive(Debug, Default)]
pub struct UnreadableBlocks {
    /// Segment and offset of each that this reader has passed.
    passed: BTreeSet<(SegmentNumber, u64)>,
    /// The same of earlier readers. This one may pass them too, and need not: the disk may read them again.
    passed_before: BTreeSet<(SegmentNumber, u64)>,
    /// Whether more may be added.
    passes_more: bool,
}

impl UnreadableBlocks {
    /// Takes more blocks for damaged from now on.
    pub(super) fn pass_more(&mut self) {
        self.passes_more = true;
    }

    pub(super) fn pass_no_more(&mut self) {
        self.passes_more = false;
    }

    /// For the next reader.
    pub(super) fn for_another(mut self) -> Self {
        self.passed_before.append(&mut self.passed);
        Self {
            passes_more: false,
            ..self
        }
    }

    pub(super) fn is_any_passed(&self) -> bool {
        !self.passed.is_empty()
    }

    /// Whether there may be a block that is taken for damaged.
    pub(super) fn passes_any(&self) -> bool {
        self.passes_more || self.is_any_passed() || !self.passed_before.is_empty()
    }

    /// Whether the block at `offset` is taken for damaged if it cannot be read.
    pub(super) fn passes(&self, number: SegmentNumber, offset: u64) -> bool {
        let block = (number, offset);
        self.passes_more || self.passed.contains(&block) || self.passed_before.contains(&block)
    }

    /// Whether events may be in such a block, after the last record, which ends at `offset` of a segment: in the
    /// blocks after it, in the spare block, or in a later segment.
    pub(super) fn may_hide_events(
        &self,
        number: SegmentNumber,
        offset: u64,
        version: Option<FormatVersion>,
    ) -> bool {
        let has_spare = version != Some(FormatVersion::One);
        self.passed.iter().any(|&(segment, block)| {
            let is_after = block + BLOCK_BYTES as u64 > offset;
            segment > number || segment == number && (is_after || has_spare && block == SPARE_BLOCK)
        })
    }
}

/// Reads block by block what could not be read at once. Fails if no block can be read: then the disk may be away.
/// That other blocks of the file can be read proves nothing: they may be in the page cache.
pub(super) fn salvage(
    file: &File,
    number: SegmentNumber,
    window: &mut [u8],
    offset: u64,
    blocks: &mut UnreadableBlocks,
) -> io::Result<usize> {
    let mut fault = None;
    let mut passed = Vec::new();
    let (mut length, mut is_any_read) = (0, false);
    while length < window.len() {
        let at = offset + length as u64;
        let in_block = at % BLOCK_BYTES as u64;
        // Up to the end of the block.
        let bytes = BLOCK_BYTES as u64 - in_block;
        let end = length.saturating_add(usize::try_from(bytes).unwrap_or(BLOCK_BYTES));
        let end = window.len().min(end);
        let block = &mut window[length..end];
        match file.read_at(block, at) {
            Ok(read) => {
                is_any_read |= read > 0;
                let is_end = read < block.len();
                length += read;
                if is_end {
                    break;
                }
            }
            Err(unread) if is_unreadable(&unread) && blocks.passes(number, at - in_block) => {
                block.fill(UNREADABLE);
                passed.push((number, at - in_block));
                fault = Some(unread);
                length = end;
            }
            Err(other) => return Err(other),
        }
    }
    match fault {
        Some(fault) if !is_any_read => Err(fault),
        _ => {
            blocks.passed.extend(passed);
            Ok(length)
        }
    }
}
