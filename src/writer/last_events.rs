//! Whose events a checkpoint counts. Its copy says which events are the last ones before it.
//!
//! A machine that goes back to an earlier state, with its memory, takes other events into a lane of which more is stored
//! already. So does a machine beside which a copy of it runs on. Up to some position the events of both are the same.

use std::io;
use std::ops::Range;

use super::Storing;
use super::lane_event::LaneEvent;
use super::proof::Proof;
use super::verdict::Verdict;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::fingerprint::{self, Fingerprint};
use crate::event::position::Position;
use crate::journal::held_lane::Hold;
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::reader::{LaneReader, ReadError};
use crate::journal::stored_note::{self, EndError};
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;
use crate::sink::SinkError;
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};

/// Most events in a row that may have been refused elsewhere, before one that is stored.
const REFUSED_MAX: u64 = 64;

/// The last events before a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastEvents {
    /// They are those that the lane has there: all before the checkpoint are the lane's own, and stored.
    Own,
    /// The lane has others there, or ends before.
    Others,
    /// The checkpoint does not say it, or the events of the lane cannot be read, or it is not asked.
    Unknown,
}

impl LastEvents {
    fn of(own: Fingerprint, found: Fingerprint) -> Self {
        if own == found {
            reached("last events: own");
            Self::Own
        } else {
            reached("last events: others");
            Self::Others
        }
    }
}

/// The fingerprint of the last events before a position. `None`: there are none, or they cannot be read.
pub(super) fn fingerprint_before(lane: &LaneHandle, position: Position) -> Option<Fingerprint> {
    let most = usize::try_from(position.0).unwrap_or(usize::MAX);
    let events = Fingerprint::count_of(most.min(fingerprint::EVENTS_MAX))?;
    let read = read_before(lane.on_disk()?, position, events);
    read.unwrap_or_else(|fault| {
        log::debug!(
            "lane {}: before position {}: {fault}",
            lane.id(),
            position.0
        );
        None
    })
}

/// The fingerprint of so many events before a position. `None`: they are damaged, removed, or not there.
fn read_before(
    lane: &DiskLane,
    position: Position,
    events: usize,
) -> io::Result<Option<Fingerprint>> {
    let first = position.0.checked_sub(events as u64).map(Position);
    let batch = u32::try_from(events).ok().and_then(BatchEvents::new);
    let (Some(first), Some(mut batch)) = (first, batch.map(Batch::new)) else {
        return Ok(None);
    };
    // A block that is unreadable says nothing: the rows may.
    let mut reader = LaneReader::new(&lane.directory, lane.id, first).pass_unreadable();
    match reader.fill(&mut batch, Some(position)) {
        Err(ReadError::Io { fault, .. }) => return Err(fault),
        Err(fault) => log::debug!("lane {}: from position {}: {fault}", lane.id, first.0),
        Ok(_) => {}
    }
    if batch.len() != events {
        return Ok(None);
    }
    Ok(Fingerprint::of((0..events).map(|index| batch.event(index))))
}

/// Where a lane ends, or more of it that can be read.
pub(super) fn known_end(lane: &DiskLane) -> io::Result<Position> {
    match stored_note::end_or_more(&lane.directory, lane.id) {
        (_, Some(EndError::Io(fault) | EndError::Read(ReadError::Io { fault, .. }))) => Err(fault),
        (end, _) => Ok(end),
    }
}

impl Storing {
    /// Compares the last events before a checkpoint with those that the lane has there. The journal is read only where the
    /// checkpoint is further on than is known.
    pub(super) fn last_events(
        &mut self,
        lane: &LaneHandle,
        found: FoundCheckpoint,
    ) -> io::Result<LastEvents> {
        let position = found.checkpoint.position;
        let last = match found.copy {
            SealedCopy::At { position: at, last } if at == position => last,
            _ => None,
        };
        let Some(last) = last.filter(|_| !planted(Bug::FingerprintIgnored)) else {
            return Ok(LastEvents::Unknown);
        };
        let state = self.lanes.of(lane);
        // One that is behind is judged by its position: the database may have gone back.
        if position < state.stored() {
            return Ok(LastEvents::Unknown);
        }
        if let Some(own) = state.last_before(position)
            && own.events() == last.events()
        {
            return Ok(LastEvents::of(own, last));
        }
        let Some(disk) = lane.on_disk().filter(|_| position > state.stored()) else {
            return Ok(LastEvents::Unknown);
        };
        if let Some(own) = read_before(disk, position, last.events())? {
            return Ok(LastEvents::of(own, last));
        }
        match stored_note::end_or_more(&disk.directory, disk.id) {
            (end, None) if end < position && !disk.is_removed() => {
                reached("last events: beyond the end");
                Ok(LastEvents::Others)
            }
            _ => Ok(LastEvents::Unknown),
        }
    }

    /// The position after the last of the next events that is a row, if one is. An event that others are equal to does not
    /// count: the row may be theirs. The outer `None`: there are too many rows to be searched.
    fn last_stored(
        &mut self,
        disk: &DiskLane,
        events: Range<Position>,
        after: u64,
    ) -> Result<Option<Option<Position>>, SinkError> {
        let mut last = None;
        let mut at = events.start;
        while at < events.end && at.since(events.start) < REFUSED_MAX {
            let event = LaneEvent::read_around(disk, at).filter(LaneEvent::has_no_equal);
            at = at.plus(1);
            let Some(event) = event else { continue };
            match self.writer.sink.has_row_after(after, event.event())? {
                Some(true) => last = Some(at),
                Some(false) => {}
                None => return Ok(None),
            }
        }
        Ok(Some(last))
    }

    /// Judges a checkpoint that counts the events of another one that has this lane. Of those that both have, more may be
    /// stored than this process knows: they come before the others, and rows tell which they are. The lane ends at `end`.
    pub(super) fn judge_others(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: FoundCheckpoint,
        end: Position,
    ) -> Result<Verdict, SinkError> {
        let from = self.lanes.of(lane).stored();
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
        // The other one may have refused some that come before one that it has stored: only it has their letters.
        let beyond = match (first, after) {
            (Some(first), Some(after)) => self.last_stored(disk, first..to, after)?,
            _ => Some(None),
        };
        let proof = match (first, after) {
            (Some(first), Some(after)) if first > from => {
                self.prove_after(disk, from, first, after)?
            }
            _ => Proof::Unknown,
        };
        let end = Some(end);
        Ok(match (first, proof, beyond) {
            (Some(first), _, Some(None)) if first == from => Verdict::Forked { from, end },
            (Some(_), Proof::Stored(from), Some(None)) => Verdict::Forked { from, end },
            _ => Verdict::Doubtful(Hold {
                from,
                to: match beyond {
                    Some(beyond) => beyond.or(first).unwrap_or(to),
                    None => to,
                },
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
