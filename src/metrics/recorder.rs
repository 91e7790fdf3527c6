//! The one owner of a group of counters.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::counter::{Counter, Gauge};
use super::histogram::Histogram;

/// The right to change the counters of `T`, of which there is one. Everybody else reads them through an
/// `Arc`. It can move to the thread that counts, but neither be cloned nor shared with a second one: adding
/// is a load and a store, and two threads that add would lose counts.
#[derive(Debug)]
pub struct Recorder<T> {
    counters: Arc<T>,
    /// `Cell` is `Send` and not `Sync`.
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Recorder<T> {
    /// The owner of new counters, and the counters for all who read.
    pub fn new(counters: T) -> (Self, Arc<T>) {
        let counters = Arc::new(counters);
        let recorder = Self {
            counters: Arc::clone(&counters),
            not_sync: PhantomData,
        };
        (recorder, counters)
    }

    /// Adds `more` to a counter.
    pub fn add(&self, counter: impl FnOnce(&T) -> &Counter, more: u64) {
        counter(&self.counters).add(more);
    }

    /// Sets a gauge to `present`.
    pub fn set(&self, gauge: impl FnOnce(&T) -> &Gauge, present: u64) {
        gauge(&self.counters).set(present);
    }

    /// Counts `times` observations of `value`.
    pub fn observe(&self, histogram: impl FnOnce(&T) -> &Histogram, value: u64, times: u64) {
        histogram(&self.counters).observe(value, times);
    }

    /// Counts one observation, in microseconds.
    pub fn observe_time(&self, histogram: impl FnOnce(&T) -> &Histogram, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.observe(histogram, micros, 1);
    }
}

impl<T> Deref for Recorder<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counters
    }
}

/// Not shared with a second thread, which would be a second owner:
///
/// ```compile_fail
/// fn needs_sync<T: Sync>() {}
/// needs_sync::<hakaru::metrics::Recorder<hakaru::metrics::ShardCounters>>();
/// ```
///
/// Not cloned:
///
/// ```compile_fail
/// let (recorder, _) = hakaru::metrics::Recorder::new(hakaru::metrics::ShardCounters::default());
/// let second = recorder.clone();
/// ```
///
/// And nothing else can add:
///
/// ```compile_fail
/// let counters = hakaru::metrics::ShardCounters::default();
/// counters.received.add(1);
/// ```
#[cfg(doctest)]
struct OneOwner;
