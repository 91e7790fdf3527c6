//! A note of how far a lane is stored, beside its segments: for counting what waits when the database
//! cannot be asked. What is stored is decided by the checkpoint alone, never by a note: it is not synced,
//! and may be a second behind.

use std::fs;
use std::io;
use std::path::Path;

use super::reader::{Filled, LaneReader, ReadError, segment_start};
use super::segment::segments;
use super::storage::Disk;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::{LaneId, Position};

/// The file's name in the directory of its lane.
const NAME: &str = "stored";

/// Events read at once, to find the end of a lane.
const BATCH_EVENTS: u32 = 1000;

/// Why the end of a lane is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    /// Its directory or a segment's head cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Notes that everything before `stored` is stored.
pub(super) fn write(directory: &Path, stored: Position) -> io::Result<()> {
    // Of one length, so that one replaces another whole.
    fs::write(directory.join(NAME), format!("{:020}\n", stored.0))
}

/// What was noted; the start where nothing was, or nothing that can be read.
pub(super) fn read(directory: &Path) -> Position {
    let noted = fs::read_to_string(directory.join(NAME));
    let position = noted.ok().and_then(|noted| noted.trim().parse().ok());
    position.map_or(Position::START, Position)
}

/// Where the events of a lane end that nobody writes, as far as they can be read: its last segment is
/// read, 16 MiB at most.
pub(super) fn end(directory: &Path, lane: LaneId) -> Result<Position, EndError> {
    let Some(first) = last_start(directory, lane)? else {
        return Ok(Position::START);
    };
    let mut reader = LaneReader::new(Disk, directory, lane, first);
    let mut batch = BatchEvents::new(BATCH_EVENTS)
        .map(Batch::new)
        .unwrap_or_else(|| unreachable!("a batch may hold so many"));
    loop {
        batch.clear();
        match reader.fill(&mut batch, None) {
            Ok(Filled::More) => {}
            Ok(Filled::End { .. }) => return Ok(reader.position()),
            // What is behind it is found; how much is missing its writer will say.
            Err(ReadError::Damage(_)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// The position at which the last segment begins that has one.
fn last_start(directory: &Path, lane: LaneId) -> io::Result<Option<Position>> {
    for number in segments(&Disk, directory)?.into_iter().rev() {
        if let Some(first) = segment_start(&Disk, directory, lane, number)? {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_rubbish_is_none() {
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
