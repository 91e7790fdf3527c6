//! SQLite, the default: a file in WAL mode, one transaction per batch.

pub(crate) mod checkpoint_rows;
mod files;
pub(crate) mod id_column;
mod known_rows;
mod rows;
pub(crate) mod statement;
pub(crate) mod trial;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use self::files::DatabaseFiles;
use self::rows::{Rows, begin};
use super::{
    Begin, Checkpoint, DATABASE_ROW, Fault, FoundRow, InsertTimes, Inserted, InsertedRows, Refused,
    Sink, SinkError, Step,
};
use crate::event::Event;
use crate::event::batch::Batch;
use crate::event::database_id::DatabaseId;
use crate::event::position::LaneId;
use crate::event::rule::{EventRule, Ids};
use crate::sink::sealed_copy::FoundCheckpoint;
use crate::sink::trial::Content;

/// How long to wait for a lock of another process before a batch is tried again.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// WAL: readers and the writer do not block each other. FULL: a commit is on the disk when it returns.
const SET_UP: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS eventlog (
      id    integer PRIMARY KEY AUTOINCREMENT,
      at    datetime DEFAULT NULL,
      name  varchar(255) NOT NULL,
      value int unsigned
    );
    CREATE TABLE IF NOT EXISTS hakaru_checkpoint (
      lane     char(32) NOT NULL PRIMARY KEY,
      epoch    bigint unsigned NOT NULL,
      position bigint unsigned NOT NULL
    );";

/// Gives the database an id, unless it has one.
const NAME: &str = "
    INSERT INTO hakaru_checkpoint (lane, epoch, position) VALUES (?1, ?2, ?3)
    ON CONFLICT (lane) DO NOTHING";

fn no_row_stored() -> SinkError {
    let text = "the table eventlog ignores a row instead of storing or refusing it, as with ON CONFLICT IGNORE or a \
                trigger that raises IGNORE: the event would be lost";
    SinkError::Stop(Fault::new(text))
}

/// A SQLite file.
#[derive(Debug)]
pub struct SqliteSink {
    files: DatabaseFiles,
    connection: Option<Connection>,
    /// A row of the last insert: the index of its event, and its id.
    inserted: Option<(usize, u64)>,
    /// Its id; `None` until it is known.
    database: Option<DatabaseId>,
    /// A row that was inserted.
    known: Option<Content>,
}

impl SqliteSink {
    /// A sink for the file at `path`. The file is created when it is first opened.
    pub fn new(path: PathBuf) -> Self {
        Self {
            files: DatabaseFiles::new(path),
            connection: None,
            inserted: None,
            database: None,
            known: None,
        }
    }

    fn connection(&self) -> Result<&Connection, SinkError> {
        let not_open = || SinkError::Reconnect(Fault::new("the file is not open"));
        self.connection.as_ref().ok_or_else(not_open)
    }

    /// One transaction of [`Sink::insert`]. `None`: a trigger has rolled it back for rows that are refused now.
    fn insert_once(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Option<Inserted>, SinkError> {
        let connection = self.connection()?;
        let start = Instant::now();
        begin(connection)?;
        if !checkpoint_rows::take_step(connection, step).map_err(classify)? {
            let found = checkpoint_rows::read(connection, step.lane).map_err(classify)?;
            connection.execute_batch("ROLLBACK").map_err(classify)?;
            return Ok(Some(Inserted::CheckpointMismatch(found)));
        }
        let prepare = start.elapsed();
        let rows = rows::insert(connection, batch, from, refused, self.known.as_ref())?;
        let Rows::Inserted { last, duplicates } = rows else {
            return Ok(None);
        };
        self.inserted = last
            .as_ref()
            .map(|(index, id, _)| (*index, id.cast_unsigned()));
        if let Some((_, _, content)) = last {
            self.known = Some(content);
        }
        let execute = start.elapsed().saturating_sub(prepare);
        let times = InsertTimes { prepare, execute };
        Ok(Some(Inserted::Open(InsertedRows { times, duplicates })))
    }

    /// Opens the file. Creates the file and the tables if they are missing.
    pub(crate) fn connect(path: &Path) -> Result<Connection, SinkError> {
        if let Some(directory) = path.parent().filter(|path| !path.as_os_str().is_empty())
            && let Err(fault) = std::fs::create_dir_all(directory)
        {
            let text = format!("{}: {fault}", directory.display());
            return Err(SinkError::Stop(Fault {
                code: fault.raw_os_error(),
                ..Fault::new(text)
            }));
        }
        if matches!(path.try_exists(), Ok(false)) {
            // Logged so that a mistyped path is noticed.
            log::info!(
                event = "sqlite_created";
                "the database {} does not exist and is created", path.display()
            );
        }
        let connection = Connection::open(path).map_err(classify)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(classify)?;
        connection.execute_batch(SET_UP).map_err(classify)?;
        Ok(connection)
    }
}

impl Sink for SqliteSink {
    fn open(&mut self) -> Result<EventRule, SinkError> {
        match &self.connection {
            Some(connection) => self.files.check(connection)?,
            None => {
                self.connection = Some(self.files.open(Self::connect)?);
                self.database = None;
            }
        }
        let ids = match rows::id_column(self.connection()?)? {
            Some(_) => Ids::Stored,
            None => Ids::Ignored,
        };
        Ok(EventRule {
            ids,
            ..EventRule::SQLITE
        })
    }

    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        if self.database.is_some() {
            return Ok(self.database);
        }
        let row = self
            .connection()?
            .query_row(checkpoint_rows::READ, params![DATABASE_ROW], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()
            .map_err(classify)?;
        self.database = row
            .map(|(high, low)| DatabaseId::from_halves(high.cast_unsigned(), low.cast_unsigned()));
        Ok(self.database)
    }

    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError> {
        let (high, low) = id.halves();
        self.connection()?
            .execute(
                NAME,
                params![DATABASE_ROW, high.cast_signed(), low.cast_signed()],
            )
            .map_err(classify)?;
        self.database()?.ok_or_else(super::id_not_kept)
    }

    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError> {
        let (high, low) = id.halves();
        let row = params![DATABASE_ROW, high.cast_signed(), low.cast_signed()];
        let statement =
            "REPLACE INTO hakaru_checkpoint (lane, epoch, position) VALUES (?1, ?2, ?3)";
        let replaced = self.connection()?.execute(statement, row);
        self.database = None;
        replaced.map(drop).map_err(classify)
    }

    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.database = None;
        self.database()
    }

    fn checkpoint(&mut self, lane: LaneId) -> Result<Option<Checkpoint>, SinkError> {
        checkpoint_rows::read(self.connection()?, lane).map_err(classify)
    }

    fn look(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        checkpoint_rows::look(self.connection()?, lane, begin).map_err(classify)
    }

    fn adopt(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        checkpoint_rows::adopt(self.connection()?, lane, begin).map_err(classify)
    }

    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        loop {
            let attempt = self.insert_once(batch, from, step, refused)?;
            // Without the rows that are refused by now.
            if let Some(inserted) = attempt {
                return Ok(inserted);
            }
        }
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        // The outcome of a COMMIT is always known: after an error the transaction is still open.
        self.connection()?.execute_batch("COMMIT").map_err(classify)
    }

    fn inserted_row(&self) -> Option<(usize, u64)> {
        self.inserted
    }

    fn is_row_of(&mut self, id: u64, event: Event<'_>) -> Result<bool, SinkError> {
        known_rows::is_row_of(self.connection()?, id, event)
    }

    fn has_row_after(&mut self, after: u64, event: Event<'_>) -> Result<FoundRow, SinkError> {
        known_rows::has_row_after(self.connection()?, after, event)
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.connection()?
            .execute_batch("UPDATE hakaru_checkpoint SET position = position WHERE lane = ''")
            .map_err(classify)
    }

    fn abandon(&mut self, fault: &SinkError) {
        let rolled_back = match &self.connection {
            Some(connection) if !connection.is_autocommit() => connection.execute_batch("ROLLBACK"),
            _ => Ok(()),
        };
        // Closing the file rolls back if ROLLBACK failed.
        if rolled_back.is_err() || !matches!(fault, SinkError::Retry(_)) {
            self.connection = None;
        }
    }
}

/// SQLite's integers are signed. No time, epoch or position reaches 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn describe(fault: &rusqlite::Error) -> Fault {
    Fault {
        code: fault.sqlite_error().map(|error| error.extended_code),
        ..Fault::new(fault.to_string())
    }
}

/// Whether the error is about this row, so that others can be stored.
fn is_about_the_row(fault: &rusqlite::Error) -> bool {
    matches!(
        fault.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

pub(crate) fn classify(fault: rusqlite::Error) -> SinkError {
    let described = describe(&fault);
    match fault.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SinkError::Retry(described),
        _ => SinkError::Stop(described),
    }
}

#[cfg(test)]
mod tests;
