//! Counts expected events and what was found of them, by name and value.
//!
//! Memory is bounded by the list: each different name once, 40 to 110 bytes per different pair of name and value (most
//! while the table grows), and 24 to 50 bytes per expected event that has a time. Rows are counted as they arrive.

use std::collections::HashMap;

use super::answer::{Answer, Kind, Listed};

/// The number of a name of the list.
type NameNumber = u32;

/// Counts of the events of one name and value.
#[derive(Debug, Default)]
struct Entry {
    expected: u32,
    rows: u32,
    dead_letters: u32,
    pending: u32,
    /// The index of its first time.
    times_start: u32,
    /// How many of the expected events have a time.
    times: u32,
}

/// When an expected event was sent, and when one of the rows that could be it was received.
#[derive(Debug, Clone, Copy)]
struct Time {
    key: (NameNumber, u32),
    /// In milliseconds since 1970.
    sent: i64,
    /// In seconds since 1970; [`NO_TIME`] for a row without one.
    received: i64,
}

/// The time of a row without a time. No event was received then.
const NO_TIME: i64 = i64::MIN;

/// How a row compares with the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    /// Its name and value are in the list.
    Expected,
    /// Its name is in the list, with other values.
    OtherValue,
    /// Its name is not in the list.
    OtherName,
}

/// Expected events, and counts of what was found of them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    names: HashMap<Box<str>, NameNumber>,
    entries: HashMap<(NameNumber, u32), Entry>,
    times: Vec<Time>,
    expected: u64,
}

impl Tally {
    /// Number of expected events.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// The names, or `None` if there are more than `most`.
    pub(super) fn names(&self, most: usize) -> Option<Vec<String>> {
        let names = self.names.keys().map(|name| name.to_string());
        (self.names.len() <= most).then(|| names.collect())
    }

    /// Adds an expected event. `sent` is in milliseconds since 1970.
    pub(super) fn expect(&mut self, name: &str, value: u32, sent: Option<i64>) {
        let number = match self.names.get(name) {
            Some(&number) => number,
            None => {
                #[expect(clippy::cast_possible_truncation, reason = "no more names than events")]
                let number = self.names.len() as NameNumber;
                self.names.insert(name.into(), number);
                number
            }
        };
        let key = (number, value);
        let entry = self.entries.entry(key).or_default();
        entry.expected += 1;
        self.expected += 1;
        if let Some(sent) = sent {
            entry.times += 1;
            self.times.push(Time {
                key,
                sent,
                received: NO_TIME,
            });
        }
    }

    /// Must be called when the list is complete.
    pub(super) fn seal(&mut self) {
        self.times
            .sort_unstable_by_key(|time| (time.key, time.sent));
        let mut start = 0;
        while let Some(time) = self.times.get(start) {
            let Some(entry) = self.entries.get_mut(&time.key) else {
                break;
            };
            #[expect(clippy::cast_possible_truncation, reason = "no more times than events")]
            let at = start as u32;
            entry.times_start = at;
            start += entry.times as usize;
        }
    }

    fn entry(&mut self, name: &str, value: u32) -> Option<&mut Entry> {
        let number = *self.names.get(name)?;
        self.entries.get_mut(&(number, value))
    }

    /// Counts a row. `received` is in seconds since 1970.
    pub(super) fn row(&mut self, name: &str, value: Option<u32>, received: Option<i64>) -> RowKind {
        let Some(&number) = self.names.get(name) else {
            return RowKind::OtherName;
        };
        let Some(entry) = value.and_then(|value| self.entries.get_mut(&(number, value))) else {
            return RowKind::OtherValue;
        };
        // If there are more rows than times, the times of the first rows are kept.
        if entry.rows < entry.times
            && let Some(time) = self
                .times
                .get_mut((entry.times_start + entry.rows) as usize)
        {
            time.received = received.unwrap_or(NO_TIME);
        }
        entry.rows = entry.rows.saturating_add(1);
        RowKind::Expected
    }

    /// Counts a dead letter.
    pub(super) fn dead_letter(&mut self, name: &str, value: u32) {
        if let Some(entry) = self.entry(name, value) {
            entry.dead_letters = entry.dead_letters.saturating_add(1);
        }
    }

    /// Counts an event that the journal holds and the database does not yet.
    pub(super) fn pending(&mut self, name: &str, value: u32) {
        if let Some(entry) = self.entry(name, value) {
            entry.pending = entry.pending.saturating_add(1);
        }
    }

    /// Writes the results into `answer`, and lists the first events of each kind. An event is late if its row was
    /// received more than `late_ms` before or after it was sent.
    pub(super) fn compare(mut self, answer: &mut Answer, late_ms: i64, listed_max: usize) {
        let mut texts = vec![""; self.names.len()];
        for (name, &number) in &self.names {
            texts[number as usize] = name;
        }
        answer.expected = self.expected;
        // In the order of the list's names, so that two runs list the same.
        let mut keys: Vec<_> = self.entries.keys().copied().collect();
        keys.sort_unstable();
        let mut listed = [Kind::Lost, Kind::Doubled, Kind::Late].map(|kind| (kind, Vec::new()));
        for key in keys {
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            let (rows, missing) = (entry.rows, entry.expected.saturating_sub(entry.rows));
            // Further dead letters are of other events with the same name and value.
            let dead_letters = missing.min(entry.dead_letters);
            let pending = (missing - dead_letters).min(entry.pending);
            let lost = missing - dead_letters - pending;
            let doubled = rows.saturating_sub(entry.expected);
            answer.dead_letters += u64::from(dead_letters);
            answer.pending += u64::from(pending);
            answer.lost += u64::from(lost);
            answer.doubled += u64::from(doubled);
            let counts = |kind, count| Listed {
                value: Some(key.1),
                count: u64::from(count),
                ..Listed::new(kind, texts[key.0 as usize])
            };
            let mut list = |found: Listed| {
                for (kind, list) in &mut listed {
                    if *kind == found.kind && found.count > 0 && list.len() < listed_max {
                        list.push(found.clone());
                    }
                }
            };
            list(counts(Kind::Lost, lost));
            list(counts(Kind::Doubled, doubled));
            // If some of them have no time, any row may be theirs.
            if entry.times == entry.expected {
                let start = entry.times_start as usize;
                let times = &mut self.times[start..start + entry.times as usize];
                for (sent, received) in late(times, rows, late_ms) {
                    answer.late += 1;
                    list(Listed {
                        sent_ms: Some(sent),
                        received,
                        ..counts(Kind::Late, 1)
                    });
                }
            }
        }
        answer
            .listed
            .extend(listed.into_iter().flat_map(|(_, list)| list));
    }
}

/// The late events of one name and value: when they were sent, and when their rows were received. Rows and events are
/// matched so that as few as possible are late: each event, in order of time, with the earliest row that can be its own.
fn late(times: &mut [Time], rows: u32, late_ms: i64) -> Vec<(i64, Option<i64>)> {
    let rows = times.len().min(rows as usize);
    let mut received: Vec<i64> = times[..rows].iter().map(|time| time.received).collect();
    received.sort_unstable();
    let (mut unmatched_events, mut unmatched_rows) = (Vec::new(), Vec::new());
    let mut received = received.into_iter().peekable();
    for sent in times.iter().map(|time| time.sent) {
        let matched = loop {
            let Some(&row) = received.peek() else {
                break false;
            };
            // The time of a row is cut to seconds: it was received at some time within that second.
            let (earliest, latest) = if row == NO_TIME {
                (NO_TIME, NO_TIME)
            } else {
                (
                    row.saturating_mul(1000),
                    row.saturating_mul(1000).saturating_add(999),
                )
            };
            if sent < earliest.saturating_sub(late_ms) {
                break false;
            }
            received.next();
            if sent <= latest.saturating_add(late_ms) {
                break true;
            }
            unmatched_rows.push(row);
        };
        if !matched {
            unmatched_events.push(sent);
        }
    }
    unmatched_rows.extend(received);
    let known = |row: i64| (row != NO_TIME).then_some(row);
    let rows = unmatched_rows.into_iter().map(known);
    unmatched_events.into_iter().zip(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compared(tally: Tally, late_ms: i64) -> Answer {
        let mut answer = Answer::default();
        tally.compare(&mut answer, late_ms, 10);
        answer
    }

    #[test]
    fn every_event_is_counted_once() {
        let mut tally = Tally::default();
        for (name, value) in [("a", 1), ("a", 1), ("a", 2), ("b", 1), ("c", 1), ("d", 1)] {
            tally.expect(name, value, None);
        }
        tally.seal();
        for (name, value, kind) in [
            ("a", Some(1), RowKind::Expected),
            ("b", Some(1), RowKind::Expected),
            ("b", Some(1), RowKind::Expected),
            ("b", Some(2), RowKind::OtherValue),
            ("b", None, RowKind::OtherValue),
            ("B", Some(1), RowKind::OtherName),
        ] {
            assert_eq!(tally.row(name, value, None), kind);
        }
        // Dead letters of earlier days must not make the counts wrong.
        for (name, value) in [("c", 1), ("c", 1), ("b", 1), ("z", 1)] {
            tally.dead_letter(name, value);
        }
        tally.pending("d", 1);
        let answer = compared(tally, 1000);
        assert_eq!((answer.expected, answer.lost, answer.doubled), (6, 2, 1));
        assert_eq!(
            (answer.dead_letters, answer.pending, answer.late),
            (1, 1, 0)
        );
        let listed: Vec<_> = answer
            .listed
            .iter()
            .map(|found| (found.kind, found.name.as_str(), found.value))
            .collect();
        assert_eq!(
            listed,
            [
                (Kind::Lost, "a", Some(1)),
                (Kind::Lost, "a", Some(2)),
                (Kind::Doubled, "b", Some(1)),
            ]
        );
    }

    #[test]
    fn an_event_is_late_if_it_is_too_far_from_the_second_of_its_row() {
        for (sent, received, is_late) in [
            (10_000, Some(10), false),
            (10_999, Some(10), false),
            (9_000, Some(10), false),
            (8_999, Some(10), true),
            (11_999, Some(10), false),
            (12_000, Some(10), true),
            (10_000, None, true),
        ] {
            let mut tally = Tally::default();
            tally.expect("a", 1, Some(sent));
            tally.seal();
            tally.row("a", Some(1), received);
            let answer = compared(tally, 1000);
            assert_eq!(answer.late, u64::from(is_late), "{sent} {received:?}");
        }
    }

    #[test]
    fn events_with_the_same_name_and_value_are_matched_with_rows_by_time() {
        let mut tally = Tally::default();
        for sent in [50_000, 10_000, 30_000] {
            tally.expect("a", 1, Some(sent));
            tally.expect("b", 1, Some(0));
        }
        tally.seal();
        // In the order in which they were stored; one is lost, one is late.
        for received in [30, 90] {
            tally.row("a", Some(1), Some(received));
        }
        let answer = compared(tally, 1000);
        assert_eq!((answer.lost, answer.late), (4, 1));
        let late = answer.listed.last().unwrap();
        assert_eq!(
            (late.kind, late.sent_ms, late.received),
            (Kind::Late, Some(10_000), Some(90))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn counts_are_those_of_a_multiset(
            expected in proptest::collection::vec((0..3_u32, 0..3_u32), 0..40),
            rows in proptest::collection::vec((0..4_u32, 0..4_u32), 0..40),
        ) {
            let mut tally = Tally::default();
            for (name, value) in &expected {
                tally.expect(&name.to_string(), *value, Some(0));
            }
            tally.seal();
            for (name, value) in &rows {
                tally.row(&name.to_string(), Some(*value), Some(0));
            }
            let answer = compared(tally, 0);
            let count = |list: &[(u32, u32)], key| list.iter().filter(|found| **found == key).count() as u64;
            let (mut lost, mut doubled) = (0, 0);
            for key in (0..3).flat_map(|name| (0..3).map(move |value| (name, value))) {
                let (wanted, found) = (count(&expected, key), count(&rows, key));
                lost += wanted.saturating_sub(found);
                if wanted > 0 {
                    doubled += found.saturating_sub(wanted);
                }
            }
            prop_assert_eq!((answer.lost, answer.doubled, answer.late), (lost, doubled, 0));
        }
    }
}
