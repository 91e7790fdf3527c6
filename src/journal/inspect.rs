//! The journal for a person on a bad day: what there is, what is in it, whether it is whole.
//!
//! Reads only. A lane that is written at the same time is read as far as it has come.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::janitor::lanes;
use super::lane::{segment_name, segments};
use super::reader::{Damage, Filled, LaneReader, ReadError, segment_start};
use super::record::{LaneId, NotALaneId, Position};
use super::storage::Disk;
use crate::batch::{Batch, BatchEvents};
use crate::event::Event;

/// Events read at once.
const BATCH_EVENTS: u32 = 1000;

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The journal cannot be read.
    #[error("{}: {fault}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        fault: io::Error,
    },
    /// The answer cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// The argument names no lane.
    #[error("{text:?}: {fault}; `hakaru journal list` shows them")]
    Name {
        /// The argument.
        text: String,
        /// What a lane's name is.
        fault: NotALaneId,
    },
    /// A lane could not be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something that was written is not there.
    #[error("{0} places are damaged; the events there cannot be read")]
    Damaged(usize),
}

/// What a lane holds.
struct Contents {
    segments: usize,
    bytes: u64,
    first: Position,
    end: Position,
    is_torn: bool,
    damages: Vec<Damage>,
}

/// A journal, to be looked at.
#[derive(Debug)]
pub struct Inspection {
    journal: PathBuf,
    output: Output,
}

impl Inspection {
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

    /// Lists the lanes.
    pub fn list(&self, out: &mut impl Write) -> Result<(), InspectError> {
        if self.output == Output::Text {
            writeln!(
                out,
                "{:32}  {:5}  {:>8}  {:>12}  {:>12}  {:>12}",
                "LANE", "OWNED", "SEGMENTS", "BYTES", "FIRST", "END"
            )?;
        }
        for lane in Self::io(&self.journal, lanes(&self.journal))? {
            let contents = self.read(lane, Position::START, |_, _| Ok(()))?;
            let is_owned = self.is_owned(lane);
            let Contents {
                segments,
                bytes,
                first,
                end,
                ..
            } = contents;
            match self.output {
                Output::Text => {
                    let owned = if is_owned { "yes" } else { "no" };
                    writeln!(
                        out,
                        "{lane}  {owned:5}  {segments:8}  {bytes:12}  {:12}  {:12}",
                        first.0, end.0
                    )?;
                }
                Output::Json => {
                    let line = json!({
                        "lane": lane.to_string(), "owned": is_owned, "segments": segments,
                        "bytes": bytes, "first": first.0, "end": end.0,
                    });
                    writeln!(out, "{line}")?;
                }
            }
        }
        Ok(())
    }

    /// Writes every event of a lane.
    pub fn dump(&self, out: &mut impl Write, lane: &str) -> Result<(), InspectError> {
        let id: LaneId = lane.parse().map_err(|fault| InspectError::Name {
            text: lane.to_owned(),
            fault,
        })?;
        let contents = self.read(id, Position::START, |position, event| {
            let Event { name, value, received_at } = event;
            let at = i64::try_from(received_at.0).ok();
            let at = at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
            let at = at.map_or_else(String::new, |at| format!("{at:.3}"));
            match self.output {
                Output::Text => writeln!(out, "{:12}  {at}  {value:10}  {name:?}", position.0),
                Output::Json => {
                    let position = position.0;
                    let line = json!({ "position": position, "received_at": at, "value": value, "name": name });
                    writeln!(out, "{line}")
                }
            }
        })?;
        if contents.damages.is_empty() {
            Ok(())
        } else {
            Err(InspectError::Damaged(contents.damages.len()))
        }
    }

    /// Reads every lane and says what is damaged.
    pub fn verify(&self, out: &mut impl Write) -> Result<(), InspectError> {
        let mut damaged = 0;
        for lane in Self::io(&self.journal, lanes(&self.journal))? {
            let contents = self.read(lane, Position::START, |_, _| Ok(()))?;
            damaged += contents.damages.len();
            let events = contents.end.since(contents.first);
            match self.output {
                Output::Text => {
                    let tail = if contents.is_torn {
                        ", an unfinished record behind them"
                    } else {
                        ""
                    };
                    let state = if contents.damages.is_empty() {
                        "whole"
                    } else {
                        "DAMAGED"
                    };
                    writeln!(out, "{lane}  {state}: {events} events{tail}")?;
                    for damage in &contents.damages {
                        writeln!(out, "  {damage}")?;
                    }
                }
                Output::Json => {
                    let damages: Vec<String> =
                        contents.damages.iter().map(ToString::to_string).collect();
                    let line = json!({
                        "lane": lane.to_string(), "events": events, "torn": contents.is_torn, "damages": damages,
                    });
                    writeln!(out, "{line}")?;
                }
            }
        }
        if damaged == 0 {
            Ok(())
        } else {
            Err(InspectError::Damaged(damaged))
        }
    }

    /// Whether a process holds the lane's lock.
    fn is_owned(&self, lane: LaneId) -> bool {
        let lock = self.journal.join(lane.to_string()).join("lock");
        let held = File::open(lock).map(|lock| lock.try_lock_shared());
        matches!(held, Ok(Err(std::fs::TryLockError::WouldBlock)))
    }

    fn read(
        &self,
        lane: LaneId,
        from: Position,
        mut each: impl FnMut(Position, Event<'_>) -> io::Result<()>,
    ) -> Result<Contents, InspectError> {
        let directory = self.journal.join(lane.to_string());
        let numbers = Self::io(&directory, segments(&Disk, &directory))?;
        let mut contents = Contents {
            segments: numbers.len(),
            bytes: 0,
            first: from,
            end: from,
            is_torn: false,
            damages: Vec::new(),
        };
        for &number in &numbers {
            let path = directory.join(segment_name(number));
            contents.bytes += Self::io(&path, path.metadata())?.len();
        }
        // Segments that were stored long ago are removed: what is left is where the lane begins.
        for &number in &numbers {
            let start = segment_start(&Disk, &directory, lane, number);
            if let Some(start) = Self::io(&directory, start)? {
                contents.first = start.max(from);
                break;
            }
        }
        let mut reader = LaneReader::new(Disk, &directory, lane, contents.first);
        #[expect(clippy::expect_used, reason = "a constant within the range")]
        let mut batch = Batch::new(BatchEvents::new(BATCH_EVENTS).expect("within the range"));
        loop {
            batch.clear();
            let first = reader.position();
            let filled = reader.fill(&mut batch, None);
            for (index, event) in batch.events().enumerate() {
                each(first.plus(index), event)?;
            }
            contents.end = reader.position();
            match filled {
                Ok(Filled::More) => {}
                Ok(Filled::End { is_torn }) => {
                    contents.is_torn = is_torn;
                    return Ok(contents);
                }
                Err(ReadError::Damage(damage)) => contents.damages.push(damage),
                Err(fault @ ReadError::Io { .. }) => return Err(fault.into()),
            }
        }
    }
}
