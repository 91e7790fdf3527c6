//! Continues where the next record is not found: in a later segment, after damage, or at the end of the lane.

use super::scan::Found;
use super::{CurrentSegment, LaneReader, Looked, NextRecord, ReadError};
use crate::event::position::Position;
use crate::journal::blocks::BLOCK_BYTES;
use crate::journal::record::{
    FIRST_BLOCK, FormatVersion, SEGMENT_HEAD_BYTES, SPARE_BLOCK, SegmentNumber,
};

impl LaneReader {
    /// Moves from `offset`, where the next record was not found, to the next record or segment. Returns the
    /// end if there is neither.
    ///
    /// The lane may be written meanwhile. A later record or segment proves that the next record was durable
    /// before it. So the reader searches for them first, and then looks for the next record again. If it is
    /// still not there, it is damaged; at the first look it may just not have been written yet.
    pub(super) fn advance(
        &mut self,
        number: SegmentNumber,
        offset: u64,
    ) -> Result<Option<NextRecord>, ReadError> {
        if self.has_head_now()? {
            return Ok(None);
        }
        let next = self.next_written(number)?;
        let later = self.find_later(offset)?;
        if self.find(offset)?.is_some() {
            return Ok(None);
        }
        if let Some(later) = later {
            self.go_to(later.offset);
            if later.head.position > self.position {
                // The missing events are the report then. That the head is unreadable is not reported too.
                self.is_headless(later)?;
            }
            self.skip_to(later.head.position, number, offset)?;
            return Ok(None);
        }
        if let Some(next) = next {
            self.enter(next)?;
            return Ok(None);
        }
        let torn_bytes = self.torn_bytes(number, offset)?;
        let version = self.current.as_ref().and_then(|segment| segment.version);
        if self.unreadable.may_hide_events(number, offset, version) {
            let file = self.path(number);
            return Err(ReadError::UnknownEnd { file });
        }
        Ok(Some(NextRecord::End { torn_bytes }))
    }

    /// Reads the head of the current segment again, if it was unreadable. It is written together with the first
    /// record, which may have happened after the segment was opened.
    fn has_head_now(&mut self) -> Result<bool, ReadError> {
        let Some(segment) = self
            .current
            .as_ref()
            .filter(|segment| segment.version.is_none())
        else {
            return Ok(false);
        };
        let head = self.head(&segment.file, segment.id)?;
        if let (Some(segment), Some((start, version))) = (&mut self.current, head) {
            (segment.start, segment.version) = (Some(start), Some(version));
            segment.offset = version.first_record().max(segment.offset);
        }
        Ok(head.is_some())
    }

    /// Whether the current segment has a record, `first`, but no readable head. `true` once per segment. The
    /// head and the first record are one write, and a crash may have torn only the head: then it is not damage.
    /// A later record proves that the write was whole.
    pub(super) fn is_headless(&mut self, first: Found) -> Result<bool, ReadError> {
        let Some(segment) = self
            .current
            .as_ref()
            .filter(|segment| segment.start.is_none())
        else {
            return Ok(false);
        };
        let number = segment.id.number;
        if self.has_head_now()? {
            self.look(first.stored_at)?;
            return Ok(false);
        }
        let position = std::mem::replace(&mut self.position, first.head.end());
        let is_followed = self.is_followed(number, first.offset);
        self.position = position;
        let is_followed = is_followed?;
        // The search has moved the window.
        self.look(first.stored_at)?;
        if let Some(segment) = self.current.as_mut().filter(|_| is_followed) {
            segment.start = Some(first.head.position);
        }
        Ok(is_followed)
    }

    fn is_followed(&mut self, number: SegmentNumber, offset: u64) -> Result<bool, ReadError> {
        Ok(self.find_later(offset)?.is_some() || self.next_written(number)?.is_some())
    }

    /// The position of the first record of a segment whose head is unreadable.
    pub(super) fn first_record(&mut self) -> Result<Option<Position>, ReadError> {
        let start = SEGMENT_HEAD_BYTES as u64;
        if let Looked::Record(first) = self.look(start)? {
            return Ok(Some(first.position));
        }
        let Looked::Record(first) = self.look(FIRST_BLOCK)? else {
            return Ok(None);
        };
        // In a segment of version 1 records may be before it.
        let before = self.search(start, FIRST_BLOCK)?;
        let is_first = before.is_none_or(|before| before.head.position >= first.position);
        Ok(is_first.then_some(first.position))
    }

    /// The next segment after `number` that has a head or a record. A segment without either was created before
    /// it was needed, and proves nothing about earlier segments.
    fn next_written(&mut self, number: SegmentNumber) -> Result<Option<CurrentSegment>, ReadError> {
        for next in self.later_numbers(number)? {
            let Some(segment) = self.open(next)? else {
                continue;
            };
            if segment.start.is_some() {
                return Ok(Some(segment));
            }
            let start = SEGMENT_HEAD_BYTES as u64;
            let (segment, found) = self.within(segment, |reader| reader.search(start, u64::MAX));
            if found?.is_some() {
                return Ok(segment);
            }
        }
        Ok(None)
    }

    fn later_numbers(&self, number: SegmentNumber) -> Result<Vec<SegmentNumber>, ReadError> {
        let mut numbers = self.numbers()?;
        numbers.retain(|next| *next > number);
        Ok(numbers)
    }

    /// Bytes that are neither zero nor of a record, where a write may have been torn: after the last record,
    /// which ends at `offset`, in the spare block, and in the next segments.
    fn torn_bytes(&mut self, number: SegmentNumber, offset: u64) -> Result<u64, ReadError> {
        let mut torn = self.torn_between(offset, u64::MAX)?;
        let version = self.current.as_ref().and_then(|segment| segment.version);
        if matches!(version, Some(FormatVersion::Two | FormatVersion::Three)) {
            torn += self.torn_between(SPARE_BLOCK, SPARE_BLOCK + BLOCK_BYTES as u64)?;
        }
        for next in self.later_numbers(number)? {
            if let Some(segment) = self.open(next)? {
                torn += self
                    .within(segment, |reader| reader.torn_between(0, u64::MAX))
                    .1?;
            }
        }
        Ok(torn)
    }

    /// Does something in another segment than the current one. Returns that segment too.
    fn within<T>(
        &mut self,
        segment: CurrentSegment,
        act: impl FnOnce(&mut Self) -> T,
    ) -> (Option<CurrentSegment>, T) {
        let current = self.current.replace(segment);
        self.window.clear();
        let outcome = act(self);
        let segment = std::mem::replace(&mut self.current, current);
        self.window.clear();
        (segment, outcome)
    }
}
