//! Takes over lanes without an owner, and removes segments and lanes that were stored `--journal-keep` ago.

mod foreign_lanes;
mod retained_lane;
mod trim;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use self::foreign_lanes::ForeignLanes;
use self::retained_lane::{RetainedLane, too_many};
use self::trim::written_bytes;
use super::lane_end;
use super::lane_handle::{DiskLane, Origin};
use super::reader::segment_start;
use super::record::SegmentNumber;
use super::removal::remove_lane;
use super::segment::{lanes, segment_bytes, segment_name, segments};
use super::served_database::ServedDatabase;
use super::stored_note;
use crate::event::position::LaneId;
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;
use crate::os::{clock, fs};

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// Prefix of the directory of a damaged lane. It is renamed, not removed.
const DAMAGED_PREFIX: &str = "damaged-";

/// The thread that takes care of a process's journal.
#[derive(Debug)]
pub struct Janitor {
    /// The directory of lanes.
    pub journal: PathBuf,
    /// How long segments are kept after their events were stored. Only time with a reachable database counts.
    pub keep: Duration,
    /// Most stored lanes that are kept. More are removed before `keep` has passed, the longest stored first: each
    /// holds a file open, and many restarts must not use up the limit of open files.
    pub retained_max: usize,
    /// The lanes that shards of this process open.
    pub opened: Receiver<Arc<DiskLane>>,
    /// Where lanes of earlier processes are sent for recovery: one channel per writer.
    pub writers: Vec<SyncSender<Arc<DiskLane>>>,
    /// Set to the bytes of unstored segments in lanes that no shard writes.
    pub inactive_bytes: Arc<AtomicU64>,
    /// The database that is served: lanes of others are left alone.
    pub served: Arc<ServedDatabase>,
    /// Set to the number of events that earlier processes left to this one.
    pub found_events: Arc<AtomicU64>,
}

/// The failures that are logged. Each is logged once, until it is over.
#[derive(Debug, Default)]
struct LoggedFailures {
    /// The journal cannot be listed.
    listing: bool,
    /// These lanes cannot be taken over.
    lanes: BTreeSet<LaneId>,
}

impl Janitor {
    /// Runs until no shard can open a lane any more.
    pub fn run(self) {
        let mut lanes: Vec<RetainedLane> = Vec::new();
        let mut foreign = ForeignLanes::default();
        let mut failed = LoggedFailures::default();
        let mut restores = self.served.restores();
        // The first round starts at once: the events of an earlier process are late already.
        let mut round = clock::now();
        loop {
            let wait = round.saturating_duration_since(clock::now());
            match clock::receive_within(&self.opened, wait) {
                Ok(lane) => lanes.push(RetainedLane::new(lane)),
                Err(RecvTimeoutError::Timeout) => {
                    round = clock::now() + ROUND;
                    self.adopt(&mut lanes, &mut foreign, &mut failed);
                    foreign.publish(&self.served);
                    let seen = self.served.restores();
                    if std::mem::replace(&mut restores, seen) != seen {
                        // Writers may not have asked for the checkpoints of all lanes yet.
                        lanes.iter_mut().for_each(RetainedLane::keep_anew);
                    }
                    self.clean_up(&mut lanes, &mut foreign);
                }
                // The notes are for the next process, the numbers for the last lines of the log.
                Err(RecvTimeoutError::Disconnected) => return self.publish(&mut lanes),
            }
        }
    }

    /// Writes the note of each lane, and publishes how much is not stored.
    fn publish(&self, lanes: &mut [RetainedLane]) {
        for retained in &mut *lanes {
            retained.write_note();
            retained.lane.publish_found();
        }
        let held = || lanes.iter().filter_map(|retained| retained.lane.held());
        self.served.set_held(held().count() as u64, held().sum());
        let waiting = lanes.iter().filter(|retained| retained.lane.is_waiting());
        self.served.set_waiting(waiting.count() as u64);
        let inactive_bytes = lanes.iter().map(unstored_bytes).sum();
        self.inactive_bytes.store(inactive_bytes, Ordering::Relaxed);
    }

    /// Locks lanes without an owner and sends them to the writers in turn.
    fn adopt(
        &self,
        known: &mut Vec<RetainedLane>,
        foreign: &mut ForeignLanes,
        failed: &mut LoggedFailures,
    ) {
        let found = match lanes(&self.journal) {
            Ok(found) => found,
            Err(fault) => {
                if !std::mem::replace(&mut failed.listing, true) {
                    log::warn!(
                        event = "journal_not_listed", code = fault.raw_os_error();
                        "{}: the journal cannot be listed: {fault}; lanes of earlier processes wait, and hakaru \
                         tries again every second",
                        self.journal.display()
                    );
                }
                return;
            }
        };
        failed.listing = false;
        failed.lanes.retain(|id| found.contains(id));
        foreign.retain(|id| found.contains(&id));
        for id in found {
            if known.iter().any(|retained| retained.lane.id == id) || self.is_foreign(id, foreign) {
                continue;
            }
            match self.lock(id) {
                // Another process owns it, or a shard of this process has just opened it.
                Ok(None) => {}
                // Its owner has just removed it.
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => {
                    if failed.lanes.insert(id) {
                        log::warn!(
                            event = "lane_takeover_failed", lane:% = id, code = fault.raw_os_error();
                            "lane {id} of an earlier process cannot be taken over: {fault}; its events wait, and \
                             hakaru tries again every second"
                        );
                    }
                }
                Ok(Some(lane)) => {
                    let retained = RetainedLane::found(lane, &self.found_events);
                    let lane = Arc::clone(&retained.lane);
                    let adopted = known
                        .iter()
                        .filter(|retained| retained.lane.origin == Origin::Found)
                        .count();
                    let writer = &self.writers[adopted % self.writers.len()];
                    match writer.try_send(Arc::clone(&lane)) {
                        Ok(()) => {
                            reached("janitor: lane taken over");
                            log::debug!("lane {id}: taken over, its owner is gone");
                            known.push(retained);
                        }
                        // The lock is released, and the next round tries again.
                        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                            reached("janitor: the writer has enough lanes");
                            if planted(Bug::LaneOfNobody) {
                                known.push(retained);
                                continue;
                            }
                            return retained.lane.unpublish_found();
                        }
                    }
                }
            }
        }
    }

    fn is_foreign(&self, id: LaneId, foreign: &mut ForeignLanes) -> bool {
        let directory = self.journal.join(id.to_string());
        foreign.is_foreign(id, &directory, &self.served, || {
            self.lock(id).ok().flatten()
        })
    }

    /// Locks a lane. `None` if it has an owner. A lane to which nothing was written is removed at once, and is
    /// `None` too: many restarts leave many empty lanes, also while the database is unreachable. A file `end` says if
    /// something was written that is gone.
    fn lock(&self, id: LaneId) -> io::Result<Option<DiskLane>> {
        let directory = self.journal.join(id.to_string());
        let Some(lane) = DiskLane::lock(id, directory.clone(), Origin::Found, None)? else {
            return Ok(None);
        };
        for number in segments(&directory)? {
            match written_bytes(&directory.join(segment_name(number))) {
                Ok(0) => {}
                // A blank block reads as zeros.
                Err(fault) if !fs::is_unreadable(&fault) => return Err(fault),
                Ok(_) | Err(_) => return Ok(Some(lane)),
            }
        }
        match lane_end::read(&directory) {
            // Then events are missing, which its writer reports; or nobody knows.
            Ok(Some(end)) if end > stored_note::read(&directory) => Ok(Some(lane)),
            Err(_) => Ok(Some(lane)),
            Ok(_) => {
                reached("janitor: empty lane removed");
                fs::remove_dir_all(&directory)?;
                Ok(None)
            }
        }
    }

    fn clean_up(&self, lanes: &mut Vec<RetainedLane>, foreign: &mut ForeignLanes) {
        // Their locks are given up: the process that serves their database may take them.
        lanes.retain_mut(|retained| {
            let is_foreign = retained.lane.is_foreign();
            if is_foreign {
                retained.lane.unpublish_found();
                foreign.add_unclaimed(retained.lane.id);
            }
            !is_foreign
        });
        let keep = self.keep();
        for retained in &mut *lanes {
            // The clock first: after a restore the writer lowers the stored position before it confirms again. In
            // the other order a new confirmation could be read together with the old position.
            retained.clock.tick(retained.lane.last_confirmed_at());
            retained.label(&self.served);
            retained.trim();
            // Before it may be removed.
            retained.lane.publish_found();
            if let Err(fault) = self.remove_old_segments(retained, keep) {
                log::debug!("lane {}: {fault}", retained.lane.id);
            }
        }
        let too_many = too_many(lanes, self.retained_max);
        lanes.retain_mut(|retained| {
            let is_too_many = too_many.contains(&retained.lane.id);
            !self.remove_if_old(retained, keep, is_too_many)
        });
        self.publish(lanes);
    }

    /// How long stored segments are kept now. They are not kept while the disk has no space for another
    /// segment: new events need it.
    fn keep(&self) -> Duration {
        match fs::free_bytes(&self.journal) {
            Ok(free) if free < segment_bytes() => {
                reached("janitor: nothing kept on a full disk");
                Duration::ZERO
            }
            Ok(_) => self.keep,
            Err(fault) => {
                log::debug!("{}: {fault}", self.journal.display());
                self.keep
            }
        }
    }

    /// Removes segments whose events were stored `keep` ago. Never removes the last one.
    fn remove_old_segments(&self, retained: &mut RetainedLane, keep: Duration) -> io::Result<()> {
        let lane = &retained.lane;
        // Before the database confirms a lane, the stored position is from a note, which may be wrong. That of a lane that
        // waits may be in question.
        let is_certain = !lane.is_waiting() && lane.last_confirmed_at().is_some();
        if lane.held().is_some() || lane.is_damaged() || !is_certain {
            return Ok(());
        }
        for (number, is_stored) in ended_segments(lane)? {
            if !is_stored && !planted(Bug::UnstoredRemoved) {
                // It may have been stored once: the database may have lost rows.
                retained.stored_since.remove(&number);
                continue;
            }
            let now = retained.clock.now();
            let since = *retained.stored_since.entry(number).or_insert(now);
            if now - since >= keep {
                reached("janitor: segment removed");
                fs::remove_file(&lane.directory.join(segment_name(number)))?;
                retained.stored_since.remove(&number);
            }
        }
        Ok(())
    }

    /// Removes a lane that was done `keep` ago, or is empty, or exceeds `retained_max` (`is_too_many`). Whether it is
    /// gone.
    fn remove_if_old(
        &self,
        retained: &mut RetainedLane,
        keep: Duration,
        is_too_many: bool,
    ) -> bool {
        let lane = &retained.lane;
        if !lane.is_done() || lane.is_waiting() || lane.held().is_some() {
            retained.done_since = None;
            return false;
        }
        let now = retained.clock.now();
        let since = *retained.done_since.get_or_insert(now);
        let is_empty = lane.end().is_some_and(|end| end.0 == 0);
        if now - since < keep && !is_too_many && !is_empty {
            return false;
        }
        match self.remove(lane) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut retained.has_removal_failed, true) {
                    log::warn!(
                        event = "lane_removal_failed", lane:% = lane.id, code = fault.raw_os_error();
                        "lane {} is stored, but {} cannot be removed: {fault}; hakaru tries again after --journal-keep",
                        lane.id, lane.directory.display()
                    );
                }
                // Try again after `keep`, not every second.
                retained.done_since = None;
                false
            }
            // Also if it was gone already.
            _ => {
                reached("janitor: lane removed");
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
                "lane {}: the disk lacks events of it, or did not read all of its blocks; its files are kept in {}",
                lane.id, renamed.display()
            );
            return Ok(());
        }
        // The checkpoint stays in the database: without it, a partly removed lane would be stored again.
        remove_lane(&lane.directory, lane.id, lane.stored())
    }
}

/// The segments of a lane before the one in which it ends, and for each whether all its events are stored.
fn ended_segments(lane: &DiskLane) -> io::Result<Vec<(SegmentNumber, bool)>> {
    let mut ended = Vec::new();
    let directory = &lane.directory;
    let segments = segments(directory)?;
    for pair in segments.windows(2) {
        let [number, next] = pair else { continue };
        let start = segment_start(directory, lane.id, *next)?;
        // The last one may be empty. If a power cut kept only the removal of the one before, the lane would seem to end early.
        if start.is_none() && segments.last() == Some(next) {
            continue;
        }
        // A next segment without a readable head has no known start. Then the lane's end counts.
        let end = start.or(lane.end());
        let is_stored = end.is_some_and(|end| end <= lane.stored());
        ended.push((*number, is_stored));
    }
    Ok(ended)
}

/// Bytes of the unstored segments of a lane. 0 while a shard writes it.
fn unstored_bytes(retained: &RetainedLane) -> u64 {
    let lane = &retained.lane;
    if lane.origin == Origin::Found && retained.unstored_events() == 0 {
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
        let unstored = segments(directory)?
            .into_iter()
            .filter(|number| !stored.contains(number));
        let bytes = unstored.map(|number| {
            // The last segments are trimmed to what was written.
            Ok(fs::about(&directory.join(segment_name(number)))?.length)
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
