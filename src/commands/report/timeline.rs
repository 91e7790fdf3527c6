//! Events over time, in columns of a round width that fit into one line.

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::figures::Figures;
use crate::commands::query::dialect::Rows;
use crate::commands::query::{QueryError, QuerySession, moment};

/// Most columns.
const COLUMNS_MAX: u64 = 60;

/// Widths of a column: in seconds, and in words.
const WIDTHS: [(u64, &str); 13] = [
    (1, "second"),
    (10, "10 seconds"),
    (60, "minute"),
    (5 * 60, "5 minutes"),
    (10 * 60, "10 minutes"),
    (30 * 60, "30 minutes"),
    (3600, "hour"),
    (3 * 3600, "3 hours"),
    (6 * 3600, "6 hours"),
    (86_400, "day"),
    (7 * 86_400, "7 days"),
    (30 * 86_400, "30 days"),
    (365 * 86_400, "365 days"),
];

/// Events over time, without gaps between the columns.
pub(super) struct Timeline {
    /// The width of a column in seconds.
    pub(super) seconds: u64,
    /// The width of a column in words.
    pub(super) width: &'static str,
    pub(super) columns: Vec<Column>,
}

/// The events that were received in the time of one column.
pub(super) struct Column {
    /// Its first second, in the time zone of the column `at`.
    pub(super) at: String,
    pub(super) events: u64,
    pub(super) sum: i128,
}

impl Timeline {
    /// Queries the database. The timeline covers the given range; an end that is not given is that of the rows.
    pub(super) fn find(
        session: &mut QuerySession,
        rows: &Rows<'_>,
        total: &Figures,
    ) -> Result<Option<Self>, QueryError> {
        let start = rows.range.from.as_ref().map(|from| &from.civil);
        let end = rows.range.to.as_ref().map(|to| &to.civil);
        let start = start.or(total.first.as_ref()).and_then(|at| seconds(at));
        let last = match end {
            Some(end) => seconds(end).map(|end| end - 1),
            None => total.last.as_ref().and_then(|at| seconds(at)),
        };
        let (Some(start), Some(last), true) = (start, last, total.events > 0) else {
            return Ok(None);
        };
        let (width, words) = width(start, last);
        let first = start.div_euclid(width);
        let count = usize::try_from(last.div_euclid(width) - first + 1).unwrap_or_default();
        let columns = (first..).take(count).map(|column| Column {
            at: civil(column * width),
            events: 0,
            sum: 0,
        });
        let mut timeline = Self {
            seconds: width.unsigned_abs(),
            width: words,
            columns: columns.collect(),
        };
        let dialect = session.dialect();
        let (at, divide, value) = (dialect.civil_seconds(), dialect.divide(), dialect.value());
        let condition = dialect.condition(rows);
        let sql = format!(
            "SELECT {at} {divide} {width}, COUNT(*), SUM({value}) FROM eventlog {condition} \
             GROUP BY 1 ORDER BY NULL"
        );
        session.rows(&sql, |[column, events, sum]| {
            let column = column
                .integer()?
                .and_then(|column| usize::try_from(column - i128::from(first)).ok());
            if let Some(column) = column.and_then(|column| timeline.columns.get_mut(column)) {
                column.events += events.count()?;
                column.sum += sum.integer()?.unwrap_or_default();
            }
            Ok(())
        })?;
        Ok(Some(timeline))
    }
}

/// The smallest width with at most [`COLUMNS_MAX`] columns. If no width of [`WIDTHS`] is large enough, it is not round.
fn width(start: i64, last: i64) -> (i64, &'static str) {
    let columns =
        |width: i64| (last.div_euclid(width) - start.div_euclid(width) + 1).unsigned_abs();
    let fitting = WIDTHS
        .iter()
        .find(|(width, _)| columns(width.cast_signed()) <= COLUMNS_MAX);
    match fitting {
        Some((width, words)) => (width.cast_signed(), words),
        None => ((last - start) / COLUMNS_MAX.cast_signed() * 2, "many years"),
    }
}

/// Seconds since 1970, as clocks in the time zone of the column show them.
fn seconds(civil: &str) -> Option<i64> {
    let civil: DateTime = civil.parse().ok()?;
    Some(
        civil
            .duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0))
            .as_secs(),
    )
}

fn civil(seconds: i64) -> String {
    let since = SignedDuration::from_secs(seconds);
    let civil = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(since);
    civil.map(moment::text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_of_a_round_width_and_fit_a_line() {
        for (from, last, words) in [
            ("2026-01-01 00:00:00", "2026-01-01 00:00:00", "second"),
            ("2026-01-01 00:00:00", "2026-01-01 00:00:59", "second"),
            ("2026-01-01 00:00:00", "2026-01-01 00:01:00", "10 seconds"),
            ("2026-01-01 00:00:00", "2026-01-01 00:59:59", "minute"),
            ("2026-01-01 00:00:30", "2026-01-01 01:00:29", "5 minutes"),
            ("2026-01-01 00:00:00", "2026-01-01 23:59:59", "30 minutes"),
            ("2026-01-01 00:00:00", "2026-01-31 23:59:59", "day"),
            ("2000-01-01 00:00:00", "2026-01-31 23:59:59", "365 days"),
            ("0100-01-01 00:00:00", "2026-01-31 23:59:59", "many years"),
        ] {
            let (from, last) = (seconds(from).unwrap(), seconds(last).unwrap());
            let (width, found) = width(from, last);
            assert_eq!(found, words);
            let columns = last.div_euclid(width) - from.div_euclid(width) + 1;
            assert!((1..=60).contains(&columns), "{columns}");
        }
        assert_eq!(
            civil(seconds("1969-12-31 23:59:59").unwrap()),
            "1969-12-31 23:59:59"
        );
    }
}
