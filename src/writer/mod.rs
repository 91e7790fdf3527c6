//! A blocking thread that owns one sink: takes batches, stores each once, and never gives one up.

mod lanes;
mod outage;
mod recovery;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use self::lanes::Lanes;
use self::outage::Outage;
use self::recovery::Recovery;
use self::transaction::{Attempt, StoreTimes};
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::Position;
use crate::event::{SharedNameRule, UnixMillis};
use crate::handoff::{Sealed, Work};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::metrics::{ErrorClass, Recorder, WriterCounters};
use crate::sink::dead_letters::DeadLetters;
use crate::sink::{Fault, PROBE_EVERY, Sink, SinkError};

/// How long a writer without work sleeps before it looks for lanes to recover.
const IDLE: Duration = Duration::from_secs(1);

/// How often a writer that waits looks whether the process drains.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// What a writer is given.
pub struct Writer {
    /// Its place among the writers, for the log.
    pub index: usize,
    /// Where batches go.
    pub sink: Box<dyn Sink>,
    /// Where events go that the sink refuses.
    pub dead_letters: Arc<DeadLetters>,
    /// Where it says what the `name` column takes.
    pub name_rule: Arc<SharedNameRule>,
    /// Its counters.
    pub counters: Recorder<WriterCounters>,
    /// Events in a batch that is read back from a lane.
    pub batch_events: BatchEvents,
    /// Lanes without an owner, locked for us.
    pub recoveries: Receiver<Arc<DiskLane>>,
    /// Whether, while the process drains, events may be left in the journal: no answer waits for a row.
    pub may_leave: bool,
    /// Whether the process drains: then what is in a journal need not be stored any more.
    pub draining: Arc<AtomicBool>,
    /// How often any writer has seen that the database went back. Shared by all of them.
    pub restores: Arc<AtomicU64>,
}

/// A checkpoint that moves under our hands so many times in a row is somebody's mistake.
const MOVES_MAX: u32 = 8;

/// A writer at work.
struct Storing {
    writer: Writer,
    outage: Outage,
    lanes: Lanes,
    /// The connection was lost since the database was last asked for all checkpoints: it may be
    /// another one that answers now, or an older state of it.
    must_check: bool,
    /// Restores that the database was last asked after.
    restores_seen: u64,
    /// The process drains and the database fails: what is in a journal stays there.
    has_given_up: bool,
    used_at: Instant,
}

/// A run of events of one lane.
#[derive(Clone, Copy)]
struct Run<'a> {
    batch: &'a Batch,
    lane: &'a LaneHandle,
    first: Position,
}

impl Run<'_> {
    /// The position behind its last event.
    fn end(self) -> Position {
        self.first.plus(self.batch.len())
    }

    fn is_journaled(self) -> bool {
        self.lane.on_disk().is_some()
    }
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Each event is stored or dead-lettered.
    Stored,
    /// The database lacks events before the run: they are to be read back from the journal first.
    Behind,
    /// It is left in the journal: the process drains and the database fails.
    Left,
}

impl Writer {
    /// Stores all work that comes, until no shard can send more. Says on `ready` how the first
    /// attempt to reach the database went.
    pub fn run(self, inbox: &Receiver<Work>, ready: &SyncSender<Result<(), SinkError>>) {
        let mut storing = Storing {
            outage: Outage::new(self.index),
            lanes: Lanes::default(),
            must_check: false,
            restores_seen: self.restores.load(Ordering::Relaxed),
            has_given_up: false,
            used_at: Instant::now(),
            writer: self,
        };
        let opened = storing.prove();
        if ready.try_send(opened).is_err() {
            log::debug!(
                "writer {}: nobody waits for its start any more",
                storing.writer.index
            );
        }
        storing.work(inbox);
    }
}

impl Storing {
    /// Takes turns between fresh work and what is read back, so that neither starves the other.
    fn work(&mut self, inbox: &Receiver<Work>) {
        let mut recovery = Recovery::default();
        loop {
            recovery.take_new(&self.writer.recoveries);
            self.lanes.forget_removed();
            self.look_for_restores();
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
                        wait => inbox.recv_timeout(wait.unwrap_or(IDLE).min(IDLE)),
                    }
                }
            };
            match next {
                Ok(Work::Batch(sealed)) => self.take_batch(sealed, &mut recovery),
                Ok(Work::Span(span)) => recovery.read_back(&span.lane, span.to),
                Err(RecvTimeoutError::Timeout) => self.prove_now_and_then(),
                Err(RecvTimeoutError::Disconnected) => {
                    // What an earlier process left can wait for the next; what ours spilled is due.
                    recovery.leave_found();
                    while recovery.go_on(self) {}
                    return;
                }
            }
            recovery.go_on(self);
        }
    }

    /// Stores a batch, or lets its memory go where events before it are being read back.
    fn take_batch(&mut self, sealed: Sealed, recovery: &mut Recovery) {
        let run = Run {
            batch: &sealed.batch,
            lane: &sealed.lane,
            first: sealed.first,
        };
        let outcome = if recovery.is_reading(run.lane.id()) {
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

    /// Stores a run, however long it takes.
    fn store(&mut self, run: Run<'_>, sealed_at: Option<Instant>) -> Outcome {
        let oldest = run.batch.oldest_received_at();
        let oldest_at = oldest.map_or(0, |at| at.0);
        self.writer
            .counters
            .set(|counters| &counters.oldest_at, oldest_at);
        // It stands until there is nothing more to do: behind this run there may be others.
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
                Ok(Attempt::Behind) => return Outcome::Behind,
                Ok(Attempt::Moved) if moves < MOVES_MAX => {
                    moves += 1;
                    continue;
                }
                Ok(Attempt::Moved) => {
                    let lane = run.lane.id();
                    let text = format!("the checkpoint of lane {lane} does not stay");
                    SinkError::Stop(Fault::new(text))
                }
                Err(fault) => fault,
            };
            self.fail(&fault, run.is_journaled());
        };
        self.count(run, sealed_at, times);
        run.lane.set_stored(run.end());
        self.works();
        Outcome::Stored
    }

    /// Counts what a run has newly stored.
    fn count(&mut self, run: Run<'_>, sealed_at: Option<Instant>, times: Option<StoreTimes>) {
        let (new, dead) = self.lanes.of(run.lane).count(run.first, run.end());
        let counters = &self.writer.counters;
        if run.lane.is_found() {
            counters.add(|counters| &counters.recovered, new);
        }
        counters.add(|counters| &counters.stored, new - dead);
        counters.add(|counters| &counters.dead_lettered, dead);
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        counters.stored_batch(run.batch, run.batch.len().saturating_sub(new));
        if let Some(times) = times {
            counters.observe_time(|counters| &counters.store_time, times.sum());
            self.log_batch(run, sealed_at, dead, times);
        }
    }

    /// Says what happened and waits a while; while the process drains, what is in the journal is left
    /// there instead.
    fn fail(&mut self, fault: &SinkError, is_journaled: bool) {
        // Who waits for the row waits on; what lost against another transaction is tried again.
        let may_leave =
            is_journaled && self.writer.may_leave && !matches!(fault, SinkError::Retry(_));
        if may_leave && self.writer.draining.load(Ordering::Relaxed) {
            log::warn!(
                event = "storing_given_up", writer = self.writer.index, code = fault.fault().code;
                "writer {}: the process drains and the database fails: {fault}; what is not stored stays in the \
                 journal for the next start",
                self.writer.index
            );
            self.has_given_up = true;
            self.abandon(fault);
        } else {
            self.note(fault);
            self.abandon(fault);
            let until = Instant::now() + self.outage.backoff(fault);
            self.sleep(until, may_leave);
        }
    }

    /// Waits before another attempt; where a drain makes it the last one, not a moment longer.
    fn sleep(&self, until: Instant, may_leave: bool) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let is_last = may_leave && self.writer.draining.load(Ordering::Relaxed);
            if left.is_zero() || is_last {
                return;
            }
            thread::sleep(left.min(DRAIN_POLL));
        }
    }

    /// Ends what is open in the database. Where the connection goes too, what it said of the lanes
    /// is asked again: another server may answer next, or one restored from a backup.
    fn abandon(&mut self, fault: &SinkError) {
        self.writer.sink.abandon(fault);
        if !matches!(fault, SinkError::Retry(_)) {
            self.writer.counters.set(|counters| &counters.connected, 0);
            self.lanes.forget_checkpoints();
            self.must_check = true;
        }
    }

    /// The database went back under a connection that stayed: what it said of other lanes is void, and
    /// what it said to other writers.
    fn tell_restore(&mut self) {
        self.restores_seen = 1 + self.writer.restores.fetch_add(1, Ordering::Relaxed);
        self.lanes.forget_checkpoints();
        self.must_check = true;
    }

    /// Where another writer has seen that, all checkpoints are asked for again.
    fn look_for_restores(&mut self) {
        let restores = self.writer.restores.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.restores_seen, restores) != restores {
            self.lanes.forget_checkpoints();
            self.must_check = true;
        }
    }

    fn open(&mut self) -> Result<(), SinkError> {
        let rule = self.writer.sink.open()?;
        self.writer.counters.set(|counters| &counters.connected, 1);
        if self.writer.name_rule.get() != rule {
            log::info!(
                event = "name_rule_changed", characters = rule.chars_max;
                "the name column takes {} characters, {:?}", rule.chars_max, rule.repertoire
            );
            self.writer.name_rule.set(rule);
        }
        Ok(())
    }

    /// Says how old the oldest event is, when there is no fresh work.
    fn publish_oldest(&self, recovery: &Recovery) {
        let counters = &self.writer.counters;
        if !recovery.has_work() {
            counters.set(|counters| &counters.oldest_at, 0);
        } else if counters.oldest_at.get() == 0 {
            // Of lanes that were found it is not known before they are read: at least since now.
            counters.set(|counters| &counters.oldest_at, UnixMillis::now().0);
        }
    }

    /// Without work: tries whether the database takes writes, so that it is known before they come.
    fn prove_now_and_then(&mut self) {
        let wait = if self.outage.is_on() {
            IDLE
        } else {
            PROBE_EVERY
        };
        if self.used_at.elapsed() >= wait
            && let Err(fault) = self.prove()
        {
            log::debug!("writer {}: {fault}", self.writer.index);
        }
    }

    /// Tries whether the database takes writes.
    fn prove(&mut self) -> Result<(), SinkError> {
        self.used_at = Instant::now();
        let proven = self.open().and_then(|()| self.writer.sink.probe());
        match &proven {
            Ok(()) => self.works(),
            Err(fault) => {
                self.note(fault);
                self.abandon(fault);
            }
        }
        proven
    }

    /// The database has taken a write.
    fn works(&mut self) {
        self.outage.end();
        self.used_at = Instant::now();
        self.writer.counters.write_succeeded();
        self.lanes.confirm();
    }

    /// Says and counts what went wrong.
    fn note(&mut self, fault: &SinkError) {
        self.outage.happened(fault);
        let counters = &self.writer.counters;
        counters.error(ErrorClass::of(fault), fault.fault(), 1);
    }

    fn log_batch(&self, run: Run<'_>, sealed_at: Option<Instant>, dead: u64, times: StoreTimes) {
        let received = run.batch.oldest_received_at().unwrap_or(UnixMillis::now());
        let queued = sealed_at.map_or(Duration::ZERO, |at| {
            at.elapsed().saturating_sub(times.sum())
        });
        log::debug!(
            writer = self.writer.index,
            events = run.batch.len(),
            dead_lettered = dead,
            name_bytes = run.batch.name_bytes(),
            oldest_event_ms = UnixMillis::now().0.saturating_sub(received.0),
            queue_ms = millis(queued),
            prepare_ms = millis(times.insert.prepare),
            execute_ms = millis(times.insert.execute),
            commit_ms = millis(times.commit);
            "batch stored"
        );
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests;
