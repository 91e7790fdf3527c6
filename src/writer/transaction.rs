//! One attempt to store a run: a transaction with the rows and the lane's checkpoint.

use std::io;
use std::time::{Duration, Instant};

use super::identity::Claim;
use super::{Run, Storing};
use crate::event::position::Position;
use crate::journal::lane_handle::LaneHandle;
use crate::metrics::ErrorClass;
use crate::sink::{Checkpoint, Fault, InsertTimes, Inserted, Refused, SinkError, Step};

/// The result of an attempt without an error.
pub(super) enum Attempt {
    /// The events are stored. Holds the times, or `None` if an earlier attempt stored them.
    Stored(Option<StoreTimes>),
    /// The checkpoint was at another position. It is read now; try again.
    Moved,
    /// The database lacks events before the run.
    Behind,
}

/// The time that storing a batch took.
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

/// What became of taking a lane over in the database.
pub(super) enum Adopted {
    /// This process owns it; here is its checkpoint.
    At(Checkpoint),
    /// It belongs to another database.
    Foreign,
    /// Whether it does cannot be read.
    Unreadable(io::Error),
}

impl Storing {
    /// Moves the checkpoint, inserts the rows, writes dead letters, and commits. The checkpoint must be at the start
    /// of the run or in it. Events between it and the run are not skipped, unless the disk has lost them or they
    /// were never in a journal.
    pub(super) fn attempt(&mut self, run: Run<'_>) -> Result<Attempt, SinkError> {
        self.open()?;
        let checkpoint = match self.checkpoint(run.lane)? {
            Adopted::At(checkpoint) => checkpoint,
            // Whoever reads the lane back begins again, and lets it go or waits.
            Adopted::Foreign | Adopted::Unreadable(_) if run.lane.is_found() => {
                return Ok(Attempt::Behind);
            }
            Adopted::Foreign => {
                let text = format!("lane {} belongs to another database", run.lane.id());
                return Err(SinkError::Stop(Fault::new(text)));
            }
            Adopted::Unreadable(fault) => {
                let text = format!("the database of lane {}: {fault}", run.lane.id());
                return Err(SinkError::Stop(Fault::new(text)));
            }
        };
        if checkpoint.position >= run.end() {
            return Ok(Attempt::Stored(None));
        }
        let state = self.lanes.of(run.lane);
        // Without a journal the missing events cannot be read back.
        let is_behind = run.is_journaled() && !state.can_skip(checkpoint.position, run.first);
        if is_behind {
            return Ok(Attempt::Behind);
        }
        let step = Step {
            lane: run.lane.id(),
            epoch: checkpoint.epoch,
            old: checkpoint.position,
            new: run.end(),
        };
        // An earlier run with other bounds may have stored the first of these events.
        let stored = checkpoint.position.since(run.first);
        let from = usize::try_from(stored).unwrap_or(usize::MAX);
        let mut refused = state.refused(run.first, run.end());
        let inserted = self.writer.sink.insert(run.batch, from, step, &mut refused);
        self.write_dead_letters(run, refused)?;
        let insert = match inserted? {
            Inserted::Open(times) => times,
            Inserted::CheckpointMismatch(found) => {
                self.identify_again()?;
                return Ok(self.relocate_checkpoint(run.lane, step, found));
            }
        };
        let start = Instant::now();
        self.writer.sink.commit()?;
        let commit = start.elapsed();
        let moved = Checkpoint {
            epoch: step.epoch,
            position: step.new,
        };
        self.lanes.of(run.lane).set_checkpoint(moved);
        Ok(Attempt::Stored(Some(StoreTimes { insert, commit })))
    }

    /// The checkpoint of a lane. Reads it once per connection, which makes this process the owner of the lane.
    pub(super) fn checkpoint(&mut self, lane: &LaneHandle) -> Result<Adopted, SinkError> {
        if let Some(checkpoint) = self.lanes.checkpoint(lane) {
            return Ok(Adopted::At(checkpoint));
        }
        // Before anything is remembered of the lane: one of another database is let go.
        let checkpoint = match lane.on_disk() {
            None => self.writer.sink.adopt(lane.id(), Position::START)?,
            Some(disk) => match self.claim(disk)? {
                Claim::Foreign => return Ok(Adopted::Foreign),
                Claim::Unreadable(fault) => return Ok(Adopted::Unreadable(fault)),
                Claim::Ours { from } => self.writer.sink.adopt(disk.id, from)?,
            },
        };
        let before = self.lanes.of(lane).set_checkpoint(checkpoint);
        if self.log_lost_events(lane, before, checkpoint.position) {
            // The database may have lost events of all lanes.
            self.announce_restore();
            self.lanes.of(lane).checkpoint = Some(checkpoint);
        }
        Ok(Adopted::At(checkpoint))
    }

    /// Logs how many events the database has lost, and lowers the lane's stored position, if the checkpoint has
    /// decreased from `before` to `now`. Returns whether it has.
    fn log_lost_events(&self, lane: &LaneHandle, before: Position, now: Position) -> bool {
        let lost = before.since(now);
        if lost > 0 {
            let remedy = if lane.on_disk().is_some() {
                "hakaru stores them again, as far as they are still in the journal"
            } else {
                "without a journal they cannot be stored again"
            };
            log::error!(
                event = "database_lost_events", lane:% = lane.id(), events = lost;
                "lane {}: the database has lost {lost} stored events, as after a restore from a backup; \
                 {remedy}",
                lane.id()
            );
            lane.set_stored(now);
        }
        lost > 0
    }

    /// Takes over the checkpoint that was found instead of the expected one.
    fn relocate_checkpoint(
        &mut self,
        lane: &LaneHandle,
        step: Step,
        found: Option<Checkpoint>,
    ) -> Attempt {
        match found {
            Some(found) if found.epoch == step.epoch => {
                if self.log_lost_events(lane, step.old, found.position) {
                    self.announce_restore();
                }
                self.lanes.of(lane).set_checkpoint(found);
                if found.position == step.new {
                    // An earlier COMMIT, whose answer was lost, took effect.
                    Attempt::Stored(None)
                } else {
                    Attempt::Moved
                }
            }
            // The epoch differs, or there is no checkpoint. Either the database was restored or replaced, or the lane
            // was taken over by a late statement of a lost connection, or by a process on a copy of the directory.
            // This process holds the lane's lock, and a position is the same event in every copy. So it takes the lane
            // over again, and the compare-and-set still stores each event once.
            _ => {
                let now = found.map_or(0, |found| found.epoch.0);
                log::warn!(
                    event = "lane_epoch_changed", lane:% = lane.id(), epoch = now, own_epoch = step.epoch.0;
                    "lane {}: its epoch in the database is {now} and not {}, as if another process owned it; \
                     hakaru takes it over again",
                    lane.id(), step.epoch.0
                );
                self.lanes.of(lane).checkpoint = None;
                Attempt::Moved
            }
        }
    }

    /// Writes newly refused events to the dead-letter file, before the checkpoint passes them.
    fn write_dead_letters(&mut self, run: Run<'_>, refused: Refused) -> Result<(), SinkError> {
        let position = |index: usize| run.first.plus(index);
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
            .map(|(index, fault)| (run.batch.event(*index), position(*index), fault));
        let written = self.writer.dead_letters.write(run.lane.id(), letters);
        written.map_err(|fault| SinkError::Stop(Fault::new(fault.to_string())))?;
        log::warn!(
            event = "dead_letters_written", writer = self.writer.index, lane:% = run.lane.id(),
            events = new.len(), code = fault.code;
            "writer {}: the database refused {} events, which are in the dead-letter file now; the first error: {fault}",
            self.writer.index, new.len()
        );
        let state = self.lanes.of(run.lane);
        for (index, fault) in new {
            self.writer.counters.error(ErrorClass::Reject, &fault, 1);
            state.add_dead_letter(position(index), fault);
        }
        Ok(())
    }
}
