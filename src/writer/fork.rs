//! Stores a lane under another key, where its checkpoint is that of another lane.

use std::cmp::Ordering;
use std::io;

use super::Storing;
use super::adopted::{Adopted, Wait};
use super::checkpoint::log_lost_events;
use super::last_events::{LastEvents, fingerprint_before};
use super::proof::ProofError;
use super::row_answers::Proof;
use super::verdict::Verdict;
use crate::event::position::Position;
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::lane_keys::LaneKeys;
use crate::journal::stored_note;
use crate::os::bugs::{Bug, planted};
use crate::sink::sealed_copy::FoundCheckpoint;
use crate::sink::{Begin, Checkpoint, Fault, SinkError};

impl Storing {
    /// Gives a lane its next key, under which its events are stored from `from` on. Other copies of the lane get the same
    /// key, and may have stored what they share with this one under it: its checkpoint is judged as well.
    pub(super) fn fork(
        &mut self,
        lane: &LaneHandle,
        found: Position,
        from: Position,
        end: Option<Position>,
    ) -> Result<Adopted, SinkError> {
        let keys = self.lanes.of(lane).keys.with_next(from);
        // Letters are told to the shard before it is told that they are passed.
        self.count_before(lane, from);
        // A write that fails may have put the note in its place. Then the next attempt goes on with the new key.
        self.leave_key(lane, from);
        if let Some(disk) = lane.on_disk()
            && let Err(fault) = note(disk, &keys, from)
        {
            if LaneKeys::read(&disk.directory, disk.id).is_ok_and(|noted| noted == keys) {
                log_fork(lane, found, from, end);
            }
            return Ok(Adopted::Waits(Wait::Unwritable(fault)));
        }
        log_fork(lane, found, from, end);
        self.lanes.of(lane).go_on_under(keys.clone(), from);
        let found = self.adopt(lane, &keys, from)?;
        let found = self.believe_copy(lane, &keys, found)?;
        self.lanes.of(lane).adopted(found.checkpoint);
        if found.checkpoint.position < from {
            if let Err(fault) = self.learn_letters(lane, from) {
                return Ok(Adopted::Waits(Wait::Unreadable(fault)));
            }
            return match self.catch_up(lane, &keys, found, from) {
                Ok(Some(moved)) => self.act_on(lane, keys, moved, Verdict::Ours),
                Ok(None) => self.fork(lane, found.checkpoint.position, from, end),
                Err(fault) => self.wait_for_proof(lane, fault),
            };
        }
        match self.verdict(lane, found)? {
            Ok(verdict) => self.act_on(lane, keys, found.checkpoint, verdict),
            Err(adopted) => Ok(adopted),
        }
    }

    /// Finds another key for a lane that is stored up to `from`, where no later key was further on. A key whose checkpoint stands
    /// earlier and counts other events belongs to another copy of the lane.
    pub(super) fn another_key(
        &mut self,
        lane: &LaneHandle,
        from: Position,
    ) -> Result<(LaneKeys, Checkpoint), ProofError> {
        let mut keys = self.lanes.of(lane).keys.clone();
        loop {
            keys = keys.with_next(from);
            let found = self.adopt(lane, &keys, from)?;
            let found = self.believe_copy(lane, &keys, found)?;
            match found.checkpoint.position.cmp(&from) {
                Ordering::Equal => return Ok((keys, found.checkpoint)),
                Ordering::Less => {
                    if let Some(moved) = self.catch_up(lane, &keys, found, from)? {
                        return Ok((keys, moved));
                    }
                }
                Ordering::Greater => {
                    let id = lane.id();
                    let text = format!("another copy of lane {id} moves it at the same time");
                    return Err(SinkError::Retry(Fault::new(text)).into());
                }
            }
        }
    }

    /// Moves a checkpoint on to `from`, up to where the lane is stored, if it counts the events of the lane. `None`: it is that
    /// of a copy with other events.
    fn catch_up(
        &mut self,
        lane: &LaneHandle,
        keys: &LaneKeys,
        found: FoundCheckpoint,
        from: Position,
    ) -> Result<Option<Checkpoint>, ProofError> {
        if self.last_events(lane, found)? != LastEvents::Own {
            return Ok(None);
        }
        let last = fingerprint_before(lane, from);
        let moved = self.move_checkpoint(keys.current(), found.checkpoint, from, last)?;
        Ok(Some(moved))
    }

    /// Makes this process the owner of a lane under the last of its keys. A checkpoint that is new begins at `from`, and says
    /// at once whose events come before: other copies of the lane have the same key.
    pub(super) fn adopt(
        &mut self,
        lane: &LaneHandle,
        keys: &LaneKeys,
        from: Position,
    ) -> Result<FoundCheckpoint, SinkError> {
        let key = keys.current();
        let sink = &mut self.writer.sink;
        // The journal is read only for a checkpoint that begins after the start of the lane.
        let begins = from > Position::START && sink.look(key, from.into())?.is_new();
        let begin = Begin {
            position: from,
            last: begins.then(|| fingerprint_before(lane, from)).flatten(),
        };
        sink.adopt(key, begin)
    }

    /// The keys of a lane without the last ones that the database lacks: it was restored to before the lane got them. What was
    /// stored under them is gone, and other copies may store it under the earlier ones. A key counts as missing as well where its
    /// checkpoint is before the position at which this lane got it. Another copy that has stored less got it, after the
    /// restore or before this lane has moved the checkpoint on. Where the rows are there, somebody has removed or altered the
    /// checkpoints, and the keys stay.
    pub(super) fn keys_there(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
        keys: LaneKeys,
        begins: Position,
    ) -> Result<Result<LaneKeys, Adopted>, SinkError> {
        let (mut earlier, mut from) = (keys.clone(), None);
        loop {
            let (key, mut before) = (earlier.current(), earlier.clone());
            let Some(popped) = before.pop().filter(|_| !planted(Bug::LostKeyKept)) else {
                break;
            };
            let found = self.writer.sink.look(key, begins.into())?;
            if !found.is_new() && found.position() >= popped {
                break;
            }
            earlier = before;
            from = Some(from.map_or(popped, |from: Position| from.min(popped)));
        }
        let Some(from) = from else {
            return Ok(Ok(keys));
        };
        let stored = self.lanes.of(lane).stored();
        // What is before `begins` was never in this database.
        let from = from.max(begins.min(stored));
        if from < stored {
            let is_noted = !disk.rows().spread(from, stored, 1).is_empty();
            match self.prove_stored(disk, from, stored) {
                Ok(Proof::Missing) => {}
                Ok(Proof::Unknown) if !is_noted => {}
                Ok(_) => return Ok(Ok(keys)),
                Err(fault) => return self.wait_for_proof(lane, fault).map(Err),
            }
            self.accept_loss(lane, from, is_noted);
        }
        Ok(match note(disk, &earlier, from.min(stored)) {
            Ok(()) => Ok(earlier),
            Err(fault) => Err(Adopted::Waits(Wait::Unwritable(fault))),
        })
    }

    /// The database has lost what was stored of a lane from `from` on.
    pub(super) fn accept_loss(&mut self, lane: &LaneHandle, from: Position, is_checked: bool) {
        log_lost_events(lane, self.lanes.of(lane).stored(), from, is_checked);
        lane.set_stored(from);
        if let Some(disk) = lane.on_disk() {
            // Their ids are given to other rows now.
            disk.rows().truncate(from);
        }
        self.lanes.of(lane).go_back(from);
        // It may have lost events of all lanes.
        self.announce_restore();
    }

    /// Where the checkpoint of a lane begins, if the database has none under the last key. It never had the events
    /// before `from`.
    pub(super) fn start(&mut self, keys: &LaneKeys, from: Position) -> Result<Position, SinkError> {
        if keys.given().is_none() {
            return Ok(from);
        }
        let sink = &mut self.writer.sink;
        let stored = keys.stored(|key| Ok(sink.checkpoint(key)?.map(|found| found.position)))?;
        Ok(stored.max(from))
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

/// Notes that a lane is stored up to `from`, and under which keys it goes on. A crash between leaves what is true as well.
pub(super) fn note(disk: &DiskLane, keys: &LaneKeys, from: Position) -> io::Result<()> {
    stored_note::write(&disk.directory, from)?;
    stored_note::sync(&disk.directory)?;
    keys.write(&disk.directory)
}

fn log_fork(lane: &LaneHandle, found: Position, from: Position, end: Option<Position>) {
    let events = end.map(|end| end.since(from));
    log::error!(
        event = "lane_forked", lane:% = lane.id(), found = found.0, expected = from.0, events;
        "lane {}: its checkpoint is {} and cannot be beyond {}: the machine or its data directory is a copy of \
         another one or was reverted, or the checkpoint was altered; what the lane holds from there on is stored \
         under a new key, and events go into another lane",
        lane.id(), found.0, end.unwrap_or(from).0
    );
}
