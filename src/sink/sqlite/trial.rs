//! Trial rows in a SQLite file.

use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::id_column::IdColumn;
use super::statement::{Inserts, inserts};
use super::{classify, describe, is_about_the_row};
use crate::event::rule::EventRule;
use crate::sink::trial::{Content, contents};
use crate::sink::{Fault, SinkError};

/// A row that the table has taken.
const ANY_ROW: &str = "SELECT name, value FROM eventlog LIMIT 1";

/// Tries trial rows of this second until the table takes one, and removes it. `None`: it took one. Else the last
/// error. Where there is a column for ids, each has one of chance, and where that is refused none. An open transaction
/// stays as it is, unless a trigger rolls it back.
pub(crate) fn refusal(
    connection: &Connection,
    seconds: i64,
    id: Option<IdColumn>,
    known: Option<Content>,
) -> Result<Option<Fault>, SinkError> {
    let contents = contents(EventRule::SQLITE, known);
    let contents = contents.map(|content| (content.name.into(), content.value.into()));
    let inserts = inserts(connection)?;
    let mut last = None;
    for (name, value) in contents.chain(any_row(connection)) {
        let ids = match id {
            Some(column) => vec![Some(column.of_chance()), Some(Value::Null)],
            None => vec![None],
        };
        for id in ids {
            let row = (seconds, &name, &value);
            match insert_and_remove(connection, inserts, row, id)? {
                Ok(0) => return Err(super::no_row_stored()),
                Ok(_) => return Ok(None),
                Err(fault) if is_about_the_row(&fault) => last = Some(describe(&fault)),
                Err(fault) => return Err(classify(fault)),
            }
        }
    }
    Ok(last)
}

/// Inserts a trial row and removes it. `None`: the statement gives no id. Returns what became of the insert.
fn insert_and_remove(
    connection: &Connection,
    inserts: Inserts,
    (seconds, name, value): (i64, &Value, &Value),
    id: Option<Value>,
) -> Result<rusqlite::Result<usize>, SinkError> {
    let run = |statements| connection.execute_batch(statements).map_err(classify);
    let is_alone = connection.is_autocommit();
    run(match is_alone {
        true => "BEGIN IMMEDIATE",
        false => "SAVEPOINT hakaru_trial",
    })?;
    let inserted = connection
        .prepare_cached(match id {
            Some(_) => inserts.with_id,
            None => inserts.plain,
        })
        .and_then(|mut insert| match id {
            Some(id) => insert.execute(params![seconds, name, value, id]),
            None => insert.execute(params![seconds, name, value]),
        });
    // A trigger that rolls back has removed the savepoint with the transaction.
    if !connection.is_autocommit() {
        run(match is_alone {
            true => "ROLLBACK",
            false => "ROLLBACK TO hakaru_trial; RELEASE hakaru_trial",
        })?;
    }
    Ok(inserted)
}

/// Name and value of a row of the table, if it has one.
fn any_row(connection: &Connection) -> Option<(Value, Value)> {
    let row = connection.query_row(ANY_ROW, [], |row| Ok((row.get(0)?, row.get(1)?)));
    row.ok()
}
