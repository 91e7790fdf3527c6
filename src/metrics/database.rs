//! The counters of a writer, and the recent errors of its database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counter::{Counter, Gauge};
use super::histogram::Histogram;
use super::names::{FrequentNames, SAMPLED_ONE_IN};
use super::recorder::Recorder;
use crate::event::UnixMillis;
use crate::event::batch::Batch;
use crate::sink::{Fault, SinkError};

/// Most errors that are counted separately. Further ones are counted as [`OTHER_CODE`].
const SEPARATE_ERRORS_MAX: usize = 64;

/// The code of errors beyond [`SEPARATE_ERRORS_MAX`].
const OTHER_CODE: i32 = -1;

/// Recent errors that are kept with their text, per writer.
const RECENT_ERRORS: usize = 10;

/// What a writer does after an error, as a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// It tries again on the same connection.
    Retry,
    /// It tries again on a new connection.
    Reconnect,
    /// It finds out on a new connection whether a COMMIT took effect.
    OutcomeUnknown,
    /// It writes the row to the dead-letter file.
    Reject,
    /// It tries again slowly: an operator must act.
    Stop,
}

impl ErrorClass {
    /// The class of an error that stops a batch.
    pub fn of(fault: &SinkError) -> Self {
        match fault {
            SinkError::Retry(_) => Self::Retry,
            SinkError::Reconnect(_) => Self::Reconnect,
            SinkError::OutcomeUnknown(_) => Self::OutcomeUnknown,
            SinkError::Stop(_) => Self::Stop,
        }
    }

    /// The value of the label `class`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reconnect => "reconnect",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Reject => "reject",
            Self::Stop => "stop",
        }
    }
}

/// An error that happened recently.
#[derive(Debug, Clone)]
pub struct RecentError {
    /// When it happened.
    pub at: UnixMillis,
    /// What the writer did next.
    pub class: ErrorClass,
    /// The database's number and text.
    pub fault: Fault,
}

/// What changes rarely, and is therefore under a lock.
#[derive(Debug, Default)]
struct Details {
    counts: BTreeMap<(ErrorClass, Option<i32>), u64>,
    /// Newest first.
    recent: VecDeque<RecentError>,
    names: FrequentNames,
    /// Why nothing can be stored now.
    outage: Option<String>,
}

/// What one writer counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WriterCounters {
    /// Events committed in the database.
    pub stored: Counter,
    /// Events that made no row, since the table has their ids.
    pub duplicates: Counter,
    /// Events of earlier processes that were read back from the journal, and are stored, dead-lettered or lost.
    pub recovered: Counter,
    /// Events that the database refused. They are in the dead-letter file.
    pub dead_lettered: Counter,
    /// Events that were promised and that the disk has lost.
    pub lost: Counter,
    /// Positions that are passed in all lanes: the events at them are not pending any more.
    passed: Counter,
    /// Held while the counters above change, or are read together.
    settling: Mutex<()>,
    /// 1 while there is a connection that is not known to be lost.
    pub connected: Gauge,
    /// When the attempt under way began, in Unix milliseconds. 0: none is.
    pub attempt_since: Gauge,
    /// When a write last succeeded, in Unix milliseconds. 0: not yet.
    pub last_write_at: Gauge,
    /// When the oldest event that is being stored was received, in Unix milliseconds. 0: none is.
    pub oldest_at: Gauge,
    /// Time from the first statement of a batch to its COMMIT, in microseconds.
    pub store_time: Histogram,
    /// Time from receiving an event to its COMMIT, in milliseconds.
    pub age_at_store: Histogram,
    details: Mutex<Details>,
}

/// What became of events, and how many positions of lanes are passed. The two are counted apart, and agree.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Events that were committed.
    pub stored: u64,
    /// Events that made no row, since the table has their ids.
    pub duplicates: u64,
    /// Events that the database refused.
    pub dead_lettered: u64,
    /// Events that the disk has lost.
    pub lost: u64,
    /// Positions that are passed.
    pub passed: u64,
}

impl WriterCounters {
    /// What this writer has settled so far, at one moment.
    pub fn settled(&self) -> Settled {
        let _held = self.settling();
        Settled {
            stored: self.stored.get(),
            duplicates: self.duplicates.get(),
            dead_lettered: self.dead_lettered.get(),
            lost: self.lost.get(),
            passed: self.passed.get(),
        }
    }

    fn settling(&self) -> MutexGuard<'_, ()> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        // A panic while the lock was held leaves the values valid.
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of errors by class and by the database's number.
    pub fn errors(&self) -> BTreeMap<(ErrorClass, Option<i32>), u64> {
        self.details().counts.clone()
    }

    /// Recent errors, newest first.
    pub fn recent_errors(&self) -> Vec<RecentError> {
        self.details().recent.iter().cloned().collect()
    }

    /// Why nothing can be stored now, in the database's words. `None` after a write has succeeded.
    pub fn outage(&self) -> Option<String> {
        self.details().outage.clone()
    }

    /// Gives access to the counts of names that were stored.
    pub fn with_names<T>(&self, look: impl FnOnce(&mut FrequentNames) -> T) -> T {
        look(&mut self.details().names)
    }
}

impl Recorder<WriterCounters> {
    /// Adds what was settled, of a lane of an earlier process if `is_found`.
    pub fn settle(&self, more: Settled, is_found: bool) {
        let _held = self.settling();
        if is_found {
            let recovered = more.stored + more.duplicates + more.dead_lettered + more.lost;
            self.add(|counters| &counters.recovered, recovered);
        }
        self.add(|counters| &counters.stored, more.stored);
        self.add(|counters| &counters.duplicates, more.duplicates);
        self.add(|counters| &counters.dead_lettered, more.dead_lettered);
        self.add(|counters| &counters.lost, more.lost);
        self.add(|counters| &counters.passed, more.passed);
    }

    /// Counts an error `times` times and keeps its text.
    pub fn error(&self, class: ErrorClass, fault: &Fault, times: u64) {
        let mut details = self.details();
        let mut key = (class, fault.code);
        if details.counts.len() >= SEPARATE_ERRORS_MAX && !details.counts.contains_key(&key) {
            key.1 = Some(OTHER_CODE);
        }
        *details.counts.entry(key).or_default() += times;
        if details.recent.len() == RECENT_ERRORS {
            details.recent.pop_back();
        }
        details.recent.push_front(RecentError {
            at: UnixMillis::now(),
            class,
            fault: fault.clone(),
        });
        if class != ErrorClass::Reject {
            details.outage = Some(fault.to_string());
        }
    }

    /// Notes that the database has taken a write.
    pub fn write_succeeded(&self) {
        self.set(|counters| &counters.connected, 1);
        self.set(|counters| &counters.last_write_at, UnixMillis::now().0);
        self.details().outage = None;
    }

    /// Counts the ages, and samples the names, of the events of a stored batch, from the index `from` on.
    pub fn stored_batch(&self, batch: &Batch, from: usize) {
        let now = UnixMillis::now().0;
        let mut same = (0, 0);
        for event in batch.events().skip(from) {
            let age = now.saturating_sub(event.received_at.0);
            if age == same.0 {
                same.1 += 1;
            } else {
                self.observe(|counters| &counters.age_at_store, same.0, same.1);
                same = (age, 1);
            }
        }
        self.observe(|counters| &counters.age_at_store, same.0, same.1);
        let mut details = self.details();
        // A random start: names that repeat with the period of the sample would be counted always or never.
        for index in (from + fastrand::usize(..SAMPLED_ONE_IN)..batch.len()).step_by(SAMPLED_ONE_IN)
        {
            details.names.count(batch.event(index).name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_code_within_bounds() {
        let (counters, _) = Recorder::new(WriterCounters::default());
        for code in 0..1000 {
            let fault = Fault::numbered(code, "no");
            counters.error(ErrorClass::Retry, &fault, 2);
        }
        let errors = counters.errors();
        assert_eq!(errors.len(), SEPARATE_ERRORS_MAX + 1);
        assert_eq!(errors.values().sum::<u64>(), 2000);
        let recent = counters.recent_errors();
        assert_eq!(
            (recent.len(), recent[0].fault.code),
            (RECENT_ERRORS, Some(999))
        );
        assert!(counters.outage().unwrap().contains("error 999"));
        counters.write_succeeded();
        assert_eq!(counters.outage(), None);
    }
}
