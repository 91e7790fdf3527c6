//! Finds lanes without an owner, and removes what is stored and old.

mod retained_lane;
mod trim;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use self::retained_lane::RetainedLane;
use self::trim::written_bytes;
use super::lane_handle::{DiskLane, Origin};
use super::reader::segment_start;
use super::record::SegmentNumber;
use super::segment::{SEGMENT_BYTES, segment_name, segments};
use super::storage::Disk;
use crate::event::position::LaneId;

/// How often it looks.
const ROUND: Duration = Duration::from_secs(1);

/// What the directory of a lane is renamed to begin with when events of it were found missing.
const DAMAGED_PREFIX: &str = "damaged-";

/// A thread that looks after the journal of a process.
#[derive(Debug)]
pub struct Janitor {
    /// The directory of lanes.
    pub journal: PathBuf,
    /// How long segments are kept after their events were stored, while the database can be asked.
    pub keep: Duration,
    /// Lanes that are kept although they are stored. Each holds a file open: a process that starts over
    /// and over must not run out of them, so that some go before their time.
    pub kept_max: usize,
    /// Lanes of this process's shards, as they are opened.
    pub opened: Receiver<Arc<DiskLane>>,
    /// Where lanes are recovered, one channel a writer.
    pub writers: Vec<SyncSender<Arc<DiskLane>>>,
    /// Where it says how many bytes lanes hold that are not stored and that no shard writes.
    pub elsewhere: Arc<AtomicU64>,
    /// Where it says how many events of earlier processes are not stored.
    pub found_events: Arc<AtomicU64>,
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
        let mut lanes: Vec<RetainedLane> = Vec::new();
        let mut complained = BTreeSet::new();
        // At once: what an earlier process promised is late already.
        let mut round = Instant::now();
        loop {
            let wait = round.saturating_duration_since(Instant::now());
            match self.opened.recv_timeout(wait) {
                Ok(lane) => lanes.push(RetainedLane::new(lane)),
                Err(RecvTimeoutError::Timeout) => {
                    round = Instant::now() + ROUND;
                    self.adopt(&mut lanes, &mut complained);
                    self.clear_all(&mut lanes);
                }
                // For the next process, and for our last words.
                Err(RecvTimeoutError::Disconnected) => return self.count(&mut lanes),
            }
        }
    }

    /// Notes how far each lane is stored, and says what is not.
    fn count(&self, lanes: &mut [RetainedLane]) {
        for retained in &mut *lanes {
            retained.note();
        }
        let elsewhere = lanes.iter().map(unstored_bytes).sum();
        self.elsewhere.store(elsewhere, Ordering::Relaxed);
        let found = lanes.iter().map(RetainedLane::found_events).sum();
        self.found_events.store(found, Ordering::Relaxed);
    }

    /// Locks lanes that nobody owns and gives them to the writers in turn.
    fn adopt(&self, known: &mut Vec<RetainedLane>, complained: &mut BTreeSet<LaneId>) {
        let found = match lanes(&self.journal) {
            Ok(found) => found,
            Err(fault) => {
                return log::warn!(
                    event = "journal_not_listed";
                    "{}: {fault}; lanes of earlier processes are not looked for, tried again every second",
                    self.journal.display()
                );
            }
        };
        // Of lanes that are gone nothing need be remembered.
        complained.retain(|id| found.contains(id));
        for id in found {
            if known.iter().any(|retained| retained.lane.id == id) {
                continue;
            }
            match self.lock(id) {
                // A shard may have opened it in this moment: it then has the lock.
                Ok(None) => {}
                // Removed by its owner in this moment.
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => {
                    if complained.insert(id) {
                        log::warn!(
                            event = "lane_takeover_failed", lane:% = id, code = fault.raw_os_error();
                            "lane {id} of an earlier process cannot be taken over: {fault}; its events wait, tried \
                             again every second"
                        );
                    }
                }
                Ok(Some(lane)) => {
                    let retained = RetainedLane::found(lane);
                    let lane = Arc::clone(&retained.lane);
                    let adopted = known
                        .iter()
                        .filter(|retained| retained.lane.origin == Origin::Found)
                        .count();
                    let writer = &self.writers[adopted % self.writers.len()];
                    match writer.try_send(Arc::clone(&lane)) {
                        Ok(()) => {
                            log::debug!("lane {id}: its owner is gone");
                            known.push(retained);
                        }
                        // Found again in the next round.
                        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return,
                    }
                }
            }
        }
    }

    /// Locks a lane without an owner. One to which nothing was ever written is removed at once: a process that starts over
    /// and over leaves many, and no database is needed to know that they hold nothing.
    fn lock(&self, id: LaneId) -> io::Result<Option<DiskLane>> {
        let directory = self.journal.join(id.to_string());
        let Some(lane) = DiskLane::lock(id, directory.clone(), Origin::Found, None)? else {
            return Ok(None);
        };
        for number in segments(&Disk, &directory)? {
            if written_bytes(&directory.join(segment_name(number)))? > 0 {
                return Ok(Some(lane));
            }
        }
        fs::remove_dir_all(directory)?;
        Ok(None)
    }

    fn clear_all(&self, lanes: &mut Vec<RetainedLane>) {
        let keep = self.keep();
        for retained in &mut *lanes {
            // Before it is looked how far the lane is stored: that may have gone back since.
            retained.clock.tick(retained.lane.last_confirmed_at());
            retained.trim();
            if let Err(fault) = self.clear(retained, keep) {
                log::debug!("lane {}: {fault}", retained.lane.id);
            }
        }
        let done = lanes
            .iter()
            .filter(|retained| retained.lane.is_done())
            .count();
        let mut too_many = done.saturating_sub(self.kept_max);
        lanes.retain_mut(|retained| !self.is_over(retained, keep, &mut too_many));
        self.count(lanes);
    }

    /// How long what is stored is kept at present: where the disk has no room for a segment more, new
    /// events come first.
    fn keep(&self) -> Duration {
        let free = statvfs(&self.journal).map(|about| {
            about
                .blocks_available()
                .saturating_mul(about.fragment_size())
        });
        match free {
            Ok(free) if free < SEGMENT_BYTES => Duration::ZERO,
            Ok(_) => self.keep,
            Err(fault) => {
                log::debug!("{}: {fault}", self.journal.display());
                self.keep
            }
        }
    }

    /// Removes segments whose events were stored long enough ago; never the last one.
    fn clear(&self, retained: &mut RetainedLane, keep: Duration) -> io::Result<()> {
        let lane = &retained.lane;
        // Of a lane that was only found a note says what is stored, and a note is not to be trusted.
        if lane.is_damaged() || lane.last_confirmed_at().is_none() {
            return Ok(());
        }
        for (number, is_stored) in ended_segments(lane)? {
            if !is_stored {
                // Or stored no more: the database may have gone back.
                retained.stored_since.remove(&number);
                continue;
            }
            let now = retained.clock.now();
            let since = *retained.stored_since.entry(number).or_insert(now);
            if now - since >= keep {
                fs::remove_file(lane.directory.join(segment_name(number)))?;
                retained.stored_since.remove(&number);
            }
        }
        Ok(())
    }

    /// Removes a lane that was done with long enough ago, or that is one too many; says whether it is
    /// gone.
    fn is_over(&self, retained: &mut RetainedLane, keep: Duration, too_many: &mut usize) -> bool {
        let lane = &retained.lane;
        if !lane.is_done() {
            retained.done_since = None;
            return false;
        }
        let now = retained.clock.now();
        let since = *retained.done_since.get_or_insert(now);
        let is_empty = lane.end().is_some_and(|end| end.0 == 0);
        if now - since < keep && *too_many == 0 && !is_empty {
            return false;
        }
        *too_many = too_many.saturating_sub(1);
        match self.remove(lane) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                log::warn!(
                    event = "lane_removal_failed", lane:% = lane.id, code = fault.raw_os_error();
                    "lane {}, which is stored, cannot be removed: {}: {fault}; tried again after --journal-keep",
                    lane.id, lane.directory.display()
                );
                // Not each second.
                retained.done_since = None;
                false
            }
            // Or somebody else has removed it.
            _ => {
                lane.set_removed();
                true
            }
        }
    }

    fn remove(&self, lane: &DiskLane) -> io::Result<()> {
        if lane.is_damaged() {
            let renamed = self.journal.join(format!("{DAMAGED_PREFIX}{}", lane.id));
            fs::rename(&lane.directory, &renamed)?;
            log::error!(
                event = "damaged_lane_kept", lane:% = lane.id;
                "lane {}: events are missing on the disk; what is left of the lane is kept as {}",
                lane.id, renamed.display()
            );
            return Ok(());
        }
        // The checkpoint stays: without it a lane that is half removed would be stored again.
        fs::remove_dir_all(&lane.directory)
    }
}

/// The segments of a lane that another follows, and whether all of their events are stored.
fn ended_segments(lane: &DiskLane) -> io::Result<Vec<(SegmentNumber, bool)>> {
    let mut ended = Vec::new();
    let directory = &lane.directory;
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
fn unstored_bytes(retained: &RetainedLane) -> u64 {
    let lane = &retained.lane;
    if lane.origin == Origin::Found && retained.found_events() == 0 {
        return 0;
    }
    let is_written = lane.origin == Origin::Opened && lane.end().is_none();
    if is_written || lane.is_done() {
        return 0;
    }
    let directory = &lane.directory;
    let count = || -> io::Result<u64> {
        let stored: Vec<_> = ended_segments(lane)?
            .into_iter()
            .filter_map(|(number, is_stored)| is_stored.then_some(number))
            .collect();
        let unstored = segments(&Disk, directory)?
            .into_iter()
            .filter(|number| !stored.contains(number));
        let bytes = unstored.map(|number| {
            // Those at the end were cut to what was written.
            Ok(fs::metadata(directory.join(segment_name(number)))?.len())
        });
        bytes.sum()
    };
    count().unwrap_or_else(|fault| {
        log::debug!("lane {}: {fault}", lane.id);
        0
    })
}

#[cfg(test)]
mod tests;
