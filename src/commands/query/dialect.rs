//! The SQL expressions that differ between databases. Text from users is written in hexadecimal, which needs no
//! quoting in any of them.

use super::moment::TimeRange;

/// The SQL of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL and MariaDB.
    MySql(Exact),
    /// SQLite.
    Sqlite,
}

/// How a MySQL server compares names byte for byte. The collation of the column may treat `A` and `a` as equal, and
/// `utf8mb4_bin` ignores blanks at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// By a collation that compares bytes, which MariaDB has since 10.2 and MySQL since 8.0.
    Collation(&'static str),
    /// As binary strings, which every server can do. Grouping takes three times as long.
    Bytes,
}

impl Exact {
    /// Finds a collation of the server that compares bytes.
    pub const QUERY: &str = "SELECT collation_name FROM information_schema.collations \
        WHERE collation_name IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')";

    /// From the answer to [`Self::QUERY`].
    pub fn read(collation: Option<&str>) -> Self {
        match collation {
            Some("utf8mb4_nopad_bin") => {
                Self::Collation("CONVERT(name USING utf8mb4) COLLATE utf8mb4_nopad_bin")
            }
            Some("utf8mb4_0900_bin") => {
                Self::Collation("CONVERT(name USING utf8mb4) COLLATE utf8mb4_0900_bin")
            }
            _ => Self::Bytes,
        }
    }
}

/// Which rows are selected.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    /// When they were received.
    pub range: TimeRange,
    /// With one of these names; with any name if empty.
    pub names: &'a [String],
    /// With a name that matches a `LIKE` pattern of SQL.
    pub like: Option<&'a str>,
}

impl Dialect {
    /// The name in UTF-8. Two names are equal only if all their bytes are.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql(Exact::Collation(name)) => name,
            Self::MySql(Exact::Bytes) => "CAST(CONVERT(name USING utf8mb4) AS BINARY)",
            Self::Sqlite => "CAST(name AS TEXT)",
        }
    }

    /// The value as an integer. A SQLite column may hold anything.
    pub fn value(self) -> &'static str {
        match self {
            Self::MySql(_) => "value",
            Self::Sqlite => "CAST(value AS INTEGER)",
        }
    }

    /// When the row was received, in seconds since 1970 UTC.
    pub fn unix_seconds(self) -> &'static str {
        match self {
            Self::MySql(_) => "FLOOR(UNIX_TIMESTAMP(at))",
            Self::Sqlite => "CAST(strftime('%s', at) AS INTEGER)",
        }
    }

    /// When the row was received, in seconds since 1970 in the time zone of the column.
    pub fn civil_seconds(self) -> &'static str {
        match self {
            Self::MySql(_) => "TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', at)",
            Self::Sqlite => "CAST(strftime('%s', at) AS INTEGER)",
        }
    }

    /// The operator of an integer division.
    pub fn divide(self) -> &'static str {
        match self {
            Self::MySql(_) => "DIV",
            Self::Sqlite => "/",
        }
    }

    /// The `WHERE` clause of a query; empty if all rows are selected.
    pub fn condition(self, rows: &Rows<'_>) -> String {
        let mut conditions = Vec::new();
        if let Some(from) = &rows.range.from {
            conditions.push(format!("at >= '{}'", from.civil));
        }
        if let Some(to) = &rows.range.to {
            conditions.push(format!("at < '{}'", to.civil));
        }
        if !rows.names.is_empty() {
            let names: Vec<String> = rows.names.iter().map(|name| self.literal(name)).collect();
            conditions.push(format!("{} IN ({})", self.name(), names.join(", ")));
        }
        if let Some(pattern) = rows.like {
            conditions.push(match self {
                Self::MySql(_) => format!(
                    "CONVERT(name USING utf8mb4) COLLATE utf8mb4_bin LIKE _utf8mb4 {}",
                    hexadecimal(pattern)
                ),
                Self::Sqlite => format!("name LIKE {} ESCAPE '\\'", self.literal(pattern)),
            });
        }
        if conditions.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", conditions.join(" AND "))
        }
    }

    /// A text to be compared with [`Self::name`].
    fn literal(self, text: &str) -> String {
        match self {
            Self::MySql(Exact::Collation(_)) => format!("_utf8mb4 {}", hexadecimal(text)),
            Self::MySql(Exact::Bytes) => hexadecimal(text),
            Self::Sqlite => format!("CAST({} AS TEXT)", hexadecimal(text)),
        }
    }

    /// A query that has a row if the table exists.
    pub fn table_exists(self, table: &str) -> String {
        match self {
            Self::MySql(_) => format!(
                "SELECT table_name FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name = '{table}'"
            ),
            Self::Sqlite => {
                format!("SELECT name FROM sqlite_master WHERE type = 'table' AND name = '{table}'")
            }
        }
    }
}

fn hexadecimal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() * 2 + 3);
    literal.push_str("X'");
    for byte in text.bytes() {
        literal.push_str(&format!("{byte:02X}"));
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_users_is_never_part_of_the_sql() {
        let names = ["a' OR 1=1 --".to_owned()];
        let rows = Rows {
            names: &names,
            like: Some("'%"),
            ..Rows::default()
        };
        for (dialect, expected) in [
            (
                Dialect::MySql(Exact::read(None)),
                "WHERE CAST(CONVERT(name USING utf8mb4) AS BINARY) IN (X'6127204F5220313D31202D2D') \
                 AND CONVERT(name USING utf8mb4) COLLATE utf8mb4_bin LIKE _utf8mb4 X'2725'",
            ),
            (
                Dialect::MySql(Exact::read(Some("utf8mb4_0900_bin"))),
                "WHERE CONVERT(name USING utf8mb4) COLLATE utf8mb4_0900_bin \
                 IN (_utf8mb4 X'6127204F5220313D31202D2D') \
                 AND CONVERT(name USING utf8mb4) COLLATE utf8mb4_bin LIKE _utf8mb4 X'2725'",
            ),
            (
                Dialect::Sqlite,
                "WHERE CAST(name AS TEXT) IN (CAST(X'6127204F5220313D31202D2D' AS TEXT)) \
                 AND name LIKE CAST(X'2725' AS TEXT) ESCAPE '\\'",
            ),
        ] {
            assert_eq!(dialect.condition(&rows), expected);
        }
        assert_eq!(Dialect::Sqlite.condition(&Rows::default()), "");
    }
}
