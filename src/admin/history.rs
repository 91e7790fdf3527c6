//! Samples of the counters: plots of the last fifteen minutes, and percentiles of the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::overview::Overview;
use super::process::Process;
use crate::event::UnixMillis;
use crate::metrics::{Metrics, Snapshot};

/// Time between two samples.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// Points of a plot: fifteen minutes.
const POINTS: usize = 180;

/// Samples that are kept for percentiles: a minute.
const SAMPLES: usize = 13;

/// The counters at a moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    received: u64,
    stored: u64,
    rejected: u64,
    shed: u64,
    cpu: Duration,
    times: Times,
}

/// Times of all threads together.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// Microseconds.
    pub(super) journal_sync: Snapshot,
    /// Microseconds.
    pub(super) store: Snapshot,
    /// Milliseconds.
    pub(super) event_age: Snapshot,
}

impl Times {
    fn of(metrics: &Metrics) -> Self {
        let mut times = Self::default();
        for shard in metrics.shards() {
            shard.sync_time.add_to(&mut times.journal_sync);
        }
        for writer in metrics.writers() {
            writer.store_time.add_to(&mut times.store);
            writer.age_at_store.add_to(&mut times.event_age);
        }
        times
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            journal_sync: self.journal_sync.since(&earlier.journal_sync),
            store: self.store.since(&earlier.store),
            event_age: self.event_age.since(&earlier.event_age),
        }
    }
}

/// A point of the plots. Rates are per second, of the step before the point. Times are 99th percentiles of that step,
/// in seconds.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) received: f64,
    pub(super) stored: f64,
    pub(super) rejected: f64,
    pub(super) shed: f64,
    pub(super) pending: u64,
    pub(super) connections: usize,
    pub(super) journal_bytes: u64,
    pub(super) journal_sync: Option<f64>,
    pub(super) store: Option<f64>,
    pub(super) event_age: Option<f64>,
    pub(super) cpu_cores: f64,
}

/// The samples and the points of the plots.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    points: VecDeque<Point>,
}

impl History {
    /// Takes a sample. Must be called every [`STEP`].
    pub(super) fn sample(&mut self, overview: &Overview) {
        let totals = overview.metrics.totals();
        let sample = Sample {
            at: Instant::now(),
            received: totals.received - totals.recovered,
            stored: totals.stored,
            rejected: totals.rejected.iter().sum(),
            shed: totals.shed,
            cpu: Process::cpu(),
            times: Times::of(&overview.metrics),
        };
        if let Some(before) = self.samples.back() {
            let seconds = sample.at.duration_since(before.at).as_secs_f64().max(0.001);
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            let times = sample.times.since(&before.times);
            if self.points.len() == POINTS {
                self.points.pop_front();
            }
            self.points.push_back(Point {
                received: rate(sample.received, before.received),
                stored: rate(sample.stored, before.stored),
                rejected: rate(sample.rejected, before.rejected),
                shed: rate(sample.shed, before.shed),
                pending: totals.pending(),
                connections: overview.slots.open(),
                journal_bytes: overview.journal.as_ref().map_or(0, |bound| bound.bytes()),
                journal_sync: times.journal_sync.quantile(0.99).map(micros),
                store: times.store.quantile(0.99).map(micros),
                event_age: times.event_age.quantile(0.99).map(millis),
                cpu_cores: sample.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds,
            });
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The times of the last minute.
    pub(super) fn last_minute(&self, metrics: &Metrics) -> Times {
        let now = Times::of(metrics);
        match self.samples.front() {
            Some(first) => now.since(&first.times),
            None => now,
        }
    }

    /// When the last sample was taken, in seconds since 1970.
    pub(super) fn end(&self) -> u64 {
        let age = self.samples.back().map(|sample| sample.at.elapsed());
        UnixMillis::now().seconds() - age.unwrap_or_default().as_secs()
    }

    /// The points of a plot of fifteen minutes, oldest first; `None` for the time before the first.
    pub(super) fn plot<T>(&self, value: impl Fn(&Point) -> T) -> Vec<Option<T>> {
        let missing = POINTS - self.points.len();
        let known = self.points.iter().map(|point| Some(value(point)));
        (0..missing).map(|_| None).chain(known).collect()
    }
}

/// Microseconds as seconds.
pub(super) fn micros(micros: f64) -> f64 {
    micros / 1e6
}

/// Milliseconds as seconds.
pub(super) fn millis(millis: f64) -> f64 {
    millis / 1e3
}
