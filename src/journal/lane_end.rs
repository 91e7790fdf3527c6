//! The file `end`: the position at which a closed lane ends. After a failed write it is not known how much of
//! it is on the disk. Its events were answered 503, so they must never become rows.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::durable_note;
use super::lane_handle::DiskLane;
use super::record::SegmentNumber;
use super::segment::segment_name;
use crate::event::position::Position;
use crate::os::bugs::{Bug, planted};
use crate::os::fs::{File, Use};
use crate::os::reached::reached;

/// The file's name in the directory of its lane.
const NAME: &str = "end";

/// Bytes of the file: 20 digits and a line feed.
const BYTES: usize = 21;

/// Blocks whose content is unknown since a write of them failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedWrite {
    /// The segment.
    pub segment: SegmentNumber,
    /// The bytes in it. What is promised in them is in another block too.
    pub bytes: Range<u64>,
}

/// A lane that takes no more events.
#[derive(Debug)]
pub struct ClosedLane {
    /// The lane.
    pub lane: Arc<DiskLane>,
    /// Every event before this position is promised, and none after it.
    pub end: Position,
    /// The write that failed, if that is why the lane was closed.
    pub failed_write: Option<FailedWrite>,
}

impl ClosedLane {
    /// Makes durable where the lane ends: writes the file, or where that fails, erases the failed write.
    pub(super) fn write_end(&self) -> io::Result<()> {
        if planted(Bug::EndNotWritten) {
            return Ok(());
        }
        let directory = &self.lane.directory;
        match (write(directory, self.end), &self.failed_write) {
            (Ok(()), _) => {
                reached("journal: end of a lane noted");
                log::debug!("lane {}: ends at position {}", self.lane.id, self.end.0);
                Ok(())
            }
            (Err(fault), None) => {
                log::debug!("lane {}: {fault}", self.lane.id);
                Ok(())
            }
            (Err(fault), Some(failed)) => {
                log::debug!("lane {}: {fault}", self.lane.id);
                match erase(directory, failed) {
                    // All its events are stored: the janitor has removed it.
                    Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
                    erased => erased,
                }
            }
        }
    }
}

/// Writes the file completely or not at all.
fn write(directory: &Path, end: Position) -> io::Result<()> {
    durable_note::replace(directory, NAME, &format!("{:020}\n", end.0))
}

/// Replaces the blocks of a failed write by zeros.
fn erase(directory: &Path, failed: &FailedWrite) -> io::Result<()> {
    reached("journal: failed write erased");
    let path = directory.join(segment_name(failed.segment));
    let file = File::with(&path, Use::Write)?;
    file.erase(failed.bytes.clone())?;
    file.sync_all()
}

/// The file of the lane in `directory`.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// The position at which a lane ends, if the file is there.
pub(super) fn read(directory: &Path) -> io::Result<Option<Position>> {
    let file = match File::open(&path(directory)) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = [0; BYTES];
    let length = file.read_at(&mut text, 0)?;
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    let end = text
        .strip_suffix('\n')
        .and_then(|digits| digits.parse().ok());
    let end = end.ok_or_else(|| io::Error::other("has no position"))?;
    Ok(Some(Position(end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::position::LaneId;
    use crate::journal::lane_handle::Origin;
    use std::fs;

    #[test]
    fn where_the_end_cannot_be_written_the_failed_write_is_erased() {
        let directory = tempfile::tempdir().unwrap();
        let id = LaneId::random().unwrap();
        let lane = DiskLane::lock(id, directory.path().to_owned(), Origin::Opened, None);
        let segment = directory.path().join(segment_name(SegmentNumber(0)));
        fs::write(&segment, [7; 3 * 4096]).unwrap();
        let closed = ClosedLane {
            lane: Arc::new(lane.unwrap().unwrap()),
            end: Position(5),
            failed_write: Some(FailedWrite {
                segment: SegmentNumber(0),
                bytes: 4096..8192,
            }),
        };
        assert_eq!(read(directory.path()).unwrap(), None);
        // No file can take the name of a directory.
        fs::create_dir(directory.path().join(NAME)).unwrap();
        closed.write_end().unwrap();
        let left = fs::read(&segment).unwrap();
        let expected = [[7; 4096], [0; 4096], [7; 4096]].concat();
        assert!(left == expected);

        fs::remove_dir(directory.path().join(NAME)).unwrap();
        closed.write_end().unwrap();
        assert_eq!(read(directory.path()).unwrap(), Some(Position(5)));
        fs::write(directory.path().join(NAME), "five").unwrap();
        assert!(read(directory.path()).is_err());
        fs::remove_dir_all(directory.path()).unwrap();
        closed.write_end().unwrap();
    }
}
