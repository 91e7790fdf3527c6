//! Whose events a checkpoint counts. Its copy says which event is the last one before it.
//!
//! A machine that goes back to an earlier state, with its memory, takes other events into a lane of which more is stored
//! already. So does a machine beside which a copy of it runs on. Up to some position the events of both are the same.

use super::Storing;
use super::lane_event::LaneEvent;
use super::proof::Proof;
use super::verdict::Verdict;
use crate::event::fingerprint::Fingerprint;
use crate::event::position::Position;
use crate::journal::held_lane::Hold;
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::stored_note;
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;
use crate::sink::SinkError;
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};

/// The last event before a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastEvent {
    /// It is the one that the lane has there: all before it are the lane's own, and stored.
    Own,
    /// The lane has another one there, or ends before it.
    Other,
    /// The checkpoint does not say it, or the event of the lane cannot be read.
    Unknown,
}

/// The fingerprint of the event right before a position. `None`: there is none, or it cannot be read.
pub(super) fn fingerprint_before(lane: &LaneHandle, position: Position) -> Option<Fingerprint> {
    let last = Position(position.0.checked_sub(1)?);
    let event = LaneEvent::read_alone(lane.on_disk()?, last)?;
    Some(Fingerprint::of(event.event()))
}

/// Compares the last event before a checkpoint with the one that the lane has there.
pub(super) fn last_event(lane: &LaneHandle, found: FoundCheckpoint) -> LastEvent {
    if planted(Bug::FingerprintIgnored) {
        return LastEvent::Unknown;
    }
    let FoundCheckpoint { checkpoint, copy } = found;
    let (Some(disk), SealedCopy::At { position, last }) = (lane.on_disk(), copy) else {
        return LastEvent::Unknown;
    };
    let Some(last) = last.filter(|_| position == checkpoint.position) else {
        return LastEvent::Unknown;
    };
    match fingerprint_before(lane, position) {
        Some(own) if own == last => {
            reached("last event: own");
            LastEvent::Own
        }
        Some(_) => {
            reached("last event: another");
            LastEvent::Other
        }
        None => match stored_note::end_or_more(&disk.directory, disk.id) {
            (end, None) if end < position => {
                reached("last event: beyond the end");
                LastEvent::Other
            }
            _ => LastEvent::Unknown,
        },
    }
}

impl Storing {
    /// Judges a checkpoint that counts the events of another one that has this lane. Of those that both have, more may be
    /// stored than this process knows: they come before the others, and rows tell which they are.
    pub(super) fn judge_other(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: FoundCheckpoint,
    ) -> Result<Verdict, SinkError> {
        let from = self.lanes.of(lane).stored();
        let (end, _) = stored_note::end_or_more(&disk.directory, disk.id);
        // The last event before the checkpoint is none of them.
        let position = found.checkpoint.position;
        let to = end.min(Position(position.0.saturating_sub(1)));
        let after = match self.last_row(disk, from)? {
            Some(after) => Some(after),
            // None is stored yet.
            None => (from == Position::START).then_some(0),
        };
        let first = match after {
            _ if from >= to => Some(from),
            Some(_) => self.first_missing_after(disk, from, to, after)?,
            None => None,
        };
        let proof = match (first, after) {
            (Some(first), Some(after)) if first > from => {
                self.prove_after(disk, from, first, after)?
            }
            _ => Proof::Unknown,
        };
        let end = Some(end);
        Ok(match (first, proof) {
            (Some(first), _) if first == from => Verdict::Forked { from, end },
            (Some(_), Proof::Stored(from)) => Verdict::Forked { from, end },
            _ => Verdict::Doubtful(Hold {
                from,
                to: first.unwrap_or(to),
                reason: format!(
                    "its checkpoint is {} and counts events of another copy of the machine, and the rows do not tell which \
                     events of both were stored after {}",
                    position.0, from.0
                ),
                checkpoint: Some(found.checkpoint.into()),
            }),
        })
    }
}
