//! Trial rows: whether the table takes rows at all, when it has refused one.
//!
//! A trial row has the time of the refused row and another name and value. It is inserted in the open transaction and
//! removed again; its id is skipped. If it is taken, the row was refused for itself. If each trial row is refused too,
//! that is a fault of the table, and storing stops.
//!
//! A constraint may refuse a trial row for its content: `UNIQUE (value)`, or a CHECK on the form of names. So several
//! are tried: a name and a value of chance, a row that this process has stored, and one that the table has. What
//! remains is an empty table whose constraints refuse names of chance: there the first bad event stops storing.
//!
//! Where the refused row has an id of its sender, each is tried with an id of chance and then without one, since a
//! constraint may demand a form of ids or that another table has them. What remains is one that refuses rows without an id
//! as well.

use std::collections::BTreeMap;

use super::{Fault, Refused, SinkError};
use crate::event::Event;
use crate::event::rule::EventRule;

/// Characters of a name of chance, all of them ASCII.
const NAME_CHARS: usize = 12;

/// Name and value of a trial row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) value: u32,
}

impl Content {
    pub(crate) fn of(event: Event<'_>) -> Self {
        Self {
            name: event.name.to_owned(),
            value: event.value,
        }
    }
}

/// What trial rows hold, in the order in which they are tried. `known` is a row that this process has inserted.
pub(crate) fn contents(rule: EventRule, known: Option<Content>) -> impl Iterator<Item = Content> {
    let length = NAME_CHARS.min(rule.chars_max.into());
    let of_chance = move |value| Content {
        name: std::iter::repeat_with(fastrand::lowercase)
            .take(length)
            .collect(),
        value,
    };
    let values = [0, fastrand::u32(0..=rule.value_max)];
    values.into_iter().map(of_chance).chain(known)
}

/// The error of a table that refused a row and each trial row.
pub(crate) fn takes_no_row(refused: Fault) -> SinkError {
    let text = format!(
        "{}; the table refuses any other row too, so no event is refused for itself",
        refused.text
    );
    SinkError::Stop(Fault { text, ..refused })
}

/// The rows that were refused in one transaction and are not proven yet. A trial after them proves it, with the time of
/// each: what refuses all rows from some id or time on lets no later row pass.
///
/// The first refusal needs a trial at once, so that a table that takes no row costs few statements. Further ones are
/// proven together, when there are 2, 4, 8, … of them and at the end. So where the fault begins in the middle of a
/// batch, few more rows are tried than were refused before it.
#[derive(Debug)]
pub(crate) struct Suspects<T> {
    rows: BTreeMap<usize, Suspect<T>>,
    trial_at: usize,
}

/// A row that was refused.
#[derive(Debug)]
pub(crate) struct Suspect<T> {
    /// When it was received.
    pub(crate) seconds: u64,
    /// How it is inserted.
    pub(crate) at: T,
    /// Why it was refused.
    pub(crate) fault: Fault,
}

impl<T> Default for Suspects<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            trial_at: 1,
        }
    }
}

impl<T: Copy + Ord> Suspects<T> {
    /// Adds the row with this index. Returns whether a trial is due.
    pub(crate) fn add(&mut self, row: usize, suspect: Suspect<T>) -> bool {
        self.rows.insert(row, suspect);
        self.rows.len() >= self.trial_at
    }

    /// One of the rows of each second that are inserted in the same way.
    pub(crate) fn by_second(&self) -> impl Iterator<Item = &Suspect<T>> {
        let rows = self.rows.values().map(|row| ((row.seconds, row.at), row));
        rows.collect::<BTreeMap<_, _>>().into_values()
    }

    /// The table takes rows of each second: moves the rows to `refused`.
    pub(crate) fn prove(&mut self, refused: &mut Refused) {
        self.trial_at *= 2;
        let rows = std::mem::take(&mut self.rows).into_iter();
        refused.extend(rows.map(|(row, suspect)| (row, suspect.fault)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trial_rows_fit_the_columns() {
        let rule = EventRule {
            chars_max: 3,
            value_max: 7,
            ..EventRule::DEPLOYED
        };
        let known = Content {
            name: "a".to_owned(),
            value: 1,
        };
        let contents: Vec<_> = contents(rule, Some(known.clone())).collect();
        assert_eq!(contents.len(), 3);
        for content in &contents {
            assert_eq!(rule.check_name(&content.name), Ok(()));
            assert!(content.value <= 7);
        }
        assert_ne!(contents[0].name, contents[1].name);
        assert_eq!((contents[0].value, &contents[2]), (0, &known));
    }

    #[test]
    fn refused_rows_are_proven_in_groups_that_double() {
        let mut suspects = Suspects::default();
        let mut refused = Refused::new();
        let mut trials = Vec::new();
        for row in 0..5_000 {
            let suspect = Suspect {
                seconds: row as u64 / 1_000,
                at: (),
                fault: Fault::new("no"),
            };
            if suspects.add(row, suspect) {
                trials.push(suspects.by_second().count());
                suspects.prove(&mut refused);
            }
        }
        // After 1, 3, 7, … rows; one trial for each second among those that were not proven before.
        assert_eq!(trials, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3]);
        assert_eq!(refused.len(), 4_095);
        assert_eq!(suspects.by_second().count(), 1);
    }
}
