//! Checks a SQLite file. It is written as the sink does, and rolled back.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::disk::{is_missing, nearest_directory, trial_path};
use super::{Finding, Observation, TAKES_NO_ROW};
use crate::event::UnixMillis;
use crate::event::position::LaneId;
use crate::sink::sqlite::checkpoint_rows::WRITE;
use crate::sink::sqlite::id_column::{self, ADD_COLUMN, FoundColumn};
use crate::sink::sqlite::{BUSY_TIMEOUT, SqliteSink, classify, statement, trial};
use crate::sink::{Fault, SinkError};

/// The tables, as in `sqlite_master`.
const TABLES: [&str; 2] = ["eventlog", "hakaru_checkpoint"];

/// What an ON CONFLICT clause of the table means.
const CONFLICT_CLAUSE: &str = "hakaru removes and ignores no row for it: the second of two rows that conflict is refused \
    and becomes a dead letter, and so does a row whose trigger meets a conflict in its own tables; make the table \
    without ON CONFLICT";

/// Checks the directory, with a database of its own in it, and then the file.
pub(super) fn check(path: &Path) -> Vec<Finding> {
    let directory = nearest_directory(path.parent().unwrap_or(Path::new("")));
    let advice = format!(
        "the file and two more beside it must be writable in {}: give hakaru's user write permission, or set another \
         path",
        directory.display()
    );
    let or_error = |checked: Result<Observation, SinkError>| {
        checked.unwrap_or_else(|fault| Observation::new(fault.to_string()).error(&advice))
    };
    let trial = ("directory of the file", or_error(new_file(&directory)));
    let found = if is_missing(path) {
        Ok(Observation::new(
            "missing; it will be made when hakaru starts",
        ))
    } else {
        existing_file(path).or_else(|fault| match fault {
            SinkError::Retry(fault) => Ok(Observation::new(fault.to_string()).warning(
                "another process writes to the file: nothing to do if it is hakaru; otherwise end it",
            )),
            other => Err(other),
        })
    };
    vec![trial, ("SQLite file", or_error(found))]
}

/// A directory that is removed when dropped, with all files in it.
struct Trial(PathBuf);

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(fault) = fs::remove_dir_all(&self.0) {
            log::debug!("{}: {fault}", self.0.display());
        }
    }
}

/// Whether SQLite can write in the directory as the sink does. Not every file system supports a WAL.
fn new_file(directory: &Path) -> Result<Observation, SinkError> {
    let trial = Trial(trial_path(directory));
    fs::create_dir(&trial.0).map_err(|fault| {
        SinkError::Stop(Fault::new(format!("{}: {fault}", directory.display())))
    })?;
    let connection = SqliteSink::connect(&trial.0.join("eventlog.db"))?;
    store_and_roll_back(&connection)?;
    let (mode, synchronous) = modes(&connection)?;
    let found = Observation::new(format!(
        "{}, journal_mode={mode}, synchronous={synchronous}, SQLite {}",
        directory.display(),
        rusqlite::version()
    ));
    if mode != "wal" || synchronous < 2 {
        return Ok(
            found.error("this file system does not support a WAL: put the file on a local disk")
        );
    }
    Ok(found)
}

/// Whether the file takes rows.
fn existing_file(path: &Path) -> Result<Observation, SinkError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(classify)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(classify)?;
    let (mode, _) = modes(&connection)?;
    let mut missing = Vec::new();
    for table in TABLES {
        let query = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
        let count: u32 = connection
            .query_row(query, params![table], |row| row.get(0))
            .map_err(classify)?;
        if count == 0 {
            missing.push(table);
        }
    }
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        let text = format!("without {missing}; will be made when hakaru starts");
        return Ok(Observation::new(text));
    }
    if let Some(fault) = store_and_roll_back(&connection)? {
        return Ok(Observation::new(format!("the table takes no row: {fault}")).error(TAKES_NO_ROW));
    }
    if statement::has_conflict_clause(&connection)? {
        let found = "eventlog has a constraint with ON CONFLICT";
        return Ok(Observation::new(found).warning(CONFLICT_CLAUSE));
    }
    let found =
        format!("journal_mode={mode}; a row was inserted, a checkpoint made, and both rolled back");
    Ok(match id_column::find(&connection)? {
        FoundColumn::Usable(_) => Observation::new(format!(
            "{found}; an event whose id the table has is no second row"
        )),
        FoundColumn::Missing => Observation::new(format!(
            "{found}; no column event_id: the ids of events are ignored; to store each id once: {ADD_COLUMN}"
        )),
        FoundColumn::Unusable(reason) => {
            let found = format!(
                "{found}; the column event_id cannot be used: the ids of events are ignored"
            );
            Observation::new(found).warning(reason)
        }
    })
}

/// The journal mode, and the level of `synchronous`: 2 is FULL.
fn modes(connection: &Connection) -> Result<(String, u8), SinkError> {
    let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0));
    let synchronous = connection.query_row("PRAGMA synchronous", [], |row| row.get(0));
    Ok((mode.map_err(classify)?, synchronous.map_err(classify)?))
}

/// Inserts a row and a checkpoint, and removes both. Returns why the table takes no row, if it takes none.
fn store_and_roll_back(connection: &Connection) -> Result<Option<Fault>, SinkError> {
    let lane = LaneId::random().map_err(|fault| {
        SinkError::Stop(Fault::new(format!("the kernel's randomness: {fault}")))
    })?;
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(classify)?;
    let seconds = i64::try_from(UnixMillis::now().seconds()).unwrap_or(i64::MAX);
    let adopted = connection.execute(WRITE, params![lane.to_string(), 1, 0]);
    let refusal = trial::refusal(connection, seconds, None, None);
    // A trigger may have rolled back.
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(classify)?;
    }
    adopted.map_err(classify)?;
    refusal
}
