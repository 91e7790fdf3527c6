//! Whose events a checkpoint counts. Its copy says which events are the last ones before it.
//!
//! A machine that goes back to an earlier state, with its memory, takes other events into a lane of which more is stored
//! already. So does a machine beside which a copy of it runs on. Up to some position the events of both are the same.

use std::io;
use std::ops::Range;

use super::Storing;
use super::lane_event::LaneEvent;
use super::proof::ProofError;
use super::row_answers::Proof;
use super::verdict::Verdict;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::fingerprint::Fingerprint;
use crate::event::position::Position;
use crate::journal::held_lane::{HeldCheckpoint, Hold};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::reader::{LaneReader, ReadError};
use crate::journal::stored_note::{self, EndError};
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};
use crate::sink::{Checkpoint, Epoch, FoundRow};

/// Most events in a row that may have been refused elsewhere, before one that is stored.
const REFUSED_MAX: u64 = 64;

/// The last events before a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastEvents {
    /// They are those that the lane has there: all before the checkpoint are the lane's own, and stored.
    Own,
    /// The lane has others there, or ends before.
    Others,
    /// The checkpoint does not say it, or the disk has lost the events of the lane, or it is not asked.
    Unknown,
}

/// Rows of events after the first one that has none.
enum LaterRows {
    None,
    /// The last of them that has one is right before this position.
    UpTo(Position),
    /// An event cannot be read, or there are too many rows to be searched.
    Unknown,
}

/// What the checkpoints under the later keys of a lane say.
pub(super) struct LaterKeys {
    /// All events before it are stored.
    pub(super) stored: Position,
    /// No event from it on is stored under one of them.
    pub(super) furthest: Position,
}

/// How far a lane is known to be stored whose checkpoint counts other events.
struct Known {
    /// It was stored up to there.
    known: Position,
    /// The database has gone back since.
    is_gone: bool,
    /// Rows are asked from the oldest event on that the journal has, since those before `known` may be gone. What it no longer
    /// has, nobody can store again.
    oldest: Option<Position>,
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
    let available = usize::try_from(position.0).unwrap_or(usize::MAX);
    let events = Fingerprint::count_of(available)?;
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

/// The fingerprint of the last `events` events before a position. `None`: they are damaged, removed, or not there.
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
    if let Err(fault) = reader.fill(&mut batch, Some(position)) {
        let lost = fault.unless_passing()?;
        log::debug!("lane {}: from position {}: {lost}", lane.id, first.0);
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
    /// Compares the last events before a checkpoint with those that the lane has there.
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
        if position <= state.stored() && planted(Bug::BehindBelieved) {
            return Ok(LastEvents::Unknown);
        }
        if let Some(own) = state.last_before(position)
            && (own.events() == last.events() || lane.on_disk().is_none())
        {
            // A lane in memory is committed at a position only once, with these events.
            return Ok(LastEvents::of(own, last));
        }
        let Some(disk) = lane.on_disk() else {
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
            (
                _,
                Some(
                    EndError::Io(fault)
                    | EndError::Read(ReadError::Io { fault, .. } | ReadError::EndFile { fault, .. }),
                ),
            ) => Err(fault),
            _ => Ok(LastEvents::Unknown),
        }
    }

    /// Looks for rows of the next events. An event that others are equal to does not count: the row may be theirs.
    fn later_rows(
        &mut self,
        disk: &DiskLane,
        events: Range<Position>,
        after: u64,
    ) -> Result<LaterRows, ProofError> {
        let Range { start, end } = events;
        let count = end.since(start).min(REFUSED_MAX);
        if count == 0 {
            return Ok(LaterRows::None);
        }
        let Some(mut event) = LaneEvent::read_around(disk, start)? else {
            return Ok(LaterRows::Unknown);
        };
        let mut found = LaterRows::None;
        for asked in 1..=count {
            if event.has_no_equal() {
                match self.writer.sink.has_row_after(after, event.event())? {
                    FoundRow::There => found = LaterRows::UpTo(Position(start.0 + asked)),
                    FoundRow::Missing | FoundRow::Repeatable => {}
                    FoundRow::Unsearched => return Ok(LaterRows::Unknown),
                }
            }
            match event.next() {
                Some(next) => event = next,
                None if asked < count => return Ok(LaterRows::Unknown),
                None => break,
            }
        }
        Ok(found)
    }

    /// What the checkpoints say under the keys that this lane gets next. Other copies of it may have them already, and have
    /// stored under them what they share with this one.
    pub(super) fn later_keys(
        &mut self,
        lane: &LaneHandle,
        mut stored: Position,
    ) -> Result<LaterKeys, ProofError> {
        let mut key = self.lanes.of(lane).keys.current();
        let mut furthest = stored;
        loop {
            key = key.next_key();
            let found = self.writer.sink.look(key, stored.into())?;
            let Checkpoint { epoch, position } = found.checkpoint;
            if epoch == Epoch::FIRST {
                return Ok(LaterKeys { stored, furthest });
            }
            furthest = furthest.max(position);
            if position > stored && self.last_events(lane, found)? == LastEvents::Own {
                reached("last events: own, under a later key");
                stored = position;
            }
        }
    }

    /// How far a lane is known to be stored whose checkpoint counts other events.
    fn known_stored(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: Position,
    ) -> Result<Known, ProofError> {
        let state = self.lanes.of(lane);
        let (known, was_asked) = (state.stored(), state.was_asked());
        let is_noted = disk.rows().last_before(known).is_some();
        let is_gone = found < known || is_noted && self.last_row(disk, known)?.is_none();
        let oldest = if is_gone || !is_noted && !was_asked {
            Some(stored_note::oldest(&disk.directory, disk.id)?.min(known))
        } else {
            None
        };
        Ok(Known {
            known,
            is_gone,
            oldest,
        })
    }

    /// Judges a checkpoint that counts the events of another one that has this lane. Of those that both have, more may be
    /// stored than this process knows: they come before the others, and rows tell which they are.
    pub(super) fn judge_others(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: FoundCheckpoint,
    ) -> Result<Verdict, ProofError> {
        let Known {
            known,
            is_gone,
            oldest,
        } = self.known_stored(lane, disk, found.checkpoint.position)?;
        let stored = oldest.unwrap_or(known);
        let later = self.later_keys(lane, stored)?;
        let from = later.stored;
        let end = known_end(disk).map_err(ProofError::Journal)?;
        let position = found.checkpoint.position.max(later.furthest);
        // The last event before the checkpoint is none of those that both have.
        let to = end.min(Position(position.0.saturating_sub(1)).max(known));
        let forked = |from| {
            let end = Some(end);
            Ok(Verdict::Forked { from, end })
        };
        let doubtful = |to| {
            Ok(Verdict::Doubtful(Hold {
                from,
                to,
                reason: format!(
                    "its checkpoint is {} and counts events of another copy of the machine, and the rows do not tell which \
                     events of both were stored after {}",
                    position.0, from.0
                ),
                checkpoint: Some(HeldCheckpoint {
                    position,
                    epoch: found.checkpoint.epoch.0,
                }),
            }))
        };
        if from >= to {
            return forked(from);
        }
        // Before the oldest event there is no row to begin after.
        let at_start = (oldest.is_some() || from == Position::START).then_some(0);
        let Some(after) = self.last_row(disk, from)?.or(at_start) else {
            return doubtful(to);
        };
        let Some(first) = self.first_missing_after(disk, from, to, Some(after))? else {
            // Rows that nobody can ask for say nothing against what is known.
            return if known == to && !is_gone {
                forked(known)
            } else {
                doubtful(to)
            };
        };
        // The other one may have refused some that come before one that it has stored: only it has their letters.
        match self.later_rows(disk, first..to, after)? {
            LaterRows::None => {}
            LaterRows::UpTo(beyond) => return doubtful(beyond),
            LaterRows::Unknown => return doubtful(to),
        }
        if first == from {
            return forked(from);
        }
        match self.prove_after(disk, from, first, after)? {
            // Other nodes store such rows too, where even those after the last common event have them.
            Proof::Stored(_) if first == to && first > known && end >= position => doubtful(to),
            Proof::Stored(first) => forked(first),
            _ => doubtful(first),
        }
    }
}
