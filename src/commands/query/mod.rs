//! Queries on the table: a read-only session with a time limit for each query, in which all queries see the same
//! snapshot. Rows are passed on one by one and never collected.

pub mod dialect;

pub mod moment;

pub mod terminal;

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql_common::proto::codec::error::PacketCodecError;
use rusqlite::OpenFlags;
use rusqlite::types::ValueRef;

use self::dialect::{Dialect, Exact};
use self::moment::{Bound, Moment, TimeRange, TimeSpan};
use crate::sink::SinkError;
use crate::sink::dsn::{DataSource, MySqlTarget};
use crate::sink::mysql::{connect, sink_error};

/// How much longer the client waits than the server may take, so that the server's error arrives.
const GRACE: Duration = Duration::from_secs(5);

/// Instructions of SQLite's virtual machine between two checks of the time: well under a millisecond.
const SQLITE_STEPS: i32 = 10_000;

/// How long another process may lock a SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The command line has a value that the database does not accept.
    #[error("{0}")]
    Usage(String),
    /// The query took longer than it may.
    #[error("{place}: no answer within --timeout {limit:?}; set a longer one, or query a replica")]
    Limit {
        /// The database, without its password.
        place: String,
        /// The limit.
        limit: Duration,
    },
    /// The database returned an error.
    #[error("{place}: {text}")]
    Database {
        /// The database, without its password.
        place: String,
        /// The text of the error.
        text: String,
    },
    /// There is no such file of SQLite.
    #[error(
        "{place}: no such file; --datasource or HAKARU_DATASOURCENAME must name the database that the server stores into"
    )]
    NoFile {
        /// The database.
        place: String,
    },
    /// A row has a value that hakaru does not store.
    #[error("the table eventlog holds {0}, which hakaru does not store")]
    Row(String),
    /// The output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// A value of a row.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A text, or a number as text: MySQL sends all numbers as text.
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// As a text. Bytes that are not UTF-8, which hakaru does not store, are replaced. NULL is empty.
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes),
        }
    }

    /// As an integer; `None` for NULL.
    pub fn integer(self) -> Result<Option<i128>, QueryError> {
        match self {
            Self::Null => Ok(None),
            Self::Integer(number) => Ok(Some(number.into())),
            Self::Bytes(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let number = text.parse().ok().map(Some);
                number.ok_or_else(|| QueryError::Row(format!("{text:?} where a number belongs")))
            }
        }
    }

    /// As a count, which cannot be negative.
    pub fn count(self) -> Result<u64, QueryError> {
        let number = self.integer()?.unwrap_or_default();
        u64::try_from(number)
            .ok()
            .ok_or_else(|| QueryError::Row(format!("a count of {number}")))
    }
}

/// A session that only reads: it writes no row and makes no table.
pub struct QuerySession {
    place: String,
    limit: Duration,
    dialect: Dialect,
    source: Source,
}

enum Source {
    MySql(Box<mysql::Conn>),
    Sqlite(rusqlite::Connection),
}

impl QuerySession {
    /// Opens the database for queries that may each take `limit`. All of them see the same consistent snapshot, which
    /// locks nothing and blocks no writer.
    pub fn open(datasource: &DataSource, limit: Duration) -> Result<Self, QueryError> {
        let place = datasource.to_string();
        let source = match datasource {
            DataSource::MySql(target) => match open_mysql(target, limit) {
                Ok(connection) => Source::MySql(Box::new(connection)),
                Err(fault) => {
                    let text = fault.fault().to_string();
                    return Err(QueryError::Database { place, text });
                }
            },
            DataSource::Sqlite(path) => {
                // Otherwise SQLite would make an empty file if there is none.
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let opened = rusqlite::Connection::open_with_flags(path, flags).and_then(|file| {
                    file.busy_timeout(BUSY_TIMEOUT)?;
                    // Patterns are case-sensitive, as with utf8mb4_bin in the other databases.
                    file.execute_batch("PRAGMA case_sensitive_like = ON; BEGIN")?;
                    Ok(file)
                });
                Source::Sqlite(opened.map_err(|fault| match path.try_exists() {
                    Ok(false) => QueryError::NoFile {
                        place: place.clone(),
                    },
                    _ => sqlite_fault(&place, limit, &fault),
                })?)
            }
        };
        let mut session = Self {
            place,
            limit,
            dialect: Dialect::Sqlite,
            source,
        };
        if let Source::MySql(_) = session.source {
            let [collation] = session.row(Exact::QUERY)?.unwrap_or_default();
            session.dialect = Dialect::MySql(Exact::read(collation.as_deref()));
        }
        Ok(session)
    }

    /// The address of the database, without its password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The SQL of the database.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Runs a query, and calls `each` with every row as it arrives.
    pub fn rows<const COLUMNS: usize>(
        &mut self,
        sql: &str,
        mut each: impl FnMut([Cell<'_>; COLUMNS]) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let (place, limit) = (&self.place, self.limit);
        match &mut self.source {
            Source::MySql(connection) => {
                let fault = |fault| mysql_fault(place, limit, fault);
                for row in connection.query_iter(sql).map_err(fault)? {
                    let row = row.map_err(fault)?;
                    each(std::array::from_fn(|index| match row.as_ref(index) {
                        Some(mysql::Value::Bytes(bytes)) => Cell::Bytes(bytes),
                        Some(mysql::Value::Int(number)) => Cell::Integer(*number),
                        _ => Cell::Null,
                    }))?;
                }
            }
            Source::Sqlite(connection) => {
                let fault = |fault| sqlite_fault(place, limit, &fault);
                let end = Instant::now() + limit;
                connection
                    .progress_handler(SQLITE_STEPS, Some(move || Instant::now() >= end))
                    .map_err(fault)?;
                let mut statement = connection.prepare(sql).map_err(fault)?;
                let mut found = statement.query([]).map_err(fault)?;
                while let Some(row) = found.next().map_err(fault)? {
                    each(std::array::from_fn(|index| match row.get_ref(index) {
                        Ok(ValueRef::Integer(number)) => Cell::Integer(number),
                        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Cell::Bytes(bytes),
                        _ => Cell::Null,
                    }))?;
                }
            }
        }
        Ok(())
    }

    /// The first row of the answer.
    pub fn row<const COLUMNS: usize>(
        &mut self,
        sql: &str,
    ) -> Result<Option<[Option<String>; COLUMNS]>, QueryError> {
        let mut first = None;
        self.rows(sql, |cells: [Cell<'_>; COLUMNS]| {
            let texts = || {
                cells.map(|cell| match cell {
                    Cell::Null => None,
                    cell => Some(cell.text().into_owned()),
                })
            };
            first.get_or_insert_with(texts);
            Ok(())
        })?;
        Ok(first)
    }

    /// The name of the time zone of the column `at`.
    pub fn zone(&mut self) -> Result<String, QueryError> {
        if self.dialect == Dialect::Sqlite {
            return Ok("UTC".to_owned());
        }
        let zones = self.row("SELECT @@session.time_zone, @@system_time_zone")?;
        Ok(match zones {
            Some([Some(session), system]) if session == "SYSTEM" => system.unwrap_or(session),
            Some([Some(session), _]) => session,
            _ => "unknown".to_owned(),
        })
    }

    /// A span of time in the time zone of the column.
    pub fn range(&mut self, span: &TimeSpan) -> Result<TimeRange, QueryError> {
        let range = TimeRange {
            from: self.bound(span.from, Moment::floor, "--from")?,
            to: self.bound(span.to, Moment::ceiling, "--to")?,
        };
        match (&range.from, &range.to) {
            (Some(from), Some(to)) if from.civil >= to.civil => {
                let (from, to) = (&from.civil, &to.civil);
                let text = format!("--from {from} is not before --to {to}");
                Err(QueryError::Usage(text))
            }
            _ => Ok(range),
        }
    }

    fn bound(
        &mut self,
        moment: Option<Moment>,
        whole: fn(Moment) -> Moment,
        setting: &str,
    ) -> Result<Option<Bound>, QueryError> {
        let Some(moment) = moment.map(whole) else {
            return Ok(None);
        };
        if self.dialect == Dialect::Sqlite {
            return Ok(Some(moment.in_utc()));
        }
        // The server converts between its time zones.
        let query = match moment {
            Moment::Instant(instant) => {
                let seconds = instant.as_second();
                format!("SELECT FROM_UNIXTIME({seconds}), {seconds}")
            }
            Moment::Civil(civil) => {
                let civil = moment::text(civil);
                format!("SELECT CAST('{civil}' AS DATETIME), FLOOR(UNIX_TIMESTAMP('{civil}'))")
            }
        };
        match self.row(&query)? {
            Some([Some(civil), unix]) => Ok(Some(Bound {
                civil,
                // The server returns 0 for a time that it cannot convert.
                unix: unix
                    .and_then(|unix| unix.parse().ok())
                    .filter(|&unix| unix != 0),
            })),
            _ => {
                let text = format!("{setting}: the database does not accept this time");
                Err(QueryError::Usage(text))
            }
        }
    }
}

fn open_mysql(target: &MySqlTarget, limit: Duration) -> Result<mysql::Conn, SinkError> {
    let mut target = target.clone();
    target.read_timeout = limit + GRACE;
    let mut connection = connect(&target)?;
    // The first is MariaDB's, in seconds, for every statement. The second is MySQL's, in milliseconds, for SELECT.
    let limits = [
        format!("SET SESSION max_statement_time = {}", limit.as_secs_f64()),
        format!("SET SESSION max_execution_time = {}", limit.as_millis()),
    ];
    for statement in limits {
        match connection.query_drop(statement) {
            Err(mysql::Error::MySqlError(fault)) if fault.code == UNKNOWN_VARIABLE => {}
            outcome => {
                outcome.map_err(sink_error)?;
                break;
            }
        }
    }
    for statement in [
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ] {
        connection.query_drop(statement).map_err(sink_error)?;
    }
    Ok(connection)
}

/// The error number of a system variable that the server does not have.
const UNKNOWN_VARIABLE: u16 = 1193;

/// Whether the server ended a statement because of its time limit, or the client gave up waiting.
fn is_limit(fault: &mysql::Error) -> bool {
    use io::ErrorKind::{TimedOut, WouldBlock};
    match fault {
        mysql::Error::MySqlError(fault) => OVER_LIMIT.contains(&fault.code),
        mysql::Error::IoError(fault) | mysql::Error::CodecError(PacketCodecError::Io(fault)) => {
            matches!(fault.kind(), TimedOut | WouldBlock)
        }
        _ => false,
    }
}

/// The error numbers of MariaDB and of MySQL for a statement that took too long.
const OVER_LIMIT: [u16; 2] = [1969, 3024];

fn mysql_fault(place: &str, limit: Duration, fault: mysql::Error) -> QueryError {
    let place = place.to_owned();
    if is_limit(&fault) {
        return QueryError::Limit { place, limit };
    }
    let text = sink_error(fault).fault().to_string();
    QueryError::Database { place, text }
}

fn sqlite_fault(place: &str, limit: Duration, fault: &rusqlite::Error) -> QueryError {
    let place = place.to_owned();
    match fault.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => QueryError::Limit { place, limit },
        _ => QueryError::Database {
            place,
            text: fault.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_over_the_limit_too() {
        let timed_out = || io::Error::from(io::ErrorKind::WouldBlock);
        let server = |code| {
            mysql::Error::MySqlError(mysql::MySqlError {
                state: "HY000".to_owned(),
                message: "text".to_owned(),
                code,
            })
        };
        let codec = |fault| mysql::Error::CodecError(PacketCodecError::Io(fault));
        for fault in [
            server(1969),
            server(3024),
            codec(timed_out()),
            mysql::Error::IoError(timed_out()),
        ] {
            assert!(is_limit(&fault), "{fault}");
        }
        for fault in [server(1146), codec(io::ErrorKind::BrokenPipe.into())] {
            assert!(!is_limit(&fault), "{fault}");
        }
    }
}
