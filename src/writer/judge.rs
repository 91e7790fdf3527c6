//! Judges the checkpoint of a lane that was found: whether the events before it are stored, and none after it.
//!
//! One that is ahead of what its lane can have stored is that of another lane with the same id. Two processes may store
//! one lane without a fault: those on copies of a data directory. A position is the same event in each copy, up to where
//! the lane ended when it was copied. A checkpoint beyond that is of a lane with other events, as after a machine was
//! reverted to a snapshot; or somebody altered it.
//!
//! One that is behind is that of a restored database, or of one in which checkpoints were altered or removed.

use std::io;
use std::ops::Range;

use super::Storing;
use super::adopted::{Adopted, Wait};
use super::last_events::LastEvents;
use super::proof::ProofError;
use super::row_answers::Proof;
use super::verdict::Verdict;
use crate::event::position::Position;
use crate::journal::held_lane::{HeldCheckpoint, Hold};
use crate::journal::lane_handle::{DiskLane, LaneHandle, Origin};
use crate::journal::reader::ReadError;
use crate::journal::stored_note::{self, EndError};
use crate::os::bugs::{Bug, planted};
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};
use crate::sink::{Checkpoint, SinkError};

impl Storing {
    /// Judges the checkpoint of a lane, of which this process is the owner now. The inner error: it cannot be judged at
    /// present.
    pub(super) fn verdict(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
    ) -> Result<Result<Verdict, Adopted>, SinkError> {
        let unreadable = |fault| Ok(Err(Adopted::Waits(Wait::Unreadable(fault))));
        let position = found.checkpoint.position;
        let first = self.lanes.of(lane).stored().min(position);
        if let Err(fault) = self.learn_letters(lane, first) {
            return unreadable(fault);
        }
        let altered = match self.altered_end(lane, found) {
            Ok(altered) => altered,
            Err(fault) => return unreadable(fault),
        };
        let last = match self.last_events(lane, found) {
            Ok(last) => last,
            Err(fault) => return unreadable(fault),
        };
        let judged = match last {
            LastEvents::Own if position >= self.lanes.of(lane).stored() => Ok(Verdict::Ours),
            LastEvents::Own => self.judge(lane, position),
            LastEvents::Others | LastEvents::Unknown => self.judge(lane, position),
        };
        let verdict = match judged {
            Ok(_) if last == LastEvents::Others => match lane.on_disk() {
                Some(disk) => {
                    let verdict = self.judge_others(lane, disk, found);
                    if let Ok(Verdict::Forked { from, .. }) = verdict
                        && from < self.lanes.of(lane).stored()
                    {
                        self.accept_loss(lane, from, true);
                    }
                    verdict
                }
                None => Ok(Verdict::Forked {
                    from: self.lanes.of(lane).stored(),
                    end: None,
                }),
            },
            Ok(_) if let Some(end) = altered => self.judge_altered(lane, found, end),
            Ok(Verdict::Ours) => match self.judge_behind(lane, found) {
                Ok(verdict @ (Verdict::Stored { .. } | Verdict::Doubtful(_))) => {
                    match self.possible_end(lane) {
                        Ok(end) => self.judge_after(lane, found, verdict, end),
                        Err(fault) => return unreadable(fault),
                    }
                }
                verdict => verdict,
            },
            Ok(Verdict::Ahead { from, to, end }) => self.judge_ahead(lane, found, from..to, end),
            Ok(verdict) => Ok(verdict),
            Err(fault) => return unreadable(fault),
        };
        match verdict {
            Ok(verdict) => {
                self.lanes.of(lane).has_no_proof = false;
                Ok(Ok(verdict))
            }
            Err(fault) => self.wait_for_proof(lane, fault).map(Err),
        }
    }

    /// Judges the position of a checkpoint that was read. The lane is owned by this process then, so that no COMMIT
    /// of an earlier connection can still move it.
    fn judge(&mut self, lane: &LaneHandle, found: Position) -> io::Result<Verdict> {
        let state = self.lanes.of(lane);
        let (stored, sent) = (state.stored(), state.sent());
        // One in between is that of others: this process had no other COMMIT under way.
        if found <= stored || found == sent {
            return Ok(Verdict::Ours);
        }
        let Some(disk) = lane.on_disk() else {
            // If others moved it from where this process had left it, then the COMMIT whose outcome is unknown has failed.
            // If it took effect, and a machine went back with its memory, these events are stored twice; which of the two
            // it was, nothing tells.
            return Ok(Verdict::Forked {
                from: stored,
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
    /// stored.
    fn altered_end(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
    ) -> io::Result<Option<Position>> {
        if found.copy != SealedCopy::Altered
            || lane.on_disk().is_none()
            || planted(Bug::AlteredCopyBelieved)
        {
            return Ok(None);
        }
        let end = self.possible_end(lane)?;
        Ok((found.checkpoint.position <= end).then_some(end))
    }

    /// The position up to which events may be stored. What an earlier process has noted may be a second old, or older after
    /// a power cut, and the outcome of the last COMMIT of this one may be unknown.
    fn possible_end(&mut self, lane: &LaneHandle) -> io::Result<Position> {
        if lane.is_found() {
            // A process on a copy may have stored more of it as well.
            return end_on_disk(lane);
        }
        let state = self.lanes.of(lane);
        Ok(state.stored().max(state.sent()))
    }

    /// Completes the verdict about a checkpoint that is behind: more events may be stored, up to `end`.
    fn judge_after(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
        verdict: Verdict,
        end: Position,
    ) -> Result<Verdict, ProofError> {
        let stored = match &verdict {
            Verdict::Stored { to } => *to,
            Verdict::Doubtful(hold) => hold.to,
            _ => return Ok(verdict),
        };
        let Some(disk) = lane.on_disk().filter(|_| stored < end) else {
            return Ok(verdict);
        };
        let end = self.first_missing(disk, stored, end)?.unwrap_or(end);
        Ok(match verdict {
            _ if end <= stored => verdict,
            Verdict::Doubtful(hold) => Verdict::Doubtful(Hold { to: end, ..hold }),
            // Rows that are found by what they have may be those of another lane.
            _ => Verdict::Doubtful(Hold {
                from: stored,
                to: end,
                reason: format!(
                    "its checkpoint is {} or was gone, the events before {} are stored, and the rows do not tell which \
                     of those after it are",
                    found.checkpoint.position.0, stored.0
                ),
                checkpoint: Some(found.checkpoint.into()),
            }),
        })
    }

    /// Judges a checkpoint whose copy does not belong to it: an older version has taken the lane over, or somebody has
    /// altered both rows. It is believed only as far as the rows say the same: those before it are there, and none
    /// after it.
    fn judge_altered(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
        end: Position,
    ) -> Result<Verdict, ProofError> {
        let Some(disk) = lane.on_disk() else {
            return Ok(Verdict::Ours);
        };
        let (position, stored) = (found.checkpoint.position, self.lanes.of(lane).stored());
        let (low, high) = (position.min(stored), position.max(stored));
        let after = self.prove_by_search(disk, high, end)?;
        // What is noted as well is believed only where too many rows would have to be searched.
        let is_noted = position == stored && position > Position::START;
        let are_none_after = match after {
            _ if is_noted && planted(Bug::NoteBelieved) => true,
            Proof::Missing => true,
            Proof::Unknown => {
                let is_missing =
                    |missing: Option<Position>| missing.map_or(is_noted, |at| at == high);
                high == end || is_missing(self.first_missing(disk, high, end)?)
            }
            Proof::Stored(_) | Proof::Mixed | Proof::Gaps | Proof::Few => false,
        };
        let verdict = if position < stored {
            self.judge_behind(lane, found)?
        } else if stored == position {
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

    /// Whether a checkpoint that is ahead, but within its lane, is that of a process on a copy of the lane.
    fn judge_ahead(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
        doubtful: Range<Position>,
        end: Position,
    ) -> Result<Verdict, ProofError> {
        let Some(disk) = lane.on_disk() else {
            return Ok(Verdict::Ours);
        };
        let Range {
            start: from,
            end: to,
        } = doubtful;
        let proof = self.prove_by_search(disk, from, to)?;
        let FoundCheckpoint { checkpoint, copy } = found;
        let found = checkpoint.position;
        let is_within = found <= end;
        let is_sealed = lane.is_found() && copy != SealedCopy::Altered;
        // The twin of a process has stored events of its own, whose rows may have the same. A process on a copy of the
        // directory raises the epoch.
        let has_twin = self.lanes.of(lane).has_twin;
        let is_of_a_copy = match copy {
            SealedCopy::At { .. } => !has_twin,
            // An older version wrote none.
            SealedCopy::Missing => lane.is_found(),
            SealedCopy::Altered => false,
        };
        Ok(match proof {
            // A process on a copy has stored as much, and the rows say that it was these.
            Proof::Stored(_) if is_within && is_of_a_copy => Verdict::Ours,
            Proof::Stored(to) if !is_within && copy != SealedCopy::Altered && !has_twin => {
                Verdict::Forked {
                    from: to,
                    end: Some(end),
                }
            }
            // This process knows what it sent to COMMIT.
            Proof::Missing if !is_within || !lane.is_found() => Verdict::Forked {
                from,
                end: Some(end),
            },
            // An earlier process stores for up to a second before it notes it. The copy of its checkpoint belongs to it,
            // if that process has moved both.
            Proof::Gaps | Proof::Few | Proof::Unknown if is_within && is_sealed => Verdict::Ours,
            Proof::Stored(_)
            | Proof::Missing
            | Proof::Mixed
            | Proof::Gaps
            | Proof::Few
            | Proof::Unknown => Verdict::Doubtful(Hold {
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
    fn judge_behind(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
    ) -> Result<Verdict, ProofError> {
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
            // Whether it was restored or not: by their ids each of them is one row.
            _ if self.are_repeatable(disk, found, stored)? => Verdict::Behind { is_checked: true },
            // An older version has noted no rows. A restore leaves a copy that belongs to the checkpoint, or none.
            Proof::Unknown if disk.rows().is_empty() && copy != SealedCopy::Altered => {
                Verdict::Behind { is_checked: false }
            }
            Proof::Stored(_) | Proof::Mixed | Proof::Gaps | Proof::Few | Proof::Unknown => {
                Verdict::Doubtful(Hold {
                    from: found,
                    to: stored,
                    reason: format!(
                        "its checkpoint has gone back from {} to {}, and its rows do not tell whether the database was \
                     restored",
                        stored.0, found.0
                    ),
                    checkpoint: Some(checkpoint.into()),
                })
            }
        })
    }
}

/// Where a lane ends on the disk. The start of one in memory.
fn end_on_disk(lane: &LaneHandle) -> io::Result<Position> {
    let end = |disk: &DiskLane| stored_note::end(&disk.directory, disk.id);
    lane.on_disk().map_or(Ok(Position::START), |disk| {
        end(disk).map_err(io::Error::other)
    })
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
