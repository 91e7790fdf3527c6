//! Finds lanes without an owner, and removes what is stored and old.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, SystemTime};

use nix::unistd::{Whence, lseek};

use super::handle::{LaneHandle, Origin};
use super::reader::segment_start;
use super::record::{LaneId, SegmentNumber};
use super::segment::{segment_name, segments};
use super::storage::Disk;

/// How often it looks.
const ROUND: Duration = Duration::from_secs(1);

/// What the directory of a lane is renamed to begin with when events of it were found missing.
const DAMAGED_PREFIX: &str = "damaged-";

/// A thread that looks after the journal of a process.
#[derive(Debug)]
pub struct Janitor {
    /// The directory of lanes.
    pub journal: PathBuf,
    /// How long segments are kept after their events were stored.
    pub keep: Duration,
    /// Lanes that are kept although they are stored. Each holds a file open: a process that starts over
    /// and over must not run out of them, so that some go before their time.
    pub kept_max: usize,
    /// Lanes of this process's shards, as they are opened.
    pub opened: Receiver<Arc<LaneHandle>>,
    /// Where lanes are recovered, one channel a writer.
    pub writers: Vec<SyncSender<Arc<LaneHandle>>>,
    /// Where it says how many bytes lanes hold that are not stored and that no shard writes.
    pub elsewhere: Arc<AtomicU64>,
}

/// The names of all lanes in a journal.
pub fn lanes(journal: &Path) -> io::Result<Vec<LaneId>> {
    let names = fs::read_dir(journal)?.map(|entry| entry.map(|entry| entry.file_name()));
    let parsed = names.filter_map(|name| match name {
        Ok(name) => name.to_str().and_then(|name| name.parse().ok()).map(Ok),
        Err(fault) => Some(Err(fault)),
    });
    parsed.collect()
}

impl Janitor {
    /// Works until no shard can open a lane any more.
    pub fn run(self) {
        let mut lanes: Vec<Arc<LaneHandle>> = Vec::new();
        let mut adopted = 0;
        loop {
            match self.opened.recv_timeout(ROUND) {
                Ok(lane) => {
                    lanes.push(lane);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Its lock is let go with the last who holds it: then it is found like any other.
            lanes.retain(|lane| !lane.is_lost());
            self.adopt(&mut lanes, &mut adopted);
            for lane in &lanes {
                if let Err(fault) = self.clear(lane) {
                    log::debug!("lane {}: {fault}", lane.id);
                }
            }
            let done = lanes.iter().filter(|lane| lane.is_done()).count();
            let mut too_many = done.saturating_sub(self.kept_max);
            lanes.retain(|lane| !self.is_over(lane, &mut too_many));
            let elsewhere = lanes.iter().map(|lane| unstored_bytes(lane)).sum();
            self.elsewhere.store(elsewhere, Ordering::Relaxed);
        }
    }

    /// Locks lanes that nobody owns and gives them to the writers in turn.
    fn adopt(&self, known: &mut Vec<Arc<LaneHandle>>, adopted: &mut usize) {
        let found = match lanes(&self.journal) {
            Ok(found) => found,
            Err(fault) => return log::warn!("{}: {fault}", self.journal.display()),
        };
        for id in found {
            if known.iter().any(|lane| lane.id == id) {
                continue;
            }
            let directory = self.journal.join(id.to_string());
            match LaneHandle::lock(id, directory, Origin::Found, None) {
                // A shard may have opened it in this moment: it then has the lock.
                Ok(None) => {}
                // Removed by its owner in this moment.
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => log::warn!("lane {id} cannot be recovered: {fault}"),
                Ok(Some(lane)) => {
                    let lane = Arc::new(lane);
                    let writer = &self.writers[*adopted % self.writers.len()];
                    match writer.try_send(Arc::clone(&lane)) {
                        Ok(()) => {
                            log::debug!("lane {id}: its owner is gone");
                            known.push(lane);
                            *adopted += 1;
                        }
                        // Found again in the next round.
                        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return,
                    }
                }
            }
        }
    }

    /// Removes segments whose events were stored long enough ago; never the last one.
    fn clear(&self, lane: &LaneHandle) -> io::Result<()> {
        let Some(directory) = lane.directory.as_ref().filter(|_| !lane.is_damaged()) else {
            return Ok(());
        };
        for (number, is_stored) in ended_segments(lane, directory)? {
            let path = directory.join(segment_name(number));
            if !is_stored || !self.is_old(&path)? {
                break;
            }
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Removes a lane that was done with long enough ago, or that is one too many; says whether it is
    /// gone.
    fn is_over(&self, lane: &LaneHandle, too_many: &mut usize) -> bool {
        let Some(directory) = lane.directory.as_ref().filter(|_| lane.is_done()) else {
            return false;
        };
        match self.remove(lane, directory, *too_many > 0) {
            Ok(true) => {
                *too_many = too_many.saturating_sub(1);
                lane.set_removed();
                true
            }
            Ok(false) => false,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
                log::warn!("{}: somebody has removed it", directory.display());
                lane.set_removed();
                true
            }
            Err(fault) => {
                log::warn!("{}: {fault}", directory.display());
                false
            }
        }
    }

    fn remove(&self, lane: &LaneHandle, directory: &Path, at_once: bool) -> io::Result<bool> {
        if lane.is_damaged() {
            let kept = self.journal.join(format!("{DAMAGED_PREFIX}{}", lane.id));
            log::error!(
                "lane {}: events are missing; what is left of it is kept as {}",
                lane.id,
                kept.display()
            );
            fs::rename(directory, kept)?;
            return Ok(true);
        }
        let is_empty = lane.end().is_some_and(|end| end.0 == 0);
        if !at_once
            && !is_empty
            && let Some(last) = segments(&Disk, directory)?.pop()
            && !self.is_old(&directory.join(segment_name(last)))?
        {
            return Ok(false);
        }
        // The checkpoint stays: without it a lane that is half removed would be stored again.
        fs::remove_dir_all(directory)?;
        Ok(true)
    }

    fn is_old(&self, path: &Path) -> io::Result<bool> {
        let modified = fs::metadata(path)?.modified()?;
        Ok(SystemTime::now()
            .duration_since(modified)
            .unwrap_or_default()
            >= self.keep)
    }
}

/// The segments of a lane that another follows, and whether all of their events are stored.
fn ended_segments(lane: &LaneHandle, directory: &Path) -> io::Result<Vec<(SegmentNumber, bool)>> {
    let mut ended = Vec::new();
    for pair in segments(&Disk, directory)?.windows(2) {
        let [number, next] = pair else { continue };
        // Without a head the next is not begun, or cannot be read: then only the lane's end tells.
        let end = segment_start(&Disk, directory, lane.id, *next)?.or(lane.end());
        let is_stored = end.is_some_and(|end| end <= lane.stored());
        ended.push((*number, is_stored));
    }
    Ok(ended)
}

/// Bytes of the segments of a lane that no shard writes and that is not stored.
fn unstored_bytes(lane: &LaneHandle) -> u64 {
    let is_written = lane.origin == Origin::Opened && lane.end().is_none();
    let Some(directory) = lane
        .directory
        .as_ref()
        .filter(|_| !is_written && !lane.is_done())
    else {
        return 0;
    };
    let count = || -> io::Result<u64> {
        let stored: Vec<_> = ended_segments(lane, directory)?
            .into_iter()
            .filter_map(|(number, is_stored)| is_stored.then_some(number))
            .collect();
        let unstored = segments(&Disk, directory)?
            .into_iter()
            .filter(|number| !stored.contains(number));
        let bytes = unstored.map(|number| {
            // What is allocated and not written yet is a hole.
            let file = fs::File::open(directory.join(segment_name(number)))?;
            let written = lseek(&file, 0, Whence::SeekHole)?;
            Ok(written.unsigned_abs())
        });
        bytes.sum()
    };
    count().unwrap_or_else(|fault| {
        log::debug!("lane {}: {fault}", lane.id);
        0
    })
}
