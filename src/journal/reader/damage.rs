//! The errors of reading a lane.

use std::io;
use std::path::{Path, PathBuf};

use crate::event::position::Position;
use crate::os::fs::is_unreadable;

/// Missing events that were written before, as later ones prove. If no event is missing: a segment whose
/// head is unreadable and whose records are intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file, or the one before the missing events.
    pub file: PathBuf,
    /// Offset in it.
    pub offset: u64,
    /// The first event that is missing.
    pub from: Position,
    /// The first event after the missing ones. Equal to `from` if none is missing.
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
    /// The disk could not be read. It may be tried again.
    #[error("{}: {fault}", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// The system's error.
        fault: io::Error,
    },
    /// Blocks after the last record were passed, which the disk does not read. They may have events.
    #[error(
        "{}: blocks after the last record that was read cannot be read; it is not known where the lane ends",
        file.display()
    )]
    UnknownEnd {
        /// The segment of the last record.
        file: PathBuf,
    },
    /// The file that says where the lane ends cannot be read, or says nothing.
    #[error(
        "{}: {fault}; without this file the lane is read to its last record, which may store events that were answered 503",
        file.display()
    )]
    EndFile {
        /// The file.
        file: PathBuf,
        /// The system's error, or what is wrong with it.
        fault: io::Error,
    },
    /// Events are missing, or a head. The reader has moved past them: the caller reports the damage and may
    /// read on.
    #[error("{0}")]
    Damage(Damage),
    /// A segment of another version of the format. Its records may be intact. The reader does not move past it.
    #[error("{}: written by another version of hakaru; read it with that one", file.display())]
    Version {
        /// The segment.
        file: PathBuf,
    },
}

impl ReadError {
    /// An error that says that the events are lost or removed. Any other may be over later, and is the error here.
    pub fn unless_passing(self) -> io::Result<Self> {
        match self {
            Self::Io { file, fault }
                if !is_unreadable(&fault) && fault.kind() != io::ErrorKind::NotFound =>
            {
                Err(of_file(&file, &fault))
            }
            // Whoever needs the end of a lane waits until it can be read.
            Self::EndFile { file, fault } => Err(of_file(&file, &fault)),
            lasting => Ok(lasting),
        }
    }
}

/// The error of a file, which it names.
fn of_file(file: &Path, fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), format!("{}: {fault}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn an_error_that_may_pass_is_not_that_of_a_bad_block() {
        let failed = |errno: Errno| ReadError::Io {
            file: PathBuf::from("a/file"),
            fault: errno.into(),
        };
        for errno in [Errno::EMFILE, Errno::ESTALE, Errno::EISDIR] {
            let passing = failed(errno).unless_passing().unwrap_err();
            let text = io::Error::from(errno).to_string();
            assert_eq!(passing.to_string(), format!("a/file: {text}"));
        }
        let (file, fault) = (PathBuf::from("end"), Errno::EMFILE.into());
        let end = ReadError::EndFile { file, fault };
        assert!(end.unless_passing().is_err());
        for errno in [Errno::EIO, Errno::ENOENT] {
            assert!(failed(errno).unless_passing().is_ok());
        }
        let file = PathBuf::new();
        assert!(ReadError::Version { file }.unless_passing().is_ok());
    }
}
