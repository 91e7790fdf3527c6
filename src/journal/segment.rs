//! The segment files of a lane: their names, and how they are created.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::blocks::{BLOCK_BYTES, Blocks};
use super::record::SegmentNumber;
use crate::event::position::LaneId;
use crate::os::bugs::{Bug, planted};
use crate::os::fs::{self, File, Use};

/// Bytes of a segment. All are allocated when it is created, so that a write does not change its length.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of a new segment: [`SEGMENT_BYTES`], but few in a simulation, so that a few events fill several.
pub fn segment_bytes() -> u64 {
    #[cfg(test)]
    if let Some(blocks) = crate::os::simulated::segment_blocks() {
        return blocks * 4096;
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
pub fn segments(directory: &Path) -> io::Result<Vec<SegmentNumber>> {
    let names = fs::names(directory)?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Creates the directory of a new lane and makes its name durable.
pub fn make_directory(journal: &Path, id: LaneId) -> io::Result<PathBuf> {
    let directory = journal.join(id.to_string());
    fs::create_dir(&directory)?;
    fs::sync_dir(journal)?;
    Ok(directory)
}

/// Creates an empty segment and makes its length and its name durable. The head is written with the first
/// record.
pub fn make_segment(directory: &Path, number: SegmentNumber, bytes: u64) -> io::Result<File> {
    let path = directory.join(segment_name(number));
    let make = || -> io::Result<File> {
        let file = create(&path)?;
        allocate(&file, bytes)?;
        file.sync_all()?;
        if !planted(Bug::DirectoryNotSynced) {
            fs::sync_dir(directory)?;
        }
        Ok(file)
    };
    make().inspect_err(|fault| {
        // The unfinished file takes disk space, and the next attempt needs its name.
        if let Err(left) = fs::remove_file(&path) {
            log::debug!(
                "{}: {fault}; the unfinished file cannot be removed: {left}",
                path.display()
            );
        }
    })
}

/// Creates a file each write of which is durable when it returns (`O_DSYNC`), and bypasses the cache of the system
/// (`O_DIRECT`): half the CPU time of a write and a sync. Without `O_DIRECT` where the file system does not support it.
pub fn create(path: &Path) -> io::Result<File> {
    File::with(path, Use::New)?;
    let open = |is_direct| {
        let file = File::with(path, Use::WriteDurably { is_direct })?;
        // Some file systems refuse `O_DIRECT` only at the first write.
        let mut zeros = Blocks::default();
        zeros.restart(&[0; BLOCK_BYTES]);
        file.write_all_at(zeros.as_slice(), 0).map(|()| file)
    };
    match open(true) {
        Err(fault) if fault.raw_os_error() == Some(Errno::EINVAL as i32) => open(false),
        opened => opened,
    }
}

/// Allocates a segment's disk space. On a full disk tries a quarter of it, then a sixteenth.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
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
