//! The column of `eventlog` for the ids that senders give events. It is optional.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::classify;
use crate::event::event_id::EventId;
use crate::sink::SinkError;

/// The statements by which an operator makes the column.
pub(crate) const ADD_COLUMN: &str = "ALTER TABLE eventlog ADD COLUMN event_id text; \
    CREATE UNIQUE INDEX eventlog_event_id ON eventlog (event_id)";

/// Its type, whether it is NOT NULL, whether it is generated, and whether rows without an id have something else than NULL.
const COLUMN: &str = "SELECT upper(type), \"notnull\", hidden, upper(coalesce(dflt_value, 'NULL')) <> 'NULL' \
    FROM pragma_table_xinfo('eventlog') WHERE lower(name) = 'event_id'";

/// Whether a trigger of the table names the column other than as `NEW.event_id`, and so may change it. Other triggers do
/// no harm: a repetition updates nothing.
const IS_NAMED_BY_A_TRIGGER: &str = "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'trigger' \
    AND lower(tbl_name) = 'eventlog' AND instr(replace(lower(sql), 'new.event_id', ''), 'event_id') > 0";

/// How the unique indexes of this column alone, for all rows, compare. The last column of an index is that of the row's
/// number, and no key.
const COLLATIONS: &str = "SELECT DISTINCT info.coll FROM pragma_index_list('eventlog') AS list, \
    pragma_index_xinfo(list.name) AS info \
    WHERE list.\"unique\" = 1 AND list.partial = 0 AND info.key = 1 AND lower(info.name) = 'event_id' \
    AND (SELECT count(*) FROM pragma_index_info(list.name)) = 1";

/// A column that keeps ids apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdColumn {
    /// Ids are text in it.
    Text,
    /// Ids are blobs in it. By its type it would store an id that looks like a number as that number.
    Blob,
}

/// What is found of the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundColumn {
    /// There is none.
    Missing,
    /// There is one that cannot be used, for this reason. The reason says what to do.
    Unusable(&'static str),
    /// Ids can be stored in it.
    Usable(IdColumn),
}

impl IdColumn {
    /// An id as the column has it.
    pub(super) fn stored(self, id: EventId<'_>) -> Value {
        match self {
            Self::Text => Value::Text(id.as_str().to_owned()),
            Self::Blob => Value::Blob(id.as_str().as_bytes().to_vec()),
        }
    }

    /// An id of chance, for a trial row.
    pub(super) fn of_chance(self) -> Value {
        let id = format!("{:032x}", fastrand::u128(..));
        match self {
            Self::Text => Value::Text(id),
            Self::Blob => Value::Blob(id.into_bytes()),
        }
    }
}

/// Looks for the column. The statements are kept prepared, since each batch asks.
pub(crate) fn find(connection: &Connection) -> Result<FoundColumn, SinkError> {
    let column = connection
        .prepare_cached(COLUMN)
        .and_then(|mut statement| {
            let column = |row: &rusqlite::Row<'_>| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, bool>(1)?,
                    row.get::<_, u8>(2)?,
                    row.get::<_, bool>(3)?,
                ))
            };
            statement.query_row(params![], column).optional()
        })
        .map_err(classify)?;
    let Some((kind, is_not_null, hidden, has_default)) = column else {
        return Ok(FoundColumn::Missing);
    };
    if hidden != 0 {
        return Ok(FoundColumn::Unusable(
            "it is generated, so that no id can be stored in it",
        ));
    }
    if is_not_null {
        return Ok(FoundColumn::Unusable(
            "it is NOT NULL, and events without an id have none",
        ));
    }
    if has_default {
        return Ok(FoundColumn::Unusable(
            "it has a DEFAULT, by which events without an id get one: make the column without it",
        ));
    }
    let Some(column) = column_of(&kind) else {
        return Ok(FoundColumn::Unusable(
            "it may change an id that looks like a number: it must be text",
        ));
    };
    let indexes = collations(connection).map_err(classify)?;
    Ok(if indexes.is_empty() {
        FoundColumn::Unusable(
            "it has no unique index of its own: CREATE UNIQUE INDEX eventlog_event_id ON eventlog (event_id)",
        )
    } else if is_named_by_a_trigger(connection).map_err(classify)? {
        FoundColumn::Unusable(
            "a trigger on eventlog names it and may change ids: make the trigger without event_id",
        )
    } else {
        FoundColumn::Usable(column)
    })
}

fn is_named_by_a_trigger(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(IS_NAMED_BY_A_TRIGGER)?;
    statement.query_row(params![], |row| row.get(0))
}

/// The collations by which the unique indexes of the column compare ids. Without one, ids are not kept apart.
pub(super) fn collations(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(COLLATIONS)?;
    let collations = statement.query_map(params![], |row| row.get(0))?;
    collations.collect()
}

/// How a column of this type holds ids, by the rules for the affinity of columns. `None`: it does not.
fn column_of(kind: &str) -> Option<IdColumn> {
    let has = |part: &str| kind.contains(part);
    if has("INT") {
        None
    } else if ["CHAR", "CLOB", "TEXT", "BLOB"].into_iter().any(has) {
        Some(IdColumn::Text)
    } else {
        has("BINARY").then_some(IdColumn::Blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(columns: &str, index: &str) -> FoundColumn {
        let connection = Connection::open_in_memory().unwrap();
        let table =
            format!("CREATE TABLE eventlog (id integer PRIMARY KEY, name text{columns}); {index}");
        connection.execute_batch(&table).unwrap();
        find(&connection).unwrap()
    }

    #[test]
    fn a_column_is_used_if_it_keeps_each_id_to_one_row() {
        let index = "CREATE UNIQUE INDEX own ON eventlog (event_id)";
        let is_usable = |columns, index| matches!(found(columns, index), FoundColumn::Usable(_));
        assert_eq!(found("", ""), FoundColumn::Missing);
        assert_eq!(
            found(", event_id text", index),
            FoundColumn::Usable(IdColumn::Text)
        );
        assert_eq!(
            found(", EVENT_ID varchar(64)", index),
            FoundColumn::Usable(IdColumn::Text)
        );
        assert_eq!(
            found(", event_id varbinary(64)", index),
            FoundColumn::Usable(IdColumn::Blob)
        );
        assert!(is_usable(", event_id text UNIQUE", ""));
        assert!(!is_usable(", event_id text", ""));
        assert!(!is_usable(", event_id text NOT NULL", index));
        assert!(!is_usable(", event_id int", index));
        assert!(!is_usable(", event_id numeric", index));
        assert!(!is_usable(", event_id text AS (name)", index));
        // Rows without an id have the default.
        assert!(!is_usable(", event_id text DEFAULT ''", index));
        assert!(!is_usable(", event_id text DEFAULT (random())", index));
        assert!(is_usable(", event_id text default null", index));
        for other in [
            "CREATE INDEX own ON eventlog (event_id)",
            "CREATE UNIQUE INDEX own ON eventlog (event_id, name)",
            "CREATE UNIQUE INDEX own ON eventlog (event_id) WHERE id > 7",
            "CREATE UNIQUE INDEX own ON eventlog (lower(event_id))",
        ] {
            assert!(!is_usable(", event_id text", other), "{other}");
        }
    }

    #[test]
    fn a_column_is_not_used_where_a_trigger_names_it() {
        for (trigger, is_usable) in [
            (
                "AFTER INSERT ON EventLog BEGIN UPDATE eventlog SET Event_ID = 'a'; END",
                false,
            ),
            (
                "AFTER INSERT ON eventlog BEGIN UPDATE eventlog SET name = 'a'; END",
                true,
            ),
            (
                "AFTER INSERT ON eventlog BEGIN INSERT INTO other VALUES (NEW.Event_ID); END",
                true,
            ),
            // A repetition updates nothing.
            (
                "BEFORE UPDATE ON eventlog BEGIN SELECT RAISE(ABORT, 'no'); END",
                true,
            ),
            ("AFTER INSERT ON other BEGIN SELECT NEW.event_id; END", true),
        ] {
            let statements = format!(
                "CREATE TABLE other (event_id text); CREATE UNIQUE INDEX own ON eventlog (event_id); \
                 CREATE TRIGGER changes {trigger}"
            );
            let found = found(", event_id text", &statements);
            let found = matches!(found, FoundColumn::Usable(_));
            assert_eq!(found, is_usable, "{trigger}");
        }
    }
}
