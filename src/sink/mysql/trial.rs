//! Trial rows on a connection, and whose fault a repeated key is.

use mysql::prelude::Queryable;
use mysql::{Conn, Params, Row, Statement, Value};

use super::classify::{Verdict, sink_error, verdict};
use crate::event::Event;
use crate::event::rule::EventRule;
use crate::sink::trial::{Content, contents};
use crate::sink::{Fault, SinkError};

/// Whether ids that the server gives are in the primary key.
const ID_IS_PRIMARY: &str = "SELECT COUNT(*) > 0 FROM information_schema.columns \
    WHERE table_schema = DATABASE() AND table_name = 'eventlog' AND column_key = 'PRI' \
    AND extra LIKE '%auto_%'";

/// A row that the table has taken.
const ANY_ROW: &str = "SELECT name, value FROM eventlog LIMIT 1";

/// Which ids trial rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrialId {
    /// The statement gives no id.
    None,
    /// The statement gives ids: one of chance, and where that is refused none.
    OfChance,
}

impl TrialId {
    /// What is added to the parameters of each trial row.
    fn tried(self) -> Vec<Option<Value>> {
        match self {
            Self::None => vec![None],
            Self::OfChance => {
                let id = format!("{:032x}", fastrand::u128(..));
                vec![Some(id.into()), Some(Value::NULL)]
            }
        }
    }
}

/// What trial rows have shown.
#[derive(Debug)]
pub(crate) enum Tried {
    /// The table takes a row.
    Taken,
    /// It takes one without an id, and none with an id.
    TakenWithoutId,
    /// It takes none. The last error.
    Refused(Fault),
}

/// Tries trial rows of this second until the table takes one, and removes it.
pub(crate) fn try_rows(
    connection: &mut Conn,
    insert: &Statement,
    seconds: u64,
    (rule, id): (EventRule, TrialId),
    known: Option<Content>,
) -> Result<Tried, SinkError> {
    connection
        .query_drop("SAVEPOINT hakaru_trial")
        .map_err(sink_error)?;
    let mut last = None;
    // The row of the table last, since only that costs a query.
    for content in contents(rule, known).map(Some).chain([None]) {
        let content = match content {
            Some(Content { name, value }) => Some([name.into(), value.into()]),
            None => any_row(connection)?,
        };
        let Some([name, value]) = content else {
            continue;
        };
        for id in id.tried() {
            let is_without_id = id == Some(Value::NULL);
            let mut row = vec![Value::UInt(seconds), name.clone(), value.clone()];
            row.extend(id);
            let row = Params::Positional(row);
            match connection.exec_drop(insert, row).map_err(verdict) {
                Ok(()) => {
                    connection
                        .query_drop("ROLLBACK TO SAVEPOINT hakaru_trial")
                        .map_err(sink_error)?;
                    return Ok(if is_without_id {
                        Tried::TakenWithoutId
                    } else {
                        Tried::Taken
                    });
                }
                Err(Verdict::RefusesRow(fault) | Verdict::RepeatsPrimaryKey(fault)) => {
                    last = Some(fault);
                }
                Err(Verdict::Ends(fault)) => return Err(fault),
            }
        }
    }
    let Some(fault) = last else {
        unreachable!("rows of chance are always tried");
    };
    Ok(Tried::Refused(fault))
}

/// Name and value of a row of the table. `None` if it has none, or the user may not read it.
fn any_row(connection: &mut Conn) -> Result<Option<[Value; 2]>, SinkError> {
    match connection.query_first(ANY_ROW).map_err(sink_error) {
        Ok(row) => Ok(row.and_then(|row: Row| row.unwrap().try_into().ok())),
        Err(SinkError::Stop(fault)) => {
            log::debug!("no row of the table can be read for a trial: {fault}");
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

/// Whose fault a repeated primary key is: that of the table if the server gives the ids and has given one that exists,
/// else that of the row. A trigger may repeat the primary key of another table, with the name or the value of an event.
pub(super) fn repeated_primary_key<'a>(
    connection: &mut Conn,
    mut events: impl Iterator<Item = Event<'a>>,
    fault: Fault,
) -> Verdict {
    let asked = match repeated_id(&fault.text) {
        Some(id) if events.any(|event| brings(event, id)) => Ok(false),
        Some(id) => has_given(connection, id).map_err(sink_error),
        None => Ok(false),
    };
    match asked {
        Ok(true) => {
            let text = format!(
                "{}; the next id is one that exists: the ids of the column are used up, or AUTO_INCREMENT of \
                 eventlog is below the highest id",
                fault.text
            );
            Verdict::Ends(SinkError::Stop(Fault { text, ..fault }))
        }
        Ok(false) => Verdict::RefusesRow(fault),
        Err(fault) => Verdict::Ends(fault),
    }
}

/// Whether a column of the event has this number.
fn brings(event: Event<'_>, number: u64) -> bool {
    u64::from(event.value) == number || event.name.parse() == Ok(number)
}

/// The id in `Duplicate entry '7' for key 'PRIMARY'`.
fn repeated_id(text: &str) -> Option<u64> {
    text.split('\'').nth(1)?.parse().ok()
}

/// Whether the server gives the ids of eventlog, and a row has this one.
fn has_given(connection: &mut Conn, id: u64) -> mysql::Result<bool> {
    if connection.query_first(ID_IS_PRIMARY)? != Some(true) {
        return Ok(false);
    }
    let row: Option<u8> =
        connection.query_first(format!("SELECT 1 FROM eventlog WHERE id = {id}"))?;
    Ok(row.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_that_is_repeated_is_in_the_message() {
        let message = |entry: &str| format!("Duplicate entry '{entry}' for key 'PRIMARY'");
        assert_eq!(repeated_id(&message("127")), Some(127));
        assert_eq!(repeated_id(&message("a name")), None);
        assert_eq!(repeated_id("no entry"), None);
    }
}
