//! How many numbers are left for the column `id`, and the time zone of `at`.

use super::Server;
use super::columns::{Column, columns_of};
use crate::commands::check::Observation;
use crate::sink::SinkError;

/// Fewer numbers that are left are a warning: at 30,000 events a second they last for a day and a half.
const ENOUGH: u64 = 1 << 32;

/// The numbers that are left for new rows.
pub(super) fn id(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let columns = columns_of(server)?;
    let numbered = columns.iter().find(|column| column.is_numbered());
    let Some(column) = numbered else {
        let found = Observation::new("eventlog has no AUTO_INCREMENT column");
        if columns.is_empty() {
            return Ok(Observation::new("will be made with the table"));
        }
        return Ok(found.warning(
            "without it nobody can tell a restored database from an altered checkpoint: \
             ALTER TABLE eventlog ADD id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY",
        ));
    };
    let name = column.name.replace('`', "``");
    // A number that was given by hand may be negative.
    let query = format!("SELECT GREATEST(0, COALESCE(MAX(`{name}`), 0)) FROM eventlog");
    let used: Option<u64> = server.first(&query)?;
    Ok(judge(column, used.unwrap_or_default()))
}

fn judge(column: &Column, used: u64) -> Observation {
    let Column { name, kind, .. } = column;
    let left = numbers_of(kind).saturating_sub(used);
    let found = Observation::new(format!("`{name}` {kind}: {left} numbers are left"));
    if left >= ENOUGH {
        return found;
    }
    found.warning(format!(
        "when they are used up nothing is stored: ALTER TABLE eventlog MODIFY `{name}` bigint unsigned NOT NULL \
         AUTO_INCREMENT"
    ))
}

/// The largest number of an integer type.
fn numbers_of(kind: &str) -> u64 {
    let kind = kind.to_ascii_lowercase();
    let bits = match kind.split(['(', ' ']).next().unwrap_or_default() {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" | "integer" => 32,
        _ => 64,
    };
    let sign = u32::from(!kind.contains("unsigned"));
    u64::MAX >> (64 - bits + sign)
}

/// The time zone in which `at` is given.
pub(super) fn time_zone(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    /// The zone of the session, that of the machine, and the same hour of a winter and a summer.
    const ZONE: &str = "SELECT @@SESSION.time_zone, @@system_time_zone, UNIX_TIMESTAMP('2026-01-15 12:00:00'), \
        UNIX_TIMESTAMP('2026-07-15 12:00:00')";
    let zone: Option<(String, String, i64, i64)> = server.first(ZONE)?;
    let (zone, machine, winter, summer) = zone.unwrap_or_default();
    let zone = match &zone[..] {
        "SYSTEM" => format!("SYSTEM ({machine})"),
        _ => zone,
    };
    let changes = (summer - winter) % 86_400 != 0;
    let columns = columns_of(server)?;
    let at = columns
        .iter()
        .find(|column| column.name.eq_ignore_ascii_case("at"));
    let is_timestamp = at.is_some_and(|at| at.kind.to_ascii_lowercase().starts_with("timestamp"));
    let found = Observation::new(zone);
    if changes && is_timestamp {
        return Ok(found.warning(
            "once a year an hour comes twice, and `at` may be an hour off in it, since it is a timestamp: add \
             time_zone=%27%2B00:00%27 to the datasource",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_type_are_known() {
        for (kind, numbers) in [
            ("tinyint(3) unsigned", 255),
            ("SMALLINT", 32_767),
            ("mediumint unsigned", 16_777_215),
            ("int(11)", 2_147_483_647),
            ("int(10) unsigned", 4_294_967_295),
            ("bigint(20)", i64::MAX as u64),
            ("bigint unsigned", u64::MAX),
        ] {
            assert_eq!(numbers_of(kind), numbers, "{kind}");
        }
    }
}
