//! The data directory: whether it can be written, how much room there is, and how fast a write is durable.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::{NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::{Finding, Observation, size};
use crate::event::ack::Ack;
use crate::journal::blocks::{BLOCK_BYTES, Blocks};
use crate::journal::segment::SEGMENT_BYTES;
use crate::journal::storage::{Disk, Storage, StorageFile};
use crate::server::config::Config;

/// Writes of a measurement, and the longest it may take: a slow disk is known after fewer.
const WRITES: u64 = 200;
const MEASURED_FOR_MAX: Duration = Duration::from_secs(5);

/// Above it a disk is said to be slow: a network volume of today takes 1 to 3 ms, and a p99 of some more.
const P50_MAX: Duration = Duration::from_millis(5);
const P99_MAX: Duration = Duration::from_millis(25);

/// Segments that a shard has at once, before any is full.
const SEGMENTS_PER_SHARD: u64 = 2;

/// Looks at the directory of so many shards.
pub(super) fn look(config: &Config, shards: usize) -> Vec<Finding> {
    let journal = config.data_dir.join("journal");
    let place = nearest_directory(&journal);
    let mut findings = vec![("data directory", directory(config, &place))];
    // Where nothing can be written there is nothing to measure.
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

/// A path of our own in `directory`.
pub(super) fn trial_path(directory: &Path) -> PathBuf {
    directory.join(format!("check-{}", std::process::id()))
}

/// Whether nothing is there, as far as we can see.
pub(super) fn is_missing(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(fault) if fault.kind() == io::ErrorKind::NotFound)
}

/// `path`, or what is there of the way to it.
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
    let tried = File::create_new(&trial).and_then(|_| fs::remove_file(&trial));
    if let Err(fault) = tried {
        let text = format!("{}: {fault}", place.display());
        return Observation::new(text).error(
            "give the user of hakaru the right to write there, or name another directory with --data-dir",
        );
    }
    // Of memory alone nothing is promised that a power cut could break.
    let kind = statfs(place).map(|about| about.filesystem_type());
    match kind {
        Ok(TMPFS_MAGIC) if config.ack != Ack::Received => found.warning(
            "tmpfs is memory: a power cut takes what a 200 promised. Put it on a disk, or say --ack received",
        ),
        Ok(OVERLAYFS_SUPER_MAGIC) => found.warning(
            "overlayfs goes with its container, and so do unstored events: mount a volume there",
        ),
        Ok(NFS_SUPER_MAGIC) => found.warning(
            "NFS stalls with its server, and so do answers: put it on a disk of this machine",
        ),
        _ => found,
    }
}

fn room(config: &Config, place: &Path, shards: usize) -> Observation {
    let about = match statvfs(place) {
        Ok(about) => about,
        Err(fault) => {
            return Observation::new(format!("{}: {fault}", place.display()))
                .warning("see how much is free by other means");
        }
    };
    let free = about
        .blocks_available()
        .saturating_mul(about.fragment_size());
    let limit = config.journal_limit;
    let found = Observation::new(format!(
        "{} for a journal of up to {}, beside what is there of it",
        size(free),
        size(limit)
    ));
    let least = shards as u64 * SEGMENTS_PER_SHARD * SEGMENT_BYTES;
    if free < SEGMENT_BYTES {
        return found.error(format!("a journal begins with {}: make room", size(least)));
    }
    if free < least {
        return found.warning(format!(
            "a journal begins with {}, or with smaller segments that cost more: make room",
            size(least)
        ));
    }
    if free < limit {
        return found.warning(format!(
            "a full disk fails the writes of others too, --journal-limit only those of hakaru: make room, or lower \
             the limit below {}",
            size(free)
        ));
    }
    found
}

/// How long writes took, and by what means.
struct Speed {
    means: &'static str,
    /// Sorted.
    times: Vec<Duration>,
}

/// As the journal writes: blocks that are durable when the write ends, past the page cache where the file
/// system knows that.
fn durable_writes(place: &Path) -> io::Result<Speed> {
    let path = trial_path(place);
    let made = Disk.create(&path);
    // Goes when it is closed, however that comes; what a full disk left goes too.
    let removed = fs::remove_file(&path);
    let file = made?;
    removed?;
    file.allocate(WRITES * BLOCK_BYTES as u64)?;
    file.sync()?;
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
    let means = match flags.contains(OFlag::O_DIRECT) {
        true => "O_DIRECT|O_DSYNC",
        false => "O_DSYNC (no O_DIRECT on this file system)",
    };
    let mut blocks = Blocks::default();
    blocks.restart(&[1; BLOCK_BYTES]);
    let write = |offset| StorageFile::write_at(&file, blocks.as_slice(), offset);
    Ok(Speed {
        means,
        times: times(write)?,
    })
}

/// As others write: through the page cache, synced by a call of its own.
fn synced_writes(place: &Path) -> io::Result<Speed> {
    let path = trial_path(place);
    let file = File::create_new(&path)?;
    fs::remove_file(&path)?;
    file.allocate(WRITES * BLOCK_BYTES as u64)?;
    file.sync()?;
    let write = |offset| {
        file.write_all_at(&[1; BLOCK_BYTES], offset)?;
        file.sync_data()
    };
    Ok(Speed {
        means: "fdatasync",
        times: times(write)?,
    })
}

/// Writes block after block and measures each.
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
            return found
                .error("the journal is written like this: make room, or name another --data-dir");
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
    // Only the events of such promises wait for the disk.
    if ack != Ack::Received && (p50 > P50_MAX || p99 > P99_MAX) {
        return found.warning(
            "each 200 waits for such a write: a faster disk, or --ack received, which promises less",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    #[test]
    fn a_slow_disk_is_said_where_answers_wait_for_it() {
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
    fn measuring_leaves_nothing_behind() {
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
    fn the_way_to_a_missing_directory_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        assert_eq!(nearest_directory(&deep), directory.path());
        assert_eq!(
            nearest_directory(Path::new("not-here/at-all")),
            Path::new(".")
        );
    }
}
