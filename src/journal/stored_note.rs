//! The file `stored` in a lane's directory: how far the lane is stored.
//!
//! With it, a process counts unstored events while the database is unreachable. The checkpoint in the database
//! decides what is stored there. The note decides what is not stored again when another database adopts the lane: it
//! is not synced and may be a second old, except before the lane is removed.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::reader::{Filled, LaneReader, ReadError, segment_start};
use super::segment::{segment_name, segments};
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::{LaneId, Position};
use crate::os::fs::{self, File, Use};

/// The file's name in the directory of its lane.
const NAME: &str = "stored";

/// Events read at once to find the end of a lane.
const BATCH_EVENTS: u32 = 1000;

/// Why the end of a lane is unknown.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// Its directory or a segment's head cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// When the note was written last: when more of the lane was stored than before.
pub(super) fn noted_at(directory: &Path) -> Option<SystemTime> {
    fs::about(&directory.join(NAME)).ok()?.modified
}

/// Notes that the events before `stored` are stored.
pub fn write(directory: &Path, stored: Position) -> io::Result<()> {
    let note = File::with(&directory.join(NAME), Use::Keep)?;
    // The length is constant, so that a note overwrites all of the previous one. It is not cut before: neither a kill
    // nor a full disk leaves an empty note.
    note.write_all_at(format!("{:020}\n", stored.0).as_bytes(), 0)
}

/// Makes what the note says durable. Its name is durable when the directory is synced.
pub fn sync(directory: &Path) -> io::Result<()> {
    match File::open(&directory.join(NAME)) {
        Ok(note) => note.sync_all(),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// The position that was noted. The start of the lane if there is no valid note.
pub(super) fn read(directory: &Path) -> Position {
    let noted = fs::read_to_string(&directory.join(NAME));
    let position = noted.ok().and_then(|noted| noted.trim().parse().ok());
    position.map_or(Position::START, Position)
}

/// Where the readable events of a lane end. Of a lane that is being written, at least the events are found that were
/// durable when this was called. Reads its last segment, at most 16 MiB.
pub fn end(directory: &Path, lane: LaneId) -> Result<Position, EndError> {
    let (position, fault) = end_or_more(directory, lane);
    fault.map_or(Ok(position), Err)
}

/// The same. With an error, the lane has events up to this position at least.
pub fn end_or_more(directory: &Path, lane: LaneId) -> (Position, Option<EndError>) {
    let (first, fault) = last_start(directory, lane);
    if fault.is_some() {
        return (first, fault);
    }
    let mut reader = LaneReader::new(directory, lane, first).pass_unreadable();
    let mut batch = BatchEvents::new(BATCH_EVENTS)
        .map(Batch::new)
        .unwrap_or_else(|| unreachable!("BATCH_EVENTS is in range"));
    loop {
        batch.clear();
        match reader.fill(&mut batch, None) {
            Ok(Filled::More) => {}
            Ok(Filled::End { .. }) => return (reader.position(), None),
            // The reader continues after the damage. The writer will log what is missing.
            Err(ReadError::Damage(_)) => {}
            Err(fault) => return (reader.position(), Some(fault.into())),
        }
    }
}

/// The position of the oldest event that the journal may still have of a lane. The start of the lane where nobody can tell.
pub fn oldest(directory: &Path, lane: LaneId) -> io::Result<Position> {
    let Some(first) = segments(directory)?.first().copied() else {
        return Ok(Position::START);
    };
    match segment_start(directory, lane, first) {
        Ok(start) => Ok(start.unwrap_or_default()),
        Err(fault) if fault.kind() == io::ErrorKind::InvalidData => Ok(Position::START),
        Err(fault) => Err(fault),
    }
}

/// The start of the last segment with a readable head. The start of the lane if there is none. With it the first error
/// of a later one.
fn last_start(directory: &Path, lane: LaneId) -> (Position, Option<EndError>) {
    let numbers = match segments(directory) {
        Ok(numbers) => numbers,
        Err(fault) => return (Position::START, Some(fault.into())),
    };
    let mut unread = None;
    for number in numbers.into_iter().rev() {
        let fault = match segment_start(directory, lane, number) {
            Ok(Some(first)) => return (first, unread),
            Ok(None) => continue,
            Err(fault) if fault.kind() == io::ErrorKind::InvalidData => {
                let file = directory.join(segment_name(number));
                ReadError::Version { file }.into()
            }
            Err(fault) => EndError::from(fault),
        };
        unread.get_or_insert(fault);
    }
    (Position::START, unread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_note_is_read_as_it_was_written_and_an_invalid_one_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), Position::START);
        for position in [7, 123_456_789, 8] {
            write(directory.path(), Position(position)).unwrap();
            assert_eq!(read(directory.path()), Position(position));
        }
        fs::write(directory.path().join(NAME), "seven").unwrap();
        assert_eq!(read(directory.path()), Position::START);
    }
}
