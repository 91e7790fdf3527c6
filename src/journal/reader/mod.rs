//! Reads the events of a lane, from any position to another one or to the end.

mod damage;
mod scan;

use std::io;
use std::path::{Path, PathBuf};

pub use self::damage::{Damage, ReadError};
use self::scan::{Looked, WINDOW_BYTES};
use super::record::{
    PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES, RecordHead, SEGMENT_HEAD_BYTES, SegmentHead, SegmentId,
    SegmentNumber, events, read_segment_head,
};
use super::segment::{segment_name, segments};
use super::storage::{Storage, StorageFile};
use crate::event::batch::Batch;
use crate::event::position::{LaneId, Position};

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
        /// Whether an incomplete record follows.
        is_torn: bool,
    },
}

/// Reads the events of a lane in order.
#[derive(Debug)]
pub struct LaneReader<S: Storage> {
    storage: S,
    directory: PathBuf,
    lane: LaneId,
    /// The next event to be read.
    position: Position,
    current: Option<CurrentSegment<S::File>>,
    /// Bytes of the current segment, from `window_offset` on.
    window: Vec<u8>,
    window_offset: u64,
}

/// The segment that is read.
#[derive(Debug)]
struct CurrentSegment<F> {
    file: F,
    id: SegmentId,
    /// The position of its first event. With an unreadable head: `None` before the first record that is used.
    start: Option<Position>,
    /// Offset of the next record.
    offset: u64,
}

impl<S: Storage> LaneReader<S> {
    /// Starts at the event at `position`.
    pub fn new(storage: S, directory: &Path, lane: LaneId, position: Position) -> Self {
        let directory = directory.to_owned();
        Self {
            storage,
            directory,
            lane,
            position,
            current: None,
            window: Vec::new(),
            window_offset: 0,
        }
    }

    /// Starts at the oldest event on the disk. Earlier ones are stored and removed.
    pub fn from_oldest(storage: S, directory: &Path, lane: LaneId) -> Result<Self, ReadError> {
        let mut reader = Self::new(storage, directory, lane, Position::START);
        for number in reader.numbers()? {
            let Some(segment) = reader.open(number)? else {
                continue;
            };
            let (start, offset) = (segment.start, segment.offset);
            reader.current = Some(segment);
            reader.position = match (start, reader.look(offset)?) {
                (Some(start), _) => start,
                (None, Looked::Record(first)) => first.position,
                // How many events were removed is unknown. All before the next readable one count as missing.
                (None, Looked::Nothing { .. }) => Position::START,
            };
            break;
        }
        Ok(reader)
    }

    /// The position of the next event.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Appends events to `batch` until it is full, or `end` is reached, or the lane ends.
    pub fn fill(&mut self, batch: &mut Batch, end: Option<Position>) -> Result<Filled, ReadError> {
        if end.is_some_and(|end| self.position >= end) {
            return Ok(Filled::More);
        }
        if self.current.is_none() && !self.find_start()? {
            return Ok(Filled::End { is_torn: false });
        }
        loop {
            if end.is_some_and(|end| self.position >= end) {
                return Ok(Filled::More);
            }
            match self.next_record()? {
                NextRecord::Record(head) => {
                    let skip = self.position.since(head.position);
                    let wanted = end.map_or(u64::MAX, |end| end.since(self.position));
                    let mut pushed = 0;
                    let is_full = events(self.payload(head))
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
                    self.pass(head);
                }
                NextRecord::End { is_torn } => return Ok(Filled::End { is_torn }),
            }
        }
    }

    /// The event bytes of the record at the current offset.
    fn payload(&self, head: RecordHead) -> &[u8] {
        let offset = self.current.as_ref().map_or(0, |segment| segment.offset);
        let start = offset.saturating_sub(self.window_offset);
        #[expect(clippy::cast_possible_truncation, reason = "within the window")]
        let start = start as usize + RECORD_HEAD_BYTES;
        self.window
            .get(start..start + head.payload_bytes)
            .unwrap_or_default()
    }

    fn pass(&mut self, head: RecordHead) {
        if let Some(segment) = &mut self.current {
            segment.offset += head.stride() as u64;
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
        segments(&self.storage, &self.directory).map_err(|fault| ReadError::Io {
            file: self.directory.clone(),
            fault,
        })
    }

    /// Opens a segment. `None` if it was removed after it was listed.
    fn open(&self, number: SegmentNumber) -> Result<Option<CurrentSegment<S::File>>, ReadError> {
        let lane = self.lane;
        let id = SegmentId { lane, number };
        let file = match self.storage.open(&self.path(number)) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => self.io(number, outcome)?,
        };
        let start = self.start(&file, id)?;
        Ok(Some(CurrentSegment {
            file,
            id,
            start,
            offset: SEGMENT_HEAD_BYTES as u64,
        }))
    }

    /// The position at which a segment starts. `None` if its head is unreadable.
    fn start(&self, file: &S::File, id: SegmentId) -> Result<Option<Position>, ReadError> {
        match self.io(id.number, read_head(file, id))? {
            SegmentHead::Whole(start) => Ok(Some(start)),
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
    fn enter(&mut self, segment: CurrentSegment<S::File>) -> Result<(), ReadError> {
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

    /// The next record that ends after the position.
    fn next_record(&mut self) -> Result<NextRecord, ReadError> {
        loop {
            let Some(segment) = &self.current else {
                return Ok(NextRecord::End { is_torn: false });
            };
            let (number, offset) = (segment.id.number, segment.offset);
            match self.look(offset)? {
                Looked::Record(head) if head.end() <= self.position => self.pass(head),
                Looked::Record(head) => {
                    let is_headless = self.is_headless(head.position)?;
                    self.skip_to(head.position, number, offset)?;
                    if is_headless {
                        return Err(self.damage(number, 0, self.position));
                    }
                    return Ok(NextRecord::Record(head));
                }
                Looked::Nothing { .. } => {
                    if let Some(end) = self.advance(number, offset)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Whether the current segment has a record, at `position`, but no readable head. `true` once per segment.
    fn is_headless(&mut self, position: Position) -> Result<bool, ReadError> {
        let Some(segment) = self
            .current
            .as_ref()
            .filter(|segment| segment.start.is_none())
        else {
            return Ok(false);
        };
        // The head is read again: it is written together with the first record, which may have happened after the
        // segment was opened.
        let start = self.start(&segment.file, segment.id)?;
        if let Some(segment) = &mut self.current {
            segment.start = start.or(Some(position));
        }
        Ok(start.is_none())
    }

    /// Moves from `offset`, where no record was found, to the next record or segment. Returns the end if there
    /// is neither.
    ///
    /// The lane may be written meanwhile. A later record or segment proves that `offset` was written before it.
    /// So the reader searches for them first, and reads `offset` again after that. If there is still no record,
    /// `offset` is damaged; at the first read it may just not have been written yet.
    fn advance(
        &mut self,
        number: SegmentNumber,
        offset: u64,
    ) -> Result<Option<NextRecord>, ReadError> {
        let next = self.next_written(number)?;
        let later = self.find_later(offset)?;
        let Looked::Nothing { is_blank } = self.look(offset)? else {
            return Ok(None);
        };
        if let Some(later) = later {
            self.go_to(later);
            return Ok(None);
        }
        if let Some(next) = next {
            self.enter(next)?;
            return Ok(None);
        }
        let is_torn = !is_blank;
        Ok(Some(NextRecord::End { is_torn }))
    }

    /// The next segment after `number` that has a head or a record. A segment without either was created before
    /// it was needed, and proves nothing about earlier segments.
    fn next_written(
        &mut self,
        number: SegmentNumber,
    ) -> Result<Option<CurrentSegment<S::File>>, ReadError> {
        for next in self.numbers()?.into_iter().filter(|next| *next > number) {
            let Some(segment) = self.open(next)? else {
                continue;
            };
            if segment.start.is_some() {
                return Ok(Some(segment));
            }
            let first = segment.offset;
            let before = self.current.replace(segment);
            self.window.clear();
            let has_record = match self.look(first) {
                Ok(Looked::Record(_)) => Ok(true),
                Ok(Looked::Nothing { .. }) => self.find_later(first).map(|later| later.is_some()),
                Err(fault) => Err(fault),
            };
            let segment = std::mem::replace(&mut self.current, before);
            self.window.clear();
            if has_record? {
                return Ok(segment);
            }
        }
        Ok(None)
    }

    fn go_to(&mut self, offset: u64) {
        if let Some(segment) = &mut self.current {
            segment.offset = offset;
        }
    }
}

/// The position at which a segment starts. `None` if its head is unreadable or of another version.
pub fn segment_start(
    storage: &impl Storage,
    directory: &Path,
    lane: LaneId,
    number: SegmentNumber,
) -> io::Result<Option<Position>> {
    let file = storage.open(&directory.join(segment_name(number)))?;
    match read_head(&file, SegmentId { lane, number })? {
        SegmentHead::Whole(start) => Ok(Some(start)),
        SegmentHead::OtherVersion | SegmentHead::Unreadable => Ok(None),
    }
}

fn read_head(file: &impl StorageFile, id: SegmentId) -> io::Result<SegmentHead> {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    let length = file.read_at(&mut head, 0)?;
    Ok(read_segment_head(&head[..length], id))
}

/// What comes next in a lane.
enum NextRecord {
    /// A record with the event at the position. Its bytes are in the window.
    Record(RecordHead),
    /// The end of the lane.
    End { is_torn: bool },
}

#[cfg(test)]
mod tests;
