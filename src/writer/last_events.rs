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
use crate::journal::lane_label::LaneLabel;
use crate::journal::reader::{LaneReader, ReadError};
use crate::journal::row_witnesses::RowWitness;
use crate::journal::stored_note::{self, EndError};
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;
use crate::sink::sealed_copy::{FoundCheckpoint, SealedCopy};
use crate::sink::{FoundRow, SinkError};

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

/// What is known of a lane whose checkpoint counts other events.
struct KnownStored {
    /// What is before this was stored in another database.
    begins: Position,
    /// It was stored up to there.
    to: Position,
    /// It is still stored up to there: to after the last noted row that the database has. Where none is noted, or it has none,
    /// this is where the lane begins in this database, or the oldest event that the journal has: what it no longer has, nobody
    /// can store again.
    from: Position,
    /// Whether the database has or may have gone back, so that events between them may be gone.
    is_gone: bool,
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
        let stored = state.stored();
        if let Some(own) = read_before(disk, position, last.events())? {
            if own == last {
                // It is not read again.
                self.lanes.of(lane).remember_last(position, own);
            }
            return Ok(LastEvents::of(own, last));
        }
        match stored_note::end_or_more(&disk.directory, disk.id) {
            (end, None) if end < position && position > stored && !disk.is_removed() => {
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
            if found.is_new() {
                return Ok(LaterKeys { stored, furthest });
            }
            let position = found.checkpoint.position;
            furthest = furthest.max(position);
            if position > stored && self.last_events(lane, found)? == LastEvents::Own {
                reached("last events: own, under a later key");
                stored = position;
            }
        }
    }

    /// What is known of a lane whose checkpoint is at `found` and counts other events.
    fn known_stored(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: Position,
    ) -> Result<KnownStored, ProofError> {
        let state = self.lanes.of(lane);
        let (to, was_asked) = (state.stored(), state.was_asked());
        let noted = disk.rows().last_before(to);
        let newest = self.newest_row(disk, to)?;
        // Rows are noted once a second: the database may have gone back to after the last noted one.
        let is_witnessed = was_asked || noted.is_some_and(|row| row.end >= to);
        let is_gone = found < to || newest != noted || !is_witnessed;
        let begins = self.begins(disk, &LaneLabel::read(&disk.directory)?);
        let from = match newest {
            _ if !is_gone => to,
            Some(row) => row.end.max(begins).min(to),
            None => {
                let oldest = stored_note::oldest(&disk.directory, disk.id)?;
                oldest.max(begins).min(to)
            }
        };
        Ok(KnownStored {
            begins,
            to,
            from,
            is_gone,
        })
    }

    /// The last of the noted rows of events before a position that is still there.
    fn newest_row(
        &mut self,
        disk: &DiskLane,
        mut before: Position,
    ) -> Result<Option<RowWitness>, ProofError> {
        loop {
            let noted = disk.rows().last_before(before);
            let Some(row) = noted else {
                return Ok(None);
            };
            if let Some(event) = LaneEvent::read_alone(disk, row.position)?
                && self.writer.sink.is_row_of(row.row, event.event())?
            {
                return Ok(Some(row));
            }
            before = row.position;
        }
    }

    /// Judges a checkpoint that counts the events of another one that has this lane. Of those that both have, more may be
    /// stored than this process knows: they come before the others, and rows tell which they are.
    pub(super) fn judge_others(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        found: FoundCheckpoint,
    ) -> Result<Verdict, ProofError> {
        let known = self.known_stored(lane, disk, found.checkpoint.position)?;
        let later = self.later_keys(lane, known.from)?;
        let from = later.stored;
        let end = known_end(disk)?;
        let position = found.checkpoint.position.max(later.furthest);
        // The last event before the checkpoint is none of those that both have.
        let to = end.min(Position(position.0.saturating_sub(1)).max(known.to));
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
                // It is left to its owner, whatever is decided.
                checkpoint: Some(HeldCheckpoint {
                    position: position.max(to.plus(1)),
                    epoch: found.checkpoint.epoch.0,
                }),
            }))
        };
        if from >= to {
            return forked(from);
        }
        // Before the oldest event there is no row to begin after, and none before the first one in this database.
        let at_start = (from == known.from && from < known.to || from <= known.begins).then_some(0);
        let Some(after) = self.last_row(disk, from)?.or(at_start) else {
            return doubtful(to);
        };
        let first = match self.first_missing_after(disk, from, to, Some(after)) {
            Ok(Some(first)) => first,
            // Rows that nobody can ask for say nothing against what is known.
            Ok(None) | Err(ProofError::Database(SinkError::Stop(_))) => {
                let is_stored = !known.is_gone && known.to == to;
                return if is_stored { forked(to) } else { doubtful(to) };
            }
            Err(fault) => return Err(fault),
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
            Proof::Stored(_) if first == to && first > known.to && end >= position => doubtful(to),
            Proof::Stored(first) => forked(first),
            _ => doubtful(first),
        }
    }
}
