//! Decisions about lanes that are held: they go on as a person has decided.

use super::Storing;
use super::adopted::{Adopted, Wait};
use super::fork::note;
use super::last_events::fingerprint_before;
use super::row_answers::Proof;
use super::verdict::Verdict;
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::{Decision, HeldCheckpoint, Hold};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::lane_keys::LaneKeys;
use crate::os::bugs::{Bug, planted};
use crate::sink::sealed_copy::FoundCheckpoint;
use crate::sink::{Checkpoint, SinkError};

impl Storing {
    /// Does with a held lane what a person has decided: its checkpoint is moved to where the decision says.
    ///
    /// The key stays, so that the copies of a data directory, each of them held and settled, go on with one checkpoint.
    /// The first one that is settled moves it, and the others find it moved. But a checkpoint that was beyond the end of
    /// the lane is that of another lane, which may go on: then there is a new key. `begins` is where the checkpoint begins,
    /// if the database has none any more.
    pub(super) fn settle(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        hold: &Hold,
        decision: Decision,
        begins: Position,
    ) -> Result<Adopted, SinkError> {
        let to = hold.settled(decision);
        let keys = self.lanes.of(lane).keys.clone();
        let begins = self.start(&keys, begins)?;
        // Taking the lane over raises its epoch, by which it is known whether the database went back: not before that is
        // noted.
        let before = self.look(keys.current(), begins)?;
        let held = hold.checkpoint;
        let was_beyond = held.is_some_and(|held| held.position > hold.to);
        // An earlier attempt has noted the new key. A restored database that lacked it would begin with the first epoch.
        let has_new_key = was_beyond
            && keys.given_at(to) == Some(keys.current())
            && before.epoch.0 > 1
            && before.position == to;
        // What a person has decided was true of the database as it was then.
        if !has_new_key && went_back(hold, before) && !planted(Bug::OldDecisionApplied) {
            return self.void_decision(lane, disk, hold, keys, before);
        }
        // Nor, again and again, where the outcome could not be noted.
        if let Err(fault) = hold.decide(decision).write(&disk.directory) {
            return Ok(Adopted::Waits(Wait::Unwritable(fault)));
        }
        let found = self.adopt_held(lane, &keys, begins)?;
        let checkpoint = found.checkpoint;
        if checkpoint.epoch < before.epoch || has_new_key && checkpoint.position != to {
            // It went back since it was looked at.
            return self.void_decision(lane, disk, hold, keys, checkpoint);
        }
        if has_new_key {
            return Ok(self.go_on(lane, disk, hold, decision, (keys, checkpoint)));
        }
        if was_beyond {
            return self.settle_with_another_key(lane, disk, hold, decision);
        }
        if let Some(adopted) = self.settle_moved(lane, disk, hold, decision, (&keys, found))? {
            return Ok(adopted);
        }
        let moved = if checkpoint.position == to {
            checkpoint
        } else {
            let last = fingerprint_before(lane, to);
            self.move_checkpoint(keys.current(), checkpoint, to, last)?
        };
        Ok(self.go_on(lane, disk, hold, decision, (keys, moved)))
    }

    /// Judges a checkpoint that another process may have moved since the lane was held. `None`: nobody has.
    fn settle_moved(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        hold: &Hold,
        decision: Decision,
        (keys, found): (&LaneKeys, FoundCheckpoint),
    ) -> Result<Option<Adopted>, SinkError> {
        let (held, checkpoint) = (hold.checkpoint, found.checkpoint);
        let to = hold.settled(decision);
        // Where it is at its destination, an earlier attempt may have moved it.
        let is_moved = checkpoint.position != to
            && held.is_some_and(|held| held.position != checkpoint.position);
        // Another process may have moved it back, and stored as much since. An older version did not note where it was.
        let may_be_refilled = match held {
            Some(held) => {
                checkpoint.position > to && held.epoch.wrapping_add(1) != checkpoint.epoch.0
            }
            None => checkpoint.position > hold.to,
        };
        if !is_moved && !may_be_refilled {
            return Ok(None);
        }
        let verdict = match self.verdict(lane, found)? {
            Ok(verdict) if !is_moved && says_nothing_new(&verdict, hold) => match held {
                // Another process has filled it again; or an earlier attempt of this one has raised the epoch, and moved
                // nothing.
                Some(_) => Verdict::Doubtful(doubt_again(hold, checkpoint)),
                // It is still beyond what it can be, as when the lane was held: its owner may go on.
                None if matches!(verdict, Verdict::Doubtful(_)) => {
                    return self
                        .settle_with_another_key(lane, disk, hold, decision)
                        .map(Some);
                }
                None => verdict,
            },
            Ok(verdict) => verdict,
            Err(adopted) => return Ok(Some(adopted)),
        };
        self.settled_elsewhere(lane, disk, (keys.clone(), checkpoint), verdict)
            .map(Some)
    }

    /// The checkpoint of a lane as it would be found if the lane was taken over now.
    fn look(&mut self, key: LaneId, begins: Position) -> Result<Checkpoint, SinkError> {
        let found = self.writer.sink.look(key, begins.into())?;
        Ok(Checkpoint {
            position: found.position(),
            ..found.checkpoint
        })
    }

    /// Takes a held lane over, and puts its checkpoint back if the row was altered.
    fn adopt_held(
        &mut self,
        lane: &LaneHandle,
        keys: &LaneKeys,
        begins: Position,
    ) -> Result<FoundCheckpoint, SinkError> {
        let found = self.adopt(lane, keys, begins)?;
        self.believe_copy(lane, keys, found)
    }

    /// Judges a lane anew after the database has gone back to the checkpoint `before` since it was held.
    fn void_decision(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        hold: &Hold,
        keys: LaneKeys,
        before: Checkpoint,
    ) -> Result<Adopted, SinkError> {
        // What was stored before the events in question may be gone too.
        let void = Hold {
            from: if planted(Bug::VoidedTooShort) {
                hold.from
            } else {
                hold.from.min(before.position)
            },
            // Not the raised epoch: the next decision is not void if taking the lane over fails now.
            checkpoint: Some(HeldCheckpoint {
                position: before.position,
                epoch: before.epoch.0.saturating_sub(1),
            }),
            ..hold.clone()
        };
        if let Err(fault) = void.write(&disk.directory) {
            return Ok(Adopted::Waits(Wait::Unwritable(fault)));
        }
        let waits = match self.judge_anew(lane, disk, hold, &keys, before.position) {
            Ok(Ok((checkpoint, verdict))) => {
                return self.settled_elsewhere(lane, disk, (keys, checkpoint), verdict);
            }
            Ok(Err(waits)) => Ok(waits),
            Err(fault) => Err(fault),
        };
        self.lanes.of(lane).end_hold();
        self.announce_hold(lane, &void);
        waits
    }

    /// Takes a held lane over whose decision is void, and judges its checkpoint. The inner error: it cannot be judged at
    /// present.
    fn judge_anew(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        hold: &Hold,
        keys: &LaneKeys,
        begins: Position,
    ) -> Result<Result<(Checkpoint, Verdict), Adopted>, SinkError> {
        let found = self.adopt_held(lane, keys, begins)?;
        let checkpoint = found.checkpoint;
        let verdict = match self.verdict(lane, found)? {
            Ok(verdict) => verdict,
            Err(waits) => return Ok(Err(waits)),
        };
        let is_behind = checkpoint.position < hold.to
            && matches!(verdict, Verdict::Ours | Verdict::Behind { .. });
        let are_gone = if is_behind {
            match self.prove_stored(disk, checkpoint.position, hold.to) {
                Ok(proof) => Some(proof == Proof::Missing),
                Err(fault) => return self.wait_for_proof(lane, fault).map(Err),
            }
        } else {
            None
        };
        let verdict = judge_void(hold, checkpoint, verdict, are_gone);
        Ok(Ok((checkpoint, verdict)))
    }

    /// Leaves the checkpoint of a lane to its owner, and goes on under another key. Where other copies of the lane have stored
    /// more under that since the lane was held, rows tell what.
    fn settle_with_another_key(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        hold: &Hold,
        decision: Decision,
    ) -> Result<Adopted, SinkError> {
        let to = hold.settled(decision);
        let later = match self.later_keys(lane, to) {
            Ok(later) => later,
            Err(fault) => return self.wait_for_proof(lane, fault),
        };
        if later.furthest > to {
            let fork = |storing: &mut Self| storing.fork(lane, later.furthest, later.stored, None);
            return self.settled_by(lane, disk, later.furthest, fork);
        }
        let (keys, checkpoint) = match self.another_key(lane, to) {
            Ok(found) => found,
            Err(fault) => return self.wait_for_proof(lane, fault),
        };
        if let Err(fault) = note(disk, &keys, checkpoint.position) {
            return Ok(Adopted::Waits(Wait::Unwritable(fault)));
        }
        Ok(self.go_on(lane, disk, hold, decision, (keys, checkpoint)))
    }

    /// Stores the lane from its checkpoint on, which is where the decision says.
    fn go_on(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        hold: &Hold,
        decision: Decision,
        (keys, checkpoint): (LaneKeys, Checkpoint),
    ) -> Adopted {
        self.count_before(lane, hold.from);
        if decision == Decision::Stored {
            self.count_stored(lane, hold.from, hold.to);
        }
        // What was decided is known before the note is gone, which may be so although its removal fails.
        let adopted = self.use_keys(lane, keys, checkpoint);
        if let Err(fault) = Hold::remove(&disk.directory) {
            self.lanes.of(lane).checkpoint = None;
            return Adopted::Waits(Wait::Unwritable(fault));
        }
        disk.set_held(None);
        self.lanes.of(lane).end_hold();
        let events = hold.events();
        log::warn!(
            event = "lane_settled", lane:% = lane.id(), events;
            "lane {}: as was decided, {events} of its events {}; the lane is stored from position {} on",
            lane.id(),
            match decision {
                Decision::Stored => "count as stored",
                Decision::Refill => "are stored now",
            },
            checkpoint.position.0
        );
        adopted
    }

    /// Does what follows from a verdict about a checkpoint that may have been moved since the lane was held, instead of what
    /// was decided.
    fn settled_elsewhere(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        (keys, found): (LaneKeys, Checkpoint),
        verdict: Verdict,
    ) -> Result<Adopted, SinkError> {
        let act = |storing: &mut Self| storing.act_on(lane, keys, found, verdict);
        self.settled_by(lane, disk, found.position, act)
    }

    /// Goes on with a lane as `act` does, and not as was decided: its checkpoint is at `found`.
    fn settled_by(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: Position,
        act: impl FnOnce(&mut Self) -> Result<Adopted, SinkError>,
    ) -> Result<Adopted, SinkError> {
        log::warn!(
            event = "lane_settled_elsewhere", lane:% = lane.id(), position = found.0;
            "lane {}: since it was held, its checkpoint was moved or the lane was taken over, as by a process on a copy of the \
             data directory that was settled first, or the database was restored; the checkpoint is {}, and the decision is \
             not applied",
            lane.id(), found.0
        );
        // It may be held again, for other events.
        self.lanes.of(lane).end_hold();
        let adopted = act(self)?;
        if matches!(adopted, Adopted::At(_)) {
            if let Err(fault) = Hold::remove(&disk.directory) {
                self.lanes.of(lane).checkpoint = None;
                return Ok(Adopted::Waits(Wait::Unwritable(fault)));
            }
            disk.set_held(None);
        }
        Ok(adopted)
    }
}

/// The hold of a lane that was taken over since it was held, and whose checkpoint has not moved.
fn doubt_again(hold: &Hold, found: Checkpoint) -> Hold {
    Hold {
        reason: format!(
            "its checkpoint is still {}, and the lane was taken over since it was held: what was decided may be done, by a \
             process on a copy of the data directory, or not",
            found.position.0
        ),
        checkpoint: Some(found.into()),
        ..hold.clone()
    }
}

/// Whether a verdict leaves it open whether the events in question are stored.
fn says_nothing_new(verdict: &Verdict, hold: &Hold) -> bool {
    match verdict {
        Verdict::Ours => true,
        Verdict::Doubtful(now) => (now.from, now.to) == (hold.from, hold.to),
        _ => false,
    }
}

/// Whether the database has gone back since the lane was held.
fn went_back(hold: &Hold, now: Checkpoint) -> bool {
    match hold.checkpoint {
        Some(held) => {
            // Where that of others is beyond the events in question, this one may be before them.
            let is_before = held.position <= hold.to && now.position < hold.from.min(held.position);
            is_before || now.epoch.0 <= held.epoch
        }
        None => now.position < hold.from,
    }
}

/// What a verdict says about the events in question, after the database has gone back since the lane was held. Unless
/// their rows are known to be gone, or some of them to be stored now, nobody can tell more of them than before.
/// `are_gone`: `None` where the checkpoint is after them.
fn judge_void(hold: &Hold, found: Checkpoint, verdict: Verdict, are_gone: Option<bool>) -> Verdict {
    // A checkpoint after the events in question was not believed when the lane was held.
    let was_after = hold.checkpoint.is_none_or(|held| held.position >= hold.to);
    let (from, to) = match verdict {
        Verdict::Doubtful(now) => (now.from.min(hold.from), now.to.max(hold.to)),
        Verdict::Stored { to } if to <= hold.from => (to, hold.to),
        Verdict::Ours | Verdict::Behind { .. } if are_gone == Some(false) => {
            (found.position.min(hold.from), hold.to)
        }
        Verdict::Ours if are_gone == Some(true) => return Verdict::Behind { is_checked: true },
        Verdict::Ours if are_gone.is_none() && was_after => {
            (hold.from, hold.to.max(found.position))
        }
        verdict => return verdict,
    };
    Verdict::Doubtful(Hold {
        from,
        to,
        reason: format!(
            "its checkpoint is {}, the database has gone back since the lane was held, and its rows do not tell what is \
             stored",
            found.position.0
        ),
        checkpoint: Some(found.into()),
    })
}
