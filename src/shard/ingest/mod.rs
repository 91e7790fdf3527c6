//! How a shard keeps the events that it takes: in the open batch, and in the journal where the answer
//! promises it.
//!
//! Every event has a position in the shard's lane. `committer.rs` writes what gathers here to the disk;
//! an answer that must wait for that, or for the row, holds an [`AckTicket`].

mod ack_waiters;
mod batches;
mod group_buffer;
mod lane;
mod open_lane;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use self::ack_waiters::AckWaiters;
pub use self::ack_waiters::{AckFailed, AckTicket};
use self::batches::{Batches, PresentLane};
use self::lane::LaneState;
use self::open_lane::LaneMaker;
use crate::event::ack::Ack;
use crate::event::position::Position;
use crate::event::{Event, Shed};
use crate::handoff::Handoff;
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::{DiskOrder, DiskReport, DiskThread, Write, Written};
use crate::journal::lane_handle::MemoryLane;
use crate::journal::quota::JournalBound;
use crate::metrics::{Recorder, SealCause, ShardCounters};

/// What a shard keeps: the events that are not handed over yet, and the answers that wait for them.
#[derive(Debug)]
pub struct Ingest {
    ack: Ack,
    counters: Rc<Recorder<ShardCounters>>,
    batches: Batches,
    lane: LaneState,
    waiters: AckWaiters,
    /// The task that waits until a lane is open.
    opening: Option<Waker>,
    committer: CommitterState,
}

/// What the task that writes groups to the disk is doing.
#[derive(Debug)]
enum CommitterState {
    /// It writes, or is about to look for a group.
    Busy,
    /// It waits for a group.
    Waiting(Waker),
    /// It must let the file of a closed lane go, or the disk would not get back what that takes.
    MustRelease,
}

/// Where events are kept until they are stored.
#[derive(Debug)]
pub enum Medium {
    /// In memory alone, by positions of this lane.
    Memory(MemoryLane),
    /// In memory and in a journal.
    Journal(DiskThread, JournalBound),
}

impl Ingest {
    /// Keeps events in `medium` until they are stored. While disk or database stall, no more than about
    /// `waiters_max` answers wait: other connections must find room.
    pub fn new(
        ack: Ack,
        counters: Rc<Recorder<ShardCounters>>,
        handoff: Handoff,
        medium: Medium,
        waiters_max: usize,
    ) -> Self {
        let lane = match medium {
            Medium::Memory(lane) => LaneState::Memory {
                lane: Arc::new(lane),
                next: Position::START,
            },
            Medium::Journal(disk, bound) => LaneState::Opening {
                maker: LaneMaker::new(disk, bound),
                is_failure_logged: false,
            },
        };
        Self {
            ack,
            batches: Batches::new(Rc::clone(&counters), handoff),
            counters,
            lane,
            waiters: AckWaiters::new(waiters_max),
            opening: None,
            committer: CommitterState::Busy,
        }
    }

    /// Takes an event, or sheds it where a bound is reached.
    pub fn take(&mut self, event: Event<'_>) -> Result<(), Shed> {
        let batches = &mut self.batches;
        match &mut self.lane {
            // It counts as received when it is on the disk: until then it may be answered 503.
            LaneState::Open(lane) => {
                if !lane.has_room() || self.waiters.is_stalled() {
                    return self.shed();
                }
                let position = lane.append(event);
                if lane.spilled_from.is_none()
                    && !batches.push(event, position)
                    && !batches.push_to_next(event, position, lane.present())
                {
                    lane.spilled_from = Some(position);
                }
            }
            LaneState::Memory { lane, next } => {
                let is_taken = batches.push(event, *next)
                    || batches.push_to_next(event, *next, PresentLane::Memory(lane));
                if !is_taken {
                    return self.shed();
                }
                *next = next.plus(1);
                self.counters.add(|counters| &counters.received, 1);
            }
            LaneState::Opening { .. } | LaneState::Failed { .. } | LaneState::Ended => {
                return self.shed();
            }
        }
        if self.batches.is_full() {
            self.seal(SealCause::Count);
        }
        Ok(())
    }

    #[cold]
    fn shed(&self) -> Result<(), Shed> {
        self.counters.add(|counters| &counters.shed, 1);
        Err(Shed)
    }

    /// Seals the open batch, if an empty one is left to go on with.
    pub fn seal(&mut self, cause: SealCause) {
        if let Some(lane) = self.lane.present() {
            self.batches.seal(cause, lane);
        }
    }

    /// Shows how much waits, to whoever reads the metrics.
    pub fn publish_gauges(&mut self) {
        self.batches.publish_gauges();
        // With nobody sending, nothing else would show that what waited is stored now.
        if let Some(lane) = self.lane.open() {
            lane.publish_usage();
        }
    }

    /// Seals what is due: old, or wanted at once. With work waiting, another batch would not be
    /// stored sooner: then it is left to fill, so that an outage is held by full batches.
    pub fn seal_when_writer_is_free(&mut self, cause: SealCause) {
        if self.batches.is_writer_free() {
            self.seal(cause);
            self.end_spill();
        }
    }

    /// When the oldest event of the open batch was taken.
    pub fn opened_at(&self) -> Option<Instant> {
        // A spill is ended by the same clock.
        self.batches.opened_at()
    }

    /// Whether events are kept on disk alone.
    fn is_spilling(&self) -> bool {
        let lane = self.lane.on_disk();
        lane.is_some_and(|lane| lane.spilled_from.is_some())
    }

    /// Lets the writer read back what was kept on disk alone, and goes on in memory.
    fn end_spill(&mut self) {
        if let Some(lane) = self.lane.open()
            && self.batches.is_empty()
            && let Some(span) = lane.take_span()
        {
            self.batches.queue_span(span);
            self.batches.hand_over(Some(lane.present()));
        }
    }

    /// Sees to it that what has gathered goes to the disk, after everything that is ready to run now:
    /// what arrives in the same turn of the loop shares one write.
    pub fn commit_soon(&mut self) {
        if matches!(self.committer, CommitterState::Waiting(_))
            && self.lane.open().is_some_and(|lane| lane.is_ready())
        {
            self.wake_committer(CommitterState::Busy);
        }
    }

    fn wake_committer(&mut self, next: CommitterState) {
        if let CommitterState::Waiting(committer) = std::mem::replace(&mut self.committer, next) {
            committer.wake();
        }
    }

    /// The group that has gathered, unless another is at the disk. The write must be ended.
    pub fn begin_write(&mut self) -> Option<Write> {
        self.lane.open()?.begin_write()
    }

    /// Has the disk thread write a group, which it reports.
    pub fn write_by_thread(&self, group: Write) {
        if let Some(lane) = self.lane.on_disk() {
            lane.maker.order(DiskOrder::Write(group));
        }
    }

    /// Takes in how a write ended. Gives what was in it, where that answers its senders.
    pub fn end_write(&mut self, blocks: Blocks, outcome: io::Result<()>) -> Option<Written> {
        let written = self.take_write(blocks, outcome);
        self.advance();
        written.filter(|_| self.ack == Ack::Journaled)
    }

    fn take_write(&mut self, blocks: Blocks, outcome: io::Result<()>) -> Option<Written> {
        let (LaneState::Open(lane) | LaneState::Failed { lane, .. }) = &mut self.lane else {
            return None;
        };
        if let Err(fault) = outcome {
            lane.fail_write(blocks);
            self.lane.fail(fault);
            return None;
        }
        let written = lane.end_write(blocks);
        let counters = &self.counters;
        counters.observe_time(|counters| &counters.sync_time, written.took);
        counters.add(|counters| &counters.received, u64::from(written.events));
        Some(written)
    }

    /// Takes in what disk thread and writer have done since the last notification.
    pub fn on_notify(&mut self) {
        while let Some(report) = self.lane.report() {
            self.take_report(report);
        }
        self.advance();
    }

    fn take_report(&mut self, report: DiskReport) {
        match report {
            DiskReport::Opened(lane, file) => {
                self.lane.opened(lane, file);
                if let Some(waiting) = self.opening.take() {
                    waiting.wake();
                }
            }
            DiskReport::NotOpened(fault) => self.lane.not_opened(&fault),
            DiskReport::Segment(made) => {
                // Where no lane is open: one of a lane that was closed in the meantime.
                let added = self.lane.open().map(|lane| lane.add_segment(made));
                if let Some(Err(fault)) = added {
                    self.lane.fail(fault);
                }
            }
            DiskReport::Written(blocks, outcome) => {
                self.take_write(blocks, outcome);
            }
        }
    }

    /// Does what has become possible.
    fn advance(&mut self) {
        self.close_failed_lane();
        self.batches.hand_over(self.lane.present());
        // Nothing is gained by waiting for more where an answer waits for the row.
        if self.ack == Ack::Stored || self.is_spilling() {
            self.seal_when_writer_is_free(SealCause::Wanted);
        }
        self.waiters.wake(self.acknowledged());
        self.commit_soon();
    }

    /// Forgets the events of a failed lane that are not durable: their answers become 503.
    fn close_failed_lane(&mut self) {
        let Some(closed) = self.lane.close_failed() else {
            return;
        };
        let forgotten = closed.next.since(closed.durable);
        self.counters.add(|counters| &counters.shed, forgotten);
        self.batches
            .close_lane(&closed.lane, closed.durable, closed.spilled_from);
        let rows = (self.ack == Ack::Stored).then_some(closed.lane);
        self.waiters.close(closed.durable, rows);
        self.wake_committer(CommitterState::MustRelease);
    }

    /// Whether events can be taken: there is a lane.
    pub fn is_open(&self) -> bool {
        self.lane.present().is_some()
    }

    /// Events taken so far in the present lane.
    pub fn taken(&self) -> Position {
        self.lane.next()
    }

    /// What an answer must wait for that says that everything taken so far is safe; `None`: it is.
    pub fn ticket(&self) -> Option<AckTicket> {
        let is_safe = match self.ack {
            Ack::Received => true,
            Ack::Journaled => self.lane.durable() >= self.lane.next(),
            Ack::Stored => false,
        };
        (!is_safe).then(|| self.waiters.ticket(self.lane.next()))
    }

    /// Everything before, in the present lane, is as safe as a 200 says.
    fn acknowledged(&self) -> Position {
        match (self.ack, self.lane.on_disk()) {
            // Of a lane that lacks events no row is acknowledged: it is about to be closed.
            (Ack::Stored, Some(lane)) if !lane.lane.is_damaged() => lane.lane.stored(),
            (Ack::Stored, _) => Position::START,
            (Ack::Received | Ack::Journaled, _) => self.lane.durable(),
        }
    }

    /// Whether something is on its way to the disk.
    pub fn is_committing(&self) -> bool {
        let lane = self.lane.on_disk();
        lane.is_some_and(|lane| lane.unwritten() > 0)
    }

    /// Hands the last batch over and tells writer and disk thread that nothing more comes.
    pub fn close(&mut self) {
        if let Some(lane) = self.lane.present() {
            self.batches.seal_last(lane);
        }
        if let LaneState::Open(lane) | LaneState::Failed { lane, .. } = &mut self.lane
            && let Some(span) = lane.take_span()
        {
            self.batches.queue_span(span);
        }
        self.batches.hand_over(self.lane.present());
        self.batches.end();
        self.lane = LaneState::Ended;
    }

    fn poll_open(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.is_open() {
            return Poll::Ready(());
        }
        self.opening = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_group(&mut self, context: &Context<'_>) -> Poll<Option<Write>> {
        if matches!(self.committer, CommitterState::MustRelease) {
            self.committer = CommitterState::Busy;
            return Poll::Ready(None);
        }
        if let Some(write) = self.begin_write() {
            self.committer = CommitterState::Busy;
            return Poll::Ready(Some(write));
        }
        self.committer = CommitterState::Waiting(context.waker().clone());
        Poll::Pending
    }

    fn poll_ack(
        &mut self,
        ticket: AckTicket,
        context: &Context<'_>,
    ) -> Poll<Result<(), AckFailed>> {
        let acknowledged = self.acknowledged();
        self.waiters.poll(ticket, acknowledged, context)
    }
}

/// Waits until events can be taken.
pub async fn opened(ingest: &RefCell<Ingest>) {
    poll_fn(|context| ingest.borrow_mut().poll_open(context)).await;
}

/// Waits until a group can be written. `None`: the lane was closed, and its file must be let go.
pub async fn next_group(ingest: &RefCell<Ingest>) -> Option<Write> {
    poll_fn(|context| ingest.borrow_mut().poll_group(context)).await
}

/// Waits until what a ticket stands for is safe, or it is clear that it never will be.
pub async fn acknowledged(ingest: &RefCell<Ingest>, ticket: AckTicket) -> Result<(), AckFailed> {
    poll_fn(|context| ingest.borrow_mut().poll_ack(ticket, context)).await
}

#[cfg(test)]
mod tests;
