//! The open batch of a shard, and the work that waits until it may go to the writer.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::event::batch::{BATCH_NAME_BYTES_MAX, Batch};
use crate::event::event_id::EVENT_ID_BYTES_MAX;
use crate::event::position::{LaneId, Position};
use crate::event::rule::NAME_BYTES_MAX;
use crate::event::{Event, UnixMillis};
use crate::handoff::{BATCHES_PER_SHARD, Handoff, Span, Work};
use crate::journal::lane_handle::{DiskLane, LaneHandle, MemoryLane};
use crate::metrics::{Recorder, SealCause, ShardCounters};

/// With this many batches under way the writer is busy: it stores one, and the other follows.
const BATCHES_AHEAD: usize = 2;

/// Most bytes of the name and the id of an event.
const EVENT_TEXT_BYTES_MAX: usize = NAME_BYTES_MAX + EVENT_ID_BYTES_MAX;

/// The lane to which the events of the open batch belong.
#[derive(Debug, Clone, Copy)]
pub(super) enum PresentLane<'a> {
    /// Events may be handed over at once.
    Memory(&'a Arc<MemoryLane>),
    /// Events may be handed over if they are before this position. Up to it the lane is durable.
    Disk(&'a Arc<DiskLane>, Position),
}

impl PresentLane<'_> {
    fn handle(self) -> LaneHandle {
        match self {
            Self::Memory(lane) => LaneHandle::Memory(Arc::clone(lane)),
            Self::Disk(lane, _) => LaneHandle::Disk(Arc::clone(lane)),
        }
    }

    /// Whether the work may be handed over. All work that is left of a closed lane is durable.
    fn allows(self, work: &Work) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Disk(lane, durable) => work.lane() != lane.id || work.end() <= durable,
        }
    }
}

/// Events on their way to the writer, in the order of their positions.
#[derive(Debug)]
pub(super) struct Batches {
    counters: Rc<Recorder<ShardCounters>>,
    handoff: Handoff,
    open: Batch,
    /// Position of the first event of the open batch.
    open_first: Position,
    /// Sealed, and not yet handed over because the journal has not synced it.
    sealed: VecDeque<Work>,
}

impl Batches {
    pub(super) fn new(counters: Rc<Recorder<ShardCounters>>, mut handoff: Handoff) -> Self {
        #[expect(clippy::expect_used, reason = "a new handoff has made no batch yet")]
        let open = handoff.empty_batch().expect("the first batch of a shard");
        Self {
            counters,
            handoff,
            open,
            open_first: Position::START,
            sealed: VecDeque::new(),
        }
    }

    /// Appends the event at `position` to the open batch. `false`: it is full by bytes.
    #[inline]
    pub(super) fn push(&mut self, event: Event<'_>, position: Position) -> bool {
        if self.open.is_empty() {
            self.open_first = position;
        }
        self.open.push(event).is_ok()
    }

    /// Seals the open batch, which is full by bytes, and appends to the next one. `false`: no empty batch is
    /// left.
    #[cold]
    pub(super) fn push_to_next(
        &mut self,
        event: Event<'_>,
        position: Position,
        lane: PresentLane<'_>,
    ) -> bool {
        self.seal(SealCause::Bytes, lane);
        self.push(event, position)
    }

    /// Appends an event that is kept in memory alone. `false`: no batch has room.
    #[inline]
    pub(super) fn keep(
        &mut self,
        event: Event<'_>,
        position: Position,
        lane: &Arc<MemoryLane>,
    ) -> bool {
        self.push(event, position) || self.push_to_next(event, position, PresentLane::Memory(lane))
    }

    /// Most events of a request where there is no journal: half of what all batches hold.
    pub(super) fn events_at_once(&self) -> usize {
        BATCHES_PER_SHARD / 2 * self.handoff.events_max()
    }

    /// Whether empty batches have room for so many events with so many bytes of names and ids.
    pub(super) fn has_room_for(&mut self, events: usize, text_bytes: usize) -> bool {
        // Each batch but the last is full by count or by bytes.
        let full_by_count = events / self.handoff.events_max();
        let full_by_bytes = text_bytes / (BATCH_NAME_BYTES_MAX - EVENT_TEXT_BYTES_MAX);
        full_by_count + full_by_bytes < self.handoff.free_batches()
    }

    /// Whether the open batch holds as many events as it may.
    pub(super) fn is_full(&self) -> bool {
        self.open.is_full()
    }

    /// Whether no event is in the open batch.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When the oldest event of the open batch was appended.
    pub(super) fn opened_at(&self) -> Option<Instant> {
        self.open.opened_at()
    }

    /// Whether fewer than [`BATCHES_AHEAD`] batches are under way.
    pub(super) fn is_writer_free(&mut self) -> bool {
        self.handoff.under_way() < BATCHES_AHEAD
    }

    /// Seals the open batch and opens an empty one, if there is one.
    pub(super) fn seal(&mut self, cause: SealCause, lane: PresentLane<'_>) {
        if self.open.is_empty() {
            return;
        }
        if let Some(empty) = self.handoff.empty_batch() {
            self.replace_open(empty, lane.handle(), cause);
            self.hand_over(Some(lane));
        }
    }

    /// Queues the open batch, and opens `empty`.
    fn replace_open(&mut self, empty: Batch, lane: LaneHandle, cause: SealCause) {
        self.count_seal(cause);
        let batch = std::mem::replace(&mut self.open, empty);
        let work = Work::new(batch, self.open_first, lane, self.handoff.home());
        self.sealed.push_back(work);
    }

    fn count_seal(&self, cause: SealCause) {
        let events = self.open.len() as u64;
        self.counters.add(|counters| counters.seals(cause), 1);
        self.counters
            .observe(|counters| &counters.batch_events, events, 1);
    }

    /// Queues events that the writer must read back from the journal.
    pub(super) fn queue_span(&mut self, span: Span) {
        self.sealed.push_back(Work::Span(span));
    }

    /// Hands over sealed work in order, as far as it is allowed. `lane` is the present lane, if there is one.
    pub(super) fn hand_over(&mut self, lane: Option<PresentLane<'_>>) {
        while let Some(work) = self.sealed.front() {
            if !lane.is_none_or(|lane| lane.allows(work)) {
                return;
            }
            let Some(work) = self.sealed.pop_front() else {
                return;
            };
            if let Err(back) = self.handoff.send(work) {
                // If there is no room, the writer notifies the shard when it has stored a batch. If the writer
                // has ended, the process is about to end, and the events stay pending.
                self.sealed.push_front(*back.0);
                return;
            }
        }
    }

    /// Closes a lane and drops its events from `durable` on. The durable events from `spilled_from` on are only
    /// on disk.
    pub(super) fn close_lane(
        &mut self,
        lane: &Arc<DiskLane>,
        durable: Position,
        spilled_from: Option<Position>,
    ) {
        self.cut_sealed(lane.id, durable);
        let durable_of_open = durable.since(self.open_first);
        self.open
            .truncate(usize::try_from(durable_of_open).unwrap_or(usize::MAX));
        // The open batch is kept in memory if an empty one is left, since a failing disk may not be readable.
        let mut from = spilled_from.unwrap_or(durable);
        if !self.open.is_empty() {
            match self.handoff.empty_batch() {
                Some(empty) => {
                    let handle = LaneHandle::Disk(Arc::clone(lane));
                    self.replace_open(empty, handle, SealCause::LaneClosed);
                }
                None => from = self.open_first,
            }
        }
        self.open.clear();
        if from < durable {
            self.queue_span(Span {
                lane: Arc::clone(lane),
                from,
                to: durable,
            });
        }
    }

    /// Drops sealed events of `lane` that are not durable.
    fn cut_sealed(&mut self, lane: LaneId, durable: Position) {
        for work in std::mem::take(&mut self.sealed) {
            if work.lane() != lane {
                self.sealed.push_back(work);
                continue;
            }
            match work.cut(durable) {
                Ok(work) => self.sealed.push_back(work),
                Err(Some(batch)) => self.handoff.keep(batch),
                Err(None) => {}
            }
        }
    }

    /// Queues the open batch even if no empty one is left, since nothing is pushed any more.
    pub(super) fn seal_last(&mut self, lane: PresentLane<'_>) {
        if !self.open.is_empty() {
            let unusable = self.open.without_memory();
            self.replace_open(unusable, lane.handle(), SealCause::Drain);
        }
    }

    /// Closes the handoff: no work follows.
    pub(super) fn end(&mut self) {
        self.handoff.close();
    }

    /// Updates the gauges of batches and of the open batch.
    pub(super) fn publish_gauges(&mut self) {
        let under_way = self.handoff.under_way() as u64;
        let oldest = self.open.oldest_received_at().unwrap_or(UnixMillis(0));
        let counters = &self.counters;
        counters.set(|counters| &counters.batches_under_way, under_way);
        counters.set(|counters| &counters.events_open, self.open.len() as u64);
        counters.set(|counters| &counters.oldest_open_at, oldest.0);
    }
}
