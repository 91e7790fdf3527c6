//! `hakaru journal`: lists the lanes of a journal, writes their events, verifies that they can be read, allows a lane to
//! be stored in another database, and decides about a lane that is held.
//!
//! Only the last two write. A lane that a server writes meanwhile is read as far as it is written.

mod adopt;
mod error;
mod list;
mod settle;
mod verify;

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;

pub use self::error::InspectError;

use crate::event::Event;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::Decision;
use crate::journal::lane_keys::LaneKeys;
use crate::journal::lane_label::LaneLabel;
use crate::journal::reader::{Damage, Filled, LaneReader, ReadError, segment_start};
use crate::journal::segment::{lanes, segment_name, segments};

/// Events read at once.
const BATCH_EVENTS: u32 = 1000;

/// A command on a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalQuestion {
    /// Lists the lanes: whether a process owns them, and how much they hold.
    List,
    /// Writes every event of a lane.
    Dump {
        /// The lane, as `list` shows it.
        lane: String,
    },
    /// Reads all lanes and reports what is damaged.
    Verify,
    /// Decides about the events of a held lane.
    Settle {
        /// The lane, as `list` shows it.
        lane: String,
        /// Whether they are stored.
        decision: Decision,
    },
    /// Allows a lane to be stored in the database that is served, whichever that is.
    Adopt {
        /// The lane, as `list` shows it.
        lane: String,
    },
}

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object per line, or one document.
    Json,
}

/// The contents of a lane, as far as they could be read.
#[derive(Default)]
struct Contents {
    segments: usize,
    bytes: u64,
    first: Position,
    end: Position,
    /// Events that were read.
    events: usize,
    /// Bytes after them that are no record.
    torn_bytes: u64,
    damages: Vec<Damage>,
    /// Why the lane could not be read to its end.
    error: Option<InspectError>,
}

/// A journal that is read, and the format of the output.
#[derive(Debug)]
pub struct Inspection {
    journal: PathBuf,
    output: Output,
}

impl Inspection {
    /// Runs a command. Everything that could be read is written before an error is returned.
    pub fn answer(&self, question: &JournalQuestion, out: impl Write) -> Result<(), InspectError> {
        let mut out = BufWriter::new(out);
        let answered = match question {
            JournalQuestion::List => self.list(&mut out),
            JournalQuestion::Dump { lane } => self.dump(&mut out, lane),
            JournalQuestion::Verify => self.verify(&mut out),
            JournalQuestion::Settle { lane, decision } => self.settle(&mut out, lane, *decision),
            JournalQuestion::Adopt { lane } => self.adopt(&mut out, lane),
        };
        out.flush().map_err(InspectError::Output).and(answered)
    }

    /// The journal in a data directory.
    pub fn new(data_dir: &Path, output: Output) -> Self {
        Self {
            journal: data_dir.join("journal"),
            output,
        }
    }

    fn io<T>(path: &Path, outcome: io::Result<T>) -> Result<T, InspectError> {
        outcome.map_err(|fault| InspectError::Io {
            path: path.to_owned(),
            fault,
        })
    }

    /// Writes every event of a lane.
    pub fn dump(&self, out: &mut impl Write, lane: &str) -> Result<(), InspectError> {
        let id: LaneId = lane.parse().map_err(|fault| InspectError::Name {
            text: lane.to_owned(),
            fault,
        })?;
        let contents = self.read(id, |position, event| {
            let Event { name, value, received_at, id } = event;
            let at = i64::try_from(received_at.0).ok();
            let at = at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
            let at = at.map_or_else(String::new, |at| format!("{at:.3}"));
            match self.output {
                Output::Text => {
                    write!(out, "{:12}  {at}  {value:10}  {name:?}", position.0)?;
                    id.map_or(Ok(()), |id| write!(out, "  id {:?}", id.as_str()))?;
                    writeln!(out)
                }
                Output::Json => {
                    let position = position.0;
                    let mut line = json!({ "position": position, "received_at": at, "value": value, "name": name });
                    if let Some(id) = id {
                        line["id"] = id.as_str().into();
                    }
                    writeln!(out, "{line}")
                }
            }
        });
        match contents.error {
            Some(error) => Err(error),
            None => verdict(contents.damages.len(), 0),
        }
    }

    /// Calls `each` with every event that is not stored yet: the events of each lane from the position that `stored`
    /// returns for its keys and its label; none of a lane for which it returns none. Returns how many of these events
    /// are unreadable.
    pub fn pending(
        &self,
        stored: impl Fn(&LaneKeys, &LaneLabel) -> Option<Position>,
        mut each: impl FnMut(LaneId, Position, Event<'_>),
    ) -> Result<u64, InspectError> {
        let mut unreadable = 0;
        for lane in Self::io(&self.journal, lanes(&self.journal))? {
            let directory = self.directory(lane);
            let keys = Self::io(&directory, LaneKeys::read(&directory, lane))?;
            // The events of a lane whose label cannot be read may belong here.
            let label = LaneLabel::read(&directory).unwrap_or(LaneLabel::Missing);
            let Some(from) = stored(&keys, &label) else {
                continue;
            };
            let contents = self.read_from(lane, from, |position, event| {
                each(lane, position, event);
            })?;
            let missing = contents.damages.iter();
            unreadable += missing
                .map(|damage| damage.to.since(damage.from))
                .sum::<u64>();
        }
        Ok(unreadable)
    }

    /// Calls `each` with the events of a lane in a range, as far as they can be read.
    pub fn events(
        &self,
        lane: LaneId,
        range: &Range<Position>,
        mut each: impl FnMut(Event<'_>),
    ) -> Result<(), InspectError> {
        let read = self.read_from(lane, range.start, |position, event| {
            if range.contains(&position) {
                each(event);
            }
        });
        read.map(drop)
    }

    fn read_from(
        &self,
        lane: LaneId,
        from: Position,
        mut each: impl FnMut(Position, Event<'_>),
    ) -> Result<Contents, InspectError> {
        let directory = self.directory(lane);
        let reader = LaneReader::new(&directory, lane, from).pass_unreadable();
        let mut contents = Contents::default();
        let read = read_to_end(
            reader,
            &directory,
            &mut contents,
            lane,
            |position, event| {
                each(position, event);
                Ok(())
            },
        );
        // If a server has removed the lane meanwhile, its events are stored.
        if !matches!(directory.try_exists(), Ok(false)) {
            read?;
            contents.error.take().map_or(Ok(()), Err)?;
        }
        Ok(contents)
    }

    fn directory(&self, lane: LaneId) -> PathBuf {
        self.journal.join(lane.to_string())
    }

    /// The contents of a lane; `None` if a server has stored and removed the lane meanwhile.
    fn contents(&self, lane: LaneId) -> Option<Contents> {
        let contents = self.read(lane, |_, _| Ok(()));
        let is_gone = matches!(self.directory(lane).try_exists(), Ok(false));
        (!is_gone).then_some(contents)
    }

    fn read(
        &self,
        lane: LaneId,
        each: impl FnMut(Position, Event<'_>) -> io::Result<()>,
    ) -> Contents {
        let mut contents = Contents::default();
        if let Err(fault) = self.read_into(&mut contents, lane, each) {
            contents.error = Some(fault);
        }
        contents
    }

    fn read_into(
        &self,
        contents: &mut Contents,
        lane: LaneId,
        each: impl FnMut(Position, Event<'_>) -> io::Result<()>,
    ) -> Result<(), InspectError> {
        let directory = self.directory(lane);
        for number in Self::io(&directory, segments(&directory))? {
            let path = directory.join(segment_name(number));
            match path.metadata() {
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                metadata => {
                    contents.bytes += Self::io(&path, metadata)?.len();
                    contents.segments += 1;
                }
            }
        }
        let reader = LaneReader::from_oldest(&directory, lane)?;
        contents.first = reader.position();
        read_to_end(reader, &directory, contents, lane, each)
    }
}

/// Reads a lane to its end. That the file `end` cannot be read is noted, and the lane is read to its last record.
fn read_to_end(
    mut reader: LaneReader,
    directory: &Path,
    contents: &mut Contents,
    lane: LaneId,
    mut each: impl FnMut(Position, Event<'_>) -> io::Result<()>,
) -> Result<(), InspectError> {
    #[expect(clippy::expect_used, reason = "a constant within the range")]
    let mut batch = Batch::new(BatchEvents::new(BATCH_EVENTS).expect("within the range"));
    loop {
        batch.clear();
        let first = reader.position();
        let filled = reader.fill(&mut batch, None);
        for (index, event) in batch.events().enumerate() {
            each(first.plus(index), event)?;
        }
        contents.events += batch.len();
        contents.end = reader.position();
        match filled {
            Ok(Filled::More) => {}
            Ok(Filled::End { torn_bytes }) => {
                contents.torn_bytes = torn_bytes;
                return Ok(());
            }
            Err(ReadError::Damage(damage)) => {
                if !is_removed(directory, lane, &damage) {
                    contents.damages.push(damage);
                }
            }
            Err(fault @ ReadError::EndFile { .. }) => {
                contents.error = Some(fault.into());
                reader.ignore_end_file();
            }
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// Whether the missing part was stored and removed while the lane was read. Then the lane begins after it now.
fn is_removed(directory: &Path, lane: LaneId, damage: &Damage) -> bool {
    for number in segments(directory).unwrap_or_default() {
        match segment_start(directory, lane, number) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            oldest => return matches!(oldest, Ok(Some(start)) if start >= damage.to),
        }
    }
    true
}

fn with_error(mut line: serde_json::Value, error: Option<&InspectError>) -> serde_json::Value {
    if let Some(error) = error {
        line["error"] = error.to_string().into();
    }
    line
}

/// The result of a command on all lanes, after every row is written.
fn verdict(damaged: usize, unreadable: usize) -> Result<(), InspectError> {
    match (damaged, unreadable) {
        (0, 0) => Ok(()),
        (damaged, 0) => Err(InspectError::Damaged(damaged)),
        (_, unreadable) => Err(InspectError::Unreadable(unreadable)),
    }
}

#[cfg(test)]
mod tests;
