//! The column of `eventlog` for the ids that senders give events. It is optional.
//!
//! It is found with the other columns. It counts only if a unique index of its own keeps each id to one row, and if no two
//! ids are the same to it.

use mysql::prelude::Queryable;
use mysql::{Conn, Value};

use super::classify::{refusal, sink_error};
use crate::event::event_id::{EVENT_ID_BYTES_MAX, EventId};
use crate::sink::SinkError;

/// The statement by which an operator makes the column. Neither case nor spaces at the end make two ids equal in it.
pub(crate) const ADD_COLUMN: &str = "ALTER TABLE eventlog ADD COLUMN event_id varbinary(64) DEFAULT NULL, \
    ADD UNIQUE KEY event_id (event_id)";

/// There is no such column any more.
pub(super) const NO_SUCH_COLUMN: i32 = 1054;

/// What is read of the column. A default of NULL is NULL to MySQL, and a text to MariaDB.
const COLUMN: &str = "SELECT LOWER(data_type), character_maximum_length, LOWER(character_set_name), \
    is_nullable, COALESCE(column_default, 'NULL'), COALESCE(extra, '') \
    FROM information_schema.columns WHERE table_schema = DATABASE() \
    AND table_name = 'eventlog' AND column_name = 'event_id'";

/// How many unique indexes have this column alone, and all of it.
const UNIQUE_INDEXES: &str = "SELECT COUNT(*) FROM (SELECT index_name FROM information_schema.statistics \
    WHERE table_schema = DATABASE() AND table_name = 'eventlog' GROUP BY index_name \
    HAVING COUNT(*) = 1 AND MAX(LOWER(column_name)) = 'event_id' AND MAX(non_unique) = 0 \
    AND MAX(sub_part) IS NULL) AS own";

/// Whether the table keeps old versions of its rows.
const IS_VERSIONED: &str = "SELECT COUNT(*) > 0 FROM information_schema.tables \
    WHERE table_schema = DATABASE() AND table_name = 'eventlog' AND table_type = 'SYSTEM VERSIONED'";

/// How many triggers there are before UPDATE, which a repetition is to the server, and how many before INSERT that may
/// change an id: such a trigger must name the column. Those after it change no row of this table.
const TRIGGERS: &str = "SELECT COALESCE(SUM(event_manipulation = 'UPDATE'), 0), \
    COALESCE(SUM(event_manipulation = 'INSERT' AND LOCATE('event_id', LOWER(action_statement)) > 0), 0) \
    FROM information_schema.triggers WHERE event_object_schema = DATABASE() \
    AND event_object_table = 'eventlog' AND action_timing = 'BEFORE'";

/// A column that keeps ids apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdColumn {
    /// The bytes to which it pads an id with zeros.
    padded_to: Option<usize>,
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
        let mut bytes = id.as_str().as_bytes().to_vec();
        if let Some(length) = self.padded_to {
            bytes.resize(length, 0);
        }
        Value::Bytes(bytes)
    }

    /// The bytes that this many ids take in a packet at most, without those that senders gave them and without a byte for
    /// each length.
    pub(super) fn padding_bytes(self, ids: usize) -> usize {
        // From 251 bytes on, a length takes three.
        self.padded_to.map_or(0, |length| ids * (length + 2))
    }
}

/// What [`COLUMN`] reads.
#[derive(Debug, Clone)]
struct Column {
    data_type: String,
    length: Option<u64>,
    character_set: Option<String>,
    may_be_null: bool,
    default: String,
    extra: String,
}

/// Looks for the column.
pub(crate) fn find(connection: &mut Conn) -> Result<FoundColumn, SinkError> {
    type Read = (String, Option<u64>, Option<String>, String, String, String);
    let column: Option<Read> = connection.query_first(COLUMN).map_err(sink_error)?;
    let Some((data_type, length, character_set, nullable, default, extra)) = column else {
        return Ok(FoundColumn::Missing);
    };
    let found = judge(&Column {
        data_type,
        length,
        character_set,
        may_be_null: nullable == "YES",
        default,
        extra,
    });
    if !matches!(found, FoundColumn::Usable(_)) {
        return Ok(found);
    }
    let indexes: Option<u64> = connection.query_first(UNIQUE_INDEXES).map_err(sink_error)?;
    if indexes.is_none_or(|indexes| indexes == 0) {
        return Ok(FoundColumn::Unusable(
            "it has no unique index of its own: ALTER TABLE eventlog ADD UNIQUE KEY event_id (event_id)",
        ));
    }
    Ok(changes(connection)?.map_or(found, FoundColumn::Unusable))
}

/// Why a stored id may become another, or a repetition another row, if it may.
fn changes(connection: &mut Conn) -> Result<Option<&'static str>, SinkError> {
    if optional(connection.query_first(IS_VERSIONED))? == Some(true) {
        return Ok(Some(
            "the table has system versioning, by which a repeated id would be a second version of a row: \
             ALTER TABLE eventlog DROP SYSTEM VERSIONING",
        ));
    }
    let triggers: Option<(u64, u64)> = optional(connection.query_first(TRIGGERS))?;
    Ok(match triggers {
        Some((1.., _)) => Some(
            "the table has a trigger BEFORE UPDATE, which would run for a repeated id: drop the trigger",
        ),
        Some((_, 1..)) => Some(
            "the table has a trigger BEFORE INSERT that names event_id and may change ids: make the trigger without event_id",
        ),
        _ => None,
    })
}

/// What a query found that a server may refuse. Without the right to TRIGGER no trigger can be seen either.
fn optional<T>(found: mysql::Result<Option<T>>) -> Result<Option<T>, SinkError> {
    match found.map_err(refusal) {
        Err(SinkError::Stop(fault)) => {
            log::debug!("what may change the ids of eventlog cannot be read: {fault}");
            Ok(None)
        }
        other => other,
    }
}

fn judge(column: &Column) -> FoundColumn {
    let extra = column.extra.to_ascii_uppercase();
    let is_generated = ["VIRTUAL", "STORED", "PERSISTENT"]
        .iter()
        .any(|kind| extra.contains(kind));
    let length = column.length.unwrap_or_default();
    let is_long = length >= EVENT_ID_BYTES_MAX as u64;
    match &column.data_type[..] {
        "char" => FoundColumn::Unusable(
            "a char has no spaces at its end, so that two ids may be equal in it: \
             ALTER TABLE eventlog MODIFY event_id varbinary(64) DEFAULT NULL",
        ),
        "varbinary" | "binary" | "varchar" if is_generated => {
            FoundColumn::Unusable("it is generated, so that no id can be stored in it")
        }
        "varbinary" | "binary" | "varchar" if !column.may_be_null => FoundColumn::Unusable(
            "it is NOT NULL, and events without an id have none: \
             ALTER TABLE eventlog MODIFY event_id varbinary(64) DEFAULT NULL",
        ),
        "varbinary" | "binary" | "varchar" if column.default != "NULL" => FoundColumn::Unusable(
            "it has a DEFAULT, by which events without an id get one: \
             ALTER TABLE eventlog ALTER COLUMN event_id SET DEFAULT NULL",
        ),
        "varchar" if !keeps_bytes(column.character_set.as_deref()) => FoundColumn::Unusable(
            "its character set stores other bytes than those of the ids: \
             ALTER TABLE eventlog MODIFY event_id varbinary(64) DEFAULT NULL",
        ),
        "varbinary" | "varchar" if is_long => FoundColumn::Usable(IdColumn { padded_to: None }),
        "binary" if is_long => FoundColumn::Usable(IdColumn {
            padded_to: usize::try_from(length).ok(),
        }),
        _ => FoundColumn::Unusable(
            "it does not hold every id of up to 64 bytes as it is: \
             ALTER TABLE eventlog MODIFY event_id varbinary(64) DEFAULT NULL",
        ),
    }
}

/// Whether ids, which are ASCII, are the same bytes in this character set. In those that are not, a known id is not found
/// by its bytes.
fn keeps_bytes(character_set: Option<&str>) -> bool {
    let others = ["ucs2", "utf16", "utf16le", "utf32", "swe7"];
    character_set.is_none_or(|set| !others.contains(&set))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column that an operator is told to make.
    fn column() -> Column {
        Column {
            data_type: "varbinary".to_owned(),
            length: Some(64),
            character_set: None,
            may_be_null: true,
            default: "NULL".to_owned(),
            extra: String::new(),
        }
    }

    fn is_usable(column: &Column) -> bool {
        matches!(judge(column), FoundColumn::Usable(_))
    }

    #[test]
    fn a_column_is_used_if_it_keeps_each_id_as_it_is() {
        for (data_type, length, may_be_null, extra, expected) in [
            ("varbinary", 64, true, "", true),
            ("varbinary", 63, true, "", false),
            ("varbinary", 64, false, "", false),
            ("varbinary", 64, true, "VIRTUAL GENERATED", false),
            ("varbinary", 64, true, "DEFAULT_GENERATED", true),
            ("varchar", 255, true, "", true),
            ("binary", 64, true, "", true),
            ("char", 64, true, "", false),
            ("text", 65_535, true, "", false),
            ("int", 0, true, "", false),
        ] {
            let column = Column {
                data_type: data_type.to_owned(),
                length: Some(length),
                may_be_null,
                extra: extra.to_owned(),
                ..column()
            };
            assert_eq!(is_usable(&column), expected, "{column:?}");
        }
    }

    #[test]
    fn a_column_is_used_if_it_has_the_bytes_of_ids_and_no_default() {
        for (data_type, set, default, expected) in [
            ("varchar", Some("ascii"), "NULL", true),
            ("varchar", Some("latin1"), "NULL", true),
            ("varchar", Some("utf8mb3"), "NULL", true),
            ("varchar", Some("utf8mb4"), "NULL", true),
            ("varchar", Some("gbk"), "NULL", true),
            ("varchar", Some("ucs2"), "NULL", false),
            ("varchar", Some("utf16"), "NULL", false),
            ("varchar", Some("utf32"), "NULL", false),
            ("varbinary", None, "NULL", true),
            // As MySQL and MariaDB say it.
            ("varbinary", None, "", false),
            ("varbinary", None, "''", false),
            ("varbinary", None, "uuid()", false),
        ] {
            let column = Column {
                data_type: data_type.to_owned(),
                character_set: set.map(str::to_owned),
                default: default.to_owned(),
                ..column()
            };
            assert_eq!(is_usable(&column), expected, "{column:?}");
        }
    }

    #[test]
    fn padding_is_counted() {
        let bytes = |padded_to| IdColumn { padded_to }.padding_bytes(3);
        assert_eq!((bytes(None), bytes(Some(255))), (0, 3 * 257));
    }

    #[test]
    fn an_id_is_asked_for_as_the_column_has_it() {
        let stored = |padded_to| IdColumn { padded_to }.stored(EventId::new("ab").unwrap());
        assert_eq!(stored(None), Value::Bytes(b"ab".to_vec()));
        assert_eq!(stored(Some(4)), Value::Bytes(b"ab\0\0".to_vec()));
    }
}
