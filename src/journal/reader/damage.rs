//! What can be wrong with a lane that is read.

use std::io;
use std::path::PathBuf;

use crate::event::position::Position;

/// A place in a lane where records are missing that later ones prove to have been written; or, where
/// no event is missing, a segment whose records are whole and whose head is unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the one before the place.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The first event that is missing.
    pub from: Position,
    /// The first event that is there again; `from`, where none is missing.
    pub to: Position,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, offset, from) = (self.file.display(), self.offset, self.from.0);
        write!(out, "{file}, byte {offset}: ")?;
        match self.to.since(self.from) {
            0 => write!(out, "the segment's head is unreadable, no event is missing"),
            lost => write!(
                out,
                "{lost} events are unreadable, positions {from} to {}",
                self.to.0 - 1
            ),
        }
    }
}

/// Why a batch could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk would not be read; the same place may be tried again.
    #[error("{}: {fault}", file.display())]
    Io {
        /// What was read.
        file: PathBuf,
        /// What the system said.
        fault: io::Error,
    },
    /// Events are missing. The reader stands behind them: reading on is safe, once it was said.
    #[error("{0}")]
    Damage(Damage),
    /// Its records may be whole, but only who knows that version can say so. The reader stays before it.
    #[error("{}: written by another version of hakaru; read it with that one", file.display())]
    Version {
        /// The segment.
        file: PathBuf,
    },
}
