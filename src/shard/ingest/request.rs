//! The events of a request that has several: all of them are taken, or none. They are one promise, since all of them are
//! in one group of the journal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::lane::LaneState;
use super::{Ingest, keep_in_batch};
use crate::event::list::EventList;
use crate::event::{Event, UnixMillis};
use crate::journal::record::events_bytes_max;
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;

/// Whether the events of a request were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenAll {
    /// All of them were.
    Taken,
    /// None was, and the request may wait for the next group, of which it needs so many bytes.
    Later(usize),
    /// None was: a bound is reached, no lane is open, or the request may not wait. They count as shed.
    Shed,
    /// None was, and it would be the same at any time. Memory without a journal takes so many at once.
    TooMany(usize),
}

impl Ingest {
    /// Takes all events of a list, or none. A list without any is taken at once. `may_wait`: the request may come
    /// again later, otherwise its events are shed.
    pub fn take_all(
        &mut self,
        list: &EventList,
        received_at: UnixMillis,
        may_wait: bool,
    ) -> TakenAll {
        if list.is_empty() {
            return TakenAll::Taken;
        }
        match self.room_for(list) {
            TakenAll::Taken => {}
            TakenAll::Later(_) if !may_wait => {
                reached("503: a request waits for a group no longer");
                return self.shed_all(list);
            }
            TakenAll::Shed => return self.shed_all(list),
            TakenAll::Later(bytes) if planted(Bug::HalfOfRequestTaken) => {
                for event in list.events(received_at).take(list.len() / 2) {
                    self.append(event);
                }
                return TakenAll::Later(bytes);
            }
            other => return other,
        }
        for (index, event) in list.events(received_at).enumerate() {
            let is_split = planted(Bug::RequestInTwoGroups) || planted(Bug::FirstGroupAnswered);
            if is_split
                && index == list.len() / 2
                && let Some(first) = self.begin_write()
            {
                self.write_by_thread(first);
            }
            self.append(event);
        }
        TakenAll::Taken
    }

    #[cold]
    fn shed_all(&self, list: &EventList) -> TakenAll {
        let events = list.len() as u64;
        self.counters.add(|counters| &counters.shed, events);
        TakenAll::Shed
    }

    /// Takes an event for which there is room.
    #[inline]
    fn append(&mut self, event: Event<'_>) {
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
                    TakenAll::Later(bytes)
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

    /// Whether a request of so many bytes fits into the group now. Without an open lane there is nothing to wait for.
    pub fn may_have_room_for(&self, bytes: usize) -> bool {
        match &self.lane {
            LaneState::Open(lane) => lane.group.has_room_for(bytes),
            _ => true,
        }
    }

    /// Wakes the requests that wait for room.
    pub(super) fn wake_requests(&mut self) {
        self.awaiting_room.wake();
    }
}

/// The requests that wait for room in the group that collects events.
#[derive(Debug, Default)]
pub(super) struct AwaitingRoom {
    /// Each by a number of its own.
    pub(super) wakers: BTreeMap<u64, Waker>,
    next: u64,
}

impl AwaitingRoom {
    fn add(&mut self, waker: Waker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.wakers.insert(number, waker);
        number
    }

    fn wake(&mut self) {
        for waker in std::mem::take(&mut self.wakers).into_values() {
            waker.wake();
        }
    }
}

/// A request that waits. It is forgotten when it gives up, since a disk may stand still for hours and its sender asks again
/// each second.
struct Waiting<'a> {
    ingest: &'a RefCell<Ingest>,
    number: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let awaiting = &mut self.ingest.borrow_mut().awaiting_room;
            awaiting.wakers.remove(&number);
        }
    }
}

/// Waits until there may be room for a request that was to come later.
pub async fn room(ingest: &RefCell<Ingest>) {
    let mut waiting = Waiting {
        ingest,
        number: None,
    };
    poll_fn(|context| {
        let awaiting = &mut ingest.borrow_mut().awaiting_room;
        match waiting.number {
            Some(number) if !awaiting.wakers.contains_key(&number) => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                waiting.number = Some(awaiting.add(context.waker().clone()));
                Poll::Pending
            }
        }
    })
    .await;
}
