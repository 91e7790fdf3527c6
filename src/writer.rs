//! A blocking thread that owns one sink: takes batches, stores each, and never gives one up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crate::dead_letters::DeadLetters;
use crate::event::{SharedNameRule, UnixMillis};
use crate::handoff::Sealed;
use crate::metrics::WriterCounters;
use crate::sink::{Fault, InsertTimes, Refused, Sink, SinkError};

/// Waits between attempts grow from this …
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// … to this, each drawn at random up to its bound, so that many nodes do not come back in step.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where somebody must act, they begin with this.
const BACKOFF_STOP_MIN: Duration = Duration::from_secs(1);

/// The same trouble is logged this often at most.
const TROUBLE_LOG_EVERY: Duration = Duration::from_secs(10);

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
}

/// Where the time of a batch went.
#[derive(Debug, Clone, Copy)]
struct StoreTimes {
    insert: InsertTimes,
    commit: Duration,
}

impl Writer {
    /// Stores every batch that comes, until no shard can send one. Says on `ready` when the first
    /// attempt to reach the database is over, whatever came of it.
    pub fn run(mut self, inbox: &Receiver<Sealed>, ready: &SyncSender<()>) {
        let mut trouble = Trouble::new(self.index);
        if let Err(fault) = self.open() {
            trouble.happened(&fault, 0);
            self.sink.abandon(&fault);
        }
        if ready.try_send(()).is_err() {
            log::debug!("writer {}: nobody waits for its start any more", self.index);
        }
        while let Ok(sealed) = inbox.recv() {
            self.store(&sealed, &mut trouble);
            sealed.give_back();
        }
    }

    /// Returns when every event of the batch is stored or dead-lettered.
    fn store(&mut self, sealed: &Sealed, trouble: &mut Trouble) {
        let events = sealed.batch.len();
        // Kept over attempts: what is dead-lettered once is not dead-lettered again.
        let mut dead = Refused::new();
        loop {
            match self.attempt(sealed, &mut dead) {
                Ok(times) => {
                    trouble.is_over();
                    self.log_batch(sealed, dead.len(), times);
                    break;
                }
                Err(fault) => {
                    trouble.happened(&fault, events);
                    self.sink.abandon(&fault);
                    thread::sleep(trouble.backoff(&fault));
                }
            }
        }
        self.counters.stored.add((events - dead.len()) as u64);
        self.counters.dead_lettered.add(dead.len() as u64);
    }

    /// One transaction. Refused events are in the dead-letter file before the others are committed.
    fn attempt(&mut self, sealed: &Sealed, dead: &mut Refused) -> Result<StoreTimes, SinkError> {
        self.open()?;
        let mut refused = dead.clone();
        let inserted = self.sink.insert(&sealed.batch, &mut refused);
        let letters = refused
            .iter()
            .filter(|(index, _)| !dead.contains_key(index));
        let letters: Vec<_> = letters
            .map(|(&index, fault)| (sealed.batch.event(index), fault))
            .collect();
        if !letters.is_empty() {
            log::warn!(
                "writer {}: {} events are refused by the database and go to the dead letters: {}",
                self.index,
                letters.len(),
                letters[0].1,
            );
            self.dead_letters
                .write(letters.into_iter())
                .map_err(|fault| {
                    SinkError::Stop(Fault {
                        code: None,
                        text: fault.to_string(),
                    })
                })?;
            *dead = refused;
        }
        let insert = inserted?;
        let start = Instant::now();
        self.sink.commit()?;
        Ok(StoreTimes {
            insert,
            commit: start.elapsed(),
        })
    }

    fn open(&mut self) -> Result<(), SinkError> {
        let rule = self.sink.open()?;
        if self.name_rule.get() != rule {
            log::info!(
                "the name column takes {} characters, {:?}",
                rule.chars_max,
                rule.repertoire
            );
            self.name_rule.set(rule);
        }
        Ok(())
    }

    fn log_batch(&self, sealed: &Sealed, dead: usize, times: StoreTimes) {
        let age = sealed
            .batch
            .oldest_received_at()
            .map_or(0, |at| UnixMillis::now().0.saturating_sub(at.0));
        log::debug!(
            writer = self.index,
            events = sealed.batch.len(),
            dead_lettered = dead,
            name_bytes = sealed.batch.name_bytes(),
            oldest_event_ms = age,
            queue_ms = millis(sealed.sealed_at.elapsed() - times.sum()),
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

/// A time in which nothing is stored: how long to wait, and how often to say so.
struct Trouble {
    writer: usize,
    since: Option<Instant>,
    logged: Option<(Instant, SinkError)>,
    backoff: Duration,
}

impl Trouble {
    fn new(writer: usize) -> Self {
        Self {
            writer,
            since: None,
            logged: None,
            backoff: BACKOFF_MIN,
        }
    }

    /// Logs what happened, unless the same was logged a moment ago.
    fn happened(&mut self, fault: &SinkError, events: usize) {
        self.since.get_or_insert_with(Instant::now);
        if let SinkError::OutcomeUnknown(said) = fault {
            log::warn!(
                "writer {}: the connection was lost during COMMIT ({said}); the batch is stored \
                 again, up to {events} events may be stored twice",
                self.writer
            );
            return;
        }
        let is_known = self
            .logged
            .as_ref()
            .is_some_and(|(at, logged)| logged == fault && at.elapsed() < TROUBLE_LOG_EVERY);
        if is_known {
            return;
        }
        let writer = self.writer;
        match fault {
            SinkError::Stop(said) => {
                log::error!(
                    "writer {writer}: nothing can be stored until this is put right: {said}"
                );
            }
            _ => log::warn!("writer {writer}: not stored, tried again: {fault}"),
        }
        self.logged = Some((Instant::now(), fault.clone()));
    }

    fn is_over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            log::info!("writer {}: stores again, after {seconds:.1} s", self.writer);
            self.logged = None;
            self.backoff = BACKOFF_MIN;
        }
    }

    /// The wait before the next attempt; slow from the first where somebody must act.
    fn backoff(&mut self, fault: &SinkError) -> Duration {
        if matches!(fault, SinkError::Stop(_)) {
            self.backoff = self.backoff.max(BACKOFF_STOP_MIN);
        }
        let wait = self.backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        wait
    }
}

#[cfg(test)]
mod tests;
