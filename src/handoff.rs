//! The bounded way from a shard to its writer, and of empty batches back.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use crate::batch::{Batch, BatchEvents};

/// Batches of one shard: the open one, those that wait, the one being stored, those on the way back.
/// Made when first needed and used for ever. With all of them full of events the shard sheds.
pub const BATCHES_PER_SHARD: usize = 64;

/// A batch on its way to the database.
#[derive(Debug)]
pub struct Sealed {
    /// Its events; at least one.
    pub batch: Batch,
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

/// A shard's end.
#[derive(Debug)]
pub struct Handoff {
    /// `None` once closed.
    to_writer: Option<SyncSender<Sealed>>,
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

/// The writer has ended, or the handoff is closed: nothing is handed over any more. Holds the batch.
#[derive(Debug)]
pub struct WriterGone(pub Batch);

/// The queue into one writer, with room for every batch of `shards` shards.
pub fn inbox(shards: usize) -> (SyncSender<Sealed>, Receiver<Sealed>) {
    sync_channel(shards * BATCHES_PER_SHARD)
}

impl Handoff {
    /// The end of one of the shards whose batches `to_writer` has room for.
    pub fn new(to_writer: SyncSender<Sealed>, events_max: BatchEvents) -> Self {
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

    /// Hands a batch over. Never waits: there is room for every batch that exists.
    pub fn send(&mut self, batch: Batch) -> Result<(), WriterGone> {
        let Some(to_writer) = &self.to_writer else {
            return Err(WriterGone(batch));
        };
        let sealed = Sealed {
            batch,
            sealed_at: Instant::now(),
            home: self.home.clone(),
        };
        match to_writer.try_send(sealed) {
            Ok(()) => {
                self.under_way += 1;
                Ok(())
            }
            Err(TrySendError::Disconnected(sealed)) => Err(WriterGone(sealed.batch)),
            Err(TrySendError::Full(_)) => unreachable!("the queue has room for every batch"),
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

    fn events(count: u32) -> BatchEvents {
        BatchEvents::new(count).unwrap()
    }

    #[test]
    fn batches_are_bounded_and_come_back_empty() {
        let (to_writer, inbox) = inbox(1);
        let mut handoff = Handoff::new(to_writer, events(1));
        let mut sent = 0;
        while let Some(mut batch) = handoff.empty_batch() {
            batch
                .push(Event {
                    name: "n",
                    value: sent,
                    received_at: UnixMillis(0),
                })
                .unwrap();
            handoff.send(batch).unwrap();
            sent += 1;
        }
        assert_eq!(sent as usize, BATCHES_PER_SHARD);
        let first = inbox.recv().unwrap();
        assert_eq!(first.batch.event(0).value, 0);
        first.give_back();
        assert!(handoff.empty_batch().unwrap().is_empty());
        assert!(handoff.empty_batch().is_none());
    }

    #[test]
    fn a_writer_that_is_gone_gives_the_batch_back() {
        let (to_writer, inbox) = inbox(1);
        let mut handoff = Handoff::new(to_writer, events(1));
        let mut batch = handoff.empty_batch().unwrap();
        batch
            .push(Event {
                name: "n",
                value: 7,
                received_at: UnixMillis(0),
            })
            .unwrap();
        drop(inbox);
        let WriterGone(batch) = handoff.send(batch).unwrap_err();
        assert_eq!(batch.event(0).value, 7);
    }
}
