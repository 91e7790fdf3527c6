//! The columns of `eventlog`: whether they hold events as they are sent.

use mysql::prelude::Queryable;

use super::Server;
use crate::commands::check::Observation;
use crate::event::repertoire::Repertoire;
use crate::event::rule::{EventRule, NAME_CHARS_MAX};
use crate::sink::SinkError;
use crate::sink::mysql::classify::sink_error;
use crate::sink::mysql::columns;

/// The columns that the user may see; no rows if there is no table.
const COLUMNS: &str = "SELECT column_name, column_type, is_nullable, column_default, extra \
    FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'eventlog' \
    ORDER BY ordinal_position";

/// A column as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// Such as `int(10) unsigned`.
    pub(super) kind: String,
    may_be_null: bool,
    has_default: bool,
    /// `auto_increment`, or how it is generated.
    extra: String,
}

impl Column {
    /// Whether the server numbers the rows in it.
    pub(super) fn is_numbered(&self) -> bool {
        self.extra.contains("auto_increment")
    }

    /// Whether an insert that does not name it fails.
    fn must_be_given(&self) -> bool {
        let is_filled = self.is_numbered() || self.extra.contains("GENERATED");
        !self.may_be_null && !self.has_default && !is_filled
    }
}

pub(super) fn columns_of(server: &mut Server<'_>) -> Result<Vec<Column>, SinkError> {
    let rows: Vec<(String, String, String, Option<String>, String)> =
        server.connection.query(COLUMNS).map_err(sink_error)?;
    let column =
        |(name, kind, nullable, default, extra): (_, _, String, Option<String>, _)| Column {
            name,
            kind,
            may_be_null: nullable == "YES",
            has_default: default.is_some(),
            extra,
        };
    Ok(rows.into_iter().map(column).collect())
}

/// Judges a table with these columns.
pub(super) fn judge(columns: &[Column], rule: Option<EventRule>) -> Observation {
    let kind_of = |name: &str| {
        let found = columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name));
        found.map(|column| column.kind.to_ascii_lowercase())
    };
    let (Some(at), Some(name), Some(value), Some(rule)) =
        (kind_of("at"), kind_of("name"), kind_of("value"), rule)
    else {
        let there: Vec<_> = columns.iter().map(|column| &column.name[..]).collect();
        let advice = "it must have `at datetime`, `name varchar(255)` and `value int unsigned`: ALTER TABLE eventlog ADD";
        return Observation::new(format!("has only the columns {}", there.join(", ")))
            .error(advice);
    };
    let bytes = match rule.bytes_max {
        EventRule::ANY_BYTES => String::new(),
        bytes => format!(", at most {bytes} bytes"),
    };
    let found = Observation::new(format!(
        "at {at}; name: {} characters{bytes}, {}; value {value}",
        rule.chars_max,
        characters(rule.repertoire),
    ));
    let ours = ["at", "name", "value"];
    let is_ours = |name: &str| ours.iter().any(|our| our.eq_ignore_ascii_case(name));
    let other = columns
        .iter()
        .find(|column| column.must_be_given() && !is_ours(&column.name));
    if let Some(Column { name, .. }) = other {
        return found.error(format!(
            "each insert fails, since column `{name}` is NOT NULL and has no default: \
             ALTER TABLE eventlog ALTER `{name}` SET DEFAULT …, or MODIFY it to be NULL"
        ));
    }
    let advice = of_value(&value, rule)
        .or_else(|| of_at(&at))
        .or_else(|| of_name(&name, rule));
    match advice {
        Some(advice) => found.warning(advice),
        None => found,
    }
}

/// The warning about a `value` column that does not hold every value.
fn of_value(column_type: &str, rule: EventRule) -> Option<String> {
    const REMEDY: &str = "ALTER TABLE eventlog MODIFY value int unsigned";
    let max = rule.value_max;
    if max < u32::MAX {
        return Some(format!("values above {max} are answered 400: {REMEDY}"));
    }
    (!has_known_values(column_type))
        .then(|| format!("the column may change the values that are stored in it: {REMEDY}"))
}

/// The warning about an `at` column that does not hold times.
fn of_at(column_type: &str) -> Option<String> {
    let holds_times = column_type.starts_with("datetime") || column_type.starts_with("timestamp");
    let advice = "the column may change the times that are stored in it: ALTER TABLE eventlog MODIFY at datetime";
    (!holds_times).then(|| advice.to_owned())
}

/// The warning about a `name` column that does not hold every name.
fn of_name(column_type: &str, rule: EventRule) -> Option<String> {
    const REMEDY: &str = "ALTER TABLE eventlog MODIFY name varchar(255)";
    let is_text = ["char", "text", "binary", "blob"]
        .iter()
        .any(|kind| column_type.contains(kind));
    if !is_text {
        return Some(format!(
            "the column may change the names that are stored in it: {REMEDY} NOT NULL"
        ));
    }
    if rule.chars_max < NAME_CHARS_MAX || rule.bytes_max < EventRule::ANY_BYTES {
        return Some(format!("longer names are answered 400: {REMEDY} NOT NULL"));
    }
    let Repertoire::Listed(set) = rule.repertoire else {
        return None;
    };
    Some(format!(
        "names with characters that {} lacks are answered 400: {REMEDY} CHARACTER SET utf8mb4 NOT NULL",
        set.name()
    ))
}

/// Whether a column of this type holds every value up to a bound as it was sent, and as a number.
fn has_known_values(column_type: &str) -> bool {
    let data_type = column_type.split(['(', ' ']).next().unwrap_or_default();
    columns::value_max(data_type, column_type, None, None).is_some()
        || matches!(data_type, "bit" | "decimal" | "numeric")
}

fn characters(repertoire: Repertoire) -> &'static str {
    match repertoire {
        Repertoire::Listed(set) => set.name(),
        Repertoire::Unicode => "all of Unicode",
        Repertoire::Bmp => "up to U+FFFF (no emoji)",
        Repertoire::Ascii => "ASCII",
        Repertoire::Latin1 => "Latin-1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    fn column(name: &str, kind: &str) -> Column {
        Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            may_be_null: false,
            has_default: false,
            extra: String::new(),
        }
    }

    fn table() -> Vec<Column> {
        let id = Column {
            extra: "auto_increment".to_owned(),
            ..column("id", "bigint(20) unsigned")
        };
        vec![
            id,
            column("at", "datetime"),
            column("name", "varchar(255)"),
            column("value", "int(10) unsigned"),
        ]
    }

    #[test]
    fn the_deployed_table_is_ok() {
        let found = judge(&table(), Some(EventRule::DEPLOYED));
        assert_eq!(found.level, Level::Ok, "{found:?}");
        assert!(found.text.contains("no emoji"), "{found:?}");
    }

    #[test]
    fn a_table_that_cannot_hold_every_event_is_a_warning_or_an_error() {
        let short = EventRule {
            chars_max: 20,
            ..EventRule::DEPLOYED
        };
        let with = |column: Column| {
            let others = table()
                .into_iter()
                .filter(|other| other.name != column.name);
            others.chain([column.clone()]).collect::<Vec<_>>()
        };
        let filled = Column {
            has_default: true,
            ..column("extra", "int")
        };
        for (columns, rule, level, words) in [
            (table(), short, Level::Warning, "longer names"),
            (
                with(column("value", "int(11)")),
                EventRule {
                    value_max: 2_147_483_647,
                    ..EventRule::DEPLOYED
                },
                Level::Warning,
                "above 2147483647",
            ),
            (
                with(column("value", "varchar(9)")),
                EventRule::DEPLOYED,
                Level::Warning,
                "may change",
            ),
            (
                with(column("name", "json")),
                EventRule::DEPLOYED,
                Level::Warning,
                "may change",
            ),
            (
                with(column("at", "date")),
                EventRule::DEPLOYED,
                Level::Warning,
                "datetime",
            ),
            (
                with(column("extra", "int")),
                EventRule::DEPLOYED,
                Level::Error,
                "`extra`",
            ),
            (
                table()[..3].to_vec(),
                EventRule::DEPLOYED,
                Level::Error,
                "ADD",
            ),
        ] {
            let found = judge(&columns, Some(rule));
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.advice.as_ref().unwrap().contains(words), "{found:?}");
        }
        let found = judge(&with(filled), Some(EventRule::DEPLOYED));
        assert_eq!(found.level, Level::Ok, "{found:?}");
    }
}
