//! The files of a database while it is open: whether they are still those that the connection was opened to.
//!
//! SQLite itself does not notice that its file was cut, removed or replaced: it goes on in memory and in the
//! write-ahead log, and what it commits is lost with them. Nothing here opens the file: closing it again would
//! release the locks that SQLite holds on it.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, ffi};

use super::classify;
use crate::sink::{Fault, SinkError};

/// The size of the database by the pages that it has, those in the log included.
const PAGES_BYTES: &str = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";

/// Whether the file is a sound database: `ok`, or what is wrong.
const CHECK: &str = "PRAGMA quick_check(1)";

/// Identifies a file independently of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    /// When it was created, if the file system says so. The inode of a removed file is soon given to another one.
    created_at: Option<SystemTime>,
}

/// A file as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    id: FileId,
    length: u64,
    /// When it was written last: seconds and nanoseconds.
    written_at: (i64, i64),
}

impl Found {
    /// The file at `path`. `None` if there is none, or it cannot be accessed.
    fn at(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            id: FileId {
                device: file.dev(),
                inode: file.ino(),
                created_at: file.created().ok(),
            },
            length: file.len(),
            written_at: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// A damaged file. It is not opened as long as it stays as it is.
#[derive(Debug)]
struct Damaged {
    found: Option<Found>,
    fault: Fault,
}

/// What is known of the files.
#[derive(Debug)]
pub(super) struct DatabaseFiles {
    path: PathBuf,
    wal_path: PathBuf,
    /// The file to which the last connection was opened.
    database: Option<FileId>,
    /// Its bytes when it was looked at last.
    length: u64,
    /// The log that this connection writes.
    wal: Option<FileId>,
    /// The file seems to have been cut while it was open. It is checked before anything more is stored in it.
    is_cut: bool,
    damaged: Option<Damaged>,
}

impl DatabaseFiles {
    pub(super) fn new(path: PathBuf) -> Self {
        let mut wal_path = OsString::from(&path);
        wal_path.push("-wal");
        Self {
            path,
            wal_path: wal_path.into(),
            database: None,
            length: 0,
            wal: None,
            is_cut: false,
            damaged: None,
        }
    }

    /// Opens the database by `connect`, unless what was found before forbids it.
    pub(super) fn open(
        &mut self,
        connect: impl FnOnce(&Path) -> Result<Connection, SinkError>,
    ) -> Result<Connection, SinkError> {
        let before = Found::at(&self.path);
        match &self.damaged {
            Some(damaged) if damaged.found == before => {
                return Err(SinkError::Stop(damaged.fault.clone()));
            }
            _ => self.damaged = None,
        }
        self.check_log_of(before, Found::at(&self.wal_path))?;
        let connection = match connect(&self.path).and_then(|connection| self.checked(connection)) {
            Err(SinkError::Stop(wrong)) if self.is_cut && is_damage(&wrong) => {
                let text = format!(
                    "{} was cut while it was open, and is damaged ({wrong}): put a backup in its place, with no {} \
                     beside it; what the journal still has is stored in it",
                    self.path.display(),
                    self.wal_path.display()
                );
                let fault = Fault::new(text);
                self.damaged = Some(Damaged {
                    // The connection is closed by now, which may have written to the file.
                    found: Found::at(&self.path),
                    fault: fault.clone(),
                });
                return Err(SinkError::Stop(fault));
            }
            opened => opened?,
        };
        let after = Found::at(&self.path);
        if before.is_some_and(|before| after.is_none_or(|after| after.id != before.id)) {
            return Err(self.replaced());
        }
        self.is_cut = false;
        self.database = after.map(|found| found.id);
        self.length = after.map_or(0, |found| found.length);
        self.wal = Found::at(&self.wal_path).map(|found| found.id);
        Ok(connection)
    }

    /// Whether the files are still those that the connection was opened to. What would be stored otherwise would be
    /// lost with them.
    pub(super) fn check(&mut self, connection: &Connection) -> Result<(), SinkError> {
        let (found, wal) = (Found::at(&self.path), Found::at(&self.wal_path));
        if found.map(|found| found.id) != self.database {
            self.check_log_of(found, wal)?;
            return Err(self.replaced());
        }
        let wal = wal.map(|found| found.id);
        if self.wal.is_some() && wal != self.wal {
            // Closing the connection moves what is in the log into the database, if no other process has it open.
            let text = format!(
                "{} was removed or replaced while it was open",
                self.wal_path.display()
            );
            return Err(SinkError::Reconnect(Fault::new(text)));
        }
        self.wal = wal;
        let length = found.map_or(0, |found| found.length);
        if length < self.length && !is_whole(connection, length)? {
            self.is_cut = true;
            let text = format!(
                "{} has become shorter while it was open, {} bytes before and {length} now, as if it was cut; it is \
                 checked before more is stored in it",
                self.path.display(),
                self.length
            );
            return Err(SinkError::Stop(Fault::new(text)));
        }
        self.length = length;
        Ok(())
    }

    /// Checks the database, if it was cut.
    fn checked(&self, connection: Connection) -> Result<Connection, SinkError> {
        if self.is_cut {
            let checked = connection.query_row(CHECK, [], |row| row.get::<_, String>(0));
            let wrong = checked.map_err(classify)?;
            if wrong != "ok" {
                return Err(SinkError::Stop(Fault {
                    code: Some(ffi::SQLITE_CORRUPT),
                    ..Fault::new(wrong)
                }));
            }
        }
        Ok(connection)
    }

    /// Whether `found` may be opened beside the log `wal`. Not if the log is that of the file before, and another one was
    /// put in its place, such as a backup: SQLite would mix the two, or remove the log beside an empty file.
    fn check_log_of(&self, found: Option<Found>, wal: Option<Found>) -> Result<(), SinkError> {
        let is_another = self.database.is_some() && found.map(|found| found.id) != self.database;
        let has_old_log =
            wal.is_some_and(|wal| wal.length > 0 && Some(wal.id) == self.wal) && is_another;
        if !has_old_log {
            return Ok(());
        }
        let text = format!(
            "{} is another file now, or gone, and {} is still the log of the file before: SQLite would mix the two; put the \
             file before back (mv, not cp), or move the log and the file -shm beside it to where the file before is. \
             They have rows that the file before lacks: remove them only if it is gone",
            self.path.display(),
            self.wal_path.display()
        );
        Err(SinkError::Stop(Fault::new(text)))
    }

    fn replaced(&self) -> SinkError {
        let text = format!("{} is another file now", self.path.display());
        SinkError::Reconnect(Fault::new(text))
    }
}

/// Whether SQLite says that the file is no sound database. Other errors, such as too many open files or a full disk, say
/// nothing about it.
fn is_damage(fault: &Fault) -> bool {
    // The low byte of an extended code is what kind of error it is.
    let kind = fault.code.map(|code| code & 0xff);
    matches!(kind, Some(ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB))
}

/// Whether a file that has become shorter has all its pages all the same, as after VACUUM in another process. Pages of
/// a later commit that are only in the log count as missing from the file: then it is checked for nothing.
fn is_whole(connection: &Connection, length: u64) -> Result<bool, SinkError> {
    let bytes = connection.query_row(PAGES_BYTES, [], |row| row.get::<_, i64>(0));
    match bytes.map_err(classify) {
        Ok(bytes) => Ok(bytes > 0 && bytes.unsigned_abs() <= length),
        Err(busy @ SinkError::Retry(_)) => Err(busy),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::database_id::DatabaseId;
    use crate::sink::Sink;
    use crate::sink::sqlite::SqliteSink;

    fn stop(code: i32) -> SinkError {
        SinkError::Stop(Fault {
            code: Some(code),
            ..Fault::new("injected")
        })
    }

    /// A file without a log, which was cut while it was open.
    fn cut(directory: &Path) -> DatabaseFiles {
        let path = directory.join("eventlog.db");
        SqliteSink::new(path.clone()).open().unwrap();
        DatabaseFiles {
            is_cut: true,
            ..DatabaseFiles::new(path)
        }
    }

    #[test]
    fn what_keeps_a_file_from_being_checked_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = cut(directory.path());
        for code in [ffi::SQLITE_CANTOPEN, ffi::SQLITE_FULL, ffi::SQLITE_IOERR] {
            let opened = files.open(|_| Err(stop(code)));
            assert_eq!(opened.unwrap_err(), stop(code));
        }
        assert!(files.is_cut);
        // Nothing has changed the file.
        files.open(SqliteSink::connect).unwrap();
        assert!(!files.is_cut);
    }

    #[test]
    fn a_damaged_file_is_not_opened_until_it_changes() {
        for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_VTAB] {
            let directory = tempfile::tempdir().unwrap();
            let mut files = cut(directory.path());
            let damaged = files.open(|_| Err(stop(code))).unwrap_err();
            assert!(damaged.to_string().contains("put a backup"), "{damaged}");
            assert_eq!(files.open(SqliteSink::connect).unwrap_err(), damaged);
            let file = std::fs::File::options()
                .write(true)
                .open(&files.path)
                .unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            files.open(SqliteSink::connect).unwrap();
        }
    }

    /// A sink on a file with a log, beside which a backup was put in the place of the file.
    fn replaced(directory: &Path) -> (SqliteSink, PathBuf, PathBuf) {
        let (path, moved) = (directory.join("eventlog.db"), directory.join("moved"));
        let mut sink = SqliteSink::new(path.clone());
        sink.open().unwrap();
        std::fs::copy(&path, directory.join("backup")).unwrap();
        sink.probe().unwrap();
        sink.name_database(DatabaseId::random().unwrap()).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        std::fs::rename(directory.join("backup"), &path).unwrap();
        let stopped = sink.open().unwrap_err();
        assert!(matches!(stopped, SinkError::Stop(_)), "{stopped}");
        sink.abandon(&stopped);
        assert_eq!(sink.open().unwrap_err(), stopped);
        (sink, path, moved)
    }

    #[test]
    fn a_file_that_is_put_back_beside_its_log_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sink, path, moved) = replaced(directory.path());
        std::fs::rename(moved, path).unwrap();
        sink.open().unwrap();
        // What was only in the log.
        assert!(sink.database().unwrap().is_some());
    }

    #[test]
    fn no_other_file_is_opened_beside_the_log_of_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sink, path, moved) = replaced(directory.path());
        // SQLite would remove the log beside an empty file.
        std::fs::remove_file(&path).unwrap();
        for content in ["", "another"] {
            sink.open().unwrap_err();
            std::fs::write(&path, content).unwrap();
        }
        sink.open().unwrap_err();
        std::fs::rename(moved, path).unwrap();
        sink.open().unwrap();
        assert!(sink.database().unwrap().is_some());
    }
}
