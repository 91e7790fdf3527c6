//! Whether rows are there. Names are compared as they were sent, whatever the collation of the column.

use mysql::prelude::Queryable;
use mysql::{Conn, Value};

use super::id_column::IdColumn;
use super::sink_error;
use crate::event::Event;
use crate::sink::{FoundRow, SEARCHED_ROWS_MAX, SinkError};

/// What a row of an event has. A time that the server's `FROM_UNIXTIME` does not know is not compared.
const IS_EVENT: &str = "at <=> COALESCE(FROM_UNIXTIME(?), at) AND CONVERT(name USING utf8mb4) COLLATE utf8mb4_bin = \
    CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin AND value <=> ?";

fn values(event: Event<'_>) -> [Value; 3] {
    [
        Value::UInt(event.received_at.seconds()),
        Value::Bytes(event.name.as_bytes().to_vec()),
        Value::UInt(u64::from(event.value)),
    ]
}

/// Whether the row with this `id` is that of `event`. One that was stored before there was a column for ids has none.
pub(super) fn is_row_of(
    connection: &mut Conn,
    ids: Option<IdColumn>,
    id: u64,
    event: Event<'_>,
) -> Result<bool, SinkError> {
    let mut query = format!("SELECT 1 FROM eventlog WHERE id = ? AND {IS_EVENT}");
    let mut parameters = vec![Value::UInt(id)];
    parameters.extend(values(event));
    if let (Some(column), Some(event_id)) = (ids, event.id) {
        query.push_str(" AND (event_id IS NULL OR CAST(event_id AS BINARY) = CAST(? AS BINARY))");
        parameters.push(column.stored(event_id));
    }
    finds(connection, &query, parameters)
}

/// Whether a row of `event` has a greater `id` than `after`.
pub(super) fn has_row_after(
    connection: &mut Conn,
    ids: Option<IdColumn>,
    after: u64,
    event: Event<'_>,
) -> Result<FoundRow, SinkError> {
    let to = after.saturating_add(SEARCHED_ROWS_MAX);
    let mut query = format!("SELECT 1 FROM eventlog WHERE id > ? AND id <= ? AND {IS_EVENT}");
    if let (Some(column), Some(event_id)) = (ids, event.id) {
        let by_id = "SELECT 1 FROM eventlog WHERE event_id = ? \
            AND CAST(event_id AS BINARY) = CAST(? AS BINARY)";
        let event_id = column.stored(event_id);
        if finds(connection, by_id, vec![event_id.clone(), event_id])? {
            return Ok(FoundRow::Repeatable);
        }
        // One that was stored before there was a column for ids has none.
        query.push_str(" AND event_id IS NULL");
    }
    query.push_str(" LIMIT 1");
    let mut parameters = vec![Value::UInt(after), Value::UInt(to)];
    parameters.extend(values(event));
    if finds(connection, &query, parameters)? {
        return Ok(FoundRow::There);
    }
    let further = format!("SELECT 1 FROM eventlog WHERE id > {to} LIMIT 1");
    let further: Option<u8> = connection.query_first(further).map_err(sink_error)?;
    Ok(FoundRow::by_content(further.is_none().then_some(false)))
}

/// Whether a query finds a row. The statement is closed after that: without a cache the driver would leave it on the server
/// until the connection ends.
fn finds(connection: &mut Conn, query: &str, parameters: Vec<Value>) -> Result<bool, SinkError> {
    let statement = connection.prep(query).map_err(sink_error)?;
    let row: Option<u8> = connection
        .exec_first(&statement, parameters)
        .map_err(sink_error)?;
    connection.close(statement).map_err(sink_error)?;
    Ok(row.is_some())
}
