//! How a shard keeps the events that it takes: in the open batch and, unless `--ack` is `received`, in the
//! journal.
//!
//! Every event has a position in the shard's lane. `committer.rs` writes the groups of events that are
//! collected here to the disk. An answer that must wait for that, or for the row, holds an [`AckTicket`].

mod ack_waiters;
mod batches;
mod group_buffer;
mod group_commit;
mod lane;
mod open_lane;
mod request;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use self::ack_waiters::AckWaiters;
pub use self::ack_waiters::{AckFailed, AckTicket};
use self::batches::Batches;
use self::group_commit::CommitterState;
pub use self::group_commit::next_group;
use self::lane::LaneState;
use self::open_lane::{LaneMaker, OpenLane};
use self::request::AwaitingRoom;
pub use self::request::{TakenAll, room};
use crate::event::ack::Ack;
use crate::event::position::Position;
use crate::event::{Event, Shed};
use crate::handoff::Handoff;
use crate::journal::disk_thread::{DiskReport, DiskThread};
use crate::journal::lane_handle::MemoryLane;
use crate::journal::quota::JournalBound;
use crate::metrics::{Recorder, SealCause, ShardCounters};
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;

/// The events of a shard that are not handed over yet, and the answers that wait for events.
#[derive(Debug)]
pub struct Ingest {
    ack: Ack,
    counters: Rc<Recorder<ShardCounters>>,
    batches: Batches,
    lane: LaneState,
    waiters: AckWaiters,
    /// The task that waits until a lane is open.
    opening: Option<Waker>,
    awaiting_room: AwaitingRoom,
    committer: CommitterState,
}

/// Where events are kept until they are stored.
#[derive(Debug)]
pub enum Medium {
    /// Only in memory. This lane numbers them.
    Memory(MemoryLane),
    /// In memory and in a journal.
    Journal(DiskThread, JournalBound),
}

impl Ingest {
    /// Keeps events in `medium` until they are stored. While the disk or the database is stalled, about
    /// `waiters_max` answers may wait. Further events are shed, so that connections stay free for other requests.
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
            awaiting_room: AwaitingRoom::default(),
            committer: CommitterState::Busy,
        }
    }

    /// Takes an event, or sheds it where a bound is reached.
    pub fn take(&mut self, event: Event<'_>) -> Result<(), Shed> {
        let batches = &mut self.batches;
        match &mut self.lane {
            // The event counts as received when it is on the disk. Until then it may be answered 503.
            LaneState::Open(lane) => {
                if !lane.has_room() {
                    reached("503: the journal is full");
                    return self.shed();
                }
                if self.waiters.is_stalled() {
                    reached("503: too many answers wait");
                    return self.shed();
                }
                let position = lane.append(event);
                keep_in_batch(batches, lane, event, position);
            }
            LaneState::Memory { lane, next } => {
                if !batches.keep(event, *next, lane) {
                    reached("503: memory is full");
                    return self.shed();
                }
                *next = next.plus(1);
                self.counters.add(|counters| &counters.received, 1);
            }
            LaneState::Opening { .. } | LaneState::Failed { .. } | LaneState::Ended => {
                reached("503: no lane is open");
                return self.shed();
            }
        }
        self.seal_if_full();
        Ok(())
    }

    #[inline]
    fn seal_if_full(&mut self) {
        if self.batches.is_full() {
            self.seal(SealCause::Count);
        }
    }

    #[cold]
    fn shed(&self) -> Result<(), Shed> {
        self.counters.add(|counters| &counters.shed, 1);
        Err(Shed)
    }

    /// Seals the open batch, if an empty one is left to replace it.
    pub fn seal(&mut self, cause: SealCause) {
        if let Some(lane) = self.lane.present() {
            self.batches.seal(cause, lane);
        }
    }

    /// Updates the gauges of events that wait.
    pub fn publish_gauges(&mut self) {
        self.batches.publish_gauges();
        // Without new events, nothing else updates the usage after events were stored.
        if let Some(lane) = self.lane.open() {
            lane.publish_usage();
        }
    }

    /// Seals the open batch and ends a spill, if the writer is free. While the writer is busy, the batch would
    /// not be stored sooner. It is left to fill, so that memory holds full batches during an outage.
    pub fn seal_when_writer_is_free(&mut self, cause: SealCause) {
        if self.batches.is_writer_free() {
            self.seal(cause);
            self.end_spill();
        }
    }

    /// When the oldest event of the open batch was taken.
    pub fn opened_at(&self) -> Option<Instant> {
        // The timer that reads this also ends a spill.
        self.batches.opened_at()
    }

    /// Whether new events are kept only on disk.
    fn is_spilling(&self) -> bool {
        let lane = self.lane.on_disk();
        lane.is_some_and(|lane| lane.spilled_from.is_some())
    }

    /// Queues the events that are only on disk, for the writer to read back. From now on events are kept in
    /// memory too.
    fn end_spill(&mut self) {
        if let Some(lane) = self.lane.open()
            && self.batches.is_empty()
            && let Some(span) = lane.take_span()
            && !planted(Bug::SpanDropped)
        {
            reached("ingest: events on disk are handed over");
            self.batches.queue_span(span);
            self.batches.hand_over(Some(lane.present()));
        }
    }

    /// Processes what the disk thread and the writer have done since the last notification.
    pub fn on_notify(&mut self) {
        while let Some(report) = self.lane.report() {
            self.process_report(report);
        }
        self.advance();
    }

    fn process_report(&mut self, report: DiskReport) {
        match report {
            DiskReport::Opened(lane, file) => {
                self.lane.opened(lane, file);
                if let Some(waiting) = self.opening.take() {
                    waiting.wake();
                }
            }
            DiskReport::NotOpened(fault) => self.lane.not_opened(&fault),
            DiskReport::Segment(made) => {
                // If no lane is open, the segment belongs to a lane that was closed meanwhile.
                let added = self.lane.open().map(|lane| lane.add_segment(made));
                if let Some(Err(fault)) = added {
                    self.lane.fail(fault);
                }
            }
            DiskReport::Written(blocks, outcome) => {
                self.process_write(blocks, outcome);
            }
        }
    }

    /// Takes every step that has become possible.
    fn advance(&mut self) {
        self.close_failed_lane();
        self.batches.hand_over(self.lane.present());
        // `linger` is not waited for while answers wait for rows, or while events are only on disk.
        if self.ack == Ack::Stored || self.is_spilling() {
            self.seal_when_writer_is_free(SealCause::Wanted);
        }
        self.waiters.wake(self.acknowledged());
        self.wake_requests();
        self.commit_soon();
    }

    /// Closes a failed lane. Its events that are not durable are dropped, and their answers become 503.
    fn close_failed_lane(&mut self) {
        let Some(closed) = self.lane.close_failed() else {
            return;
        };
        let dropped = closed.next.since(closed.durable);
        reached(if dropped > 0 {
            "ingest: lane closed, events dropped"
        } else {
            "ingest: lane closed"
        });
        self.counters.add(|counters| &counters.shed, dropped);
        self.batches
            .close_lane(&closed.lane, closed.durable, closed.spilled_from);
        let rows = (self.ack == Ack::Stored).then_some(closed.lane);
        self.waiters.close(closed.durable, rows);
        self.wake_committer(CommitterState::MustRelease);
    }

    /// Whether there is a lane that is not closed.
    pub fn is_open(&self) -> bool {
        self.lane.present().is_some()
    }

    /// The position in the present lane after the last event that was taken.
    pub fn taken(&self) -> Position {
        self.lane.next()
    }

    /// The ticket of an answer that acknowledges everything taken so far. `None` if all of it is safe already.
    pub fn ticket(&self) -> Option<AckTicket> {
        let is_safe = match self.ack {
            Ack::Received => true,
            Ack::Journaled => {
                self.lane.durable() >= self.lane.next() || planted(Bug::AnswerBeforeWrite)
            }
            Ack::Stored => false,
        };
        let mut position = self.lane.next();
        if planted(Bug::FirstGroupAnswered)
            && let Some(lane) = self.lane.on_disk()
            && !lane.group.is_idle()
        {
            position.0 -= lane.group.collected() as u64;
        }
        (!is_safe).then(|| self.waiters.ticket(position))
    }

    /// Every event before this position in the present lane is as safe as a 200 promises.
    fn acknowledged(&self) -> Position {
        match (self.ack, self.lane.on_disk()) {
            (Ack::Stored, _) if planted(Bug::StoredAnsweredEarly) => self.lane.durable(),
            // No row of a lane that lacks events is acknowledged. The lane is about to be closed.
            (Ack::Stored, Some(lane)) if !lane.lane.is_damaged() => lane.lane.stored(),
            (Ack::Stored, _) => Position::START,
            _ if planted(Bug::AnswerBeforeWrite) => self.lane.next(),
            (Ack::Received | Ack::Journaled, _) => self.lane.durable(),
        }
    }

    /// Hands over the last batch, closes the handoff, and ends the lane and the disk thread.
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
        self.lane.end();
    }

    fn poll_open(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.is_open() {
            return Poll::Ready(());
        }
        self.opening = Some(context.waker().clone());
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

/// Keeps an event of the lane in memory too, unless events are on disk alone.
#[inline]
fn keep_in_batch(batches: &mut Batches, lane: &mut OpenLane, event: Event<'_>, position: Position) {
    if lane.spilled_from.is_none()
        && !batches.push(event, position)
        && !batches.push_to_next(event, position, lane.present())
    {
        reached("ingest: events are on disk alone");
        lane.spilled_from = Some(position);
    }
}

/// Waits until events can be taken.
pub async fn opened(ingest: &RefCell<Ingest>) {
    poll_fn(|context| ingest.borrow_mut().poll_open(context)).await;
}

/// Waits until the events of a ticket are safe, or until it is certain that they never will be.
pub async fn acknowledged(ingest: &RefCell<Ingest>, ticket: AckTicket) -> Result<(), AckFailed> {
    poll_fn(|context| ingest.borrow_mut().poll_ack(ticket, context)).await
}

#[cfg(test)]
mod tests;
