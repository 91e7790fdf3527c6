//! Reads a lane back: from any position, up to its end or to what is known to be durable.

use std::io;
use std::path::{Path, PathBuf};

use super::lane::{segment_name, segments};
use super::record::{
    Found, LaneId, Position, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, RecordHead, SEGMENT_HEAD_BYTES,
    SegmentId, SegmentNumber, events, find_record, read_segment_head,
};
use super::storage::{Storage, StorageFile};
use crate::batch::Batch;

/// Bytes read at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// A place in a lane where records are missing that later ones prove to have been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the one before the place.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The first event that is missing.
    pub from: Position,
    /// The first event that is there again.
    pub to: Position,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, offset, from, to) = (self.file.display(), self.offset, self.from.0, self.to.0);
        let lost = self.to.since(self.from);
        write!(
            out,
            "{file}, byte {offset}: {lost} events are unreadable, positions {from} to {to}"
        )
    }
}

/// Why a batch could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk would not be read; the same place may be tried again.
    #[error("{}: {fault}", file.display())]
    Io {
        /// What was read.
        file: PathBuf,
        /// What the system said.
        fault: io::Error,
    },
    /// Events are missing. The reader stands behind them: reading on is safe, once it was said.
    #[error("{0}")]
    Damage(Damage),
}

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
    place: Option<Place<S::File>>,
    /// Bytes of the present segment, from `window_offset` on.
    window: Vec<u8>,
    window_offset: u64,
}

/// In which segment, and how far.
#[derive(Debug)]
struct Place<F> {
    file: F,
    id: SegmentId,
    offset: u64,
}

/// A segment, at its first record, and the position of its first event.
type Opened<F> = (Place<F>, Position);

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

    /// The position of the next event.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Appends events to `batch` until it is full, or `end` is reached, or the lane ends.
    pub fn fill(&mut self, batch: &mut Batch, end: Option<Position>) -> Result<Filled, ReadError> {
        if self.place.is_none() && !self.find_start()? {
            return Ok(Filled::End { is_torn: false });
        }
        loop {
            if end.is_some_and(|end| self.position >= end) {
                return Ok(Filled::More);
            }
            match self.next_record()? {
                Next::Record(head) => {
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
                    if is_full {
                        return Ok(Filled::More);
                    }
                    self.pass(head);
                }
                Next::End { is_torn } => return Ok(Filled::End { is_torn }),
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

    /// Opens a segment whose head is whole; with the position of its first event.
    fn open(&self, number: SegmentNumber) -> Result<Option<Opened<S::File>>, ReadError> {
        let id = SegmentId {
            lane: self.lane,
            number,
        };
        let file = self.io(number, self.storage.open(&self.path(number)))?;
        let mut head = [0; SEGMENT_HEAD_BYTES];
        let length = self.io(number, file.read_at(&mut head, 0))?;
        let start = read_segment_head(&head[..length], id);
        Ok(start.map(|start| {
            (
                Place {
                    file,
                    id,
                    offset: SEGMENT_HEAD_BYTES as u64,
                },
                start,
            )
        }))
    }

    /// Goes to the segment that holds the position, or the first behind it.
    fn find_start(&mut self) -> Result<bool, ReadError> {
        let mut found: Option<Opened<S::File>> = None;
        for number in self.numbers()? {
            let Some((place, start)) = self.open(number)? else {
                continue;
            };
            if found.is_some() && start > self.position {
                break;
            }
            found = Some((place, start));
        }
        let Some((place, start)) = found else {
            return Ok(false);
        };
        let file = self.path(place.id.number);
        self.place = Some(place);
        if start > self.position {
            let damage = Damage {
                file,
                offset: 0,
                from: self.position,
                to: start,
            };
            self.position = start;
            return Err(ReadError::Damage(damage));
        }
        Ok(true)
    }

    /// The next record that ends behind the position.
    fn next_record(&mut self) -> Result<Next, ReadError> {
        loop {
            let Some(place) = &self.place else {
                return Ok(Next::End { is_torn: false });
            };
            let (number, offset) = (place.id.number, place.offset);
            match self.look(offset)? {
                Looked::Record(head) if head.end() <= self.position => self.pass(head),
                Looked::Record(head) if head.position <= self.position => {
                    return Ok(Next::Record(head));
                }
                Looked::Record(head) => {
                    let from = std::mem::replace(&mut self.position, head.position);
                    let file = self.path(number);
                    return Err(ReadError::Damage(Damage {
                        file,
                        offset,
                        from,
                        to: head.position,
                    }));
                }
                Looked::Nothing { is_blank } => match self.find_later(offset)? {
                    Some(later) => self.go_to(later),
                    None if self.go_to_next_segment(number)? => {}
                    None => return Ok(Next::End { is_torn: !is_blank }),
                },
            }
        }
    }

    fn go_to(&mut self, offset: u64) {
        if let Some(place) = &mut self.place {
            place.offset = offset;
        }
    }

    /// What stands at `offset` of the present segment. A record is in the window afterwards.
    fn look(&mut self, offset: u64) -> Result<Looked, ReadError> {
        let Some(id) = self.place.as_ref().map(|place| place.id) else {
            return Ok(Looked::Nothing { is_blank: true });
        };
        // The window may be older than the file: only a record in it is to be believed.
        if let Some(bytes) = self.in_window(offset)
            && let Found::Record(head, _) = find_record(bytes, id)
        {
            return Ok(Looked::Record(head));
        }
        let mut wanted = WINDOW_BYTES;
        loop {
            self.load(offset, wanted)?;
            match find_record(&self.window, id) {
                Found::Record(head, _) => return Ok(Looked::Record(head)),
                Found::Needs(bytes) if bytes > wanted => wanted = bytes,
                Found::Needs(_) | Found::Nothing => {
                    let head = &self.window[..self.window.len().min(RECORD_HEAD_BYTES)];
                    let is_blank = head.iter().all(|&byte| byte == 0);
                    return Ok(Looked::Nothing { is_blank });
                }
            }
        }
    }

    /// What of the window stands at `offset` and behind.
    fn in_window(&self, offset: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.window_offset)?).ok()?;
        self.window.get(start..)
    }

    /// Reads `bytes` bytes at `offset`, or what there is of them, into the window.
    fn load(&mut self, offset: u64, bytes: usize) -> Result<(), ReadError> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let number = place.id.number;
        self.window.resize(bytes, 0);
        let read = place.file.read_at(&mut self.window, offset);
        self.window_offset = offset;
        match read {
            Ok(length) => {
                self.window.truncate(length);
                Ok(())
            }
            Err(fault) => {
                self.window.clear();
                self.io(number, Err(fault))
            }
        }
    }

    /// Where in the present segment, behind `offset`, a record of it starts that is not yet read. One
    /// write is one record, and the next is written when it is durable: what a crash tore is never
    /// followed by another, so that one that follows says that something durable is damaged.
    fn find_later(&mut self, offset: u64) -> Result<Option<u64>, ReadError> {
        let Some(id) = self.place.as_ref().map(|place| place.id) else {
            return Ok(None);
        };
        let mut at = offset + RECORD_ALIGNMENT as u64;
        loop {
            self.load(at, WINDOW_BYTES)?;
            let length = self.window.len();
            if length < RECORD_HEAD_BYTES {
                return Ok(None);
            }
            let last = length - RECORD_HEAD_BYTES;
            for start in (0..=last).step_by(RECORD_ALIGNMENT) {
                if find_record(&self.window[start..], id) == Found::Nothing {
                    continue;
                }
                let candidate = at + start as u64;
                if let Looked::Record(head) = self.look(candidate)?
                    && head.end() > self.position
                {
                    return Ok(Some(candidate));
                }
                self.load(at, WINDOW_BYTES)?;
            }
            at += (last / RECORD_ALIGNMENT * RECORD_ALIGNMENT + RECORD_ALIGNMENT) as u64;
        }
    }

    /// Goes on to the segment behind `number`, if its head is whole.
    fn go_to_next_segment(&mut self, number: SegmentNumber) -> Result<bool, ReadError> {
        for next in self.numbers()?.into_iter().filter(|next| *next > number) {
            if let Some((place, start)) = self.open(next)? {
                self.window.clear();
                let file = self.path(number);
                let offset = self.place.replace(place).map_or(0, |before| before.offset);
                if start > self.position {
                    let from = std::mem::replace(&mut self.position, start);
                    let damage = Damage {
                        file,
                        offset,
                        from,
                        to: start,
                    };
                    return Err(ReadError::Damage(damage));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The position at which a segment starts; `None` where its head is not whole.
pub fn segment_start(
    storage: &impl Storage,
    directory: &Path,
    lane: LaneId,
    number: SegmentNumber,
) -> io::Result<Option<Position>> {
    let file = storage.open(&directory.join(segment_name(number)))?;
    let mut head = [0; SEGMENT_HEAD_BYTES];
    let length = file.read_at(&mut head, 0)?;
    Ok(read_segment_head(
        &head[..length],
        SegmentId { lane, number },
    ))
}

/// What comes next in a lane.
enum Next {
    /// A record that holds the position; in the window.
    Record(RecordHead),
    /// Nothing.
    End { is_torn: bool },
}

/// What stands at an offset.
enum Looked {
    /// A record, in the window.
    Record(RecordHead),
    /// None. `is_blank`: zeros, where its head would be.
    Nothing { is_blank: bool },
}

#[cfg(test)]
mod tests;
