//! The segment files of a lane: their names, and how they are created.

use std::io;
use std::path::{Path, PathBuf};

use super::record::SegmentNumber;
use super::storage::{Storage, StorageFile};
use crate::event::position::LaneId;
use crate::os::bugs::{Bug, planted};
use crate::os::fs;

/// Bytes of a segment. All are allocated when it is created, so that a write does not change its length.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of a new segment: [`SEGMENT_BYTES`], but few in a simulation, so that a few events fill several.
pub fn segment_bytes() -> u64 {
    #[cfg(test)]
    if crate::os::simulated::is_on() {
        return 5 * 4096;
    }
    SEGMENT_BYTES
}

/// The suffix of a segment's file name.
const SEGMENT_SUFFIX: &str = ".segment";

/// The file name of a segment.
pub fn segment_name(number: SegmentNumber) -> String {
    format!("{:016x}{SEGMENT_SUFFIX}", number.0)
}

/// The number of the segment with this file name. `None` for any other file.
pub fn parse_segment_name(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let number = SegmentNumber(u64::from_str_radix(digits, 16).ok()?);
    (segment_name(number) == name).then_some(number)
}

/// The numbers of a lane's segments, oldest first.
pub fn segments(storage: &impl Storage, directory: &Path) -> io::Result<Vec<SegmentNumber>> {
    let names = storage.names(directory)?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Creates the directory of a new lane and makes its name durable.
pub fn make_directory(storage: &impl Storage, journal: &Path, id: LaneId) -> io::Result<PathBuf> {
    let directory = journal.join(id.to_string());
    storage.make_dir(&directory)?;
    storage.sync_dir(journal)?;
    Ok(directory)
}

/// Creates an empty segment and makes its length and its name durable. The head is written with the first
/// record.
pub fn make_segment<S: Storage>(
    storage: &S,
    directory: &Path,
    number: SegmentNumber,
    bytes: u64,
) -> io::Result<S::File> {
    let path = directory.join(segment_name(number));
    let make = || -> io::Result<S::File> {
        let file = storage.create(&path)?;
        allocate(&file, bytes)?;
        file.sync()?;
        if !planted(Bug::DirectoryNotSynced) {
            storage.sync_dir(directory)?;
        }
        Ok(file)
    };
    make().inspect_err(|fault| {
        // The unfinished file takes disk space, and the next attempt needs its name.
        if let Err(left) = storage.remove(&path) {
            log::debug!(
                "{}: {fault}; the unfinished file cannot be removed: {left}",
                path.display()
            );
        }
    })
}

/// Allocates a segment's disk space. On a full disk tries a quarter of it, then a sixteenth.
fn allocate(file: &impl StorageFile, bytes: u64) -> io::Result<()> {
    let mut taken = file.allocate(bytes);
    for smaller in [bytes / 4, bytes / 16] {
        match taken {
            Err(fault) if fault.kind() == io::ErrorKind::StorageFull => {
                taken = file.allocate(smaller);
            }
            outcome => return outcome,
        }
    }
    taken
}
/// The ids of all lanes in a journal.
pub fn lanes(journal: &Path) -> io::Result<Vec<LaneId>> {
    let names = fs::names(journal)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
