//! Inserting the rows of a batch into the open transaction.

use rusqlite::{Connection, params};

use super::statement::insert_statement;
use super::trial;
use super::{classify, describe, is_about_the_row, no_row_stored, signed};
use crate::event::batch::Batch;
use crate::sink::trial::{Content, takes_no_row};
use crate::sink::{Refused, SinkError};

/// What became of the rows.
#[derive(Debug)]
pub(super) enum Rows {
    /// All but the refused ones are inserted. Holds the index and the id of one, and its content.
    Inserted(Option<(usize, i64, Content)>),
    /// The transaction was rolled back, by a trigger or because of one. The rows at fault are refused.
    RolledBack,
}

/// Inserts the events of `batch` from the index `from` on, without those in `refused`.
///
/// A trigger may roll the transaction back for a row, or leave the refused row in the table, with RAISE(FAIL): then it is
/// rolled back here. The rows after it are tried as well, in transactions that are rolled back: a batch with many such
/// rows is then stored in two passes, and not in one for each of them.
pub(super) fn insert(
    connection: &Connection,
    batch: &Batch,
    from: usize,
    refused: &mut Refused,
    known: Option<&Content>,
) -> Result<Rows, SinkError> {
    let mut last = None;
    let mut is_whole = true;
    let insert = insert_statement(connection)?;
    let mut statement = connection.prepare_cached(insert).map_err(classify)?;
    for (index, event) in batch.events().enumerate().skip(from) {
        if refused.contains_key(&index) {
            continue;
        }
        let seconds = signed(event.received_at.seconds());
        let changes = connection.total_changes();
        match statement.execute(params![seconds, event.name, event.value]) {
            // As with a trigger that raises IGNORE.
            Ok(0) => return Err(no_row_stored()),
            Ok(_) => last = Some((index, connection.last_insert_rowid(), event)),
            Err(fault) if is_about_the_row(&fault) => {
                let fault = describe(&fault);
                if !connection.is_autocommit() && connection.total_changes() != changes {
                    connection.execute_batch("ROLLBACK").map_err(classify)?;
                }
                let taken = last.map(|(_, _, event)| Content::of(event));
                let taken = taken.or_else(|| known.cloned());
                if trial::refusal(connection, seconds, taken)?.is_some() {
                    return Err(takes_no_row(fault));
                }
                refused.insert(index, fault);
                if connection.is_autocommit() {
                    is_whole = false;
                    begin(connection)?;
                }
            }
            Err(fault) => return Err(classify(fault)),
        }
    }
    drop(statement);
    if !is_whole {
        connection.execute_batch("ROLLBACK").map_err(classify)?;
        return Ok(Rows::RolledBack);
    }
    let last = last.map(|(index, id, event)| (index, id, Content::of(event)));
    Ok(Rows::Inserted(last))
}

/// Begins a transaction that writes.
pub(super) fn begin(connection: &Connection) -> Result<(), SinkError> {
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(classify)
}
