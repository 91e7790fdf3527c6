//! The files of a lane: their names, and how one is made.

use std::io;
use std::path::{Path, PathBuf};

use super::bugs::{Bug, planted};
use super::record::SegmentNumber;
use super::storage::{Storage, StorageFile};
use crate::event::position::LaneId;

/// Bytes of a segment. Taken at once, so that a write into it changes no length.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// How the names of segments end.
const SEGMENT_SUFFIX: &str = ".segment";

/// The name of a segment in its lane's directory.
pub fn segment_name(number: SegmentNumber) -> String {
    format!("{:016x}{SEGMENT_SUFFIX}", number.0)
}

/// The segment that a name names.
pub fn parse_segment_name(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let number = SegmentNumber(u64::from_str_radix(digits, 16).ok()?);
    (segment_name(number) == name).then_some(number)
}

/// The segments of a lane, oldest first.
pub fn segments(storage: &impl Storage, directory: &Path) -> io::Result<Vec<SegmentNumber>> {
    let names = storage.names(directory)?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the directory of a new lane, and its name durable.
pub fn make_directory(storage: &impl Storage, journal: &Path, id: LaneId) -> io::Result<PathBuf> {
    let directory = journal.join(id.to_string());
    storage.make_dir(&directory)?;
    storage.sync_dir(journal)?;
    Ok(directory)
}

/// Makes an empty segment whose room and name are durable. Its head comes with its first record.
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
        // It takes room that is wanted, and its name, under which it may be tried again.
        if let Err(left) = storage.remove(&path) {
            log::debug!("{}: {fault}, and then: {left}", path.display());
        }
    })
}

/// Takes room for a segment, or for less where the disk is small.
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
