//! Whether the server lets ids be stored, where there is a column for them.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::at::At;
use super::classify::{is_used_up, sink_error};
use super::statement_kind::{Columns, StatementKind};
use crate::sink::{Fault, SinkError};

/// Why the server does not prepare the statement with ids, such as without the right to UPDATE. Where it prepares no
/// insert at all, or does so a moment later, that says nothing of ids: they must not be dropped for it.
pub(crate) fn refusal(connection: &mut Conn) -> Result<Option<Fault>, SinkError> {
    let mut prepare = |columns| {
        let kind = StatementKind {
            at: At::Usual,
            columns,
        };
        let statement = connection.prep(kind.text(1)).map_err(sink_error)?;
        connection.close(statement).map_err(sink_error)
    };
    let fault = match prepare(Columns::WithId) {
        Ok(()) => return Ok(None),
        Err(SinkError::Stop(fault)) if !is_used_up(&fault) => fault,
        Err(fault) => return Err(fault),
    };
    prepare(Columns::Plain)?;
    match prepare(Columns::WithId) {
        Ok(()) => Ok(None),
        Err(SinkError::Stop(again)) if again.code == fault.code => Ok(Some(fault)),
        Err(fault) => Err(fault),
    }
}
