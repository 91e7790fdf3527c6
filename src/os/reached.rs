//! Counts in tests how often a branch was taken, by a name. Outside tests `reached` does nothing.

/// Counts one more.
#[cfg(not(test))]
pub(crate) const fn reached(_: &'static str) {}

#[cfg(test)]
pub(crate) use counting::{put_reached, reached, take_reached};

#[cfg(test)]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// Names by where they are in memory, which is compared faster. One name may be at several places.
    type Counts = BTreeMap<(usize, usize), (&'static str, u64)>;

    thread_local! {
        static COUNTS: RefCell<Counts> = const { RefCell::new(Counts::new()) };
    }

    pub(crate) fn reached(branch: &'static str) {
        let place = (branch.as_ptr().addr(), branch.len());
        COUNTS.with_borrow_mut(|counts| counts.entry(place).or_insert((branch, 0)).1 += 1);
    }

    /// What this thread has counted since it was last asked.
    pub(crate) fn take_reached() -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for (branch, times) in COUNTS.take().into_values() {
            *all.entry(branch).or_default() += times;
        }
        all
    }

    /// Counts from these on.
    pub(crate) fn put_reached(counts: BTreeMap<&'static str, u64>) {
        let counts = counts.into_iter();
        let places =
            counts.map(|(branch, times)| ((branch.as_ptr().addr(), branch.len()), (branch, times)));
        COUNTS.set(places.collect());
    }
}
