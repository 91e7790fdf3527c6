//! Faults planted on purpose, to see that the simulation of the storage finds them. Outside of tests
//! there are none: `planted` is a constant then.

/// What could be wrong with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The name of a new segment is not made durable.
    DirectoryNotSynced,
    /// A record is taken whatever its checksum says, as a torn one at the end.
    ChecksumIgnored,
    /// A record of another segment is taken, as one in a block that is used again.
    OtherSegmentAccepted,
}

/// Whether the bug is planted in this thread.
#[cfg(not(test))]
pub(super) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(super) use planting::{plant, planted};

#[cfg(test)]
mod planting {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(in crate::journal) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    pub(in crate::journal) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
