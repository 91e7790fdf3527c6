//! Why `hakaru journal` ends otherwise than well.

use std::io;
use std::path::PathBuf;

use crate::event::position::{LaneId, NotALaneId};
use crate::journal::reader::ReadError;

/// Why a journal could not be read completely.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The journal cannot be read.
    #[error("{}: {fault}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        fault: io::Error,
    },
    /// The output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// The lane is not held.
    #[error("lane {0} is not held; `hakaru journal list` shows which are")]
    NotHeld(LaneId),
    /// The argument names no lane.
    #[error("{text:?}: {fault}; `hakaru journal list` shows them")]
    Name {
        /// The argument.
        text: String,
        /// The form of a lane's name.
        fault: NotALaneId,
    },
    /// A process owns the lane.
    #[error("lane {lane} is in use: a server stores it, and it needs no adoption")]
    InUse {
        /// The lane.
        lane: LaneId,
    },
    /// A lane could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something that was written is missing.
    #[error("{0} places are damaged; events that are missing there cannot be read")]
    Damaged(usize),
    /// The last write of lanes that no process owns is no record.
    #[error(
        "{0} lanes end with bytes that are no record: a crash interrupted their last write, or it was damaged later"
    )]
    Torn(usize),
    /// Lanes could not be read to their end, each for a reason in its row.
    #[error("{0} lanes cannot be read to their end; their rows give the reasons")]
    Unreadable(usize),
}
