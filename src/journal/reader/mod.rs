//! Reads the events of a lane, from any position to another one or to the end.

mod closed;
mod damage;
mod resume;
mod salvage;
mod scan;

use std::io;
use std::path::{Path, PathBuf};

pub use self::damage::{Damage, ReadError};
pub use self::salvage::UnreadableBlocks;
use self::scan::{Found, Looked, WINDOW_BYTES};
use super::record::{
    FormatVersion, PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES, SEGMENT_HEAD_BYTES, SegmentHead,
    SegmentId, SegmentNumber, events, read_segment_head,
};
use super::segment::{segment_name, segments};
use crate::event::batch::Batch;
use crate::event::position::{LaneId, Position};
use crate::os::fs::{File, is_unreadable};

/// The most memory that the window of a reader takes, in bytes: the largest record, in memory that has grown by
/// doubling.
pub const WINDOW_BYTES_MAX: usize = 2 * (PAYLOAD_BYTES_MAX + RECORD_HEAD_BYTES + WINDOW_BYTES);

/// What follows the events that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// There may be more events.
    More,
    /// The end of the lane.
    End {
        /// Bytes after the last record that are no record: of a write that never ended, or that was damaged later.
        torn_bytes: u64,
    },
}

/// Reads the events of a lane in order.
#[derive(Debug)]
pub struct LaneReader {
    directory: PathBuf,
    lane: LaneId,
    /// The next event to be read.
    position: Position,
    current: Option<CurrentSegment>,
    /// Where the lane ends, if a file says it. `None` as long as it was not looked for.
    closed_at: Option<Option<Position>>,
    /// Blocks that the disk does not read.
    unreadable: UnreadableBlocks,
    /// Bytes of the current segment, from `window_offset` on.
    window: Vec<u8>,
    window_offset: u64,
}

/// The segment that is read.
#[derive(Debug)]
struct CurrentSegment {
    file: File,
    id: SegmentId,
    /// The position of its first event. With an unreadable head: `None` before the first record that is used.
    start: Option<Position>,
    /// The version of its format. `None` as long as its head is unreadable.
    version: Option<FormatVersion>,
    /// Offset of the next record. Its bytes may be in the spare block.
    offset: u64,
}

impl LaneReader {
    /// Starts at the event at `position`.
    pub fn new(directory: &Path, lane: LaneId, position: Position) -> Self {
        let directory = directory.to_owned();
        Self {
            directory,
            lane,
            position,
            current: None,
            closed_at: None,
            unreadable: UnreadableBlocks::default(),
            window: Vec::new(),
            window_offset: 0,
        }
    }

    /// Takes blocks that the disk does not read for damaged from now on. Where a later attempt may succeed, it
    /// comes first.
    pub fn pass_unreadable(mut self) -> Self {
        self.unreadable.pass_more();
        self
    }

    /// Takes no more blocks for damaged than those that were until now.
    pub fn pass_no_more(&mut self) {
        self.unreadable.pass_no_more();
    }

    /// Takes `blocks` for damaged if the disk does not read them.
    pub fn pass_again(mut self, blocks: UnreadableBlocks) -> Self {
        self.unreadable = blocks;
        self
    }

    /// Ends reading. Returns the blocks that were taken for damaged, for the reader that reads on.
    pub fn into_unreadable(self) -> UnreadableBlocks {
        self.unreadable.for_another()
    }

    /// Whether there was such a block.
    pub fn has_passed_unreadable(&self) -> bool {
        self.unreadable.is_any_passed()
    }

    /// Starts at the oldest event on the disk. Earlier ones are stored and removed.
    pub fn from_oldest(directory: &Path, lane: LaneId) -> Result<Self, ReadError> {
        let mut reader = Self::new(directory, lane, Position::START).pass_unreadable();
        for number in reader.numbers()? {
            let Some(segment) = reader.open(number)? else {
                continue;
            };
            let start = segment.start;
            reader.current = Some(segment);
            reader.position = match start {
                Some(start) => start,
                // How many events were removed is unknown. All before the next readable one count as missing.
                None => reader.first_record()?.unwrap_or(Position::START),
            };
            break;
        }
        Ok(reader)
    }

    /// The position of the next event.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The same without regard to where the lane was closed.
    fn fill_to(&mut self, batch: &mut Batch, end: Option<Position>) -> Result<Filled, ReadError> {
        if end.is_some_and(|end| self.position >= end) {
            return Ok(Filled::More);
        }
        if self.current.is_none() && !self.find_start()? {
            return Ok(Filled::End { torn_bytes: 0 });
        }
        loop {
            if end.is_some_and(|end| self.position >= end) {
                return Ok(Filled::More);
            }
            match self.next_record()? {
                NextRecord::Record(found) => {
                    let head = found.head;
                    let skip = self.position.since(head.position);
                    let wanted = end.map_or(u64::MAX, |end| end.since(self.position));
                    let mut pushed = 0;
                    let is_full = events(self.payload(found))
                        .skip(usize::try_from(skip).unwrap_or(usize::MAX))
                        .take(usize::try_from(wanted).unwrap_or(usize::MAX))
                        .any(|event| {
                            let is_full = batch.push(event).is_err();
                            pushed += usize::from(!is_full);
                            is_full
                        });
                    self.position = self.position.plus(pushed);
                    // The rest of the record is read the next time.
                    if is_full || end.is_some_and(|end| self.position >= end) {
                        return Ok(Filled::More);
                    }
                    self.go_to(found.end_offset());
                }
                NextRecord::End { torn_bytes } => return Ok(Filled::End { torn_bytes }),
            }
        }
    }

    /// The event bytes of a record in the window.
    fn payload(&self, found: Found) -> &[u8] {
        let record = self.in_window(found.stored_at).unwrap_or_default();
        let end = RECORD_HEAD_BYTES + found.head.payload_bytes;
        record.get(RECORD_HEAD_BYTES..end).unwrap_or_default()
    }

    fn go_to(&mut self, offset: u64) {
        if let Some(segment) = &mut self.current {
            segment.offset = offset;
        }
    }

    fn path(&self, number: SegmentNumber) -> PathBuf {
        self.directory.join(segment_name(number))
    }

    fn io<T>(&self, number: SegmentNumber, outcome: io::Result<T>) -> Result<T, ReadError> {
        outcome.map_err(|fault| ReadError::Io {
            file: self.path(number),
            fault,
        })
    }

    fn numbers(&self) -> Result<Vec<SegmentNumber>, ReadError> {
        segments(&self.directory).map_err(|fault| ReadError::Io {
            file: self.directory.clone(),
            fault,
        })
    }

    /// Opens a segment. `None` if it was removed after it was listed.
    fn open(&self, number: SegmentNumber) -> Result<Option<CurrentSegment>, ReadError> {
        let lane = self.lane;
        let id = SegmentId { lane, number };
        let file = match File::open(&self.path(number)) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => self.io(number, outcome)?,
        };
        let head = self.head(&file, id)?;
        Ok(Some(CurrentSegment {
            file,
            id,
            start: head.map(|(start, _)| start),
            version: head.map(|(_, version)| version),
            // With an unreadable head the records may begin anywhere.
            offset: head.map_or(SEGMENT_HEAD_BYTES as u64, |(_, version)| {
                version.first_record()
            }),
        }))
    }

    /// The position at which a segment starts, and its version. `None` if its head is unreadable.
    fn head(
        &self,
        file: &File,
        id: SegmentId,
    ) -> Result<Option<(Position, FormatVersion)>, ReadError> {
        let head = match read_head(file, id) {
            Err(fault) if is_unreadable(&fault) && self.unreadable.passes(id.number, 0) => {
                Ok(SegmentHead::Unreadable)
            }
            read => read,
        };
        match self.io(id.number, head)? {
            SegmentHead::Whole(start, version) => Ok(Some((start, version))),
            SegmentHead::Unreadable => Ok(None),
            SegmentHead::OtherVersion => Err(ReadError::Version {
                file: self.path(id.number),
            }),
        }
    }

    /// Opens the last segment that is known to start at or before the position, or else the oldest one. Reading
    /// on from there also finds the position in a segment with an unreadable head. `false`: the lane has no
    /// segment. Looks at the newest segment first: those before the wanted one need not be readable.
    fn find_start(&mut self) -> Result<bool, ReadError> {
        let (mut oldest, mut fault) = (None, None);
        let mut numbers = self.numbers()?;
        while let Some(number) = numbers.pop() {
            match self.open(number) {
                Ok(Some(segment)) if segment.start.is_some_and(|start| start <= self.position) => {
                    self.enter(segment)?;
                    return Ok(true);
                }
                Ok(Some(segment)) => oldest = Some(segment),
                Ok(None) => {}
                Err(unread) => fault = Some(unread),
            }
        }
        // The position may be in a segment that cannot be read now: it is not known to be missing.
        match (fault, oldest) {
            (Some(fault), _) => Err(fault),
            (None, Some(segment)) => self.enter(segment).map(|()| true),
            (None, None) => Ok(false),
        }
    }

    /// Makes a segment the current one. Events that are missing before its start are damage.
    fn enter(&mut self, segment: CurrentSegment) -> Result<(), ReadError> {
        self.window.clear();
        let (number, start) = (segment.id.number, segment.start.unwrap_or(self.position));
        let (number, offset) = match self.current.replace(segment) {
            Some(before) => (before.id.number, before.offset),
            None => (number, 0),
        };
        self.skip_to(start, number, offset)
    }

    /// Moves forward to `position`. The events that this skips are missing: they are damage.
    fn skip_to(
        &mut self,
        position: Position,
        number: SegmentNumber,
        offset: u64,
    ) -> Result<(), ReadError> {
        if position <= self.position {
            return Ok(());
        }
        let from = std::mem::replace(&mut self.position, position);
        Err(self.damage(number, offset, from))
    }

    /// The damage from `from` to the current position.
    fn damage(&self, number: SegmentNumber, offset: u64, from: Position) -> ReadError {
        ReadError::Damage(Damage {
            file: self.path(number),
            offset,
            from,
            to: self.position,
        })
    }

    /// The record with the event at the position.
    fn next_record(&mut self) -> Result<NextRecord, ReadError> {
        loop {
            let Some(segment) = &self.current else {
                return Ok(NextRecord::End { torn_bytes: 0 });
            };
            let (number, offset) = (segment.id.number, segment.offset);
            match self.find(offset)? {
                Some(found) if found.head.end() <= self.position => self.go_to(found.end_offset()),
                Some(found) => {
                    if self.is_headless(found)? {
                        return Err(self.damage(number, 0, self.position));
                    }
                    return Ok(NextRecord::Record(found));
                }
                None => {
                    if let Some(end) = self.advance(number, offset)? {
                        return Ok(end);
                    }
                }
            }
        }
    }
}

/// The position at which a segment starts. `None` if its head is unreadable. An error of the kind `InvalidData` if it
/// is of another version.
pub fn segment_start(
    directory: &Path,
    lane: LaneId,
    number: SegmentNumber,
) -> io::Result<Option<Position>> {
    let file = File::open(&directory.join(segment_name(number)))?;
    match read_head(&file, SegmentId { lane, number })? {
        SegmentHead::Whole(start, _) => Ok(Some(start)),
        SegmentHead::Unreadable => Ok(None),
        SegmentHead::OtherVersion => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read_head(file: &File, id: SegmentId) -> io::Result<SegmentHead> {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    let length = file.read_at(&mut head, 0)?;
    Ok(read_segment_head(&head[..length], id))
}

/// What comes next in a lane.
enum NextRecord {
    /// A record with the event at the position. Its bytes are in the window.
    Record(Found),
    /// The end of the lane.
    End { torn_bytes: u64 },
}

#[cfg(test)]
mod tests;
