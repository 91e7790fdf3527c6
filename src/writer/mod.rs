//! A writer: a blocking thread with one sink. It stores each batch once, and tries until it succeeds.

mod adopted;
mod checkpoint;
mod failed_reads;
mod fork;
mod held;
mod identity;
mod judge;
mod lane_event;
mod lanes;
mod last_events;
mod outage;
mod proof;
mod recovery;
mod row_answers;
mod run;
mod settle;
mod transaction;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use self::lanes::Lanes;
use self::outage::Outage;
use self::proof::RowIds;
pub use self::recovery::READ_AT_ONCE;
use self::recovery::Recovery;
use self::run::Run;
use self::transaction::{Attempt, StoreTimes};
use crate::event::UnixMillis;
use crate::event::batch::BatchEvents;
use crate::event::position::Position;
use crate::event::rule::SharedEventRule;
use crate::handoff::{Sealed, Work};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::served_database::ServedDatabase;
use crate::metrics::{ErrorClass, Recorder, WriterCounters};
use crate::os::bugs::{Bug, planted};
use crate::os::clock;
use crate::os::reached::reached;
use crate::sink::dead_letters::DeadLetters;
use crate::sink::{Fault, PROBE_EVERY, Sink, SinkError};

/// How long a writer without work waits before it looks for lanes to recover.
const IDLE: Duration = Duration::from_secs(1);

/// How often a waiting writer checks whether the process drains.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// A writer before it runs.
pub struct Writer {
    /// Its index among the writers, for the log.
    pub index: usize,
    /// Where it stores batches.
    pub sink: Box<dyn Sink>,
    /// Where it writes events that the sink refuses.
    pub dead_letters: Arc<DeadLetters>,
    /// Where it publishes what the columns take.
    pub event_rule: Arc<SharedEventRule>,
    /// Its counters.
    pub counters: Recorder<WriterCounters>,
    /// Events in a batch that is read back from a lane.
    pub batch_events: BatchEvents,
    /// Lanes of earlier processes, locked by this one, to be recovered.
    pub recoveries: Receiver<Arc<DiskLane>>,
    /// Whether events may stay in the journal when the process drains and the database fails. Not with
    /// `--ack stored`, where answers wait for rows.
    pub may_leave: bool,
    /// Whether the process drains.
    pub draining: Arc<AtomicBool>,
    /// The database that events are promised to.
    pub served: Arc<ServedDatabase>,
}

/// How often in a row a checkpoint may be at an unexpected position before that is an error.
const MOVES_MAX: u32 = 8;

/// A writer at work.
struct Storing {
    writer: Writer,
    outage: Outage,
    lanes: Lanes,
    /// The connection was lost, or a checkpoint was lower than before, since all checkpoints were last read. Another
    /// server may answer now, or the same one in an older state.
    must_check: bool,
    /// The value of `restores` when it was last read.
    restores_seen: u64,
    /// Whether rows of this connection can be noted.
    row_ids: RowIds,
    /// The process drains and the database fails: what is in a journal stays there.
    has_given_up: bool,
    /// When the database last took a write or was probed.
    used_at: Instant,
    /// When all checkpoints were last asked for.
    looked_at: Instant,
}

/// The result of storing a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Each event is stored or dead-lettered.
    Stored,
    /// The database lacks events before the run. They must be read back from the journal first.
    Behind,
    /// The run is left in the journal: the process drains and the database fails.
    Left,
}

impl Writer {
    /// Stores work until all shards have closed their end of the queue. Sends the result of the first attempt to reach
    /// the database to `ready`.
    pub fn run(self, inbox: &Receiver<Work>, ready: &SyncSender<Result<(), SinkError>>) {
        let mut storing = Storing::new(self);
        let opened = storing.probe();
        if ready.try_send(opened).is_err() {
            log::debug!(
                "writer {}: the start of the server no longer waits for the database",
                storing.writer.index
            );
        }
        storing.work(inbox);
        storing.answered();
    }
}

impl Storing {
    fn new(writer: Writer) -> Self {
        Self {
            outage: Outage::new(writer.index),
            lanes: Lanes::default(),
            must_check: false,
            restores_seen: writer.served.restores(),
            row_ids: RowIds::Untried,
            has_given_up: false,
            used_at: clock::now(),
            looked_at: clock::now(),
            writer,
        }
    }

    /// Alternates between new work and events that are read back, so that neither waits long.
    fn work(&mut self, inbox: &Receiver<Work>) {
        let mut recovery = Recovery::default();
        loop {
            recovery.take_new(&self.writer.recoveries);
            self.lanes.forget_removed();
            self.check_for_restores();
            if std::mem::take(&mut self.must_check) {
                recovery.check(&self.lanes);
            }
            let next = match inbox.try_recv() {
                Ok(work) => Ok(work),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {
                    self.publish_oldest(&recovery);
                    match recovery.due_in() {
                        Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
                        wait => clock::receive_within(inbox, wait.unwrap_or(IDLE).min(IDLE)),
                    }
                }
            };
            match next {
                Ok(Work::Batch(sealed)) => self.take_batch(sealed, &mut recovery),
                Ok(Work::Span(span)) => recovery.read_back(&span.lane, span.to),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // Lanes of earlier processes can wait for the next start; own events are stored now.
                    recovery.leave_found();
                    while recovery.advance(self) {}
                    return;
                }
            }
            self.probe_if_due();
            recovery.advance(self);
        }
    }

    /// Stores a batch. While earlier events of its lane are read back, it is read back after them instead.
    fn take_batch(&mut self, sealed: Sealed, recovery: &mut Recovery) {
        let run = Run {
            batch: &sealed.batch,
            lane: &sealed.lane,
            first: sealed.first,
        };
        let outcome = if recovery.is_reading(run.lane.id()) {
            reached("batch: waits for a replay");
            Outcome::Behind
        } else {
            self.store(run, Some(sealed.sealed_at))
        };
        if outcome == Outcome::Behind
            && let Some(lane) = run.lane.on_disk()
        {
            recovery.read_back(lane, run.end());
        }
        sealed.give_back();
    }

    /// Stores a run. Tries again after each error, unless the run may be left in the journal.
    fn store(&mut self, run: Run<'_>, sealed_at: Option<Instant>) -> Outcome {
        let oldest = run.batch.oldest_received_at();
        let oldest_at = oldest.map_or(0, |at| at.0);
        self.writer
            .counters
            .set(|counters| &counters.oldest_at, oldest_at);
        // The gauge is not reset after this run, since others may wait. `publish_oldest` resets it.
        self.store_run(run, sealed_at)
    }

    fn store_run(&mut self, run: Run<'_>, sealed_at: Option<Instant>) -> Outcome {
        let mut moves = 0;
        let times = loop {
            if self.has_given_up && run.is_journaled() {
                return Outcome::Left;
            }
            let fault = match self.attempt(run) {
                Ok(Attempt::Stored(times)) => break times,
                Ok(Attempt::Behind) => return self.is_behind(),
                Ok(Attempt::Moved) if moves < MOVES_MAX => {
                    moves += 1;
                    continue;
                }
                Ok(Attempt::Moved) => {
                    let lane = run.lane.id();
                    let text = format!("somebody else keeps moving the checkpoint of lane {lane}");
                    SinkError::Stop(Fault::new(text))
                }
                Err(fault) => fault,
            };
            self.fail(&fault, run.is_journaled());
        };
        self.count(run, sealed_at, times);
        run.lane.set_stored(run.end());
        self.write_succeeded();
        Outcome::Stored
    }

    /// Counts what a run has newly stored.
    fn count(&mut self, run: Run<'_>, sealed_at: Option<Instant>, times: Option<StoreTimes>) {
        let (new, dead) = self.count_stored(run.lane, run.first, run.end());
        let counters = &self.writer.counters;
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        counters.stored_batch(run.batch, run.batch.len().saturating_sub(new));
        if let Some(times) = times {
            counters.observe_time(|counters| &counters.store_time, times.sum());
            self.log_batch(run, sealed_at, dead, times);
        }
    }

    /// Counts events of a lane as stored or dead-lettered. Returns how many were not counted before, and how many of
    /// these are dead letters.
    fn count_stored(&mut self, lane: &LaneHandle, from: Position, to: Position) -> (u64, u64) {
        if let Some(disk) = lane.on_disk() {
            disk.reaches(to);
        }
        let is_awaited = self.is_awaited();
        let settled = self.lanes.of(lane).count(from, to, is_awaited);
        self.writer.counters.settle(settled, lane.is_found());
        let dead = settled.dead_lettered;
        (settled.stored + settled.duplicates + dead, dead)
    }

    /// Whether answers wait for rows.
    fn is_awaited(&self) -> bool {
        !self.writer.may_leave && !planted(Bug::RefusedNotTold)
    }

    /// Counts the events before an accepted checkpoint that another process has stored.
    fn count_before(&mut self, lane: &LaneHandle, position: Position) {
        let is_awaited = self.is_awaited();
        let settled = self.lanes.of(lane).count_before(position, is_awaited);
        self.writer.counters.settle(settled, lane.is_found());
    }

    /// Logs the error and waits before the next attempt. If the process drains and the events may be left in the
    /// journal, gives up instead.
    fn fail(&mut self, fault: &SinkError, is_journaled: bool) {
        // A transaction that failed because of another one is tried again even in a drain.
        let may_leave =
            is_journaled && self.writer.may_leave && !matches!(fault, SinkError::Retry(_));
        if may_leave && self.writer.draining.load(Ordering::Relaxed) {
            log::warn!(
                event = "storing_given_up", writer = self.writer.index, code = fault.fault().code;
                "writer {}: the process drains and the database fails: {fault}; events that are not stored stay \
                 in the journal for the next start",
                self.writer.index
            );
            self.has_given_up = true;
            self.abandon(fault);
        } else {
            self.record(fault);
            self.abandon(fault);
            let until = clock::now() + self.outage.backoff(fault);
            self.sleep(until, may_leave);
        }
    }

    /// Waits before the next attempt. Ends early in a drain, if the events may be left in the journal.
    fn sleep(&self, until: Instant, may_leave: bool) {
        loop {
            let left = until.saturating_duration_since(clock::now());
            let is_last = may_leave && self.writer.draining.load(Ordering::Relaxed);
            if left.is_zero() || is_last {
                return;
            }
            clock::sleep(left.min(DRAIN_POLL));
        }
    }

    /// Rolls back. If this closes the connection, all checkpoints are read again: another server may answer next, or
    /// one that was restored from a backup.
    fn abandon(&mut self, fault: &SinkError) {
        self.writer.sink.abandon(fault);
        self.answered();
        if !matches!(fault, SinkError::Retry(_)) {
            self.writer.counters.set(|counters| &counters.connected, 0);
            self.lanes.forget_checkpoints();
            self.must_check = true;
            self.row_ids = RowIds::Untried;
        }
    }

    /// Says how old the oldest event is, when there is no fresh work.
    fn publish_oldest(&self, recovery: &Recovery) {
        let counters = &self.writer.counters;
        if !recovery.has_work() {
            counters.set(|counters| &counters.oldest_at, 0);
        } else if counters.oldest_at.get() == 0 {
            // The age of events in lanes of earlier processes is unknown before they are read: it counts from now.
            counters.set(|counters| &counters.oldest_at, UnixMillis::now().0);
        }
    }

    /// Probes the database, so that an outage is noticed before events arrive, and a restore also where the lanes that
    /// it took events from have no work.
    fn probe_if_due(&mut self) {
        let is_due = if self.outage.is_on() {
            clock::since(self.used_at) >= IDLE
        } else {
            clock::since(self.looked_at) >= PROBE_EVERY
        };
        if is_due
            && !self.has_given_up
            && let Err(fault) = self.probe()
        {
            log::debug!("writer {}: {fault}", self.writer.index);
        }
    }

    /// Checks whether the database takes writes.
    fn probe(&mut self) -> Result<(), SinkError> {
        self.used_at = clock::now();
        self.looked_at = self.used_at;
        let probed = self.open().and_then(|()| self.writer.sink.probe());
        let probed = probed.and_then(|()| self.look_for_restore());
        match &probed {
            Ok(()) => self.write_succeeded(),
            Err(fault) => {
                self.record(fault);
                self.abandon(fault);
            }
        }
        probed
    }

    /// Notes that the database has taken a write.
    fn write_succeeded(&mut self) {
        self.outage.end();
        self.answered();
        self.used_at = clock::now();
        self.writer.counters.write_succeeded();
        self.lanes.confirm();
    }

    /// Notes that the database is not waited for.
    fn answered(&self) {
        (self.writer.counters).set(|counters| &counters.attempt_since, 0);
    }

    /// Logs and counts an error.
    fn record(&mut self, fault: &SinkError) {
        self.outage.report(fault);
        let counters = &self.writer.counters;
        counters.error(ErrorClass::of(fault), fault.fault(), 1);
    }
}

#[cfg(test)]
mod tests;
