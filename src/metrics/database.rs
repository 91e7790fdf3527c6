//! What a writer last heard from its database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counter::{Counter, Gauge};
use super::histogram::Histogram;
use super::names::{FrequentNames, SAMPLED_ONE_IN};
use super::recorder::Recorder;
use crate::event::UnixMillis;
use crate::event::batch::Batch;
use crate::sink::{Fault, SinkError};

/// Different errors that are counted apart; what comes beyond is counted as [`OTHER_CODE`].
const ERRORS_APART_MAX: usize = 64;

/// The code of errors beyond [`ERRORS_APART_MAX`].
const OTHER_CODE: i32 = -1;

/// Errors that are remembered with their words, a writer.
const ERRORS_REMEMBERED: usize = 10;

/// What is done about an error, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The same again.
    Retry,
    /// Again on a new connection.
    Reconnect,
    /// A new connection tells what became of a COMMIT.
    OutcomeUnknown,
    /// A row goes to the dead letters.
    Reject,
    /// Somebody must act.
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

    /// One word.
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

/// An error with its time and words.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// When.
    pub at: UnixMillis,
    /// What was done.
    pub class: ErrorClass,
    /// What the database said.
    pub fault: Fault,
}

/// What is said of the database rarely: under a lock.
#[derive(Debug, Default)]
struct Said {
    counts: BTreeMap<(ErrorClass, Option<i32>), u64>,
    last: VecDeque<Remembered>,
    names: FrequentNames,
    /// Why nothing is stored at present.
    trouble: Option<String>,
}

/// What one writer counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WriterCounters {
    /// Events committed in the database.
    pub stored: Counter,
    /// Events of an earlier process, read from a lane that it left.
    pub recovered: Counter,
    /// Events that the database refused, kept in the dead-letter file.
    pub dead_lettered: Counter,
    /// 1 while there is a connection that is not known to be lost.
    pub connected: Gauge,
    /// When a write was last seen to succeed, in Unix milliseconds; 0: not yet.
    pub proven_at: Gauge,
    /// When the oldest event was received of what is being stored, in Unix milliseconds; 0: none is.
    pub oldest_at: Gauge,
    /// Time from the first statement of a batch to its COMMIT, in microseconds.
    pub store_time: Histogram,
    /// Time from receiving an event to its COMMIT, in milliseconds.
    pub age_at_store: Histogram,
    said: Mutex<Said>,
}

impl WriterCounters {
    fn said(&self) -> MutexGuard<'_, Said> {
        // Counts that a panic left behind are as good as others.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Errors by what was done about them and by the database's number, and how often each came.
    pub fn errors(&self) -> BTreeMap<(ErrorClass, Option<i32>), u64> {
        self.said().counts.clone()
    }

    /// The last errors, newest first.
    pub fn last_errors(&self) -> Vec<Remembered> {
        self.said().last.iter().cloned().collect()
    }

    /// Why nothing is stored at present, in the database's words.
    pub fn trouble(&self) -> Option<String> {
        self.said().trouble.clone()
    }

    /// Looks at the names that were stored.
    pub fn with_names<T>(&self, look: impl FnOnce(&mut FrequentNames) -> T) -> T {
        look(&mut self.said().names)
    }
}

impl Recorder<WriterCounters> {
    /// Counts an error `times` times and remembers its words.
    pub fn error(&self, class: ErrorClass, fault: &Fault, times: u64) {
        let mut said = self.said();
        let mut key = (class, fault.code);
        if said.counts.len() >= ERRORS_APART_MAX && !said.counts.contains_key(&key) {
            key.1 = Some(OTHER_CODE);
        }
        *said.counts.entry(key).or_default() += times;
        if said.last.len() == ERRORS_REMEMBERED {
            said.last.pop_back();
        }
        said.last.push_front(Remembered {
            at: UnixMillis::now(),
            class,
            fault: fault.clone(),
        });
        if class != ErrorClass::Reject {
            said.trouble = Some(fault.to_string());
        }
    }

    /// Notes that the database has taken a write.
    pub fn proven(&self) {
        self.set(|counters| &counters.connected, 1);
        self.set(|counters| &counters.proven_at, UnixMillis::now().0);
        self.said().trouble = None;
    }

    /// Counts what is known of each event of a batch that was stored, from the index `from` on.
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
        let mut said = self.said();
        // Another start each time: what comes in a rhythm is not to be seen always or never.
        for index in (from + fastrand::usize(..SAMPLED_ONE_IN)..batch.len()).step_by(SAMPLED_ONE_IN)
        {
            said.names.count(batch.event(index).name);
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
        assert_eq!(errors.len(), ERRORS_APART_MAX + 1);
        assert_eq!(errors.values().sum::<u64>(), 2000);
        let last = counters.last_errors();
        assert_eq!(
            (last.len(), last[0].fault.code),
            (ERRORS_REMEMBERED, Some(999))
        );
        assert!(counters.trouble().unwrap().contains("error 999"));
        counters.proven();
        assert_eq!(counters.trouble(), None);
    }
}
