//! The bounded queue from a shard to its writer, and the way of empty batches back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::os::clock;

/// Most batches of one shard: the open one, those in the queue, the one being stored, those on the way back.
/// Each is created when it is first needed, and reused. While all are in use, a shard without a journal answers
/// 503; one with a journal keeps events only on disk.
pub const BATCHES_PER_SHARD: usize = 64;

/// A batch on its way to the database.
#[derive(Debug)]
pub struct Sealed {
    /// Its events; at least one.
    pub batch: Batch,
    /// The lane of these events.
    pub lane: LaneHandle,
    /// Position of the first.
    pub first: Position,
    /// When it was sealed.
    pub sealed_at: Instant,
    home: SyncSender<Batch>,
}

impl Sealed {
    /// Sends the stored batch back to its shard, which fills it again.
    pub fn give_back(mut self) {
        self.batch.clear();
        match self.home.try_send(self.batch) {
            // The shard has ended and needs no batch.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => unreachable!("a shard creates no more batches than fit"),
        }
    }
}

/// Events that are only on disk. The writer reads them back from their lane.
#[derive(Debug)]
pub struct Span {
    /// The lane.
    pub lane: Arc<DiskLane>,
    /// The first event.
    pub from: Position,
    /// The position after the last event.
    pub to: Position,
}

/// Work of a writer. In the queue, the work of a lane is in the order of its positions.
#[derive(Debug)]
pub enum Work {
    /// Events in memory.
    Batch(Sealed),
    /// Events only on disk.
    Span(Span),
}

impl Work {
    /// A batch whose first event has the position `first`. Once stored it is sent to `home`.
    pub fn new(batch: Batch, first: Position, lane: LaneHandle, home: SyncSender<Batch>) -> Self {
        Self::Batch(Sealed {
            batch,
            lane,
            first,
            sealed_at: clock::now(),
            home,
        })
    }

    /// The lane of its events.
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Batch(sealed) => sealed.lane.id(),
            Self::Span(span) => span.lane.id,
        }
    }

    /// The position after its last event.
    pub fn end(&self) -> Position {
        match self {
            Self::Batch(sealed) => sealed.first.plus(sealed.batch.len()),
            Self::Span(span) => span.to,
        }
    }

    /// Keeps the events before `end`. If there are none, the error is the empty batch, if the work has one.
    pub fn cut(self, end: Position) -> Result<Self, Option<Batch>> {
        match self {
            Self::Batch(mut sealed) => {
                let left = usize::try_from(end.since(sealed.first)).unwrap_or(usize::MAX);
                sealed.batch.truncate(left);
                if sealed.batch.is_empty() {
                    Err(Some(sealed.batch))
                } else {
                    Ok(Self::Batch(sealed))
                }
            }
            Self::Span(mut span) => {
                span.to = span.to.min(end);
                if span.from < span.to {
                    Ok(Self::Span(span))
                } else {
                    Err(None)
                }
            }
        }
    }
}

/// A shard's end of the queue.
#[derive(Debug)]
pub struct Handoff {
    /// `None` after [`Self::close`].
    to_writer: Option<SyncSender<Work>>,
    returned: Receiver<Batch>,
    home: SyncSender<Batch>,
    /// Empty batches, ready to be filled.
    empty: Vec<Batch>,
    /// Batches that exist, here or elsewhere.
    created: usize,
    /// Batches that were sent and are not back yet.
    under_way: usize,
    events_max: BatchEvents,
}

/// The work was not sent: the writer has ended, the handoff is closed, or the queue is full.
#[derive(Debug)]
pub struct NotSent(pub Box<Work>);

/// The queue of one writer. It has space for every batch of `shards` shards and for as many spans: between two
/// spans of a lane there is always a batch.
pub fn inbox(shards: usize) -> (SyncSender<Work>, Receiver<Work>) {
    sync_channel(shards * (2 * BATCHES_PER_SHARD + 2))
}

impl Handoff {
    /// The end of one shard. `to_writer` is from [`inbox`].
    pub fn new(to_writer: SyncSender<Work>, events_max: BatchEvents) -> Self {
        let (home, returned) = sync_channel(BATCHES_PER_SHARD);
        Self {
            to_writer: Some(to_writer),
            returned,
            home,
            empty: Vec::with_capacity(BATCHES_PER_SHARD),
            created: 0,
            under_way: 0,
            events_max,
        }
    }

    /// An empty batch, or `None` while all are in use.
    pub fn empty_batch(&mut self) -> Option<Batch> {
        self.take_back();
        if let Some(batch) = self.empty.pop() {
            return Some(batch);
        }
        (self.created < BATCHES_PER_SHARD).then(|| {
            self.created += 1;
            Batch::new(self.events_max)
        })
    }

    /// How many events a batch holds.
    pub fn events_max(&self) -> usize {
        self.events_max.get()
    }

    /// Batches that [`Self::empty_batch`] would return.
    pub fn free_batches(&mut self) -> usize {
        self.take_back();
        self.empty.len() + BATCHES_PER_SHARD - self.created
    }

    /// Batches that wait for the writer or are being stored.
    pub fn under_way(&mut self) -> usize {
        self.take_back();
        self.under_way
    }

    fn take_back(&mut self) {
        while let Ok(batch) = self.returned.try_recv() {
            self.under_way -= 1;
            self.empty.push(batch);
        }
    }

    /// Where stored batches are sent back to this shard.
    pub fn home(&self) -> SyncSender<Batch> {
        self.home.clone()
    }

    /// Takes back an empty batch that was not sent.
    pub fn keep(&mut self, batch: Batch) {
        self.empty.push(batch);
    }

    /// Sends work. Never waits: the queue has space for all batches, and for all spans unless several lanes fail
    /// one after another.
    pub fn send(&mut self, work: Work) -> Result<(), NotSent> {
        let Some(to_writer) = &self.to_writer else {
            return Err(NotSent(Box::new(work)));
        };
        let batches = usize::from(matches!(work, Work::Batch(_)));
        match to_writer.try_send(work) {
            Ok(()) => {
                self.under_way += batches;
                Ok(())
            }
            Err(TrySendError::Disconnected(work) | TrySendError::Full(work)) => {
                Err(NotSent(Box::new(work)))
            }
        }
    }

    /// Ends the queue for this shard. A writer ends when all its shards have closed theirs.
    pub fn close(&mut self) {
        self.to_writer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, UnixMillis};
    use crate::journal::lane_handle::MemoryLane;

    fn work(handoff: &mut Handoff, value: u32) -> Option<Work> {
        let mut batch = handoff.empty_batch()?;
        batch
            .push(Event {
                name: "n",
                value,
                received_at: UnixMillis(0),
                id: None,
            })
            .unwrap();
        let lane = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
        Some(Work::new(
            batch,
            Position(value.into()),
            lane,
            handoff.home(),
        ))
    }

    fn value(work: &Work) -> u32 {
        match work {
            Work::Batch(sealed) => sealed.batch.event(0).value,
            Work::Span(span) => panic!("{span:?}"),
        }
    }

    #[test]
    fn batches_are_bounded_and_come_back_empty() {
        let (to_writer, inbox) = inbox(1);
        let mut handoff = Handoff::new(to_writer, BatchEvents::new(1).unwrap());
        let mut sent = 0;
        while let Some(work) = work(&mut handoff, sent) {
            handoff.send(work).unwrap();
            sent += 1;
        }
        assert_eq!(
            (sent as usize, handoff.under_way()),
            (BATCHES_PER_SHARD, BATCHES_PER_SHARD)
        );
        let first = inbox.recv().unwrap();
        assert_eq!(value(&first), 0);
        let Work::Batch(first) = first else { panic!() };
        first.give_back();
        assert_eq!(handoff.under_way(), BATCHES_PER_SHARD - 1);
        assert!(handoff.empty_batch().unwrap().is_empty());
        assert!(handoff.empty_batch().is_none());
    }

    #[test]
    fn work_for_a_writer_that_has_ended_is_returned() {
        let (to_writer, inbox) = inbox(1);
        let mut handoff = Handoff::new(to_writer, BatchEvents::new(1).unwrap());
        let work = work(&mut handoff, 7).unwrap();
        drop(inbox);
        let NotSent(work) = handoff.send(work).unwrap_err();
        assert_eq!(value(&work), 7);
    }
}
