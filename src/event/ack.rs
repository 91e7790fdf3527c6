//! The levels of `--ack`.

use std::fmt;

/// What a 200 promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// The event is in memory. It is lost if the process or the machine fails before it is stored.
    Received,
    /// The event is on disk: written and synced.
    Journaled,
    /// The event is committed in the database.
    Stored,
}

impl Ack {
    /// From the weakest to the strongest.
    pub const ALL: [Self; 3] = [Self::Received, Self::Journaled, Self::Stored];
}

impl fmt::Display for Ack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received => out.write_str("received"),
            Self::Journaled => out.write_str("journaled"),
            Self::Stored => out.write_str("stored"),
        }
    }
}
