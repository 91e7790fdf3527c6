//! The row of `hakaru_checkpoint` that holds the id of the database.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::sink_error;
use crate::event::database_id::DatabaseId;
use crate::sink::{DATABASE_ROW, SinkError};

/// The id; `None` where the database has none.
pub(super) fn read(connection: &mut Conn) -> Result<Option<DatabaseId>, SinkError> {
    let query =
        format!("SELECT epoch, position FROM hakaru_checkpoint WHERE lane = '{DATABASE_ROW}'");
    let row: Option<(u64, u64)> = connection.query_first(query).map_err(sink_error)?;
    Ok(row.map(|(high, low)| DatabaseId::from_halves(high, low)))
}

/// Gives the database an id, unless it has one. Two processes may do so at once: one of them is first, and
/// both read what it wrote.
pub(super) fn insert(connection: &mut Conn, id: DatabaseId) -> Result<(), SinkError> {
    write(connection, id, "lane = lane")
}

/// Gives the database this id, whichever it has.
pub(super) fn replace(connection: &mut Conn, id: DatabaseId) -> Result<(), SinkError> {
    let (high, low) = id.halves();
    write(connection, id, &format!("epoch = {high}, position = {low}"))
}

fn write(connection: &mut Conn, id: DatabaseId, where_there: &str) -> Result<(), SinkError> {
    let (high, low) = id.halves();
    let statement = format!(
        "INSERT INTO hakaru_checkpoint (lane, epoch, position) \
         VALUES ('{DATABASE_ROW}', {high}, {low}) ON DUPLICATE KEY UPDATE {where_there}"
    );
    connection.query_drop(statement).map_err(sink_error)
}
