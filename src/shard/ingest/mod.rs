//! How a shard keeps what it promised: the open batch, and the journal where the promise asks for it.
//!
//! Positions are given here: every event that is taken has its place in the shard's lane.

mod ack_waiters;
mod group_buffer;
mod lane;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use self::ack_waiters::AckWaiters;
pub use self::ack_waiters::{AckFailed, AckTicket};
use self::group_buffer::Journal;
use crate::event::Event;
use crate::event::Shed;
use crate::event::ack::Ack;
use crate::event::batch::Batch;
use crate::event::position::Position;
use crate::handoff::{Handoff, Span, Work};
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::{DiskOrder, DiskThread, REOPEN_AFTER, Write, Written};
use crate::journal::lane_handle::LaneHandle;
use crate::journal::quota::JournalBound;
use crate::metrics::{SealCause, ShardCounters};

/// Batches under way with which a writer has enough to do: one being stored, one to follow.
const BATCHES_AHEAD: usize = 2;

/// Everything a shard keeps.
#[derive(Debug)]
pub struct Ingest {
    ack: Ack,
    counters: Arc<ShardCounters>,
    handoff: Handoff,
    open: Batch,
    /// Position of the first event of the open batch.
    open_first: Position,
    /// Where events began to be acknowledged on disk alone, while no batch was free.
    spilled_from: Option<Position>,
    /// Sealed, and not yet handed over because the journal has not synced it.
    waiting: VecDeque<Work>,
    /// `None` while there is no lane to write to.
    lane: Option<Arc<LaneHandle>>,
    promises: AckWaiters,
    /// Why the lane is to be closed, as soon as no write is under way.
    fault: Option<io::Error>,
    /// Whether it was logged that there is no lane.
    is_closed_said: bool,
    /// Position of the next event.
    next: Position,
    /// Everything before is on the disk, or has no need to be.
    durable: Position,
    journal: Option<Journal>,
    /// The task that sends groups to the disk, while it has nothing to do.
    committer: Option<Waker>,
    /// Whether that task is to let go of the file it wrote last.
    let_go: bool,
}

/// Where events are acknowledged until they are stored.
#[derive(Debug)]
pub enum Medium {
    /// In memory alone, by positions of this lane.
    Memory(LaneHandle),
    /// In memory and in a journal.
    Journal(DiskThread, JournalBound),
}

impl Ingest {
    /// Keeps events in `medium` until they are stored. While disk or database stall, no more than about
    /// `waiters_max` answers wait: other connections must find room.
    pub fn new(
        ack: Ack,
        counters: Arc<ShardCounters>,
        mut handoff: Handoff,
        medium: Medium,
        waiters_max: usize,
    ) -> Self {
        #[expect(clippy::expect_used, reason = "a new handoff has made no batch yet")]
        let open = handoff.empty_batch().expect("the first batch of a shard");
        let (lane, journal) = match medium {
            Medium::Memory(lane) => (Some(Arc::new(lane)), None),
            Medium::Journal(disk, bound) => (None, Some(Journal::new(disk, bound))),
        };
        Self {
            ack,
            counters,
            handoff,
            open,
            open_first: Position::START,
            spilled_from: None,
            waiting: VecDeque::new(),
            lane,
            promises: AckWaiters::new(waiters_max),
            fault: None,
            is_closed_said: false,
            next: Position::START,
            durable: Position::START,
            journal,
            committer: None,
            let_go: false,
        }
    }

    /// Takes an event, or sheds it where a bound is reached.
    pub fn take(&mut self, event: Event<'_>) -> Result<(), Shed> {
        let taken = match (&self.lane, &mut self.journal) {
            (Some(_), None) => self.push(event),
            (Some(lane), Some(journal)) => {
                let has_room =
                    journal.has_room(lane.stored(), self.durable) && !self.promises.is_stalled();
                if has_room {
                    journal.gather(event);
                    if self.spilled_from.is_none() && !self.push(event) {
                        self.spilled_from = Some(self.next);
                    }
                }
                has_room
            }
            (None, _) => false,
        };
        if !taken {
            self.counters.shed.add(1);
            return Err(Shed);
        }
        self.next = self.next.plus(1);
        if self.journal.is_none() {
            // With a journal an event counts when it is on the disk: it may yet be answered 503.
            self.counters.received.add(1);
            self.durable = self.next;
        }
        if self.open.is_full() {
            self.seal(SealCause::Count);
        }
        Ok(())
    }

    /// Appends to the open batch; seals a full one first.
    fn push(&mut self, event: Event<'_>) -> bool {
        if self.open.is_empty() {
            self.open_first = self.next;
        }
        if self.open.push(event).is_ok() {
            return true;
        }
        self.seal(SealCause::Bytes);
        if self.open.is_empty() {
            self.open_first = self.next;
        }
        self.open.push(event).is_ok()
    }

    /// Seals the open batch and opens an empty one, if there is one.
    pub fn seal(&mut self, cause: SealCause) {
        if self.open.is_empty() {
            return;
        }
        let (Some(lane), Some(empty)) = (self.lane.clone(), self.handoff.empty_batch()) else {
            return;
        };
        self.push_open(empty, &lane, cause);
        self.hand_over();
    }

    /// Queues the open batch, and opens `empty`.
    fn push_open(&mut self, empty: Batch, lane: &Arc<LaneHandle>, cause: SealCause) {
        self.count_seal(cause);
        let batch = std::mem::replace(&mut self.open, empty);
        let (lane, home) = (Arc::clone(lane), self.handoff.home());
        let work = Work::new(batch, self.open_first, lane, home);
        self.waiting.push_back(work);
    }

    fn count_seal(&self, cause: SealCause) {
        self.counters.seals(cause).add(1);
        self.counters
            .batch_events
            .observe(self.open.len() as u64, 1);
    }

    /// Says how much waits, for whoever looks.
    pub fn publish_gauges(&mut self) {
        let under_way = self.handoff.under_way();
        let counters = &self.counters;
        counters.batches_under_way.set(under_way as u64);
        counters.events_open.set(self.open.len() as u64);
        let oldest = self.open.oldest_received_at();
        counters.oldest_open_at.set(oldest.map_or(0, |at| at.0));
        // With nobody sending, nothing else would say that what waited is stored now.
        if let (Some(lane), Some(journal)) = (&self.lane, &mut self.journal) {
            journal.publish_gauges(lane.stored(), self.durable);
        }
    }

    /// Seals what is due: old, or wanted at once. With work waiting, another batch would not be
    /// stored sooner: then it is left to fill, so that an outage is held by full batches.
    pub fn seal_when_writer_is_free(&mut self, cause: SealCause) {
        if self.handoff.under_way() < BATCHES_AHEAD {
            self.seal(cause);
            self.end_spill();
        }
    }

    /// When the oldest event of the open batch was taken.
    pub fn opened_at(&self) -> Option<Instant> {
        // A spill is ended by the same clock.
        self.open.opened_at()
    }

    /// Whether events are acknowledged on disk alone.
    pub fn is_spilling(&self) -> bool {
        self.spilled_from.is_some()
    }

    /// Lets the writer read back what was acknowledged on disk alone, and goes on in memory.
    fn end_spill(&mut self) {
        if let (Some(from), Some(lane), true) =
            (self.spilled_from, &self.lane, self.open.is_empty())
        {
            self.spilled_from = None;
            let span = Span {
                lane: Arc::clone(lane),
                from,
                to: self.next,
            };
            self.waiting.push_back(Work::Span(span));
            self.hand_over();
        }
    }

    /// Hands over what is durable, in order.
    fn hand_over(&mut self) {
        while let Some(work) = self.waiting.front() {
            // What is left of a lane that was closed is durable.
            let is_present = self
                .lane
                .as_ref()
                .is_some_and(|lane| Arc::ptr_eq(lane, work.lane()));
            if is_present && work.end() > self.durable {
                return;
            }
            let Some(work) = self.waiting.pop_front() else {
                return;
            };
            if let Err(back) = self.handoff.send(work) {
                // The writer is gone and the process about to end, and what was taken stays pending;
                // or there is no room, and the notifier will be heard again.
                self.waiting.push_front(back.0);
                return;
            }
        }
    }

    /// Sees to it that what has gathered goes to the disk, behind everything that is ready to run now:
    /// what arrives in the same turn of the loop shares one write.
    pub fn commit_soon(&mut self) {
        if self.committer.is_some()
            && self.journal.as_mut().is_some_and(Journal::is_ready)
            && let Some(committer) = self.committer.take()
        {
            committer.wake();
        }
    }

    /// The group that has gathered, unless another is at the disk. The write must be ended.
    pub fn begin_write(&mut self) -> Option<Write> {
        self.journal.as_mut()?.begin_write()
    }

    /// Has the disk thread write a group, which it reports.
    pub fn write_by_thread(&self, group: Write) {
        if let Some(journal) = &self.journal {
            journal.order(DiskOrder::Write(group));
        }
    }

    /// Takes in how a write ended; says what it was, where that answers its senders.
    pub fn end_write(&mut self, blocks: Blocks, outcome: io::Result<()>) -> Option<Written> {
        let journal = self.journal.as_mut()?;
        let written = journal.end_write(blocks);
        let answered = match outcome {
            Ok(()) => {
                self.counters.sync_time.observe_time(written.took);
                self.durable = self.durable.plus(written.events as usize);
                journal.mark(self.durable);
                self.counters.received.add(u64::from(written.events));
                (self.ack == Ack::Journaled).then_some(written)
            }
            Err(fault) => {
                self.fault = Some(fault);
                None
            }
        };
        self.advance();
        answered
    }

    /// Does what has become possible.
    fn advance(&mut self) {
        // Never while a write is under way: its blocks belong to the lane.
        if self.journal.as_ref().is_some_and(Journal::is_idle) {
            if let Some(fault) = self.fault.take() {
                self.say_closed(&fault);
                self.close_lane(REOPEN_AFTER);
            } else if self.lane.as_ref().is_some_and(|lane| lane.is_damaged()) {
                self.close_lane(Duration::ZERO);
            }
        }
        self.hand_over();
        // Nothing is gained by waiting for more where an answer waits for the row.
        if self.ack == Ack::Stored || self.is_spilling() {
            self.seal_when_writer_is_free(SealCause::Wanted);
        }
        self.promises.wake(self.acknowledged());
        self.commit_soon();
    }

    /// Whether events can be taken: there is a lane.
    pub fn is_open(&self) -> bool {
        self.lane.is_some()
    }

    /// Events taken so far in the present lane.
    pub fn taken(&self) -> Position {
        self.next
    }

    /// What is promised for everything taken so far; `None` where an answer promises no more than
    /// what is already so.
    pub fn promise(&self) -> Option<AckTicket> {
        let is_kept = match self.ack {
            Ack::Received => true,
            Ack::Journaled => self.durable >= self.next,
            Ack::Stored => false,
        };
        (!is_kept).then(|| self.promises.give(self.next))
    }

    /// How far what a 200 says is so, in the present lane.
    fn acknowledged(&self) -> Position {
        match (self.ack, &self.lane) {
            // Of a lane that lacks events no promise is acknowledged: it is about to be closed.
            (Ack::Stored, Some(lane)) if !lane.is_damaged() => lane.stored(),
            (Ack::Stored, Some(_)) => Position::START,
            (Ack::Stored, None) => Position::START,
            (Ack::Received | Ack::Journaled, _) => self.durable,
        }
    }

    /// Whether something is on its way to the disk.
    pub fn is_committing(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.unwritten() > 0)
    }
}

/// Waits until a group can be written. `None`: the lane was closed, and its file must be let go, or the
/// disk would not get back what it takes.
pub async fn group(ingest: impl Fn(&mut dyn FnMut(&mut Ingest))) -> Option<Write> {
    poll_fn(|context| {
        let mut state = Poll::Pending;
        ingest(&mut |ingest| {
            if std::mem::take(&mut ingest.let_go) {
                state = Poll::Ready(None);
            } else if let Some(write) = ingest.begin_write() {
                state = Poll::Ready(Some(write));
            } else {
                ingest.committer = Some(context.waker().clone());
            }
        });
        state
    })
    .await
}

/// Waits until a promise is acknowledged or broken.
pub async fn acknowledged(
    ingest: impl Fn(&mut dyn FnMut(&mut Ingest)),
    promise: AckTicket,
) -> Result<(), AckFailed> {
    poll_fn(|context| {
        let mut state = Poll::Pending;
        ingest(&mut |ingest| {
            let acknowledged = ingest.acknowledged();
            state = ingest.promises.poll(promise, acknowledged, context);
        });
        state
    })
    .await
}

#[cfg(test)]
mod tests;
