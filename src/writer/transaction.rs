//! One attempt to store a run: a transaction with the rows and the lane's checkpoint.

use std::time::{Duration, Instant};

use super::adopted::Adopted;
use super::{Outcome, Run, Storing};
use crate::event::UnixMillis;
use crate::event::position::Position;
use crate::metrics::ErrorClass;
use crate::os::bugs::{Bug, planted};
use crate::os::clock;
use crate::os::reached::reached;
use crate::sink::{Fault, InsertTimes, Inserted, Refused, SinkError, Step};

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

impl Storing {
    /// Moves the checkpoint, inserts the rows, writes dead letters, and commits. The checkpoint must be at the start
    /// of the run or in it. Events between it and the run are not skipped, unless the disk has lost them or they
    /// were never in a journal.
    pub(super) fn attempt(&mut self, run: Run<'_>) -> Result<Attempt, SinkError> {
        self.open()?;
        let checkpoint = match self.checkpoint(run.lane)? {
            Adopted::At(checkpoint) => checkpoint,
            // It is tried again with those that are read back.
            Adopted::Held | Adopted::Waits(_) => return Ok(Attempt::Behind),
            // Whoever reads the lane back begins again, and lets it go.
            Adopted::Foreign if run.lane.is_found() => return Ok(Attempt::Behind),
            Adopted::Foreign => {
                let text = format!("lane {} belongs to another database", run.lane.id());
                return Err(SinkError::Stop(Fault::new(text)));
            }
        };
        // Another process may have stored events before the run.
        self.count_before(run.lane, checkpoint.position.min(run.first));
        if checkpoint.position >= run.end() {
            reached("batch: stored before");
            return Ok(Attempt::Stored(None));
        }
        let state = self.lanes.of(run.lane);
        // Without a journal the missing events cannot be read back.
        let is_behind = run.is_journaled()
            && !state.can_skip(checkpoint.position, run.first)
            && !planted(Bug::MissingSkipped);
        if is_behind {
            reached("batch: events before it are missing");
            return Ok(Attempt::Behind);
        }
        let step = Step {
            lane: state.keys.current(),
            epoch: checkpoint.epoch,
            old: checkpoint.position,
            new: run.end(),
            last: run.last(),
        };
        let mut refused = state.refused(run.first, run.end());
        let from = stored_before(run, checkpoint.position);
        let inserted = self.writer.sink.insert(run.batch, from, step, &mut refused);
        self.write_dead_letters(run, refused)?;
        let rows = match inserted? {
            Inserted::Open(rows) => rows,
            Inserted::CheckpointMismatch(found) => {
                self.identify_again()?;
                return Ok(if self.relocate_checkpoint(run.lane, step, found) {
                    reached("batch: its COMMIT had taken effect");
                    Attempt::Stored(None)
                } else {
                    reached("batch: its checkpoint was moved");
                    Attempt::Moved
                });
            }
        };
        let state = self.lanes.of(run.lane);
        state.will_commit(&step, rows.duplicates);
        let start = clock::now();
        match self.writer.sink.commit() {
            Err(SinkError::OutcomeUnknown(_)) if planted(Bug::UnknownOutcomeBelieved) => {}
            committed => committed?,
        }
        let commit = clock::since(start);
        self.lanes.of(run.lane).set_checkpoint(step.checkpoint());
        self.note_row(run);
        let insert = rows.times;
        Ok(Attempt::Stored(Some(StoreTimes { insert, commit })))
    }

    /// The database has answered, and lacks events before a run. It is not waited for.
    pub(super) fn is_behind(&self) -> Outcome {
        self.answered();
        Outcome::Behind
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
            .filter(|_| !planted(Bug::LettersSkipped))
            .map(|(index, fault)| (run.batch.event(*index), position(*index), fault));
        let database = self.writer.sink.database()?;
        let written = self
            .writer
            .dead_letters
            .write(run.lane.id(), database, letters);
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

    pub(super) fn log_batch(
        &self,
        run: Run<'_>,
        sealed_at: Option<Instant>,
        dead: u64,
        times: StoreTimes,
    ) {
        let received = run.batch.oldest_received_at().unwrap_or(UnixMillis::now());
        let queued = sealed_at.map_or(Duration::ZERO, |at| {
            clock::since(at).saturating_sub(times.sum())
        });
        log::debug!(
            writer = self.writer.index,
            events = run.batch.len(),
            dead_lettered = dead,
            name_bytes = run.batch.name_bytes(),
            oldest_event_ms = UnixMillis::now().0.saturating_sub(received.0),
            queue_ms = millis(queued),
            prepare_ms = millis(times.insert.prepare),
            execute_ms = millis(times.insert.execute),
            commit_ms = millis(times.commit);
            "batch stored"
        );
    }
}

/// How many of the first events of a run are stored: an earlier run with other bounds may have done so.
fn stored_before(run: Run<'_>, checkpoint: Position) -> usize {
    let stored = checkpoint.since(run.first);
    if stored > 0 {
        reached("batch: stored in part before");
    }
    if planted(Bug::StoredPartRepeated) {
        return 0;
    }
    usize::try_from(stored).unwrap_or(usize::MAX)
}

/// Milliseconds, with microseconds as decimals.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
