//! Bugs that tests switch on, to prove that the simulation of the disk detects them. Outside tests
//! `planted` is constantly `false`.

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The last block is written again to the place that has its durable records.
    DurableBlockRewritten,
    /// The last block is not read from the spare block.
    SpareIgnored,
    /// The name of a new segment is not made durable.
    DirectoryNotSynced,
    /// A record with a wrong checksum is accepted, such as a torn one at the end.
    ChecksumIgnored,
    /// A record of another segment is accepted, such as one left in a reused block.
    OtherSegmentAccepted,
}

/// Whether the bug is switched on in this thread.
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
