//! The events of a request that has several: all of them are taken, or none. They are one promise, since all of them are
//! in one group of the journal.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll};

use super::lane::LaneState;
use super::{Ingest, keep_in_batch};
use crate::event::UnixMillis;
use crate::event::list::EventList;
use crate::journal::record::events_bytes_max;
use crate::os::reached::reached;

/// Whether the events of a request were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenAll {
    /// All of them were.
    Taken,
    /// None was: the group that collects events is about to be written, and the next one has room.
    Later,
    /// None was: a bound is reached, or no lane is open. They count as shed.
    Shed,
    /// None was, and it would be the same at any time. Memory without a journal takes so many at once.
    TooMany(usize),
}

impl Ingest {
    /// Takes all events of a list, or none.
    pub fn take_all(&mut self, list: &EventList, received_at: UnixMillis) -> TakenAll {
        match self.room_for(list) {
            TakenAll::Taken => {}
            TakenAll::Shed => {
                let events = list.len() as u64;
                self.counters.add(|counters| &counters.shed, events);
                return TakenAll::Shed;
            }
            other => return other,
        }
        for event in list.events(received_at) {
            match &mut self.lane {
                LaneState::Open(lane) => {
                    let position = lane.append(event);
                    keep_in_batch(&mut self.batches, lane, event, position);
                }
                LaneState::Memory { lane, next } => {
                    let is_taken = self.batches.keep(event, *next, lane);
                    assert!(is_taken, "memory had room for all events");
                    *next = next.plus(1);
                    self.counters.add(|counters| &counters.received, 1);
                }
                LaneState::Opening { .. } | LaneState::Failed { .. } | LaneState::Ended => {
                    unreachable!("a lane that was open is not")
                }
            }
            self.seal_if_full();
        }
        TakenAll::Taken
    }

    /// Whether all events of a list can be taken now.
    fn room_for(&mut self, list: &EventList) -> TakenAll {
        match &mut self.lane {
            LaneState::Open(lane) => {
                let bytes = events_bytes_max(list.len(), list.text_bytes());
                if !lane.has_disk_for(bytes) {
                    reached("503: the journal has no room for a request");
                    TakenAll::Shed
                } else if self.waiters.is_stalled() {
                    reached("503: too many answers wait, for a request");
                    TakenAll::Shed
                } else if !lane.group.has_room_for(bytes) {
                    reached("ingest: a request waits for the next group");
                    TakenAll::Later
                } else {
                    TakenAll::Taken
                }
            }
            LaneState::Memory { .. } => {
                let at_once = self.batches.events_at_once();
                if list.len() > at_once {
                    TakenAll::TooMany(at_once)
                } else if self.batches.has_room_for(list.len(), list.text_bytes()) {
                    TakenAll::Taken
                } else {
                    reached("503: memory has no room for a request");
                    TakenAll::Shed
                }
            }
            LaneState::Opening { .. } | LaneState::Failed { .. } | LaneState::Ended => {
                reached("503: no lane is open, for a request");
                TakenAll::Shed
            }
        }
    }

    /// Wakes the requests that wait for room.
    pub(super) fn wake_requests(&mut self) {
        for waiting in self.awaiting_room.drain(..) {
            waiting.wake();
        }
    }

    fn poll_room(&mut self, has_waited: bool, context: &Context<'_>) -> Poll<()> {
        if has_waited {
            return Poll::Ready(());
        }
        self.awaiting_room.push(context.waker().clone());
        Poll::Pending
    }
}

/// Waits until there may be room for a request that was to come later.
pub async fn room(ingest: &RefCell<Ingest>) {
    let mut has_waited = false;
    poll_fn(|context| {
        let waited = std::mem::replace(&mut has_waited, true);
        ingest.borrow_mut().poll_room(waited, context)
    })
    .await;
}
