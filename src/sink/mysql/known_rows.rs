//! Whether rows are there. Names are compared as they were sent, whatever the collation of the column.

use mysql::prelude::Queryable;
use mysql::{Conn, Value};

use super::sink_error;
use crate::event::Event;
use crate::sink::{SEARCHED_ROWS_MAX, SinkError};

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

/// Whether the row with this `id` is that of `event`.
pub(super) fn is_row_of(
    connection: &mut Conn,
    id: u64,
    event: Event<'_>,
) -> Result<bool, SinkError> {
    let query = format!("SELECT 1 FROM eventlog WHERE id = ? AND {IS_EVENT}");
    let mut parameters = vec![Value::UInt(id)];
    parameters.extend(values(event));
    finds(connection, &query, parameters)
}

/// Whether a row of `event` has a greater `id` than `after`. `None`: there are too many rows to be searched.
pub(super) fn has_row_after(
    connection: &mut Conn,
    after: u64,
    event: Event<'_>,
) -> Result<Option<bool>, SinkError> {
    let to = after.saturating_add(SEARCHED_ROWS_MAX);
    let query = format!("SELECT 1 FROM eventlog WHERE id > ? AND id <= ? AND {IS_EVENT} LIMIT 1");
    let mut parameters = vec![Value::UInt(after), Value::UInt(to)];
    parameters.extend(values(event));
    if finds(connection, &query, parameters)? {
        return Ok(Some(true));
    }
    let further = format!("SELECT 1 FROM eventlog WHERE id > {to} LIMIT 1");
    let further: Option<u8> = connection.query_first(further).map_err(sink_error)?;
    Ok(further.is_none().then_some(false))
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
