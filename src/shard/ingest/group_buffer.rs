//! Two groups of events of a lane: the one that is collected, and the one that is being written.

use std::time::Instant;

use crate::event::Event;
use crate::event::list::LIST_EVENTS_MAX;
use crate::http::BODY_LIMIT_MAX;
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::Written;
use crate::journal::lane_cursor::{LaneCursor, Staged};
use crate::journal::record::{
    EVENT_BYTES_MAX, PAYLOAD_BYTES_MAX, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, append_event,
    begin_record, events_bytes_max,
};
use crate::os::clock;

/// How many bytes of a group are for single events: a request with several must not use them.
const fn single_event_bytes(payload_bytes: usize) -> usize {
    payload_bytes / 4
}

/// The events of the largest request fit into an empty group.
const _: () = assert!(
    events_bytes_max(LIST_EVENTS_MAX, BODY_LIMIT_MAX)
        <= PAYLOAD_BYTES_MAX - single_event_bytes(PAYLOAD_BYTES_MAX)
);

/// Most bytes of a group: [`PAYLOAD_BYTES_MAX`], but few in a simulation, so that a few requests fill one.
fn payload_bytes_max() -> usize {
    #[cfg(test)]
    if crate::os::simulated::is_on() {
        return PAYLOAD_BYTES_MAX / 512;
    }
    PAYLOAD_BYTES_MAX
}

/// Two groups of one lane, and the blocks at the end of the lane, which are lent out for a write.
#[derive(Debug)]
pub(super) struct GroupBuffer {
    /// The record of the group that is collected.
    record: Vec<u8>,
    /// Events in it.
    events: u32,
    write: WriteState,
}

/// Where the blocks are.
#[derive(Debug)]
enum WriteState {
    /// Here. A write may begin.
    Idle(Blocks),
    /// Lent out for a write of `events` events.
    UnderWay { events: u32, since: Instant },
}

impl GroupBuffer {
    /// An empty group. `blocks` hold the end of the lane.
    pub(super) fn new(blocks: Blocks) -> Self {
        let mut record = Vec::new();
        begin_record(&mut record);
        Self {
            record,
            events: 0,
            write: WriteState::Idle(blocks),
        }
    }

    /// Whether another event fits into the record.
    pub(super) fn has_room(&self) -> bool {
        self.record.len() <= RECORD_HEAD_BYTES + payload_bytes_max() - EVENT_BYTES_MAX
    }

    /// Whether so many bytes of events of one request fit into the record. The last part of it is for single events, which
    /// cannot wait.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        let payload_bytes = payload_bytes_max();
        let left_free = single_event_bytes(payload_bytes);
        self.record.len() + bytes <= RECORD_HEAD_BYTES + payload_bytes - left_free
    }

    /// Events of the group that is collected.
    pub(super) fn collected(&self) -> usize {
        self.events as usize
    }

    /// Appends an event to the group that is collected.
    pub(super) fn push(&mut self, event: Event<'_>) {
        append_event(&mut self.record, event);
        self.events += 1;
    }

    /// Bytes of the record so far.
    pub(super) fn bytes(&self) -> u64 {
        self.record.len() as u64
    }

    /// Bytes of the record with the padding that it has on the disk.
    pub(super) fn record_bytes(&self) -> usize {
        self.record.len().next_multiple_of(RECORD_ALIGNMENT)
    }

    /// Whether no write is under way.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.write, WriteState::Idle(_))
    }

    /// Whether there are events to write, and no write is under way.
    pub(super) fn is_ready(&self) -> bool {
        self.events > 0 && self.is_idle()
    }

    /// Events that are not durable.
    pub(super) fn unwritten(&self) -> u32 {
        let under_way = match self.write {
            WriteState::Idle(_) => 0,
            WriteState::UnderWay { events, .. } => events,
        };
        self.events + under_way
    }

    /// Lends the blocks out for the collected group. `None` while a write is under way.
    pub(super) fn lend_blocks(&mut self) -> Option<Blocks> {
        let begun = WriteState::UnderWay {
            events: self.events,
            since: clock::now(),
        };
        match std::mem::replace(&mut self.write, begun) {
            WriteState::Idle(blocks) => Some(blocks),
            under_way @ WriteState::UnderWay { .. } => {
                self.write = under_way;
                None
            }
        }
    }

    /// Adds the collected group to `blocks`, at the end of the lane, and begins the next group.
    pub(super) fn stage(&mut self, cursor: &mut LaneCursor, blocks: &mut Blocks) -> Staged {
        let events = std::mem::take(&mut self.events);
        let staged = cursor.stage(&mut self.record, events, blocks);
        begin_record(&mut self.record);
        staged
    }

    /// Takes back the blocks of a write. Returns how many events it had and how long it took.
    pub(super) fn end_write(&mut self, blocks: Blocks) -> Written {
        match std::mem::replace(&mut self.write, WriteState::Idle(blocks)) {
            WriteState::UnderWay { events, since } => Written {
                events,
                took: clock::since(since),
            },
            WriteState::Idle(_) => unreachable!("a write ends that did not begin"),
        }
    }
}
