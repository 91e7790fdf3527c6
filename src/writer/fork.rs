//! Stores a lane under another key, where its checkpoint is that of another lane.

use super::Storing;
use super::adopted::{Adopted, Wait};
use super::last_events::fingerprint_before;
use crate::event::position::Position;
use crate::journal::lane_handle::LaneHandle;
use crate::journal::lane_keys::LaneKeys;
use crate::sink::sealed_copy::FoundCheckpoint;
use crate::sink::{Begin, Checkpoint, SinkError};

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
            && let Err(fault) = keys.write(&disk.directory)
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
            // It is that of a copy with other events before `from`.
            return self.fork(lane, found.checkpoint.position, from, end);
        }
        match self.verdict(lane, found)? {
            Ok(verdict) => self.act_on(lane, keys, found.checkpoint, verdict),
            Err(adopted) => Ok(adopted),
        }
    }

    /// Finds another key for a lane that is stored up to `from`. Keys whose checkpoints are elsewhere are those of other
    /// copies of the lane.
    pub(super) fn another_key(
        &mut self,
        lane: &LaneHandle,
        from: Position,
    ) -> Result<(LaneKeys, Checkpoint), SinkError> {
        let mut keys = self.lanes.of(lane).keys.clone();
        loop {
            keys = keys.with_next(from);
            let found = self.adopt(lane, &keys, from)?;
            let checkpoint = self.believe_copy(lane, &keys, found)?.checkpoint;
            if checkpoint.position == from {
                return Ok((keys, checkpoint));
            }
        }
    }

    /// Makes this process the owner of a lane under the last of its keys. A checkpoint that is new begins at `from`. Under a
    /// key that others get as well, it says at once whose events come before.
    pub(super) fn adopt(
        &mut self,
        lane: &LaneHandle,
        keys: &LaneKeys,
        from: Position,
    ) -> Result<FoundCheckpoint, SinkError> {
        let last = keys.given().and_then(|_| fingerprint_before(lane, from));
        let begin = Begin {
            position: from,
            last,
        };
        self.writer.sink.adopt(keys.current(), begin)
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
