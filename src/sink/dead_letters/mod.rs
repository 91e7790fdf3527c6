//! The dead-letter file: events that the database refused, one JSON object per line, with the database's error.

pub mod file;
pub mod letter;
pub mod replay;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use self::file::{is_at, sync_parent};
use self::letter::{Letter, Line};
use crate::event::Event;
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::DiskLane;
use crate::journal::refused_note;
use crate::os::bugs::{Bug, planted};
use crate::os::fs::{File, Use};
use crate::sink::Fault;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "dead-letters.ndjson";

/// The dead-letter file, shared by all writers. Opened when the first letter is written.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    /// Most bytes of the file.
    limit: u64,
    file: Mutex<Option<File>>,
}

/// The letters are not in the file. The caller must try again.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The file could not be written.
    #[error("{}: {fault}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        fault: io::Error,
    },
    /// The file has reached its limit.
    #[error(
        "{}: {length} bytes, and no more event is refused beyond --dead-letter-limit ({limit}): look why the database \
         refuses so many, then `hakaru dead-letters replay` or `drop` what is there, or raise the limit", path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        length: u64,
        /// Most bytes that it may have.
        limit: u64,
    },
}

impl DeadLetters {
    /// The file in `data_dir`, of about `limit` bytes at most: an empty one takes what is written at once.
    pub fn new(data_dir: &Path, limit: u64) -> Self {
        Self {
            path: data_dir.join(FILE_NAME),
            limit,
            file: Mutex::new(None),
        }
    }

    /// Appends a line for each event that `database` refused, and returns when they are on the disk. After a crash
    /// before the checkpoint has passed an event, its line is written again, with the same lane and position.
    pub fn write<'a>(
        &self,
        lane: LaneId,
        database: Option<DatabaseId>,
        letters: impl Iterator<Item = (Event<'a>, Position, &'a Fault)>,
    ) -> Result<(), DeadLetterError> {
        let mut lines = String::new();
        for (event, position, fault) in letters {
            let letter = Letter {
                received_at: event.received_at,
                name: event.name.to_owned(),
                value: event.value,
                id: event.id.map(|id| id.as_str().to_owned()),
                code: fault.code,
                error: fault.text.clone(),
                lane,
                position,
                database,
            };
            lines.push_str(&format!("{letter}\n"));
        }
        // After a panic of another writer the handle is still valid.
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = || self.path.clone();
        match self.append(&mut file, &lines) {
            Ok(None) => Ok(()),
            Ok(Some(length)) => Err(DeadLetterError::Full {
                path: path(),
                length,
                limit: self.limit,
            }),
            Err(fault) => {
                // The next attempt opens the file again: this descriptor may keep failing.
                *file = None;
                Err(DeadLetterError::Io {
                    path: path(),
                    fault,
                })
            }
        }
    }

    /// Events of a lane that were refused before, and so are letters, or were replayed or dropped: none of them is
    /// stored from this lane.
    pub fn of_lane(&self, lane: &DiskLane) -> Result<BTreeSet<Position>, DeadLetterError> {
        let error = |path: &Path, fault| DeadLetterError::Io {
            path: path.to_owned(),
            fault,
        };
        let mut refused = BTreeSet::new();
        let name = lane.id.to_string();
        // Other letters, which may be many, are not parsed.
        let scanned = file::each_line(&self.path, |line| {
            let may_be_of_lane = str::from_utf8(line).is_ok_and(|line| line.contains(&name));
            if may_be_of_lane
                && let Line::Letter(letter) = Line::parse(line)
                && letter.lane == lane.id
            {
                refused.insert(letter.position);
            }
        });
        scanned
            .and_then(|()| self.sync_if(!refused.is_empty()))
            .map_err(|fault| error(&self.path, fault))?;
        // After the letters: a replay notes its letters here before it takes them out of the file.
        let noted = refused_note::read(&lane.directory);
        refused.extend(noted.map_err(|fault| error(&lane.directory, fault))?);
        Ok(refused)
    }

    /// Makes letters durable that were read, before a checkpoint passes their events. The process that wrote them may
    /// have been killed before it did so.
    fn sync_if(&self, has_letters: bool) -> io::Result<()> {
        if !has_letters || planted(Bug::LettersNotSynced) {
            return Ok(());
        }
        File::open(&self.path)?.sync_all()?;
        sync_parent(&self.path)
    }

    /// Gives the bytes of a file that is full, to which nothing was written.
    fn append(&self, file: &mut Option<File>, lines: &str) -> io::Result<Option<u64>> {
        // Another process may write to the same file. Under the lock only own bytes are cut below.
        let file = self.lock(file)?;
        let length = file.about()?.length;
        if length > 0 && length + lines.len() as u64 > self.limit {
            return file.unlock().map(|()| Some(length));
        }
        // A crash may have left half a line: what is joined to it would be unreadable too.
        let gap = if ends_a_line(file, length)? { "" } else { "\n" };
        let mut written = file
            .write_all(format!("{gap}{lines}").as_bytes())
            .and_then(|()| file.sync_data());
        if written.is_err() {
            written = file.set_len(length).and(written);
        }
        file.unlock().and(written).map(|()| None)
    }

    /// Locks the file that has the name now. One that was moved, removed or replaced, even while its lock
    /// was waited for, is let go: what is written there would be read by nobody.
    fn lock<'a>(&self, open: &'a mut Option<File>) -> io::Result<&'a mut File> {
        loop {
            let file = match open.take() {
                Some(file) => file,
                None => self.open()?,
            };
            file.lock()?;
            if is_at(&self.path, &file)? {
                return Ok(open.insert(file));
            }
        }
    }

    fn open(&self) -> io::Result<File> {
        let file = File::with(&self.path, Use::Append)?;
        // The name must be durable too.
        sync_parent(&self.path)?;
        Ok(file)
    }
}

/// Whether the first line that is appended to a file of `length` bytes begins a line.
fn ends_a_line(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    if file.read_at(&mut byte, last)? < byte.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(byte == *b"\n")
}

#[cfg(test)]
mod tests;
