//! Histograms with four buckets per power of two.

use super::counter::Counter;

/// Buckets per power of two. A quantile is known to within a quarter.
const PER_OCTAVE: usize = 4;

/// Powers of two with buckets of their own: up to 2^33, which is more than two hours in microseconds. Larger
/// values are in the last bucket.
const OCTAVES: usize = 33;

/// One bucket for 0, one for 1, and all others.
const BUCKETS: usize = 2 + PER_OCTAVE * OCTAVES;

/// Counts of observations. An observation is a whole number of microseconds, of milliseconds or of events:
/// each field names its unit.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts `times` observations of `value`.
    pub(super) fn observe(&self, value: u64, times: u64) {
        self.buckets[bucket(value)].add(times);
        self.sum.add(value.saturating_mul(times));
    }

    /// Adds what was observed so far to `snapshot`.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (sum, bucket) in snapshot.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        snapshot.sum = snapshot.sum.saturating_add(self.sum.get());
    }
}

/// The bucket of `value`. A bucket holds the values above the bound of the previous one, up to its own bound.
fn bucket(value: u64) -> usize {
    if value < 2 {
        return usize::from(value == 1);
    }
    let octave = (value - 1).ilog2() as usize;
    // The quarter of the octave. The smallest octaves have fewer values than quarters.
    let above = u128::from(value - (1 << octave));
    let quarter = (above * PER_OCTAVE as u128 - 1) >> octave;
    let index = 2 + octave * PER_OCTAVE + usize::try_from(quarter).unwrap_or(0);
    index.min(BUCKETS - 1)
}

/// The upper bound of a bucket. In the smallest octaves it may lie between two whole numbers.
fn bound(bucket: usize) -> f64 {
    let Some(place) = bucket.checked_sub(2) else {
        return bucket as f64;
    };
    let (octave, quarter) = (place / PER_OCTAVE, place % PER_OCTAVE);
    (1u64 << octave) as f64 * (1.0 + (quarter + 1) as f64 / PER_OCTAVE as f64)
}

/// The observations of one or more histograms up to a moment, or between two moments.
#[derive(Debug, Clone)]
pub struct Snapshot {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum: 0,
        }
    }
}

impl Snapshot {
    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of everything observed.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// What was observed since `earlier`, a snapshot of the same histograms.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut between = self.clone();
        for (now, before) in between.buckets.iter_mut().zip(&earlier.buckets) {
            *now = now.saturating_sub(*before);
        }
        between.sum = self.sum.saturating_sub(earlier.sum);
        between
    }

    /// For each power of two from 2^`from` to 2^`to`: the power, and the number of observations up to it.
    pub fn cumulative(&self, from: u32, to: u32) -> impl Iterator<Item = (u64, u64)> {
        (from..=to).map(|power| {
            let end = 2 + power as usize * PER_OCTAVE;
            let count = self.buckets[..end.min(BUCKETS)].iter().sum();
            (1 << power, count)
        })
    }

    /// The value below which `quantile` (0 to 1) of all observations lie. `None` without observations.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = quantile * count as f64;
        let mut passed = 0.0;
        for (index, &here) in self.buckets.iter().enumerate() {
            let total = passed + here as f64;
            if here > 0 && total >= wanted {
                let low = if index == 0 { 0.0 } else { bound(index - 1) };
                let part = (wanted - passed) / here as f64;
                return Some(low + (bound(index) - low) * part);
            }
            passed = total;
        }
        Some(bound(BUCKETS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bounds_enclose_it() {
        for value in (0..5000).chain([1 << 20, (1 << 20) + 1, (1 << 33) - 1]) {
            let bucket = bucket(value);
            let low = if bucket == 0 { -1.0 } else { bound(bucket - 1) };
            assert!(
                low < value as f64 && value as f64 <= bound(bucket),
                "{value} in {bucket}: {low} to {}",
                bound(bucket)
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn powers_of_two_are_bounds() {
        let histogram = Histogram::default();
        for value in [0, 1, 64, 65, 128, 5000] {
            histogram.observe(value, 1);
        }
        let mut snapshot = Snapshot::default();
        histogram.add_to(&mut snapshot);
        let cumulative: Vec<_> = snapshot.cumulative(6, 8).collect();
        assert_eq!(cumulative, [(64, 3), (128, 5), (256, 5)]);
        assert_eq!((snapshot.count(), snapshot.sum()), (6, 5258));
    }

    #[test]
    fn quantiles_are_close_and_only_of_the_period_between_two_snapshots() {
        let histogram = Histogram::default();
        let mut before = Snapshot::default();
        histogram.observe(1_000_000, 1000);
        histogram.add_to(&mut before);
        for value in 1..=1000 {
            histogram.observe(value, 1);
        }
        let mut after = Snapshot::default();
        histogram.add_to(&mut after);
        let between = after.since(&before);
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = between.quantile(quantile).unwrap();
            assert!((found / exact - 1.0).abs() < 0.06, "{quantile}: {found}");
        }
        assert_eq!(Snapshot::default().quantile(0.5), None);
    }
}
