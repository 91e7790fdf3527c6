//! Finds records in a segment. A part of the segment is in memory, the window.

use super::salvage::salvage;
use super::{LaneReader, ReadError};
use crate::journal::blocks::BLOCK_BYTES;
use crate::journal::record::{
    FIRST_BLOCK, ParsedRecord, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, RecordHead, SPARE_BLOCK,
    parse_record,
};
use crate::os::bugs::{Bug, planted};
use crate::os::fs::is_unreadable;
use crate::os::reached::reached;

/// Bytes read at once.
pub(super) const WINDOW_BYTES: usize = 256 * 1024;

/// [`WINDOW_BYTES`], but fewer in a simulation, whose segments are short: the window is cleared before each read.
fn window_bytes() -> usize {
    #[cfg(test)]
    if crate::os::simulated::is_on() {
        return WINDOW_BYTES / 8;
    }
    WINDOW_BYTES
}

/// What is found at an offset.
pub(super) enum Looked {
    /// A record, in the window.
    Record(RecordHead),
    /// No record.
    Nothing,
}

/// A record, and where it was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) head: RecordHead,
    /// Its offset in the segment.
    pub(super) offset: u64,
    /// Where its bytes were read: at that offset, or in the spare block.
    pub(super) stored_at: u64,
}

impl Found {
    /// Offset of what follows it.
    pub(super) fn end_offset(self) -> u64 {
        self.offset + self.head.stride() as u64
    }
}

/// Where a record at `offset` is if its block was last written to the spare block.
fn in_spare(offset: u64) -> Option<u64> {
    let is_copied = offset >= FIRST_BLOCK && !planted(Bug::SpareIgnored);
    is_copied.then_some(SPARE_BLOCK + offset % BLOCK_BYTES as u64)
}

impl LaneReader {
    /// The next record, where the one before it ends at `offset`: there, or at the start of the next block; and
    /// there in its own block or in the spare one. May return a record that ends before the position.
    pub(super) fn find(&mut self, offset: u64) -> Result<Option<Found>, ReadError> {
        let offsets = [offset, offset.next_multiple_of(BLOCK_BYTES as u64)];
        // The window may be older than the file. A record in it is valid; its absence proves nothing.
        for offset in offsets {
            let head = self.peek(offset);
            if let Some(head) = head.filter(|head| head.position <= self.position) {
                let stored_at = offset;
                return Ok(Some(Found {
                    head,
                    offset,
                    stored_at,
                }));
            }
        }
        for offset in offsets {
            // What is missing from the own block at first is in the spare block, until it is in the own block.
            for stored_at in [Some(offset), in_spare(offset), Some(offset)] {
                let Some(stored_at) = stored_at else { continue };
                if let Looked::Record(head) = self.look(stored_at)?
                    && head.position <= self.position
                    && (stored_at == offset || head.end() > self.position)
                {
                    if stored_at != offset {
                        reached("journal: spare block read");
                    }
                    return Ok(Some(Found {
                        head,
                        offset,
                        stored_at,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The record at `offset`, if it is in the window.
    fn peek(&self, offset: u64) -> Option<RecordHead> {
        let id = self.current.as_ref()?.id;
        match parse_record(self.in_window(offset)?, id) {
            ParsedRecord::Record(head, _) => Some(head),
            ParsedRecord::Needs(_) | ParsedRecord::Nothing => None,
        }
    }

    /// What is found at `offset` of the current segment. A record is in the window afterwards.
    pub(super) fn look(&mut self, offset: u64) -> Result<Looked, ReadError> {
        let Some(id) = self.current.as_ref().map(|segment| segment.id) else {
            return Ok(Looked::Nothing);
        };
        if let Some(head) = self.peek(offset) {
            return Ok(Looked::Record(head));
        }
        let mut wanted = window_bytes();
        loop {
            self.load(offset, wanted)?;
            match parse_record(&self.window, id) {
                ParsedRecord::Record(head, _) => return Ok(Looked::Record(head)),
                ParsedRecord::Needs(bytes) if bytes > wanted => wanted = bytes,
                ParsedRecord::Needs(_) | ParsedRecord::Nothing => return Ok(Looked::Nothing),
            }
        }
    }

    /// The part of the window from `offset` on.
    pub(super) fn in_window(&self, offset: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.window_offset)?).ok()?;
        self.window.get(start..)
    }

    /// Reads up to `bytes` bytes at `offset` into the window; fewer at the end of the file.
    fn load(&mut self, offset: u64, bytes: usize) -> Result<(), ReadError> {
        let Some(segment) = &self.current else {
            return Ok(());
        };
        let number = segment.id.number;
        self.window.resize(bytes, 0);
        let read = segment.file.read_at(&mut self.window, offset);
        self.window_offset = offset;
        match read {
            Ok(length) => {
                self.window.truncate(length);
                Ok(())
            }
            Err(fault) => {
                let salvaged = if is_unreadable(&fault) && self.unreadable.passes_any() {
                    let blocks = &mut self.unreadable;
                    salvage(&segment.file, number, &mut self.window, offset, blocks)
                } else {
                    Err(fault)
                };
                let length = salvaged.as_ref().map_or(0, |&length| length);
                self.window.truncate(length);
                self.io(number, salvaged.map(drop))
            }
        }
    }

    /// The first record after `offset` in the current segment that ends after the position. A record is only
    /// written when the one before it is durable. So a later record proves that the record at the position was
    /// durable, and is damaged if it is not found.
    ///
    /// The spare block is before the others and may have later records than they have.
    pub(super) fn find_later(&mut self, offset: u64) -> Result<Option<Found>, ReadError> {
        let after = offset + RECORD_ALIGNMENT as u64;
        let from = if offset < FIRST_BLOCK {
            after
        } else if planted(Bug::SpareIgnored) {
            FIRST_BLOCK
        } else {
            SPARE_BLOCK
        };
        let in_spare = self.search(from, FIRST_BLOCK)?;
        let in_order = self.search(after.max(FIRST_BLOCK), u64::MAX)?;
        let found = in_spare.into_iter().chain(in_order);
        Ok(found.min_by_key(|found| found.head.position))
    }

    /// Bytes of the current segment.
    fn length(&self) -> Result<u64, ReadError> {
        match &self.current {
            Some(segment) => self
                .io(segment.id.number, segment.file.about())
                .map(|about| about.length),
            None => Ok(0),
        }
    }

    /// The first record from `from` to `to` in the current segment that ends after the position.
    pub(super) fn search(&mut self, from: u64, to: u64) -> Result<Option<Found>, ReadError> {
        let Some(id) = self.current.as_ref().map(|segment| segment.id) else {
            return Ok(None);
        };
        let to = to.min(self.length()?);
        let mut at = from;
        loop {
            if at >= to {
                return Ok(None);
            }
            self.load(at, window_bytes())?;
            let length = self.window.len();
            if length < RECORD_HEAD_BYTES {
                return Ok(None);
            }
            let last = length - RECORD_HEAD_BYTES;
            for start in (0..=last).step_by(RECORD_ALIGNMENT) {
                let offset = at + start as u64;
                if offset >= to {
                    return Ok(None);
                }
                // The file may have been cut meanwhile.
                let record = self.window.get(start..).unwrap_or_default();
                if parse_record(record, id) == ParsedRecord::Nothing {
                    continue;
                }
                if let Looked::Record(head) = self.look(offset)?
                    && head.end() > self.position
                {
                    let stored_at = offset;
                    return Ok(Some(Found {
                        head,
                        offset,
                        stored_at,
                    }));
                }
                if self.window_offset != at {
                    self.load(at, window_bytes())?;
                }
            }
            at += (last / RECORD_ALIGNMENT * RECORD_ALIGNMENT + RECORD_ALIGNMENT) as u64;
        }
    }

    /// Bytes of the current segment from `from` to `to` that are neither zero nor of a record.
    pub(super) fn torn_between(&mut self, from: u64, to: u64) -> Result<u64, ReadError> {
        let Some(id) = self.current.as_ref().map(|segment| segment.id) else {
            return Ok(0);
        };
        let to = to.min(self.length()?);
        let (mut at, mut torn) = (from, 0);
        while at < to {
            self.load(at, window_bytes())?;
            if self.window.is_empty() {
                break;
            }
            let mut start = 0;
            while start < self.window.len() && at + (start as u64) < to {
                let rest = &self.window[start..];
                let word = &rest[..rest.len().min(RECORD_ALIGNMENT)];
                match parse_record(rest, id) {
                    ParsedRecord::Record(head, _) => start += head.stride(),
                    // It begins with the next window.
                    ParsedRecord::Needs(_) if start > 0 => break,
                    ParsedRecord::Needs(_) | ParsedRecord::Nothing => {
                        if word.iter().any(|&byte| byte != 0) {
                            torn += word.len() as u64;
                        }
                        start += RECORD_ALIGNMENT;
                    }
                }
            }
            at += start as u64;
        }
        Ok(torn)
    }
}
