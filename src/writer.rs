//! A blocking thread that owns one sink: takes batches, stores each once, and never gives one up.

mod recovery;
mod trouble;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use self::recovery::Recovery;
use self::trouble::Trouble;
use crate::batch::{Batch, BatchEvents};
use crate::dead_letters::DeadLetters;
use crate::event::{SharedNameRule, UnixMillis};
use crate::handoff::{Sealed, Span, Work};
use crate::journal::commit::LaneHandle;
use crate::journal::reader::{LaneReader, ReadError};
use crate::journal::record::{LaneId, Position};
use crate::journal::storage::Disk;
use crate::metrics::WriterCounters;
use crate::sink::{Checkpoint, Fault, InsertTimes, Inserted, Refused, Sink, SinkError, Step};

/// How long a writer without work sleeps before it looks for lanes to recover.
const IDLE: Duration = Duration::from_secs(1);

/// A connection without work is used this often, so that the server does not take it for orphaned.
const PING_EVERY: Duration = Duration::from_secs(15);

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
    pub counters: Arc<WriterCounters>,
    /// Events in a batch that is read back from a lane.
    pub batch_events: BatchEvents,
    /// Lanes without an owner, locked for us.
    pub recoveries: Receiver<Arc<LaneHandle>>,
    /// Whether the process drains: then what is in a journal need not be stored any more.
    pub draining: Arc<AtomicBool>,
}

/// A writer at work.
struct Storing {
    writer: Writer,
    trouble: Trouble,
    /// What the database says of each lane that was stored from.
    checkpoints: HashMap<LaneId, Checkpoint>,
    /// For batches that are read back.
    scratch: Option<Batch>,
    used_at: Instant,
}

/// Where the time of a batch went.
#[derive(Debug, Clone, Copy)]
struct StoreTimes {
    insert: InsertTimes,
    commit: Duration,
}

/// A run of events of one lane.
#[derive(Clone, Copy)]
struct Run<'a> {
    batch: &'a Batch,
    lane: &'a LaneHandle,
    first: Position,
}

/// How an attempt ended that met no error.
enum Attempt {
    /// The events are stored, the checkpoint is behind them.
    Stored(Option<StoreTimes>),
    /// The checkpoint stands elsewhere; what was known of it has been put right. Again.
    Moved,
    /// The lane has another owner, which stores its events.
    Fenced,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Each event is stored or dead-lettered.
    Stored,
    /// It is left in the journal, for this process's next start or for the lane's other owner.
    Left,
}

impl Writer {
    /// Stores all work that comes, until no shard can send more. Says on `ready` how the first
    /// attempt to reach the database went.
    pub fn run(self, inbox: &Receiver<Work>, ready: &SyncSender<Result<(), SinkError>>) {
        let mut storing = Storing {
            trouble: Trouble::new(self.index),
            checkpoints: HashMap::new(),
            scratch: Some(Batch::new(self.batch_events)),
            used_at: Instant::now(),
            writer: self,
        };
        let opened = storing.open();
        if let Err(fault) = &opened {
            storing.trouble.happened(fault);
            storing.writer.sink.abandon(fault);
        }
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
    /// Takes turns between fresh work and recovery, so that neither starves the other.
    fn work(&mut self, inbox: &Receiver<Work>) {
        let mut recovery = Recovery::default();
        loop {
            recovery.take_new(&self.writer.recoveries);
            let next = if recovery.is_idle() {
                inbox.recv_timeout(IDLE)
            } else {
                inbox.try_recv().map_err(|none| match none {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match next {
                Ok(Work::Batch(sealed)) => self.store_sealed(sealed),
                Ok(Work::Span(span)) => self.store_span(&span),
                Err(RecvTimeoutError::Timeout) => self.ping(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            recovery.go_on(self);
        }
    }

    fn store_sealed(&mut self, sealed: Sealed) {
        let run = Run {
            batch: &sealed.batch,
            lane: &sealed.lane,
            first: sealed.first,
        };
        self.store(run, Some(sealed.sealed_at), true);
        sealed.give_back();
    }

    /// Reads a span back from its lane and stores it.
    fn store_span(&mut self, span: &Span) {
        log::debug!(
            "lane {}: reading {} events back",
            span.lane.id,
            span.to.since(span.from)
        );
        self.store_from_disk(&span.lane, span.from, span.to, true);
    }

    /// Stores the events of a lane from `from` to `to`, as its segments have them.
    fn store_from_disk(&mut self, lane: &LaneHandle, from: Position, to: Position, is_new: bool) {
        let Some(directory) = &lane.directory else {
            return;
        };
        let mut reader = LaneReader::new(Disk, directory, lane.id, from);
        let Some(mut batch) = self.scratch.take() else {
            return;
        };
        while reader.position() < to {
            batch.clear();
            let first = reader.position();
            let filled = reader.fill(&mut batch, Some(to));
            if !batch.is_empty()
                && self.store(
                    Run {
                        batch: &batch,
                        lane,
                        first,
                    },
                    None,
                    is_new,
                ) == Outcome::Left
            {
                break;
            }
            match filled {
                Ok(_) if batch.is_empty() => {
                    log::error!("lane {}: ends at {}, before {}", lane.id, first.0, to.0);
                    break;
                }
                Ok(_) => {}
                Err(ReadError::Damage(damage)) => log::error!("lane {}: {damage}", lane.id),
                Err(fault) => {
                    let fault = Fault {
                        code: None,
                        text: fault.to_string(),
                    };
                    self.wait(&SinkError::Stop(fault));
                }
            }
        }
        self.scratch = Some(batch);
    }

    /// Stores a run, however long it takes. `is_new`: its events were not counted as stored before.
    fn store(&mut self, run: Run<'_>, sealed_at: Option<Instant>, is_new: bool) -> Outcome {
        // Kept over attempts: what is dead-lettered once is not dead-lettered again.
        let mut dead = Refused::new();
        let times = loop {
            match self.attempt(run, &mut dead) {
                Ok(Attempt::Stored(times)) => break times,
                Ok(Attempt::Moved) => {}
                Ok(Attempt::Fenced) => return Outcome::Left,
                Err(fault) => {
                    let is_journaled = run.lane.directory.is_some();
                    if is_journaled && self.writer.draining.load(Ordering::Relaxed) {
                        log::warn!("left in the journal: {fault}");
                        self.writer.sink.abandon(&fault);
                        return Outcome::Left;
                    }
                    self.wait(&fault);
                }
            }
        };
        self.trouble.is_over();
        self.used_at = Instant::now();
        if is_new {
            self.writer
                .counters
                .stored
                .add((run.batch.len() - dead.len()) as u64);
            self.writer.counters.dead_lettered.add(dead.len() as u64);
        }
        if let Some(times) = times {
            self.log_batch(run, sealed_at, dead.len(), times);
        }
        run.lane.set_stored(run.first.plus(run.batch.len()));
        Outcome::Stored
    }

    fn wait(&mut self, fault: &SinkError) {
        self.trouble.happened(fault);
        self.writer.sink.abandon(fault);
        thread::sleep(self.trouble.backoff(fault));
    }

    /// One transaction: the checkpoint's step, the rows, the dead letters' file, COMMIT.
    fn attempt(&mut self, run: Run<'_>, dead: &mut Refused) -> Result<Attempt, SinkError> {
        self.open()?;
        let checkpoint = self.checkpoint(run.lane)?;
        let new = run.first.plus(run.batch.len());
        if checkpoint.position >= new {
            return Ok(Attempt::Stored(None));
        }
        if checkpoint.position < run.first && run.lane.directory.is_some() {
            self.refill(run.lane, checkpoint.position, run.first);
        }
        let old = self.checkpoint(run.lane)?.position;
        let step = Step {
            lane: run.lane.id,
            epoch: checkpoint.epoch,
            old,
            new,
        };
        let mut refused = dead.clone();
        let inserted = self.writer.sink.insert(run.batch, step, &mut refused);
        self.bury(run, dead, refused)?;
        let insert = match inserted? {
            Inserted::Open(times) => times,
            Inserted::Elsewhere(found) => return Ok(self.find_again(run.lane, step, found)),
        };
        let start = Instant::now();
        self.writer.sink.commit()?;
        self.checkpoints.insert(
            run.lane.id,
            Checkpoint {
                epoch: step.epoch,
                position: new,
            },
        );
        Ok(Attempt::Stored(Some(StoreTimes {
            insert,
            commit: start.elapsed(),
        })))
    }

    /// What the database says of a lane; asked once, when the lane becomes ours.
    fn checkpoint(&mut self, lane: &LaneHandle) -> Result<Checkpoint, SinkError> {
        if let Some(checkpoint) = self.checkpoints.get(&lane.id) {
            return Ok(*checkpoint);
        }
        let checkpoint = self.writer.sink.adopt(lane.id)?;
        self.checkpoints.insert(lane.id, checkpoint);
        Ok(checkpoint)
    }

    /// The checkpoint was not where it should have been: learns where it is.
    fn find_again(&mut self, lane: &LaneHandle, step: Step, found: Option<Checkpoint>) -> Attempt {
        match found {
            Some(found) if found.epoch != step.epoch => {
                log::error!(
                    "lane {}: another process owns it ({:?}, we had {:?}) and stores its events",
                    lane.id,
                    found.epoch,
                    step.epoch
                );
                Attempt::Fenced
            }
            // A COMMIT whose answer was lost did happen.
            Some(found) if found.position == step.new => {
                self.checkpoints.insert(lane.id, found);
                Attempt::Stored(None)
            }
            Some(found) => {
                self.checkpoints.insert(lane.id, found);
                Attempt::Moved
            }
            None => {
                log::error!("lane {}: the database has lost its checkpoint", lane.id);
                self.checkpoints.remove(&lane.id);
                Attempt::Moved
            }
        }
    }

    /// The database has lost what it had stored, as one restored from a backup: stores it again from
    /// the segments that are still kept.
    fn refill(&mut self, lane: &LaneHandle, from: Position, to: Position) {
        let lost = to.since(from);
        log::error!(
            "lane {}: the database has lost {lost} stored events; storing them again",
            lane.id
        );
        let Some(directory) = &lane.directory else {
            return;
        };
        let mut reader = LaneReader::new(Disk, directory, lane.id, from);
        let mut batch = Batch::new(self.writer.batch_events);
        while reader.position() < to {
            batch.clear();
            let first = reader.position();
            let filled = reader.fill(&mut batch, Some(to));
            if !batch.is_empty()
                && self.store(
                    Run {
                        batch: &batch,
                        lane,
                        first,
                    },
                    None,
                    false,
                ) == Outcome::Left
            {
                return;
            }
            match filled {
                Err(ReadError::Damage(damage)) => log::error!("lane {}: {damage}", lane.id),
                Err(fault) => return log::error!("lane {}: {fault}", lane.id),
                Ok(_) if batch.is_empty() => return,
                Ok(_) => {}
            }
        }
    }

    /// Puts newly refused events into the dead-letter file, before the checkpoint passes them.
    fn bury(&self, run: Run<'_>, dead: &mut Refused, refused: Refused) -> Result<(), SinkError> {
        let new = refused
            .iter()
            .filter(|(index, _)| !dead.contains_key(index));
        let letters: Vec<_> = new
            .map(|(&index, fault)| (run.batch.event(index), run.first.plus(index), fault))
            .collect();
        let Some((_, _, fault)) = letters.first() else {
            return Ok(());
        };
        log::warn!(
            "writer {}: {} events are refused by the database and go to the dead letters: {fault}",
            self.writer.index,
            letters.len(),
        );
        let written = self
            .writer
            .dead_letters
            .write(run.lane.id, letters.into_iter());
        written.map_err(|fault| {
            SinkError::Stop(Fault {
                code: None,
                text: fault.to_string(),
            })
        })?;
        *dead = refused;
        Ok(())
    }

    fn open(&mut self) -> Result<(), SinkError> {
        let rule = self.writer.sink.open()?;
        if self.writer.name_rule.get() != rule {
            log::info!(
                "the name column takes {} characters, {:?}",
                rule.chars_max,
                rule.repertoire
            );
            self.writer.name_rule.set(rule);
        }
        Ok(())
    }

    /// Uses a connection that has had nothing to do, or tries to get one.
    fn ping(&mut self) {
        if self.used_at.elapsed() < PING_EVERY {
            return;
        }
        self.used_at = Instant::now();
        let used = self.open().and_then(|()| self.writer.sink.ping());
        if let Err(fault) = used {
            log::debug!("writer {}: idle connection: {fault}", self.writer.index);
            self.writer.sink.abandon(&fault);
        }
    }

    fn log_batch(&self, run: Run<'_>, sealed_at: Option<Instant>, dead: usize, times: StoreTimes) {
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

impl StoreTimes {
    fn sum(self) -> Duration {
        self.insert.prepare + self.insert.execute + self.commit
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests;
