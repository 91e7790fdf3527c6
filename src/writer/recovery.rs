//! Reads events back from the journal: lanes of earlier processes, events that were only kept on disk, and events
//! that the database has lost. One batch at a time, between new ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::adopted::Adopted;
use super::failed_reads::{FailedReads, log_damage, log_failed_read, wait_after};
use super::lanes::Lanes;
use super::{Outcome, Run, Storing};
use crate::event::batch::Batch;
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::reader::{Filled, LaneReader, ReadError, UnreadableBlocks};
use crate::os::bugs::{Bug, planted};
use crate::os::clock;
use crate::os::reached::reached;

/// Lanes that are read at the same time. Each has an open file and a window of it in memory.
pub const READ_AT_ONCE: usize = 4;

/// The lanes that a writer reads back, one batch of each in turn.
#[derive(Default)]
pub(super) struct Recovery {
    lanes: VecDeque<Replay>,
    batch: Option<Batch>,
}

/// A lane that is read back.
struct Replay {
    lane: Arc<DiskLane>,
    /// The same lane as a handle.
    handle: LaneHandle,
    /// The position after the last event to be read. `None`: read to the end of the lane.
    to: Option<Position>,
    /// `None` until the checkpoint, where it starts, was read.
    reader: Option<LaneReader>,
    /// Events that were read and stored.
    read: u64,
    /// Blocks that are taken for damaged, while there is no reader.
    unreadable: UnreadableBlocks,
    failed_reads: FailedReads,
    /// Whether the journal ended before `to` when it was last read.
    ended_early: bool,
    /// How long the last step asked the database about the lane. Storing its events is not a part of it: that takes as
    /// long as an outage.
    take_over_took: Duration,
    /// When to try again after an error.
    not_before: Option<Instant>,
}

/// What follows a step of a lane.
enum Progress {
    /// There may be more events.
    More,
    /// The lane is read.
    Done,
    /// Try again after [`wait_after`] the take-over.
    Later,
}

impl Recovery {
    /// Adds the lanes that the janitor has sent.
    pub(super) fn take_new(&mut self, found: &Receiver<Arc<DiskLane>>) {
        while let Ok(lane) = found.try_recv() {
            self.lanes.push_back(Replay::new(lane, None));
        }
    }

    /// Adds a lane, to read back its unstored events before `to`.
    pub(super) fn read_back(&mut self, lane: &Arc<DiskLane>, to: Position) {
        let known = self.lanes.iter_mut().find(|known| known.lane.id == lane.id);
        match known {
            Some(known) => known.to = known.to.map(|known| known.max(to)),
            None => {
                reached("replay: events that this process has taken");
                log::debug!("lane {}: reading events back, up to {}", lane.id, to.0);
                self.lanes
                    .push_back(Replay::new(Arc::clone(lane), Some(to)));
            }
        }
    }

    /// Adds every lane up to the position to which it was ever stored: the database may have lost some of it.
    pub(super) fn check(&mut self, lanes: &Lanes) {
        let lanes = lanes.highest_stored();
        for (lane, stored) in lanes.filter(|_| !planted(Bug::RestoreNotPassedOn)) {
            self.read_back(lane, stored);
        }
    }

    /// Whether events of the lane are being read back, or wait to be, so that later ones must wait. `false` before its
    /// first step.
    pub(super) fn is_reading(&self, lane: LaneId) -> bool {
        let mut lanes = self.lanes.iter();
        let has_begun = |replay: &Replay| replay.reader.is_some() || !replay.due_in().is_zero();
        lanes.any(|replay| replay.lane.id == lane && has_begun(replay))
    }

    /// Whether any lane remains to be read.
    pub(super) fn has_work(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// How long until a lane is due. `None` if there is no lane.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.lanes.iter().map(Replay::due_in).min()
    }

    /// Drops the lanes of earlier processes. The next start recovers them.
    pub(super) fn leave_found(&mut self) {
        self.lanes.retain(|replay| replay.to.is_some());
    }

    /// Stores one batch of the first lane that is due. `false`: none is due.
    pub(super) fn advance(&mut self, storing: &mut Storing) -> bool {
        let due = self
            .lanes
            .iter()
            .position(|replay| replay.due_in().is_zero());
        let Some(mut replay) = due.and_then(|due| self.lanes.remove(due)) else {
            return false;
        };
        let mut batch = self
            .batch
            .take()
            .unwrap_or_else(|| Batch::new(storing.writer.batch_events));
        batch.clear();
        match replay.advance(storing, &mut batch) {
            Progress::More => {
                replay.not_before = None;
                // The first lanes take turns. The others have no open file yet.
                let index = self.lanes.len().min(READ_AT_ONCE - 1);
                self.lanes.insert(index, replay);
            }
            Progress::Later => {
                replay.not_before = Some(clock::now() + wait_after(replay.take_over_took));
                self.lanes.push_back(replay);
            }
            Progress::Done => {}
        }
        self.batch = Some(batch);
        true
    }
}

impl Replay {
    fn new(lane: Arc<DiskLane>, to: Option<Position>) -> Self {
        Self {
            handle: LaneHandle::Disk(Arc::clone(&lane)),
            lane,
            to,
            reader: None,
            read: 0,
            unreadable: UnreadableBlocks::default(),
            failed_reads: FailedReads::default(),
            ended_early: false,
            take_over_took: Duration::ZERO,
            not_before: None,
        }
    }

    fn due_in(&self) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(clock::now())
        })
    }

    /// Reads and stores one batch.
    fn advance(&mut self, storing: &mut Storing, batch: &mut Batch) -> Progress {
        self.take_over_took = Duration::ZERO;
        if self.reader.is_none() {
            let begun = clock::now();
            let progress = self.start(storing);
            self.take_over_took = clock::since(begun);
            if let Some(progress) = progress {
                return progress;
            }
        }
        let Some(reader) = &mut self.reader else {
            return Progress::Done;
        };
        let first = reader.position();
        let filled = reader.fill(batch, self.to);
        let position = reader.position();
        if matches!(filled, Ok(_) | Err(ReadError::Damage(_))) {
            self.lane.set_not_read(false);
            // The next block has its own time.
            reader.pass_no_more();
            self.failed_reads.clear();
        }
        if reader.has_passed_unreadable() {
            // Its files are kept, also if no event is known to be missing.
            self.lane.set_damaged();
        }
        if !batch.is_empty() {
            let run = Run {
                batch,
                lane: &self.handle,
                first,
            };
            match storing.store(run, None) {
                Outcome::Stored => self.read += run.batch.len() as u64,
                // The database has lost more events. The next step starts at its checkpoint.
                Outcome::Behind => {
                    reached("replay: begins again");
                    self.close();
                    return Progress::More;
                }
                Outcome::Left => return Progress::Done,
            }
        }
        match filled {
            Ok(_) if self.to.is_some_and(|to| position >= to) => Progress::Done,
            Ok(Filled::More) => Progress::More,
            Ok(Filled::End { torn_bytes }) => self.end(storing, position, torn_bytes),
            Err(fault) => {
                let progress = self.fail(storing, position, fault);
                let waits = matches!(progress, Progress::Later);
                self.lane.set_not_read(waits);
                progress
            }
        }
    }

    /// Says what an error of the reader means for the lane.
    fn fail(&mut self, storing: &mut Storing, position: Position, fault: ReadError) -> Progress {
        match fault {
            ReadError::Damage(damage) => {
                log_damage(self.lane.id, &damage);
                storing.lose(&self.handle, damage.from, damage.to);
                Progress::More
            }
            fault @ ReadError::Version { .. } => {
                log::error!(
                    event = "lane_of_other_version", lane:% = self.lane.id;
                    "lane {}: not recovered, and left as it is: {fault}", self.lane.id
                );
                Progress::Done
            }
            ReadError::UnknownEnd { .. } if self.is_short(position) => {
                self.end(storing, position, 0)
            }
            fault => {
                if self.failed_reads.add(&fault) {
                    log_failed_read(self.lane.id, &fault, wait_after(self.take_over_took));
                } else {
                    log::debug!("lane {}: still cannot be read: {fault}", self.lane.id);
                }
                self.close();
                Progress::Later
            }
        }
    }

    /// Adopts the lane in the database, which says where to begin. `None`: it can be read now.
    fn start(&mut self, storing: &mut Storing) -> Option<Progress> {
        // Asking the database again could delay the drain. Of a removed lane nothing is left to read.
        if storing.has_given_up || self.lane.is_removed() {
            return Some(Progress::Done);
        }
        let adopted = storing
            .open()
            .and_then(|()| storing.checkpoint(&self.handle));
        if adopted.is_ok() {
            storing.answered();
        }
        match adopted {
            Ok(Adopted::At(checkpoint)) => {
                let late = usize::from(planted(Bug::RecoveryBeginsLate));
                let (id, from) = (self.lane.id, checkpoint.position.plus(late));
                reached("replay: begins");
                storing.count_before(&self.handle, from);
                // Another process may have stored the rest.
                self.lane.set_stored(self.lane.stored().max(from));
                let reader = LaneReader::new(&self.lane.directory, id, from)
                    .pass_again(std::mem::take(&mut self.unreadable));
                self.reader = Some(if self.failed_reads.are_enough() {
                    reader.pass_unreadable()
                } else {
                    reader
                });
                None
            }
            Ok(Adopted::Foreign) => {
                self.lane.set_foreign();
                Some(Progress::Done)
            }
            Ok(Adopted::Held | Adopted::Waits(_)) => Some(Progress::Later),
            Err(fault) => {
                // It has waited already.
                storing.fail(&fault, true);
                Some(if storing.has_given_up {
                    Progress::Done
                } else {
                    Progress::More
                })
            }
        }
    }

    /// Closes its files.
    fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.unreadable = reader.into_unreadable();
        }
    }

    /// The position before which all events were on the disk, as far as it is known. A lane that is read to its end
    /// does not end before the end that it had when it was taken over.
    fn known_end(&self) -> Option<Position> {
        self.to.or_else(|| self.lane.found_end())
    }

    fn is_short(&self, position: Position) -> bool {
        self.known_end().is_some_and(|end| position < end)
    }

    /// Ends the lane: the journal has no more events of it.
    fn end(&mut self, storing: &mut Storing, position: Position, torn_bytes: u64) -> Progress {
        let id = self.lane.id;
        // Another writer has seen that the database went back: this lane may have lost events too.
        if storing.lanes.checkpoint(&self.handle).is_none() {
            self.close();
            return Progress::More;
        }
        let Some(to) = self.known_end().filter(|to| position < *to) else {
            if torn_bytes > 0 {
                log::warn!(
                    event = "lane_tail_torn", lane:% = id, bytes = torn_bytes;
                    "lane {id}: {torn_bytes} bytes after position {} are no record. A crash interrupted the last \
                     write, whose events were not answered 200; or the disk has damaged it later. hakaru goes on \
                     without them",
                    position.0
                );
            }
            // A lane that was stored before, and is only kept for `--journal-keep`, is not logged at info.
            let level = if self.read > 0 || torn_bytes > 0 {
                log::Level::Info
            } else {
                log::Level::Debug
            };
            log::log!(
                level, event = "lane_recovered", lane:% = id, events = self.read;
                "lane {id}: recovered, {} events stored", self.read
            );
            return self.finish(storing, position);
        };
        // The missing events were durable. The lane is read once more before they are taken for lost.
        if !std::mem::replace(&mut self.ended_early, true) {
            self.close();
            return Progress::Later;
        }
        log::error!(
            event = "lane_cut_short", lane:% = id, events = to.since(position);
            "lane {id}: the journal ends at position {}; {} events that were written after it are lost",
            position.0, to.since(position)
        );
        storing.lose(&self.handle, position, to);
        self.finish(storing, to)
    }

    /// Notes that all of a lane of an earlier process before `end` is stored or lost.
    fn finish(&mut self, storing: &mut Storing, end: Position) -> Progress {
        if self.to.is_some() {
            return Progress::Done;
        }
        match storing.pass_lost_end(&self.handle, end) {
            Outcome::Stored => {}
            Outcome::Behind => {
                self.close();
                return Progress::More;
            }
            Outcome::Left => return Progress::Done,
        }
        self.lane.set_stored(end);
        self.lane.set_end(end);
        Progress::Done
    }
}
