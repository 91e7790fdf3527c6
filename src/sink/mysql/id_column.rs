//! The column of `eventlog` for the ids that senders give events. It is optional.
//!
//! It is found with the other columns. It counts only if a unique index of its own keeps each id to one row, and if no two
//! ids are the same to it.

use mysql::prelude::Queryable;
use mysql::{Conn, Value};

use super::classify::sink_error;
use crate::event::event_id::{EVENT_ID_BYTES_MAX, EventId};
use crate::sink::SinkError;

/// The statement by which an operator makes the column. Neither case nor spaces at the end make two ids equal in it.
pub(crate) const ADD_COLUMN: &str = "ALTER TABLE eventlog ADD COLUMN event_id varbinary(64) DEFAULT NULL, \
    ADD UNIQUE KEY event_id (event_id)";

/// What is set where an id is a duplicate: what the row has. Where another key is repeated, or where two ids are only the
/// same to the collation of the column, the expression has no value and the statement fails, in any `sql_mode`: it adds
/// to the largest number. MySQL warns of `VALUES` when it prepares the statement; MariaDB knows nothing else.
pub(super) const CHANGE_NOTHING: &str = "ON DUPLICATE KEY UPDATE event_id = \
    IF(CAST(event_id AS BINARY) = CAST(VALUES(event_id) AS BINARY), event_id, \
    18446744073709551615 + (1 + COALESCE(LENGTH(name), 0)))";

/// The error of [`CHANGE_NOTHING`]: a number is out of range.
pub(super) const OTHER_KEY_REPEATED: i32 = 1690;

/// There is no such column any more.
pub(super) const NO_SUCH_COLUMN: i32 = 1054;

/// Type, length, and what a row has without a value.
const COLUMN: &str = "SELECT LOWER(data_type), character_maximum_length, is_nullable, extra \
    FROM information_schema.columns WHERE table_schema = DATABASE() \
    AND table_name = 'eventlog' AND column_name = 'event_id'";

/// How many unique indexes have this column alone, and all of it.
const UNIQUE_INDEXES: &str = "SELECT COUNT(*) FROM (SELECT index_name FROM information_schema.statistics \
    WHERE table_schema = DATABASE() AND table_name = 'eventlog' GROUP BY index_name \
    HAVING COUNT(*) = 1 AND MAX(LOWER(column_name)) = 'event_id' AND MAX(non_unique) = 0 \
    AND MAX(sub_part) IS NULL) AS own";

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

/// Looks for the column.
pub(crate) fn find(connection: &mut Conn) -> Result<FoundColumn, SinkError> {
    let column: Option<(String, Option<u64>, String, Option<String>)> =
        connection.query_first(COLUMN).map_err(sink_error)?;
    let Some((data_type, length, nullable, extra)) = column else {
        return Ok(FoundColumn::Missing);
    };
    let found = judge(
        &data_type,
        length,
        nullable == "YES",
        &extra.unwrap_or_default(),
    );
    if !matches!(found, FoundColumn::Usable(_)) {
        return Ok(found);
    }
    let indexes: Option<u64> = connection.query_first(UNIQUE_INDEXES).map_err(sink_error)?;
    Ok(match indexes {
        None | Some(0) => FoundColumn::Unusable(
            "it has no unique index of its own: ALTER TABLE eventlog ADD UNIQUE KEY event_id (event_id)",
        ),
        Some(_) => found,
    })
}

fn judge(data_type: &str, length: Option<u64>, may_be_null: bool, extra: &str) -> FoundColumn {
    let extra = extra.to_ascii_uppercase();
    let is_generated = ["VIRTUAL", "STORED", "PERSISTENT"]
        .iter()
        .any(|kind| extra.contains(kind));
    let length = length.unwrap_or_default();
    let is_long = length >= EVENT_ID_BYTES_MAX as u64;
    match data_type {
        "char" => FoundColumn::Unusable(
            "a char has no spaces at its end, so that two ids may be equal in it: \
             ALTER TABLE eventlog MODIFY event_id varbinary(64) DEFAULT NULL",
        ),
        "varbinary" | "binary" | "varchar" if is_generated => {
            FoundColumn::Unusable("it is generated, so that no id can be stored in it")
        }
        "varbinary" | "binary" | "varchar" if !may_be_null => FoundColumn::Unusable(
            "it is NOT NULL, and events without an id have none: \
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_used_if_it_keeps_each_id_as_it_is() {
        for (data_type, length, may_be_null, extra, is_usable) in [
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
            let found = judge(data_type, Some(length), may_be_null, extra);
            let is_found = matches!(found, FoundColumn::Usable(_));
            assert_eq!(is_found, is_usable, "{data_type} {length} {extra}");
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
