//! Stores a lane under another key, where its checkpoint is that of another lane.

use std::io;

use super::Storing;
use super::adopted::{Adopted, Wait};
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::LaneHandle;
use crate::journal::lane_keys::LaneKeys;
use crate::sink::{Checkpoint, Fault, SinkError};

impl Storing {
    /// Gives a lane another key, under which its events are stored from `from` on.
    pub(super) fn fork(
        &mut self,
        lane: &LaneHandle,
        found: Position,
        from: Position,
        end: Option<Position>,
    ) -> Result<Adopted, SinkError> {
        let (keys, checkpoint) = self.another_key(lane, from)?;
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

fn stop(fault: io::Error) -> SinkError {
    SinkError::Stop(Fault::new(fault.to_string()))
}
