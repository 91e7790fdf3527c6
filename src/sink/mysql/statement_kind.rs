//! The texts of the inserts.

use super::at::At;

/// What is set where an id is a duplicate: what the row has. Where another key is repeated, or where two ids are only the
/// same to the collation of the column, the expression has no value and the statement fails, in any `sql_mode`: it adds
/// to the largest number. MySQL warns of `VALUES` when it prepares the statement; MariaDB knows nothing else.
const CHANGE_NOTHING: &str = "ON DUPLICATE KEY UPDATE event_id = \
    IF(CAST(event_id AS BINARY) = CAST(VALUES(event_id) AS BINARY), event_id, \
    18446744073709551615 + (1 + COALESCE(LENGTH(name), 0)))";

/// The error of [`CHANGE_NOTHING`]: a number is out of range.
pub(super) const OTHER_KEY_REPEATED: i32 = 1690;

/// Which columns an INSERT gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Columns {
    /// Time, name and value.
    Plain,
    /// The id of the event as well, or NULL. A row whose id the table has is none.
    WithId,
}

/// Which INSERT a row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StatementKind {
    pub(super) at: At,
    pub(super) columns: Columns,
}

impl StatementKind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = 2 * At::KINDS;

    /// Its index among the kinds of statements that a session prepares.
    pub(super) fn index(self) -> usize {
        match self.columns {
            Columns::Plain => self.at.index(),
            Columns::WithId => At::KINDS + self.at.index(),
        }
    }

    /// The statement that inserts this many rows.
    pub(super) fn text(self, rows: usize) -> String {
        let row = self.at.row();
        match self.columns {
            Columns::Plain => {
                let rows = vec![row; rows].join(",");
                format!("INSERT INTO eventlog (at, name, value) VALUES {rows}")
            }
            Columns::WithId => {
                let rows = vec![with_id(&row); rows].join(",");
                format!("{WITH_ID} {rows} {CHANGE_NOTHING}")
            }
        }
    }

    /// The statement that inserts one row with its id, and says which key it repeats.
    pub(super) fn plain_with_id(self) -> String {
        format!("{WITH_ID} {}", with_id(&self.at.row()))
    }
}

const WITH_ID: &str = "INSERT INTO eventlog (at, name, value, event_id) VALUES";

/// The placeholders of a row with one more for its id.
fn with_id(row: &str) -> String {
    format!("{},?)", row.trim_end_matches(')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_placeholder_for_each_column() {
        let late = At::Late { end: 7 };
        for at in [At::Usual, At::Start, late] {
            for (columns, placeholders) in [(Columns::Plain, 3), (Columns::WithId, 4)] {
                let text = StatementKind { at, columns }.text(2);
                assert_eq!(text.matches('?').count(), 2 * placeholders, "{text}");
                assert_eq!(
                    text.matches('(').count(),
                    text.matches(')').count(),
                    "{text}"
                );
            }
        }
    }
}
