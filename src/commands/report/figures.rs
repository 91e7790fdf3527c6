//! The figures of a group of rows.

use std::cmp::Ordering;

use crate::commands::query::dialect::Dialect;
use crate::commands::query::{Cell, QueryError};

/// Number of [`columns`].
pub(super) const COLUMNS: usize = 8;

/// The columns that are selected for each group, for [`Figures::read`].
pub(super) fn columns(dialect: Dialect) -> String {
    let value = dialect.value();
    format!(
        "COUNT(*), COUNT(at), COUNT({value}), SUM({value}), MIN({value}), MAX({value}), MIN(at), MAX(at)"
    )
}

/// The figures of a group of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Rows.
    pub(super) events: u64,
    /// Rows without a time, which hakaru does not store.
    pub(super) without_time: u64,
    /// Rows with a value. All rows that hakaru stores have one.
    pub(super) values: u64,
    /// The sum of the values.
    pub(super) sum: i128,
    pub(super) minimum: Option<i128>,
    pub(super) maximum: Option<i128>,
    /// When the first was received, in the time zone of the column.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

impl Figures {
    pub(super) fn read(cells: [Cell<'_>; COLUMNS]) -> Result<Self, QueryError> {
        let [events, times, values, sum, minimum, maximum, first, last] = cells;
        let time = |cell: Cell<'_>| Some(cell.text().into_owned()).filter(|time| !time.is_empty());
        let events = events.count()?;
        Ok(Self {
            events,
            without_time: events.saturating_sub(times.count()?),
            values: values.count()?,
            sum: sum.integer()?.unwrap_or_default(),
            minimum: minimum.integer()?,
            maximum: maximum.integer()?,
            first: time(first),
            last: time(last),
        })
    }

    /// Adds the figures of another group.
    pub(super) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.without_time += other.without_time;
        self.values += other.values;
        self.sum += other.sum;
        self.minimum = [self.minimum, other.minimum].into_iter().flatten().min();
        self.maximum = self.maximum.max(other.maximum);
        let firsts = [self.first.take(), other.first.clone()];
        self.first = firsts.into_iter().flatten().min();
        self.last = self.last.take().max(other.last.clone());
    }

    /// `None` without a value.
    #[expect(
        clippy::cast_precision_loss,
        reason = "15 digits of an average are enough"
    )]
    pub(super) fn average(&self) -> Option<f64> {
        (self.values > 0).then(|| self.sum as f64 / self.values as f64)
    }
}

/// A name and its figures. Ordered by the number of events; of two with the same number, the first name is larger.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) figures: Figures,
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_events = self.figures.events.cmp(&other.figures.events);
        by_events.then_with(|| other.name.cmp(&self.name))
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_added() {
        let cells = |texts: [&'static str; COLUMNS]| {
            texts.map(|text| match text {
                "NULL" => Cell::Null,
                text => Cell::Bytes(text.as_bytes()),
            })
        };
        let mut total = Figures::default();
        assert_eq!(total.average(), None);
        for texts in [
            [
                "2",
                "2",
                "2",
                "18446744073709551616",
                "5",
                "7",
                "2026-01-02",
                "2026-01-03",
            ],
            ["1", "0", "0", "NULL", "NULL", "NULL", "NULL", "NULL"],
            ["1", "1", "1", "3", "3", "3", "2026-01-01", "2026-01-01"],
        ] {
            total.add(&Figures::read(cells(texts)).unwrap());
        }
        assert_eq!((total.events, total.without_time, total.values), (4, 1, 3));
        assert_eq!(total.sum, (1 << 64) + 3);
        assert_eq!((total.minimum, total.maximum), (Some(3), Some(7)));
        assert_eq!(total.first.as_deref(), Some("2026-01-01"));
        assert_eq!(total.last.as_deref(), Some("2026-01-03"));
        assert!(Figures::read(cells(["1", "1", "1", "1.5", "1", "1", "NULL", "NULL"])).is_err());
    }
}
