//! A checkpoint that is ahead of what its lane can have stored.
//!
//! Two processes may store one lane without a fault: those on copies of a data directory. A position is the same event
//! in each copy, up to where the lane ended when it was copied. A checkpoint beyond that is of a lane that has the same
//! id and other events, as after a machine was reverted to a snapshot; or somebody altered it.

use std::io;
use std::ops::Range;

use super::Storing;
use super::adopted::{Adopted, Wait};
use super::proof::Proof;
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::{HeldCheckpoint, Hold};
use crate::journal::lane_handle::{DiskLane, LaneHandle, Origin};
use crate::journal::lane_keys::LaneKeys;
use crate::journal::reader::ReadError;
use crate::journal::stored_note::{self, EndError};
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};
use crate::sink::{Checkpoint, Fault, SinkError};

/// What the position of a checkpoint says.
pub(super) enum Verdict {
    /// The events before it are stored.
    Ours,
    /// It is ahead. The events before `from` are stored, those from `to` on are not, and rows decide about the others.
    Ahead {
        from: Position,
        to: Position,
        /// Where the lane ends at present.
        end: Position,
    },
    /// It is of another lane. The events before `from` are stored, and none after it.
    Forked {
        from: Position,
        /// Where the lane ends at present, if that is known.
        end: Option<Position>,
    },
    /// It is behind, since the database was restored.
    Behind {
        /// Whether the rows are known to be gone.
        is_checked: bool,
    },
    /// It is behind, and the events before `to` are stored.
    Stored { to: Position },
    /// Nobody can tell which events are stored.
    Doubtful(Hold),
}

impl Storing {
    /// Judges the position of a checkpoint that was read. The lane is owned by this process then, so that no COMMIT
    /// of an earlier connection can still move it.
    pub(super) fn judge(&mut self, lane: &LaneHandle, found: Position) -> io::Result<Verdict> {
        let state = self.lanes.of(lane);
        let (stored, sent) = (state.stored(), state.sent());
        if found <= stored.max(sent) {
            return Ok(Verdict::Ours);
        }
        let Some(disk) = lane.on_disk() else {
            // What was sent to COMMIT is gone from memory, or about to be.
            return Ok(Verdict::Forked {
                from: sent,
                end: None,
            });
        };
        let end = match stored_note::end_or_more(&disk.directory, disk.id) {
            (end, None) => end,
            (_, Some(EndError::Io(fault) | EndError::Read(ReadError::Io { fault, .. }))) => {
                return Err(fault);
            }
            // It has more events than can be read. What is known of it decides, if that is enough.
            (more, Some(EndError::Read(ReadError::UnknownEnd { .. }))) if found <= more => more,
            (
                _,
                Some(
                    fault
                    @ EndError::Read(ReadError::UnknownEnd { .. } | ReadError::EndFile { .. }),
                ),
            ) => {
                return Err(io::Error::other(fault));
            }
            (_, Some(fault)) => {
                // The replay logs what is wrong.
                log::debug!("lane {}: its end is not known: {fault}", disk.id);
                return Ok(Verdict::Ours);
            }
        };
        let to = if disk.origin == Origin::Opened && found > end {
            // No process on a copy of the lane can have stored so much.
            sent
        } else {
            found.min(end)
        };
        Ok(if to > stored {
            Verdict::Ahead {
                from: stored,
                to,
                end,
            }
        } else {
            // What an earlier process has noted may be beyond an end that is damaged.
            Verdict::Forked {
                from: stored.min(end),
                end: Some(end),
            }
        })
    }

    /// If both rows of a checkpoint were altered, and it is within its lane: the position up to which events may be
    /// stored. What is noted may be a second old, and the outcome of the last COMMIT may be unknown.
    pub(super) fn altered_end(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
    ) -> io::Result<Option<Position>> {
        let state = self.lanes.of(lane);
        let (stored, sent) = (state.stored(), state.sent());
        let (Some(disk), SealedCopy::Altered) = (lane.on_disk(), found.copy) else {
            return Ok(None);
        };
        let end = if lane.is_found() {
            stored_note::end(&disk.directory, disk.id).map_err(io::Error::other)?
        } else {
            stored.max(sent)
        };
        Ok((found.checkpoint.position <= end).then_some(end))
    }

    /// Judges a checkpoint whose copy does not belong to it: an older version has taken the lane over, or somebody has
    /// altered both rows. It is believed only as far as the rows say the same: those before it are there, and none
    /// after it.
    pub(super) fn judge_altered(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
        end: Position,
    ) -> Result<Verdict, SinkError> {
        let Some(disk) = lane.on_disk() else {
            return Ok(Verdict::Ours);
        };
        let (position, stored) = (found.checkpoint.position, self.lanes.of(lane).stored());
        let (low, high) = (position.min(stored), position.max(stored));
        let after = self.proof(disk, high, end)?;
        // What is noted as well is believed where too many rows would have to be searched.
        let are_none_after = match after {
            Proof::Missing => true,
            Proof::Unknown => {
                high == end
                    || position == stored && position > Position::START
                    || self.has_no_row(disk, high, end)?
            }
            Proof::Stored(_) | Proof::Mixed => false,
        };
        let verdict = if position < stored {
            self.judge_behind(lane, found)?
        } else if stored == position
            || matches!(self.proof(disk, stored, position)?, Proof::Stored(_))
        {
            Verdict::Ours
        } else {
            Verdict::Doubtful(doubt(found, low, end))
        };
        Ok(match verdict {
            Verdict::Doubtful(_) => Verdict::Doubtful(doubt(found, low, end)),
            _ if !are_none_after => Verdict::Doubtful(doubt(found, low, end)),
            verdict => verdict,
        })
    }

    fn proof(&mut self, disk: &DiskLane, from: Position, to: Position) -> Result<Proof, SinkError> {
        if from >= to {
            return Ok(Proof::Unknown);
        }
        let refused = self.lanes.refused(disk.id, from..to);
        self.prove_by_search(disk, from, to, &refused)
    }

    /// Whether a checkpoint that is ahead, but within its lane, is that of a process on a copy of the lane.
    pub(super) fn judge_ahead(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
        doubtful: Range<Position>,
        end: Position,
    ) -> Result<Verdict, SinkError> {
        let Some(disk) = lane.on_disk() else {
            return Ok(Verdict::Ours);
        };
        let Range {
            start: from,
            end: to,
        } = doubtful;
        let refused = self.lanes.refused(disk.id, from..to);
        let proof = self.prove_by_search(disk, from, to, &refused)?;
        let FoundCheckpoint { checkpoint, copy } = found;
        let found = checkpoint.position;
        let is_within = found <= end;
        Ok(match proof {
            Proof::Stored(_) if is_within => Verdict::Ours,
            Proof::Stored(to) => Verdict::Forked {
                from: to,
                end: Some(end),
            },
            // This process knows what it sent to COMMIT.
            Proof::Missing if !is_within || !lane.is_found() => Verdict::Forked {
                from,
                end: Some(end),
            },
            // An earlier process stores for up to a second before it notes it. Some of its events may be dead letters. But
            // the copy of its checkpoint belongs to it, if that process has moved both.
            Proof::Mixed | Proof::Unknown
                if is_within && lane.is_found() && copy != SealedCopy::Altered =>
            {
                Verdict::Ours
            }
            Proof::Missing | Proof::Mixed | Proof::Unknown => Verdict::Doubtful(Hold {
                from,
                to,
                reason: format!(
                    "its checkpoint is {}, it is known to be stored up to {} and ends at {}",
                    found.0, from.0, end.0
                ),
                checkpoint: Some(checkpoint.into()),
            }),
        })
    }

    /// Whether a checkpoint that is behind what was stored is that of a restored database.
    pub(super) fn judge_behind(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
    ) -> Result<Verdict, SinkError> {
        let FoundCheckpoint { checkpoint, copy } = found;
        let found = checkpoint.position;
        let stored = self.lanes.of(lane).stored();
        if found >= stored {
            return Ok(Verdict::Ours);
        }
        let Some(disk) = lane.on_disk() else {
            return Ok(Verdict::Behind { is_checked: false });
        };
        Ok(match self.prove_stored(disk, found, stored)? {
            Proof::Stored(to) if to >= stored => Verdict::Stored { to },
            Proof::Missing => Verdict::Behind { is_checked: true },
            // An older version has noted no rows. A restore leaves a copy that belongs to the checkpoint, or none.
            Proof::Unknown if disk.rows().is_empty() && copy != SealedCopy::Altered => {
                Verdict::Behind { is_checked: false }
            }
            Proof::Stored(_) | Proof::Mixed | Proof::Unknown => Verdict::Doubtful(Hold {
                from: found,
                to: stored,
                reason: format!(
                    "its checkpoint has gone back from {} to {}, and its rows do not tell whether the database was \
                     restored",
                    stored.0, found.0
                ),
                checkpoint: Some(checkpoint.into()),
            }),
        })
    }

    /// Gives a lane another key, under which its events are stored from `from` on.
    pub(super) fn fork(
        &mut self,
        lane: &LaneHandle,
        found: Position,
        from: Position,
        end: Option<Position>,
    ) -> Result<Adopted, SinkError> {
        let is_first = self.lanes.of(lane).unused_keys(from).next().is_none();
        let (keys, checkpoint) = self.another_key(lane, from)?;
        if is_first {
            let events = end.map(|end| end.since(from));
            log::error!(
                event = "lane_forked", lane:% = lane.id(), found = found.0, expected = from.0, events;
                "lane {}: its checkpoint is {} and cannot be beyond {}: the machine or its data directory is a copy of \
                 another one or was reverted, or the checkpoint was altered; what the lane holds from there on is stored \
                 under a new key, and events go into another lane",
                lane.id(), found.0, end.unwrap_or(from).0
            );
        }
        // A write that fails may have put the note in its place. Then the next attempt goes on with the new key.
        self.leave_key(lane, from);
        if let Some(disk) = lane.on_disk()
            && let Err(fault) = keys.write(&disk.directory)
        {
            return Ok(Adopted::Waits(Wait::Unwritable(fault)));
        }
        Ok(self.use_keys(lane, keys, checkpoint))
    }

    /// Finds another key for a lane, whose checkpoint is `from`. It is in the database before it is noted, and noted
    /// before anything is stored under it. Where it cannot be noted, the next attempt finds the same one.
    pub(super) fn another_key(
        &mut self,
        lane: &LaneHandle,
        from: Position,
    ) -> Result<(LaneKeys, Checkpoint), SinkError> {
        let with = |keys: &LaneKeys, key| {
            let mut keys = keys.clone();
            keys.push(key, from);
            keys
        };
        let unused = self.lanes.of(lane).unused_keys(from);
        for key in unused {
            let checkpoint = self.writer.sink.adopt(key, from)?.checkpoint;
            if checkpoint.position == from {
                return Ok((with(&self.lanes.of(lane).keys, key), checkpoint));
            }
        }
        let key = LaneId::random().map_err(stop)?;
        let checkpoint = self.writer.sink.adopt(key, from)?.checkpoint;
        let state = self.lanes.of(lane);
        state.set_new_key(key);
        Ok((with(&state.keys, key), checkpoint))
    }

    /// Stores a lane under the last of its keys, which are noted, from its checkpoint on.
    pub(super) fn use_keys(
        &mut self,
        lane: &LaneHandle,
        keys: LaneKeys,
        checkpoint: Checkpoint,
    ) -> Adopted {
        self.leave_key(lane, checkpoint.position);
        let state = self.lanes.of(lane);
        state.set_keys(keys);
        state.set_checkpoint(checkpoint);
        Adopted::At(checkpoint)
    }

    /// The key of a lane is no longer its own from the position `from` on: new events go into another lane.
    fn leave_key(&self, lane: &LaneHandle, from: Position) {
        if let Some(disk) = lane.on_disk() {
            disk.rows().truncate(from);
            disk.retire();
            disk.set_stored(from);
        }
    }
}

impl From<Checkpoint> for HeldCheckpoint {
    fn from(found: Checkpoint) -> Self {
        Self {
            position: found.position,
            epoch: found.epoch.0,
        }
    }
}

/// A hold of a lane whose checkpoint and copy do not belong together.
fn doubt(found: FoundCheckpoint, from: Position, to: Position) -> Hold {
    Hold {
        from,
        to,
        reason: format!(
            "its checkpoint is {}, and the copy that moves with it does not belong to it; the rows do not tell what is \
             stored",
            found.checkpoint.position.0
        ),
        checkpoint: Some(found.checkpoint.into()),
    }
}

fn stop(fault: io::Error) -> SinkError {
    SinkError::Stop(Fault::new(fault.to_string()))
}
