//! The most frequent names, from a sample of events, in bounded memory.

use std::collections::HashMap;

/// Most names that are counted. A name that more than one of 256 sampled events has is among them.
const NAMES_MAX: usize = 256;

/// One of this many events is sampled.
pub const SAMPLED_ONE_IN: usize = 16;

/// Counts of names by the Space-Saving algorithm: a new name replaces the rarest one and inherits its count.
#[derive(Debug, Default)]
pub struct FrequentNames {
    counts: HashMap<Box<str>, u64>,
}

impl FrequentNames {
    /// Counts one name.
    pub fn count(&mut self, name: &str) {
        if let Some(count) = self.counts.get_mut(name) {
            *count += 1;
            return;
        }
        let mut inherited = 0;
        if self.counts.len() >= NAMES_MAX {
            let rarest = self.counts.iter().min_by_key(|(_, count)| **count);
            if let Some((name, count)) = rarest.map(|(name, count)| (name.clone(), *count)) {
                self.counts.remove(&name);
                inherited = count;
            }
        }
        self.counts.insert(name.into(), inherited + 1);
    }

    /// Halves all counts, so that recent events weigh more than old ones.
    pub fn halve(&mut self) {
        self.counts.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
    }

    /// Adds all counts to `sums`.
    pub fn add_to(&self, sums: &mut HashMap<Box<str>, u64>) {
        for (name, count) in &self.counts {
            *sums.entry(name.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequent_name_is_kept_among_many_others_in_bounded_memory() {
        let mut names = FrequentNames::default();
        for other in 0..10_000 {
            names.count(&format!("other {other}"));
            if other % 4 == 0 {
                names.count("purchase");
            }
        }
        assert_eq!(names.counts.len(), NAMES_MAX);
        let most = names.counts.iter().max_by_key(|(_, count)| **count);
        assert_eq!(most.map(|(name, _)| &**name), Some("purchase"));
        for _ in 0..20 {
            names.halve();
        }
        assert!(names.counts.is_empty());
    }
}
