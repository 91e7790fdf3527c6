//! The statement that inserts a row, chosen by what the table does with a conflict.

use rusqlite::{Connection, OptionalExtension};

use super::classify;
use crate::sink::SinkError;

/// Inserts one row. A trigger may have conflict clauses of its own, as INSERT OR IGNORE INTO a table of names: a
/// clause here would take their place.
const INSERT: &str =
    "INSERT INTO eventlog (at, name, value) VALUES (datetime(?1, 'unixepoch'), ?2, ?3)";

/// Inserts one row into a table with a conflict clause, in its place: REPLACE would remove a stored row, and IGNORE
/// would lose the new one.
const INSERT_OR_ABORT: &str =
    "INSERT OR ABORT INTO eventlog (at, name, value) VALUES (datetime(?1, 'unixepoch'), ?2, ?3)";

/// The same two with an id. A row whose id the table has is none.
const INSERT_WITH_ID: &str = "INSERT INTO eventlog (at, name, value, event_id) \
    VALUES (datetime(?1, 'unixepoch'), ?2, ?3, ?4) ON CONFLICT (event_id) DO NOTHING";
const INSERT_WITH_ID_OR_ABORT: &str = "INSERT OR ABORT INTO eventlog (at, name, value, event_id) \
    VALUES (datetime(?1, 'unixepoch'), ?2, ?3, ?4) ON CONFLICT (event_id) DO NOTHING";

const TABLE: &str =
    "SELECT sql FROM sqlite_master WHERE type = 'table' AND lower(name) = 'eventlog'";

/// The statements that insert one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inserts {
    /// Without an id.
    pub(super) plain: &'static str,
    /// With one.
    pub(super) with_id: &'static str,
}

/// The statements that insert one row.
pub(super) fn inserts(connection: &Connection) -> Result<Inserts, SinkError> {
    Ok(match has_conflict_clause(connection)? {
        true => Inserts {
            plain: INSERT_OR_ABORT,
            with_id: INSERT_WITH_ID_OR_ABORT,
        },
        false => Inserts {
            plain: INSERT,
            with_id: INSERT_WITH_ID,
        },
    })
}

/// Whether a constraint of the table says what becomes of a conflict, as `UNIQUE ON CONFLICT REPLACE` does.
pub(crate) fn has_conflict_clause(connection: &Connection) -> Result<bool, SinkError> {
    let table = connection
        .prepare_cached(TABLE)
        .and_then(|mut statement| {
            let row = statement.query_row([], |row| row.get::<_, String>(0));
            row.optional()
        })
        .map_err(classify)?;
    Ok(table.is_some_and(|sql| names_conflict(&sql)))
}

fn names_conflict(sql: &str) -> bool {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let words: Vec<&str> = sql
        .split(|char| !is_word(char))
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .any(|pair| pair[0].eq_ignore_ascii_case("on") && pair[1].eq_ignore_ascii_case("conflict"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflict_clauses_are_found_in_the_text_of_a_table() {
        for sql in [
            "CREATE TABLE eventlog (name text UNIQUE ON CONFLICT REPLACE)",
            "CREATE TABLE eventlog (name text, UNIQUE(name)on\n  conflict ignore)",
        ] {
            assert!(names_conflict(sql), "{sql}");
        }
        for sql in [
            "CREATE TABLE eventlog (name text, conflict int, on_conflict int)",
            "",
        ] {
            assert!(!names_conflict(sql), "{sql}");
        }
    }
}
