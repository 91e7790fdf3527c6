//! Takes lanes over in the database, and judges the checkpoints that are found there.

use std::io;

use super::Storing;
use super::adopted::{Adopted, Wait};
use super::identity::Claim;
use super::last_events::fingerprint_before;
use super::proof::ProofError;
use super::verdict::Verdict;
use crate::event::batch::Batch;
use crate::event::fingerprint::Fingerprint;
use crate::event::position::{LaneId, Position};
use crate::journal::durable_note;
use crate::journal::held_lane::Settlement;
use crate::journal::lane_handle::LaneHandle;
use crate::journal::lane_keys::LaneKeys;
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};
use crate::sink::{Checkpoint, Fault, Inserted, Refused, SinkError, Step};

/// What is noted beside a lane that is taken over, and decides how.
enum Notes {
    /// It belongs to the database that is served.
    Ours {
        keys: LaneKeys,
        /// Where its checkpoint begins, if the database has none.
        from: Position,
    },
    /// It is not taken over.
    Other(Adopted),
}

impl Notes {
    fn unreadable(fault: io::Error) -> Self {
        Self::Other(Adopted::Waits(Wait::Unreadable(fault)))
    }
}

impl Storing {
    /// The checkpoint of a lane. Reads it once per connection, which makes this process the owner of the lane.
    pub(super) fn checkpoint(&mut self, lane: &LaneHandle) -> Result<Adopted, SinkError> {
        if let Some(checkpoint) = self.lanes.checkpoint(lane) {
            return Ok(Adopted::At(checkpoint));
        }
        let adopted = self.take_over(lane)?;
        reached(adopted.name());
        if let Some(disk) = lane.on_disk() {
            self.note_wait(disk, &adopted);
        }
        Ok(adopted)
    }

    fn take_over(&mut self, lane: &LaneHandle) -> Result<Adopted, SinkError> {
        // Before anything is remembered of the lane: one of another database is let go.
        let (keys, from) = match self.notes(lane)? {
            Notes::Ours { keys, from } => (keys, from),
            Notes::Other(adopted) => return Ok(adopted),
        };
        let found = self.adopt(lane, &keys, from)?;
        self.lanes.of(lane).set_keys(keys.clone());
        let found = self.believe_copy(lane, &keys, found)?;
        self.lanes.of(lane).adopted(found.checkpoint);
        match self.verdict(lane, found)? {
            Ok(verdict) => self.act_on(lane, keys, found.checkpoint, verdict),
            Err(adopted) => Ok(adopted),
        }
    }

    /// Does what follows from a verdict.
    pub(super) fn act_on(
        &mut self,
        lane: &LaneHandle,
        keys: LaneKeys,
        found: Checkpoint,
        verdict: Verdict,
    ) -> Result<Adopted, SinkError> {
        reached(verdict.name());
        match verdict {
            Verdict::Ours | Verdict::Ahead { .. } => self.accept(lane, found),
            Verdict::Behind { is_checked } => self.accept_restore(lane, found, is_checked),
            Verdict::Stored { to } => self.put_back(lane, keys, found, to),
            Verdict::Forked { from, end } => self.fork(lane, found.position, from, end),
            Verdict::Doubtful(hold) => Ok(self.hold(lane, &hold)),
        }
    }

    /// The database does not say which rows are there, such as without the right to read them, or in time. If the
    /// connection may have been lost, it is asked once more as after any other error.
    pub(super) fn wait_for_proof(
        &mut self,
        lane: &LaneHandle,
        fault: ProofError,
    ) -> Result<Adopted, SinkError> {
        let fault = match fault {
            ProofError::Database(fault) => fault,
            ProofError::Journal(fault) => return Ok(Adopted::Waits(Wait::Unreadable(fault))),
        };
        let is_first = !std::mem::replace(&mut self.lanes.of(lane).has_no_proof, true);
        // An error that stays says nothing against the connection, which other lanes use.
        if !matches!(fault, SinkError::Stop(_)) {
            if is_first {
                return Err(fault);
            }
            self.abandon(&fault);
        }
        Ok(Adopted::Waits(Wait::Unproven(fault)))
    }

    fn accept(&mut self, lane: &LaneHandle, found: Checkpoint) -> Result<Adopted, SinkError> {
        self.lanes.of(lane).set_checkpoint(found);
        Ok(Adopted::At(found))
    }

    /// Believes that the database was restored.
    fn accept_restore(
        &mut self,
        lane: &LaneHandle,
        found: Checkpoint,
        is_checked: bool,
    ) -> Result<Adopted, SinkError> {
        self.accept_loss(lane, found.position, is_checked);
        self.accept(lane, found)
    }

    /// Moves a checkpoint to where it was: the rows of the events before `to` are there.
    fn put_back(
        &mut self,
        lane: &LaneHandle,
        keys: LaneKeys,
        found: Checkpoint,
        to: Position,
    ) -> Result<Adopted, SinkError> {
        log::error!(
            event = "checkpoint_put_back", lane:% = lane.id(), found = found.position.0, position = to.0;
            "lane {}: its checkpoint is {}, but the rows up to {} are there, as after an UPDATE or DELETE of \
             hakaru_checkpoint; it is put back, and nothing is stored twice",
            lane.id(), found.position.0, to.0
        );
        let last = fingerprint_before(lane, to);
        let moved = self.move_checkpoint(keys.current(), found, to, last)?;
        self.accept(lane, moved)
    }

    /// Where the copy of a checkpoint belongs to it and is elsewhere, or the checkpoint was gone, somebody altered or
    /// removed the row. It is put back to where the last transaction has moved both.
    pub(super) fn believe_copy(
        &mut self,
        lane: &LaneHandle,
        keys: &LaneKeys,
        found: FoundCheckpoint,
    ) -> Result<FoundCheckpoint, SinkError> {
        let FoundCheckpoint {
            checkpoint,
            copy: SealedCopy::At { position: to, last },
        } = found
        else {
            return Ok(found);
        };
        let from = checkpoint.position;
        if from == to || planted(Bug::CopyIgnored) {
            return Ok(found);
        }
        let checkpoint = self.move_checkpoint(keys.current(), checkpoint, to, last)?;
        log::error!(
            event = "checkpoint_put_back", lane:% = lane.id(), found = from.0, position = to.0;
            "lane {}: its checkpoint was {} or gone, and the copy that moves with it is {}: the row was altered or \
             removed, as by an UPDATE or DELETE of hakaru_checkpoint; it was put back, and nothing is lost or stored twice",
            lane.id(), from.0, to.0
        );
        Ok(FoundCheckpoint {
            checkpoint,
            ..found
        })
    }

    /// Moves a checkpoint of this process without storing anything, to after this event.
    pub(super) fn move_checkpoint(
        &mut self,
        key: LaneId,
        found: Checkpoint,
        to: Position,
        last: Option<Fingerprint>,
    ) -> Result<Checkpoint, SinkError> {
        let step = Step {
            lane: key,
            epoch: found.epoch,
            old: found.position,
            new: to,
            last,
        };
        let none = Batch::new(self.writer.batch_events);
        let sink = &mut self.writer.sink;
        match sink.insert(&none, 0, step, &mut Refused::new())? {
            Inserted::Open(_) => sink.commit()?,
            // It was moved or altered since it was read, or is gone with the rows. It is judged anew.
            Inserted::CheckpointMismatch(_) => {
                let text = format!("the checkpoint of lane {key} does not stay");
                return Err(SinkError::Retry(Fault::new(text)));
            }
        }
        Ok(step.checkpoint())
    }

    fn notes(&mut self, lane: &LaneHandle) -> Result<Notes, SinkError> {
        let Some(disk) = lane.on_disk() else {
            let keys = self.lanes.of(lane).keys.clone();
            let from = self.start(&keys, Position::START)?;
            return Ok(Notes::Ours { keys, from });
        };
        let noted = match self.claim(disk)? {
            Claim::Foreign => return Ok(Notes::Other(Adopted::Foreign)),
            Claim::Unreadable(fault) => return Ok(Notes::unreadable(fault)),
            Claim::Ours { from } => from,
        };
        let keys = match LaneKeys::read(&disk.directory, disk.id) {
            Ok(keys) => keys,
            Err(fault) => return Ok(Notes::unreadable(fault)),
        };
        // Before anything is stored under them.
        if self.lanes.of(lane).keys != keys
            && let Err(fault) = durable_note::confirm(&disk.directory)
        {
            return Ok(Notes::Other(Adopted::Waits(Wait::Unwritable(fault))));
        }
        match self.read_hold(lane, disk) {
            Ok(None) => {}
            Ok(Some(hold)) => match Settlement::read(&disk.directory) {
                Ok(Some(settled)) if settled.is_about(&hold) => {
                    self.lanes.of(lane).set_keys(keys);
                    if let Err(fault) = self.learn_letters(lane, hold.from) {
                        return Ok(Notes::unreadable(fault));
                    }
                    let adopted = self.settle(lane, disk, &hold, settled.decision, noted)?;
                    return Ok(Notes::Other(adopted));
                }
                Ok(other) => {
                    self.announce_hold(lane, &hold);
                    if let Some(other) = other {
                        self.refuse_settlement(lane, &hold, other);
                    }
                    return Ok(Notes::Other(Adopted::Held));
                }
                Err(fault) => return Ok(Notes::unreadable(fault)),
            },
            Err(wait) => return Ok(Notes::Other(Adopted::Waits(wait))),
        }
        let keys = match self.keys_there(lane, disk, keys, noted)? {
            Ok(keys) => keys,
            Err(adopted) => return Ok(Notes::Other(adopted)),
        };
        let from = self.start(&keys, noted)?;
        Ok(Notes::Ours { keys, from })
    }

    /// Where a checkpoint may stand before events that were refused, reads which these are: those from `first` on.
    /// They are letters, and stay letters, also where the database would take them now. Otherwise an event whose
    /// letter was replayed meanwhile would be two rows.
    pub(super) fn learn_letters(&mut self, lane: &LaneHandle, first: Position) -> io::Result<()> {
        let state = self.lanes.of(lane);
        if let Some(on_disk) = lane.on_disk()
            && state.may_have_letters(first)
        {
            let refused = self.writer.dead_letters.of_lane(on_disk);
            let refused = refused.map_err(io::Error::other)?;
            for position in refused.range(first..) {
                state.add_dead_letter(*position, Fault::new("refused before"));
            }
        }
        Ok(())
    }

    /// The database has lost rows on an open connection: all writers read all checkpoints again.
    pub(super) fn announce_restore(&mut self) {
        self.restores_seen = self.writer.served.announce_restore();
        self.lanes.forget_checkpoints();
        self.must_check = true;
    }

    /// Asks for all checkpoints. Without new events nothing else would tell that the database was restored under this
    /// connection. There are as many as the journal has lanes, which `--journal-keep` bounds.
    pub(super) fn look_for_restore(&mut self) -> Result<(), SinkError> {
        if planted(Bug::ProbeAsksForNothing) {
            return Ok(());
        }
        for (key, position) in self.lanes.checkpoints() {
            let found = self.writer.sink.checkpoint(key)?;
            if found.map(|found| found.position) != Some(position) {
                self.identify_again()?;
                self.lanes.forget_checkpoints();
                self.must_check = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads all checkpoints again if another writer has announced a restore.
    pub(super) fn check_for_restores(&mut self) {
        let restores = self.writer.served.restores();
        if std::mem::replace(&mut self.restores_seen, restores) != restores {
            self.lanes.forget_checkpoints();
            self.must_check = true;
        }
    }

    /// Takes over the checkpoint that was found instead of the expected one. Returns whether it is where the step was to
    /// move it: an earlier COMMIT, whose answer was lost, took effect.
    pub(super) fn relocate_checkpoint(
        &mut self,
        lane: &LaneHandle,
        step: Step,
        found: Option<Checkpoint>,
    ) -> bool {
        let expected = step.epoch;
        match found {
            Some(found) if found.epoch == expected && found.position == step.new => {
                let state = self.lanes.of(lane);
                if found.position <= state.sent() {
                    state.set_checkpoint(found);
                    return true;
                }
            }
            // Its position is wrong. It is judged when the lane is taken over again.
            Some(found) if found.epoch == expected => {}
            // The epoch differs, or there is no checkpoint. Either the database was restored or replaced, or the lane
            // was taken over by a late statement of a lost connection, or by a process on a copy of the directory.
            // This process holds the lane's lock, and a position is the same event in every copy. So it takes the lane
            // over again, and the compare-and-set still stores each event once.
            _ => {
                let now = found.map_or(0, |found| found.epoch.0);
                log::warn!(
                    event = "lane_epoch_changed", lane:% = lane.id(), epoch = now, own_epoch = expected.0;
                    "lane {}: its epoch in the database is {now} and not {}, as if another process owned it; \
                     hakaru takes it over again",
                    lane.id(), expected.0
                );
            }
        }
        self.lanes.of(lane).checkpoint = None;
        false
    }
}

/// Logs how many events the database has lost: its checkpoint has decreased from `before` to `now`.
pub(super) fn log_lost_events(
    lane: &LaneHandle,
    before: Position,
    now: Position,
    is_checked: bool,
) {
    let lost = before.since(now);
    let remedy = if lane.on_disk().is_none() {
        "without a journal they cannot be stored again"
    } else if is_checked {
        "their rows are gone; hakaru stores them again, as far as they are still in the journal"
    } else {
        "whether their rows are gone could not be checked; hakaru stores them again, as far as they are still in the \
         journal"
    };
    log::error!(
        event = "database_lost_events", lane:% = lane.id(), events = lost;
        "lane {}: the database has lost {lost} stored events, as after a restore from a backup; \
         {remedy}",
        lane.id()
    );
}
