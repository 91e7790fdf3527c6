//! The only writer of a group of counters.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::counter::{Counter, Gauge};
use super::histogram::Histogram;

/// Changes the counters of `T`. There is one recorder per `T`; other threads read the counters through an `Arc`.
/// It can move to the thread that counts, but it cannot be cloned or shared with a second thread: adding is a
/// load and a store, and two threads that add would lose counts.
#[derive(Debug)]
pub struct Recorder<T> {
    counters: Arc<T>,
    /// `Cell` is `Send` and not `Sync`.
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Recorder<T> {
    /// The recorder of new counters, and the counters for readers.
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

    /// Sets a gauge to `value`.
    pub fn set(&self, gauge: impl FnOnce(&T) -> &Gauge, value: u64) {
        gauge(&self.counters).set(value);
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

/// A recorder cannot be shared with a second thread:
///
/// ```compile_fail
/// fn needs_sync<T: Sync>() {}
/// needs_sync::<hakaru::metrics::Recorder<hakaru::metrics::ShardCounters>>();
/// ```
///
/// It cannot be cloned:
///
/// ```compile_fail
/// let (recorder, _) = hakaru::metrics::Recorder::new(hakaru::metrics::ShardCounters::default());
/// let second = recorder.clone();
/// ```
///
/// Without it nothing can be added:
///
/// ```compile_fail
/// let counters = hakaru::metrics::ShardCounters::default();
/// counters.received.add(1);
/// ```
#[cfg(doctest)]
struct OneRecorder;
