//! Reads a lane back: from any position, up to its end or to what is known to be durable.

mod damage;
mod scan;

use std::io;
use std::path::{Path, PathBuf};

pub use self::damage::{Damage, ReadError};
use self::scan::Looked;
use super::record::{
    RECORD_HEAD_BYTES, RecordHead, SEGMENT_HEAD_BYTES, SegmentHead, SegmentId, SegmentNumber,
    events, read_segment_head,
};
use super::segment::{segment_name, segments};
use super::storage::{Storage, StorageFile};
use crate::event::batch::Batch;
use crate::event::position::{LaneId, Position};

/// How a lane goes on behind a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// There may be more.
    More,
    /// This was the end. `is_torn`: bytes of a record follow that was never completed.
    End {
        /// Whether something unfinished follows.
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
    place: Option<ReadPoint<S::File>>,
    /// Bytes of the present segment, from `window_offset` on.
    window: Vec<u8>,
    window_offset: u64,
}

/// In which segment, and how far.
#[derive(Debug)]
struct ReadPoint<F> {
    file: F,
    id: SegmentId,
    /// The position of its first event. Where its head is unreadable, `None` up to a record that counts.
    start: Option<Position>,
    offset: u64,
}

impl<S: Storage> LaneReader<S> {
    /// Stands before the event at `position`.
    pub fn new(storage: S, directory: &Path, lane: LaneId, position: Position) -> Self {
        let directory = directory.to_owned();
        Self {
            storage,
            directory,
            lane,
            position,
            place: None,
            window: Vec::new(),
            window_offset: 0,
        }
    }

    /// Stands before the oldest event that is left; what was before it is stored and removed.
    pub fn from_oldest(storage: S, directory: &Path, lane: LaneId) -> Result<Self, ReadError> {
        let mut reader = Self::new(storage, directory, lane, Position::START);
        for number in reader.numbers()? {
            let Some(place) = reader.open(number)? else {
                continue;
            };
            let (start, offset) = (place.start, place.offset);
            reader.place = Some(place);
            reader.position = match (start, reader.look(offset)?) {
                (Some(start), _) => start,
                (None, Looked::Record(first)) => first.position,
                // How much was removed cannot be known: everything before what follows is missing.
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
        if self.place.is_none() && !self.find_start()? {
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
                    // What remains of a record that was not taken whole is read the next time.
                    if is_full || end.is_some_and(|end| self.position >= end) {
                        return Ok(Filled::More);
                    }
                    self.pass(head);
                }
                NextRecord::End { is_torn } => return Ok(Filled::End { is_torn }),
            }
        }
    }

    /// The events of the record that the present segment is at.
    fn payload(&self, head: RecordHead) -> &[u8] {
        let offset = self.place.as_ref().map_or(0, |place| place.offset);
        let start = offset.saturating_sub(self.window_offset);
        #[expect(clippy::cast_possible_truncation, reason = "within the window")]
        let start = start as usize + RECORD_HEAD_BYTES;
        self.window
            .get(start..start + head.payload_bytes)
            .unwrap_or_default()
    }

    fn pass(&mut self, head: RecordHead) {
        if let Some(place) = &mut self.place {
            place.offset += head.stride() as u64;
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

    /// Opens a segment; `None` where it was removed since it was listed.
    fn open(&self, number: SegmentNumber) -> Result<Option<ReadPoint<S::File>>, ReadError> {
        let lane = self.lane;
        let id = SegmentId { lane, number };
        let file = match self.storage.open(&self.path(number)) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => self.io(number, outcome)?,
        };
        let start = self.start(&file, id)?;
        Ok(Some(ReadPoint {
            file,
            id,
            start,
            offset: SEGMENT_HEAD_BYTES as u64,
        }))
    }

    /// The position at which a segment starts; `None` where its head is unreadable.
    fn start(&self, file: &S::File, id: SegmentId) -> Result<Option<Position>, ReadError> {
        match self.io(id.number, read_head(file, id))? {
            SegmentHead::Whole(start) => Ok(Some(start)),
            SegmentHead::Unreadable => Ok(None),
            SegmentHead::OtherVersion => Err(ReadError::Version {
                file: self.path(id.number),
            }),
        }
    }

    /// Goes to the last segment that is known to start at the position or before it, or else to the
    /// first there is. What holds the position and does not say so is met on the way. Newest first: a
    /// segment before the wanted one need not be readable.
    fn find_start(&mut self) -> Result<bool, ReadError> {
        let (mut oldest, mut fault) = (None, None);
        let mut numbers = self.numbers()?;
        while let Some(number) = numbers.pop() {
            match self.open(number) {
                Ok(Some(place)) if place.start.is_some_and(|start| start <= self.position) => {
                    self.enter(place)?;
                    return Ok(true);
                }
                Ok(Some(place)) => oldest = Some(place),
                Ok(None) => {}
                Err(unread) => fault = Some(unread),
            }
        }
        // What cannot be read may hold the position: that something is missing would be a guess.
        match (fault, oldest) {
            (Some(fault), _) => Err(fault),
            (None, Some(place)) => self.enter(place).map(|()| true),
            (None, None) => Ok(false),
        }
    }

    /// Stands in a segment, behind what its head proves missing.
    fn enter(&mut self, place: ReadPoint<S::File>) -> Result<(), ReadError> {
        self.window.clear();
        let (number, start) = (place.id.number, place.start.unwrap_or(self.position));
        let (number, offset) = match self.place.replace(place) {
            Some(before) => (before.id.number, before.offset),
            None => (number, 0),
        };
        self.skip_to(start, number, offset)
    }

    /// Stands before the event at `position`; those that are missing before it are damage.
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

    /// What is missing between `from` and where the reader stands now.
    fn damage(&self, number: SegmentNumber, offset: u64, from: Position) -> ReadError {
        ReadError::Damage(Damage {
            file: self.path(number),
            offset,
            from,
            to: self.position,
        })
    }

    /// The next record that ends behind the position.
    fn next_record(&mut self) -> Result<NextRecord, ReadError> {
        loop {
            let Some(place) = &self.place else {
                return Ok(NextRecord::End { is_torn: false });
            };
            let (number, offset) = (place.id.number, place.offset);
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
                    if let Some(end) = self.go_on(number, offset)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Whether the present segment has a record, at `position`, and no head to go with it. So once.
    fn is_headless(&mut self, position: Position) -> Result<bool, ReadError> {
        let Some(place) = self.place.as_ref().filter(|place| place.start.is_none()) else {
            return Ok(false);
        };
        // Read again: a head that was not yet written when the segment was opened is by now, because
        // it is written with the first record.
        let start = self.start(&place.file, place.id)?;
        if let Some(place) = &mut self.place {
            place.start = start.or(Some(position));
        }
        Ok(start.is_none())
    }

    /// Goes on from `offset`, where no record was seen, to what follows; or says how the lane ends.
    ///
    /// The lane may be written meanwhile. That something is missing is only believed of a place that is
    /// looked at after the proof that it was written: a later record is found before the place is looked
    /// at again, a later segment is seen to have begun before this one is searched.
    fn go_on(
        &mut self,
        number: SegmentNumber,
        offset: u64,
    ) -> Result<Option<NextRecord>, ReadError> {
        let next = self.begun_after(number)?;
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

    /// The next segment behind `number` that has a head or a record. One without is made before it is
    /// needed, and says nothing of the segments before it.
    fn begun_after(
        &mut self,
        number: SegmentNumber,
    ) -> Result<Option<ReadPoint<S::File>>, ReadError> {
        for next in self.numbers()?.into_iter().filter(|next| *next > number) {
            let Some(place) = self.open(next)? else {
                continue;
            };
            if place.start.is_some() {
                return Ok(Some(place));
            }
            let first = place.offset;
            let present = self.place.replace(place);
            self.window.clear();
            let has_record = match self.look(first) {
                Ok(Looked::Record(_)) => Ok(true),
                Ok(Looked::Nothing { .. }) => self.find_later(first).map(|later| later.is_some()),
                Err(fault) => Err(fault),
            };
            let place = std::mem::replace(&mut self.place, present);
            self.window.clear();
            if has_record? {
                return Ok(place);
            }
        }
        Ok(None)
    }

    fn go_to(&mut self, offset: u64) {
        if let Some(place) = &mut self.place {
            place.offset = offset;
        }
    }
}

/// The position at which a segment starts; `None` where its head does not say it.
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
    /// A record that holds the position; in the window.
    Record(RecordHead),
    /// Nothing.
    End { is_torn: bool },
}

#[cfg(test)]
mod tests;
