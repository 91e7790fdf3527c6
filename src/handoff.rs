//! The bounded way from a shard to its writer, and of empty batches back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::{DiskLane, LaneHandle};

/// Batches of one shard: the open one, those that wait, the one being stored, those on the way back.
/// Made when first needed and used for ever. With all of them full of events the shard sheds.
pub const BATCHES_PER_SHARD: usize = 64;

/// A batch on its way to the database.
#[derive(Debug)]
pub struct Sealed {
    /// Its events; at least one.
    pub batch: Batch,
    /// The lane whose positions they have.
    pub lane: LaneHandle,
    /// Position of the first.
    pub first: Position,
    /// When it was sealed.
    pub sealed_at: Instant,
    home: SyncSender<Batch>,
}

impl Sealed {
    /// Sends the stored batch home to be filled again.
    pub fn give_back(mut self) {
        self.batch.clear();
        match self.home.try_send(self.batch) {
            // A shard that has ended needs no batch.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => unreachable!("a shard never makes more batches than fit"),
        }
    }
}

/// Events that are to be read back from their lane.
#[derive(Debug)]
pub struct Span {
    /// The lane.
    pub lane: Arc<DiskLane>,
    /// The first event.
    pub from: Position,
    /// Behind the last event.
    pub to: Position,
}

/// What a writer is given to store. In the queue the positions of a lane follow each other.
#[derive(Debug)]
pub enum Work {
    /// Events in memory.
    Batch(Sealed),
    /// Events on disk alone.
    Span(Span),
}

impl Work {
    /// A batch whose first event has the position `first`; its memory goes back to `home`.
    pub fn new(batch: Batch, first: Position, lane: LaneHandle, home: SyncSender<Batch>) -> Self {
        Self::Batch(Sealed {
            batch,
            lane,
            first,
            sealed_at: Instant::now(),
            home,
        })
    }

    /// The lane whose events they are.
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Batch(sealed) => sealed.lane.id(),
            Self::Span(span) => span.lane.id,
        }
    }

    /// The position behind its last event.
    pub fn end(&self) -> Position {
        match self {
            Self::Batch(sealed) => sealed.first.plus(sealed.batch.len()),
            Self::Span(span) => span.to,
        }
    }

    /// What of it lies before `end`; if nothing does, its empty batch, if it has one.
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

/// A shard's end.
#[derive(Debug)]
pub struct Handoff {
    /// `None` once closed.
    to_writer: Option<SyncSender<Work>>,
    returned: Receiver<Batch>,
    home: SyncSender<Batch>,
    /// Empty batches that are back.
    empty: Vec<Batch>,
    /// Batches that exist, wherever they are.
    made: usize,
    /// Batches handed over and not back yet.
    under_way: usize,
    events_max: BatchEvents,
}

/// The writer has ended, the handoff is closed, or there is no room now. Holds the work.
#[derive(Debug)]
pub struct NotSent(pub Box<Work>);

/// The queue into one writer, with room for every batch of `shards` shards, and as many spans: between
/// two spans of a lane there is always a batch.
pub fn inbox(shards: usize) -> (SyncSender<Work>, Receiver<Work>) {
    sync_channel(shards * (2 * BATCHES_PER_SHARD + 2))
}

impl Handoff {
    /// The end of one of the shards whose batches `to_writer` has room for.
    pub fn new(to_writer: SyncSender<Work>, events_max: BatchEvents) -> Self {
        let (home, returned) = sync_channel(BATCHES_PER_SHARD);
        Self {
            to_writer: Some(to_writer),
            returned,
            home,
            empty: Vec::with_capacity(BATCHES_PER_SHARD),
            made: 0,
            under_way: 0,
            events_max,
        }
    }

    /// A batch to fill, or `None` while all are under way.
    pub fn empty_batch(&mut self) -> Option<Batch> {
        self.take_back();
        if let Some(batch) = self.empty.pop() {
            return Some(batch);
        }
        (self.made < BATCHES_PER_SHARD).then(|| {
            self.made += 1;
            Batch::new(self.events_max)
        })
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

    /// Where batches of this shard go when they are stored.
    pub fn home(&self) -> SyncSender<Batch> {
        self.home.clone()
    }

    /// Takes an empty batch back that was not handed over after all.
    pub fn keep(&mut self, batch: Batch) {
        self.empty.push(batch);
    }

    /// Hands work over. Never waits: there is room for all batches, and for all spans unless lane
    /// after lane fails.
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

    /// Tells the writer that nothing more comes from this shard.
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
    fn a_writer_that_is_gone_gives_the_work_back() {
        let (to_writer, inbox) = inbox(1);
        let mut handoff = Handoff::new(to_writer, BatchEvents::new(1).unwrap());
        let work = work(&mut handoff, 7).unwrap();
        drop(inbox);
        let NotSent(work) = handoff.send(work).unwrap_err();
        assert_eq!(value(&work), 7);
    }
}
