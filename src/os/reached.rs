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

    thread_local! {
        static COUNTS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn reached(branch: &'static str) {
        COUNTS.with_borrow_mut(|counts| *counts.entry(branch).or_default() += 1);
    }

    /// What this thread has counted since it was last asked.
    pub(crate) fn take_reached() -> BTreeMap<&'static str, u64> {
        COUNTS.take()
    }

    /// Counts from these on.
    pub(crate) fn put_reached(counts: BTreeMap<&'static str, u64>) {
        COUNTS.set(counts);
    }
}
