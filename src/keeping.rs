//! How a shard keeps what it promised: the open batch, and the journal where the promise asks for it.
//!
//! Positions are given here: every event that is taken has its place in the shard's lane.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::batch::Batch;
use crate::config::Ack;
use crate::event::Event;
use crate::handoff::{Handoff, Span, Work};
use crate::http::conversation::Shed;
use crate::journal::commit::{DiskThread, Group, LaneHandle, Report};
use crate::journal::record::{
    EVENT_BYTES_MAX, PAYLOAD_BYTES_MAX, Position, RECORD_HEAD_BYTES, append_event, begin_record,
};
use crate::metrics::ShardCounters;

/// Batches under way with which a writer has enough to do: one being stored, one to follow.
const BATCHES_AHEAD: usize = 2;

/// An event's place, and when what a 200 says of it is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    generation: u64,
    position: Position,
}

/// The promise cannot be kept: the lane was closed before the event was on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Everything a shard keeps.
#[derive(Debug)]
pub struct Keeping {
    ack: Ack,
    counters: Arc<ShardCounters>,
    handoff: Handoff,
    open: Batch,
    /// Position of the first event of the open batch.
    open_first: Position,
    /// Where events began to be kept on disk alone, while no batch was free.
    spilled_from: Option<Position>,
    /// Sealed, and not yet handed over because the journal has not synced it.
    waiting: VecDeque<Work>,
    /// `None` while there is no lane to write to.
    lane: Option<Arc<LaneHandle>>,
    /// Counts lanes that were closed, so that their promises are known to be broken.
    generation: u64,
    /// Whether it was logged that there is no lane.
    is_closed_said: bool,
    /// Position of the next event.
    next: Position,
    /// Everything before is on the disk, or has no need to be.
    durable: Position,
    journal: Option<Journal>,
    waiters: Vec<Waker>,
    /// The task that sends groups to the disk, while it has nothing to do.
    committer: Option<Waker>,
}

/// A shard's journal: the disk thread and the group that gathers.
#[derive(Debug)]
struct Journal {
    disk: DiskThread,
    gathering: Vec<u8>,
    gathered: u32,
    /// Events of the group that is at the disk.
    in_flight: u32,
    /// The buffer for the next group; `None` while a group is at the disk.
    spare: Option<Vec<u8>>,
    bytes_max: u64,
    bytes_written: u64,
    /// Bytes written before each position, for the bytes that are not stored.
    marks: VecDeque<(Position, u64)>,
    bytes_stored: u64,
}

/// Bytes between two notes of how much was written: the journal's bound is kept to within this.
const MARK_BYTES: u64 = 64 * 1024;

impl Journal {
    /// Notes that everything before `durable` takes the bytes written so far.
    fn mark(&mut self, durable: Position) {
        let last = self
            .marks
            .back()
            .map_or(self.bytes_stored, |&(_, bytes)| bytes);
        if self.bytes_written - last >= MARK_BYTES {
            self.marks.push_back((durable, self.bytes_written));
        }
    }

    fn has_room(&mut self, stored: Position) -> bool {
        while let Some(&(position, bytes)) = self.marks.front() {
            if position > stored {
                break;
            }
            self.bytes_stored = bytes;
            self.marks.pop_front();
        }
        let unstored = self.bytes_written - self.bytes_stored;
        unstored + self.gathering.len() as u64 <= self.bytes_max
            && self.gathering.len() + EVENT_BYTES_MAX <= RECORD_HEAD_BYTES + PAYLOAD_BYTES_MAX
    }
}

impl Keeping {
    /// Keeps events in memory, or in the journal of `disk` up to `bytes_max` bytes as well.
    pub fn new(
        ack: Ack,
        counters: Arc<ShardCounters>,
        mut handoff: Handoff,
        disk: Option<DiskThread>,
        bytes_max: u64,
    ) -> Self {
        #[expect(clippy::expect_used, reason = "a new handoff has made no batch yet")]
        let open = handoff.empty_batch().expect("the first batch of a shard");
        let lane = disk.is_none().then(|| Arc::new(LaneHandle::in_memory()));
        let journal = disk.map(|disk| {
            let mut gathering = Vec::new();
            begin_record(&mut gathering);
            Journal {
                disk,
                gathering,
                gathered: 0,
                in_flight: 0,
                spare: Some(Vec::new()),
                bytes_max,
                bytes_written: 0,
                marks: VecDeque::new(),
                bytes_stored: 0,
            }
        });
        Self {
            ack,
            counters,
            handoff,
            open,
            open_first: Position::START,
            spilled_from: None,
            waiting: VecDeque::new(),
            lane,
            generation: 0,
            is_closed_said: false,
            next: Position::START,
            durable: Position::START,
            journal,
            waiters: Vec::new(),
            committer: None,
        }
    }

    /// Takes an event, or sheds it where a bound is reached.
    pub fn take(&mut self, event: Event<'_>) -> Result<(), Shed> {
        let taken = match (&self.lane, &mut self.journal) {
            (Some(_), None) => self.push(event),
            (Some(lane), Some(journal)) => {
                let has_room = journal.has_room(lane.stored());
                if has_room {
                    append_event(&mut journal.gathering, event);
                    journal.gathered += 1;
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
            self.seal();
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
        self.seal();
        if self.open.is_empty() {
            self.open_first = self.next;
        }
        self.open.push(event).is_ok()
    }

    /// Seals the open batch and opens an empty one, if there is one.
    pub fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (Some(lane), Some(empty)) = (&self.lane, self.handoff.empty_batch()) else {
            return;
        };
        let batch = std::mem::replace(&mut self.open, empty);
        let work = Work::new(
            batch,
            self.open_first,
            Arc::clone(lane),
            self.handoff.home(),
        );
        self.waiting.push_back(work);
        self.hand_over();
    }

    /// Seals what is due: old, or wanted at once. With work waiting, another batch would not be
    /// stored sooner: then it is left to fill, so that an outage is held by full batches.
    pub fn seal_when_writer_is_free(&mut self) {
        if self.handoff.under_way() < BATCHES_AHEAD {
            self.seal();
            self.end_spill();
        }
    }

    /// When the oldest event of the open batch was taken.
    pub fn opened_at(&self) -> Option<Instant> {
        // A spill is ended by the same clock.
        self.open.opened_at()
    }

    /// Whether events are kept on disk alone.
    pub fn is_spilling(&self) -> bool {
        self.spilled_from.is_some()
    }

    /// Lets the writer read back what was kept on disk alone, and goes on in memory.
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
            if work.end() > self.durable {
                return;
            }
            let Some(work) = self.waiting.pop_front() else {
                return;
            };
            if let Err(back) = self.handoff.send(work) {
                // The writer is gone and the process about to end; what was taken stays pending.
                self.waiting.push_front(back.0);
                return;
            }
        }
    }

    /// Whether events have gathered and the disk is free for them.
    fn can_commit(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.gathered > 0 && journal.spare.is_some())
    }

    /// Sees to it that what has gathered goes to the disk, behind everything that is ready to run now:
    /// what arrives in the same turn of the loop shares one sync.
    pub fn commit_soon(&mut self) {
        if self.can_commit()
            && let Some(committer) = self.committer.take()
        {
            committer.wake();
        }
    }

    /// Sends what has gathered to the disk, unless a group is there already.
    pub fn commit(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.gathered == 0 {
            return;
        }
        let Some(mut spare) = journal.spare.take() else {
            return;
        };
        begin_record(&mut spare);
        let record = std::mem::replace(&mut journal.gathering, spare);
        let events = std::mem::take(&mut journal.gathered);
        journal.in_flight = events;
        journal.bytes_written += record.len() as u64;
        match journal.disk.groups.try_send(Group { record, events }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => unreachable!("one group is at the disk at a time"),
            // The thread is gone: nothing will be promised any more.
            Err(TrySendError::Disconnected(_)) => self.close_lane(),
        }
    }

    /// Takes in what disk thread and writer have done since the bell was last heard.
    pub fn hear(&mut self) {
        while let Some(report) = self
            .journal
            .as_ref()
            .and_then(|journal| journal.disk.reports.try_recv().ok())
        {
            self.take_report(report);
        }
        self.hand_over();
        self.commit_soon();
        // Nothing is gained by waiting for more where an answer waits for the row.
        if self.ack == Ack::Stored || self.is_spilling() {
            self.seal_when_writer_is_free();
        }
        for waiter in self.waiters.drain(..) {
            waiter.wake();
        }
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Opened(lane) => {
                log::debug!("lane {} is open", lane.id);
                self.is_closed_said = false;
                self.lane = Some(lane);
                self.next = Position::START;
                self.durable = Position::START;
            }
            Report::Committed(buffer) => {
                if let Some(journal) = &mut self.journal {
                    let events = std::mem::take(&mut journal.in_flight);
                    journal.spare = Some(buffer);
                    self.durable = self.durable.plus(events as usize);
                    journal.mark(self.durable);
                    self.counters.received.add(u64::from(events));
                }
            }
            Report::Closed { fault, record } => {
                // Tried again every second; said once.
                if !std::mem::replace(&mut self.is_closed_said, true) {
                    log::error!(
                        "the journal cannot be written: {fault}; this lane is closed, events are \
                         answered 503 until another can be opened"
                    );
                }
                if let (Some(journal), Some(record)) = (&mut self.journal, record) {
                    journal.spare = Some(record);
                }
                self.close_lane();
            }
        }
    }

    /// Breaks every promise that is not yet kept, and forgets its event.
    fn close_lane(&mut self) {
        self.generation += 1;
        let lane = self.lane.take();
        let mut kept = VecDeque::with_capacity(self.waiting.len() + 1);
        for work in self.waiting.drain(..) {
            match work.cut(self.durable) {
                Ok(work) => kept.push_back(work),
                Err(Some(batch)) => self.handoff.keep(batch),
                Err(None) => {}
            }
        }
        if let Some(lane) = &lane {
            lane.set_closed(self.durable);
        }
        // What is durable of the open batch, and behind it, is read back from the disk.
        let spilled_from = self.spilled_from.take().unwrap_or(self.next);
        let from = if self.open.is_empty() {
            spilled_from
        } else {
            self.open_first
        };
        if let Some(lane) = lane.filter(|_| from < self.durable) {
            kept.push_back(Work::Span(Span {
                lane,
                from,
                to: self.durable,
            }));
        }
        self.open.clear();
        self.waiting = kept;
        self.hand_over();
        if let Some(journal) = &mut self.journal {
            begin_record(&mut journal.gathering);
            journal.gathered = 0;
            journal.in_flight = 0;
            journal.marks.clear();
            journal.bytes_written = 0;
            journal.bytes_stored = 0;
        }
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
    pub fn promise(&self) -> Option<Promise> {
        let is_kept = match self.ack {
            Ack::Received => true,
            Ack::Journaled => self.durable >= self.next,
            Ack::Stored => false,
        };
        (!is_kept).then_some(Promise {
            generation: self.generation,
            position: self.next,
        })
    }

    fn state(&self, promise: Promise) -> Poll<Result<(), Broken>> {
        if promise.generation != self.generation {
            return Poll::Ready(Err(Broken));
        }
        let reached = match (self.ack, &self.lane) {
            (Ack::Stored, Some(lane)) => lane.stored(),
            (Ack::Received | Ack::Journaled | Ack::Stored, _) => self.durable,
        };
        if reached >= promise.position {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Whether something is on its way to the disk.
    pub fn is_committing(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.gathered + journal.in_flight > 0)
    }

    /// Hands the last batch over and tells writer and disk thread that nothing more comes.
    pub fn close(&mut self) {
        if let Some(lane) = &self.lane {
            let mut last = VecDeque::new();
            if !self.open.is_empty() {
                let (batch, home) = (self.open.take(), self.handoff.home());
                last.push_back(Work::new(batch, self.open_first, Arc::clone(lane), home));
            }
            if let Some(from) = self.spilled_from.take() {
                last.push_back(Work::Span(Span {
                    lane: Arc::clone(lane),
                    from,
                    to: self.next,
                }));
            }
            self.waiting.append(&mut last);
        }
        self.hand_over();
        self.handoff.close();
        self.journal = None;
    }
}

/// Waits until a group can be committed.
pub async fn group(keeping: impl Fn(&mut dyn FnMut(&mut Keeping))) {
    poll_fn(|context| {
        let mut state = Poll::Pending;
        keeping(&mut |keeping| {
            if keeping.can_commit() {
                state = Poll::Ready(());
            } else {
                keeping.committer = Some(context.waker().clone());
            }
        });
        state
    })
    .await
}

/// Waits until a promise is kept or broken.
pub async fn kept(
    keeping: impl Fn(&mut dyn FnMut(&mut Keeping)),
    promise: Promise,
) -> Result<(), Broken> {
    poll_fn(|context| {
        let mut state = Poll::Pending;
        keeping(&mut |keeping| {
            state = keeping.state(promise);
            if state.is_pending() {
                keeping.waiters.push(context.waker().clone());
            }
        });
        state
    })
    .await
}
