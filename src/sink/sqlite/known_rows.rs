//! Whether rows are there. Names are compared as they were sent, whatever the collation of the column.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::rows::id_column;
use super::{classify, signed};
use crate::event::Event;
use crate::sink::{FoundRow, SEARCHED_ROWS_MAX, SinkError};

/// What a row of an event has.
const IS_EVENT: &str =
    "at IS datetime(?1, 'unixepoch') AND name = ?2 COLLATE BINARY AND value IS ?3";

/// Whether the row with this `id` is that of `event`. One that was stored before there was a column for ids has none.
pub(super) fn is_row_of(
    connection: &Connection,
    id: u64,
    event: Event<'_>,
) -> Result<bool, SinkError> {
    let query = format!("SELECT 1 FROM eventlog WHERE id = ?4 AND {IS_EVENT}");
    let seconds = signed(event.received_at.seconds());
    let id = id.cast_signed();
    match stored_id(connection, event)? {
        None => {
            let parameters = params![seconds, event.name, event.value, id];
            finds(connection, &query, parameters)
        }
        Some(event_id) => {
            let query = format!(
                "{query} AND (event_id IS NULL OR CAST(event_id AS blob) = CAST(?5 AS blob))"
            );
            let parameters = params![seconds, event.name, event.value, id, event_id];
            finds(connection, &query, parameters)
        }
    }
}

/// Whether a row of `event` has a greater `id` than `after`.
pub(super) fn has_row_after(
    connection: &Connection,
    after: u64,
    event: Event<'_>,
) -> Result<FoundRow, SinkError> {
    let mut query = format!("SELECT 1 FROM eventlog WHERE id > ?4 AND id <= ?5 AND {IS_EVENT}");
    if let Some(event_id) = stored_id(connection, event)? {
        let by_id = "SELECT 1 FROM eventlog WHERE event_id = ?1 AND CAST(event_id AS blob) = CAST(?1 AS blob)";
        if finds(connection, by_id, params![event_id])? {
            return Ok(FoundRow::Repeatable);
        }
        // One that was stored before there was a column for ids has none.
        query.push_str(" AND event_id IS NULL");
    }
    query.push_str(" LIMIT 1");
    let to = signed(after.saturating_add(SEARCHED_ROWS_MAX));
    let seconds = signed(event.received_at.seconds());
    let parameters = params![seconds, event.name, event.value, signed(after), to];
    if finds(connection, &query, parameters)? {
        return Ok(FoundRow::There);
    }
    let further = "SELECT 1 FROM eventlog WHERE id > ?1 LIMIT 1";
    let is_searched = !finds(connection, further, params![to])?;
    Ok(FoundRow::by_content(is_searched.then_some(false)))
}

/// The id of an event as the table would have it, if it would.
fn stored_id(connection: &Connection, event: Event<'_>) -> Result<Option<Value>, SinkError> {
    let Some(id) = event.id else {
        return Ok(None);
    };
    let column = id_column(connection)?;
    Ok(column.map(|column| column.stored(id)))
}

fn finds(connection: &Connection, query: &str, parameters: impl Params) -> Result<bool, SinkError> {
    let row = connection.query_row(query, parameters, |_| Ok(()));
    Ok(row.optional().map_err(classify)?.is_some())
}
