//! One attempt to store a run: one transaction, in which the lane's checkpoint moves with the rows.

use std::time::{Duration, Instant};

use super::{Run, Storing};
use crate::event::position::Position;
use crate::journal::lane_handle::LaneHandle;
use crate::metrics::ErrorClass;
use crate::sink::{Checkpoint, Fault, InsertTimes, Inserted, Refused, SinkError, Step};

/// How an attempt ended that met no error.
pub(super) enum Attempt {
    /// The events are stored, the checkpoint is behind them; how long it took, if it was done now.
    Stored(Option<StoreTimes>),
    /// The checkpoint stands elsewhere; what was known of it has been put right. Again.
    Moved,
    /// The database lacks events before the run.
    Behind,
}

/// Where the time of a batch went.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreTimes {
    pub(super) insert: InsertTimes,
    pub(super) commit: Duration,
}

impl StoreTimes {
    pub(super) fn sum(self) -> Duration {
        self.insert.prepare + self.insert.execute + self.commit
    }
}

impl Storing {
    /// The checkpoint's step, the rows, the dead letters' file, COMMIT. The step begins where the
    /// checkpoint is, and that must be inside the run or at its start: never are events passed
    /// over that are not in it.
    pub(super) fn attempt(&mut self, run: Run<'_>) -> Result<Attempt, SinkError> {
        self.open()?;
        let checkpoint = self.checkpoint(run.lane)?;
        if checkpoint.position >= run.end() {
            return Ok(Attempt::Stored(None));
        }
        let state = self.lanes.of(run.lane);
        // Without a journal there is nothing to read the missing events back from.
        let is_behind = run.is_journaled() && !state.is_gap_known(checkpoint.position, run.first);
        if is_behind {
            return Ok(Attempt::Behind);
        }
        let step = Step {
            lane: run.lane.id(),
            epoch: checkpoint.epoch,
            old: checkpoint.position,
            new: run.end(),
        };
        // An earlier run that was cut elsewhere may have stored the first of these.
        let stored = checkpoint.position.since(run.first);
        let from = usize::try_from(stored).unwrap_or(usize::MAX);
        let mut refused = state.refused(run.first, run.end());
        let inserted = self.writer.sink.insert(run.batch, from, step, &mut refused);
        self.write_dead_letters(run, refused)?;
        let insert = match inserted? {
            Inserted::Open(times) => times,
            Inserted::CheckpointMismatch(found) => {
                return Ok(self.find_again(run.lane, step, found));
            }
        };
        let start = Instant::now();
        self.writer.sink.commit()?;
        let commit = start.elapsed();
        let moved = Checkpoint {
            epoch: step.epoch,
            position: step.new,
        };
        self.lanes.of(run.lane).checkpoint = Some(moved);
        Ok(Attempt::Stored(Some(StoreTimes { insert, commit })))
    }

    /// What the database says of a lane. Asked once a connection; to ask makes the lane ours.
    pub(super) fn checkpoint(&mut self, lane: &LaneHandle) -> Result<Checkpoint, SinkError> {
        if let Some(checkpoint) = self.lanes.of(lane).checkpoint {
            return Ok(checkpoint);
        }
        let checkpoint = self.writer.sink.adopt(lane.id())?;
        let once = self.lanes.of(lane).learn(checkpoint);
        self.say_lost(lane, once, checkpoint.position);
        Ok(checkpoint)
    }

    /// Says that a checkpoint is not where it once was, if so.
    fn say_lost(&self, lane: &LaneHandle, once: Position, now: Position) -> bool {
        let lost = once.since(now);
        if lost > 0 {
            let remedy = if lane.on_disk().is_some() {
                "they are stored again from the journal, as far as it keeps them"
            } else {
                "without a journal they cannot be stored again"
            };
            log::error!(
                event = "database_lost_events", lane:% = lane.id(), events = lost;
                "lane {}: the database has lost {lost} stored events, as one restored from a backup; \
                 {remedy}",
                lane.id()
            );
            lane.set_stored(now);
        }
        lost > 0
    }

    /// The checkpoint was not where it should have been: learns where it is.
    fn find_again(&mut self, lane: &LaneHandle, step: Step, found: Option<Checkpoint>) -> Attempt {
        match found {
            Some(found) if found.epoch == step.epoch => {
                if self.say_lost(lane, step.old, found.position) {
                    self.tell_restore();
                }
                self.lanes.of(lane).checkpoint = Some(found);
                if found.position == step.new {
                    // A COMMIT whose answer was lost did happen.
                    Attempt::Stored(None)
                } else {
                    Attempt::Moved
                }
            }
            // An earlier state of the database, or none; or somebody else has made the lane his own: a
            // late word of a connection of ours that was lost, or a process on a copy of the directory.
            // It is ours by its lock, and what is in it at a position is the same for all: the lane is
            // made ours again, and the compare-and-set keeps each event one row.
            _ => {
                let now = found.map_or(0, |found| found.epoch.0);
                log::warn!(
                    event = "lane_epoch_changed", lane:% = lane.id(), epoch = now, own_epoch = step.epoch.0;
                    "lane {}: its epoch in the database is {now} and not {}, as if another process stored it; it \
                     is taken over again",
                    lane.id(), step.epoch.0
                );
                self.lanes.of(lane).checkpoint = None;
                Attempt::Moved
            }
        }
    }

    /// Puts newly refused events into the dead-letter file, before the checkpoint passes them.
    fn write_dead_letters(&mut self, run: Run<'_>, refused: Refused) -> Result<(), SinkError> {
        let place = |index: usize| run.first.plus(index);
        let known = self.lanes.of(run.lane).refused(run.first, run.end());
        let new: Vec<(usize, Fault)> = refused
            .into_iter()
            .filter(|(index, _)| !known.contains_key(index))
            .collect();
        let Some((_, fault)) = new.first() else {
            return Ok(());
        };
        let letters = new
            .iter()
            .map(|(index, fault)| (run.batch.event(*index), place(*index), fault));
        let written = self.writer.dead_letters.write(run.lane.id(), letters);
        written.map_err(|fault| SinkError::Stop(Fault::new(fault.to_string())))?;
        log::warn!(
            event = "dead_letters_written", writer = self.writer.index, lane:% = run.lane.id(),
            events = new.len(), code = fault.code;
            "writer {}: the database refused {} events, they are in the dead letters: {fault}",
            self.writer.index, new.len()
        );
        let state = self.lanes.of(run.lane);
        for (index, fault) in new {
            self.writer.counters.error(ErrorClass::Reject, &fault, 1);
            state.add_dead(place(index), fault);
        }
        Ok(())
    }
}
