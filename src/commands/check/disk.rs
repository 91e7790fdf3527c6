//! Checks the data directory: whether it can be written, how much space is free, and how fast durable writes are.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statvfs::statvfs;

use super::{Finding, Observation, size};
use crate::event::ack::Ack;
use crate::journal::blocks::{BLOCK_BYTES, Blocks};
use crate::journal::segment::{self, SEGMENT_BYTES};
use crate::os::file_system::FileSystemRisk;
use crate::os::fs::{File, Use};
use crate::server::config::Config;
use crate::server::data_dir::{self, DataDirFault};

/// Number of writes of a measurement.
const WRITES: u64 = 200;
/// A measurement ends after this time with fewer writes.
const MEASURED_FOR_MAX: Duration = Duration::from_secs(5);

/// A disk with a higher p50 is slow. A network volume takes 1 to 3 ms.
const P50_MAX: Duration = Duration::from_millis(5);
/// A disk with a higher p99 is slow.
const P99_MAX: Duration = Duration::from_millis(25);

/// Segments that a shard has at once, before any is full.
const SEGMENTS_PER_SHARD: u64 = 2;

/// Checks the data directory for `shards` shards.
pub(super) fn check(config: &Config, shards: usize) -> Vec<Finding> {
    let journal = config.data_dir.join("journal");
    let place = nearest_directory(&journal);
    let mut findings = vec![("data directory", directory(config, &place))];
    // If nothing can be written, nothing can be measured.
    if findings
        .iter()
        .all(|(_, found)| found.level != super::Level::Error)
    {
        findings.push(("free disk", room(config, &place, shards)));
        findings.push(("durable write", speed(durable_writes(&place), config.ack)));
        findings.push((
            "write and fdatasync",
            speed(synced_writes(&place), config.ack),
        ));
    }
    findings
}

/// A path in `directory` that only this process uses.
pub(super) fn trial_path(directory: &Path) -> PathBuf {
    directory.join(format!("check-{}", std::process::id()))
}

/// Whether nothing exists at `path`. `false` if that cannot be determined.
pub(super) fn is_missing(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(fault) if fault.kind() == io::ErrorKind::NotFound)
}

/// `path`, or its nearest ancestor that exists.
pub(super) fn nearest_directory(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|part| part.exists());
    match there {
        None => PathBuf::from("."),
        Some(part) => part.to_owned(),
    }
}

fn directory(config: &Config, place: &Path) -> Observation {
    let wanted = &config.data_dir;
    let found = Observation::new(match is_missing(wanted) {
        true => format!(
            "{}: missing; it will be made in {}",
            wanted.display(),
            place.display()
        ),
        false => wanted.display().to_string(),
    });
    let trial = trial_path(place);
    let tried = File::with(&trial, Use::New).and_then(|_| fs::remove_file(&trial));
    if let Err(fault) = tried {
        let text = format!("{}: {fault}", place.display());
        return Observation::new(text).error(
            "give hakaru's user write permission there, or set another directory with --data-dir",
        );
    }
    let faults = data_dir::faults(place, config.ack);
    let Some(worst) = faults.first() else {
        return found;
    };
    let texts: Vec<_> = faults.iter().map(DataDirFault::to_string).collect();
    let found = Observation::new(format!("{}; {}", found.text, texts.join("; ")));
    judge_fault(worst, found)
}

/// What to do about the worst that was found of the directory.
fn judge_fault(worst: &DataDirFault, found: Observation) -> Observation {
    match worst {
        DataDirFault::Locks(_) => found.error(
            "name a --data-dir on another file system: there, two processes would store and remove the same lanes",
        ),
        DataDirFault::FileSystem(FileSystemRisk::Memory(_)) => {
            found.warning("put it on a disk, or set --ack received, which promises less")
        }
        DataDirFault::FileSystem(FileSystemRisk::Overlay) => found.warning("mount a volume there"),
        DataDirFault::FileSystem(FileSystemRisk::Network(_) | FileSystemRisk::Fuse) => found
            .warning("put it on a disk of this machine, and never give it to two machines"),
    }
}

fn room(config: &Config, place: &Path, shards: usize) -> Observation {
    let about = match statvfs(place) {
        Ok(about) => about,
        Err(fault) => {
            return Observation::new(format!("{}: {fault}", place.display()))
                .warning("check the free space by other means");
        }
    };
    let free = about
        .blocks_available()
        .saturating_mul(about.fragment_size());
    let limit = config.journal_limit;
    let found = Observation::new(format!(
        "{} free, for a journal that may grow to {}",
        size(free),
        size(limit)
    ));
    let least = shards as u64 * SEGMENTS_PER_SHARD * SEGMENT_BYTES;
    if free < SEGMENT_BYTES {
        return found.error(format!(
            "a new journal takes {}: free disk space",
            size(least)
        ));
    }
    if free < least {
        return found.warning(format!(
            "a new journal takes {}, or uses smaller segments, which are slower: free disk space",
            size(least)
        ));
    }
    if free < limit {
        return found.warning(format!(
            "if the journal fills the disk, the writes of other programs fail too: free disk space, or set \
             --journal-limit below {}",
            size(free)
        ));
    }
    found
}

/// The result of a measurement.
struct Speed {
    /// The flags or the system call that make a write durable.
    means: &'static str,
    /// Sorted.
    times: Vec<Duration>,
}

/// Measures writes as the journal does them. They are durable when the call returns, and bypass the page cache where
/// the file system supports that.
fn durable_writes(place: &Path) -> io::Result<Speed> {
    let path = trial_path(place);
    let made = segment::create(&path);
    // The file is unlinked at once, also if making it failed half-way on a full disk.
    let removed = fs::remove_file(&path);
    let file = made?;
    removed?;
    file.allocate(WRITES * BLOCK_BYTES as u64)?;
    file.sync_all()?;
    let file = file.into_real()?;
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
    let means = match flags.contains(OFlag::O_DIRECT) {
        true => "O_DIRECT|O_DSYNC",
        false => "O_DSYNC (no O_DIRECT on this file system)",
    };
    let mut blocks = Blocks::default();
    blocks.restart(&[1; BLOCK_BYTES]);
    let write = |offset| file.write_all_at(blocks.as_slice(), offset);
    Ok(Speed {
        means,
        times: times(write)?,
    })
}

/// Measures writes through the page cache, each followed by `fdatasync`, as other programs do them.
fn synced_writes(place: &Path) -> io::Result<Speed> {
    let path = trial_path(place);
    let file = File::with(&path, Use::New)?;
    fs::remove_file(&path)?;
    file.allocate(WRITES * BLOCK_BYTES as u64)?;
    file.sync_all()?;
    let write = |offset| {
        file.write_all_at(&[1; BLOCK_BYTES], offset)?;
        file.sync_data()
    };
    Ok(Speed {
        means: "fdatasync",
        times: times(write)?,
    })
}

/// Writes block after block and measures the time of each write.
fn times(mut write: impl FnMut(u64) -> io::Result<()>) -> io::Result<Vec<Duration>> {
    let begin = Instant::now();
    let mut times = Vec::new();
    for index in 0..WRITES {
        let start = Instant::now();
        write(index * BLOCK_BYTES as u64)?;
        times.push(start.elapsed());
        if begin.elapsed() > MEASURED_FOR_MAX {
            break;
        }
    }
    times.sort();
    Ok(times)
}

fn speed(measured: io::Result<Speed>, ack: Ack) -> Observation {
    let Speed { means, times } = match measured {
        Ok(speed) => speed,
        Err(fault) => {
            let found = Observation::new(fault.to_string());
            return found.error(
                "the journal needs such writes: free disk space, or set another --data-dir",
            );
        }
    };
    let at = |percent| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    let (p50, p99) = (at(50), at(99));
    let found = Observation::new(format!(
        "{means}, {} writes of 4 KiB: p50 {p50:.2?}, p99 {p99:.2?}",
        times.len()
    ));
    // With --ack received, answers do not wait for the disk.
    if ack != Ack::Received && (p50 > P50_MAX || p99 > P99_MAX) {
        return found.warning(
            "each 200 waits for such a write: use a faster disk, or set --ack received, which promises less",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;
    use crate::os::file_system::LockFault;

    #[test]
    fn a_slow_disk_is_a_warning_if_answers_wait_for_it() {
        let slow = || {
            Ok(Speed {
                means: "fdatasync",
                times: vec![Duration::from_millis(30); 100],
            })
        };
        assert_eq!(speed(slow(), Ack::Journaled).level, Level::Warning);
        assert_eq!(speed(slow(), Ack::Received).level, Level::Ok);
        let fault = Err(io::ErrorKind::StorageFull.into());
        assert_eq!(speed(fault, Ack::Journaled).level, Level::Error);
    }

    #[test]
    fn locks_that_do_not_hold_are_an_error_and_a_network_a_warning() {
        let level = |fault| judge_fault(&fault, Observation::new("/d")).level;
        assert_eq!(level(DataDirFault::Locks(LockFault::Ignored)), Level::Error);
        let network = FileSystemRisk::Network("NFS");
        assert_eq!(level(DataDirFault::FileSystem(network)), Level::Warning);
    }

    #[test]
    fn measuring_leaves_no_files() {
        let directory = tempfile::tempdir().unwrap();
        for measured in [
            durable_writes(directory.path()),
            synced_writes(directory.path()),
        ] {
            assert!(!measured.unwrap().times.is_empty());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_nearest_directory_of_a_missing_path_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        assert_eq!(nearest_directory(&deep), directory.path());
        assert_eq!(
            nearest_directory(Path::new("not-here/at-all")),
            Path::new(".")
        );
    }
}
