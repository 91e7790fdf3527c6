//! The result of the comparison, for people and for programs.

use std::io::Write;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::unstored::Unread;
use crate::commands::query::QueryError;
use crate::commands::query::moment::TimeRange;
use crate::commands::query::terminal::Screen;
use crate::os::printable::Printable;

/// Columns of a terminal that a name may take.
const NAME_WIDTH_MAX: usize = 48;

/// What can be wrong with an event or a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An expected event that was found nowhere.
    Lost,
    /// More rows than expected.
    Doubled,
    /// An expected event whose row has another time.
    Late,
    /// A row that is not expected.
    Unexpected,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Late => "late",
            Self::Unexpected => "unexpected",
        }
    }
}

/// One of the listed events of a kind.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// `None` for a row without a value.
    pub(super) value: Option<u32>,
    /// The number of such events with this name and value.
    pub(super) count: u64,
    /// When it was sent, in milliseconds since 1970.
    pub(super) sent_ms: Option<i64>,
    /// When its row was received, in seconds since 1970.
    pub(super) received: Option<i64>,
}

impl Listed {
    pub(super) fn new(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            value: None,
            count: 1,
            sent_ms: None,
            received: None,
        }
    }
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) place: String,
    pub(super) zone: String,
    pub(super) range: TimeRange,
    pub(super) late_seconds: f64,
    pub(super) expected: u64,
    /// Rows in the range; with a list, only rows that it expects.
    pub(super) rows: u64,
    /// Dead letters, which are not lost.
    pub(super) dead_letters: u64,
    /// Events that are still in the journal, which are not lost.
    pub(super) pending: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) unexpected: u64,
    pub(super) late: u64,
    /// Rows more than the expected number; `None` with a list.
    pub(super) surplus: Option<u64>,
    /// Whether unread answers of a load generator explain the surplus.
    pub(super) is_surplus_explained: bool,
    pub(super) listed: Vec<Listed>,
    pub(super) unread: Unread,
}

impl Answer {
    /// Whether all expected events were found, and no others.
    pub(super) fn agrees(&self) -> bool {
        let surplus = self.surplus.unwrap_or_default();
        self.lost + self.doubled + self.unexpected + self.late + self.unread.held == 0
            && (surplus == 0 || self.is_surplus_explained)
    }

    /// Writes the result for people.
    pub(super) fn write_text(&self, out: &mut dyn Write, screen: Screen) -> Result<(), QueryError> {
        let (place, range, zone) = (&self.place, &self.range, &self.zone);
        // These can hold a path and texts of the database.
        let (place, range, zone) = (Printable(place), Printable(range), Printable(zone));
        writeln!(out, "eventlog in {place}")?;
        writeln!(out, "{range}, times in the time zone {zone}")?;
        writeln!(out)?;
        let late = format!(
            "received more than {}s before or after their `at`",
            self.late_seconds
        );
        let mut lines = vec![
            ("expected", self.expected, ""),
            ("rows", self.rows, ""),
            (
                "dead letters",
                self.dead_letters,
                "refused by the database: accounted for",
            ),
            ("journal", self.pending, "still to be stored: accounted for"),
            ("lost", self.lost, "found nowhere"),
        ];
        match self.surplus {
            Some(surplus) => lines.push(("surplus", surplus, SURPLUS)),
            None => lines.extend([
                ("doubled", self.doubled, "rows more than expected"),
                (
                    "unexpected",
                    self.unexpected,
                    "rows that are not in the list",
                ),
                ("late", self.late, late.as_str()),
            ]),
        }
        for (title, count, words) in lines {
            let words = if count > 0 { words } else { "" };
            let line = format!("{title:12}  {count:>12}  {words}");
            writeln!(out, "{}", line.trim_end())?;
        }
        self.write_unread(out)?;
        self.write_listed(out, screen)?;
        let verdict = if self.agrees() {
            "everything agrees"
        } else {
            "it does not agree"
        };
        Ok(writeln!(out, "\n{verdict}")?)
    }

    fn write_unread(&self, out: &mut dyn Write) -> Result<(), QueryError> {
        let Unread {
            data_dir,
            letters,
            events,
            held,
        } = &self.unread;
        if let Some(path) = data_dir {
            let path = Printable(path.display());
            writeln!(
                out,
                "there is no {path}: dead letters and journal were not read (--data-dir)"
            )?;
        }
        if *letters > 0 {
            writeln!(
                out,
                "{letters} lines of dead-letters.ndjson are no dead letters and were skipped"
            )?;
        }
        if *events > 0 {
            writeln!(
                out,
                "{events} events of the journal are unreadable: see hakaru journal verify"
            )?;
        }
        if *held > 0 {
            writeln!(
                out,
                "{held} events are in lanes that are held, and nobody can tell whether they are rows: see hakaru \
                 journal list"
            )?;
        }
        Ok(())
    }

    fn write_listed(&self, out: &mut dyn Write, screen: Screen) -> Result<(), QueryError> {
        let mut kind = None;
        for found in &self.listed {
            if kind != Some(found.kind) {
                kind = Some(found.kind);
                writeln!(out, "\n{}, the first:", found.kind.name())?;
            }
            let name = screen.name(&found.name, NAME_WIDTH_MAX);
            let value = found
                .value
                .map_or("NULL".to_owned(), |value| value.to_string());
            write!(out, "  {name}  {value}")?;
            if found.count > 1 {
                write!(out, "  {} times", found.count)?;
            }
            if let Some(sent) = found.sent_ms {
                write!(out, "  sent {}", instant(Some(sent)).unwrap_or_default())?;
            }
            if let Some(received) =
                instant(found.received.map(|received| received.saturating_mul(1000)))
            {
                write!(out, "  received {received}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// Writes the result as one JSON document.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> Result<(), QueryError> {
        let bound = |bound: &Option<crate::commands::query::moment::Bound>| {
            bound.as_ref().map(|bound| bound.civil.clone())
        };
        let listed = self.listed.iter().map(|found| {
            json!({
                "kind": found.kind.name(), "name": found.name, "value": found.value, "count": found.count,
                "sent": instant(found.sent_ms),
                "received": instant(found.received.map(|received| received.saturating_mul(1000))),
            })
        });
        let mut document = json!({
            "agrees": self.agrees(),
            "datasource": self.place,
            "from": bound(&self.range.from),
            "to": bound(&self.range.to),
            "time_zone": self.zone,
            "expected": self.expected,
            "rows": self.rows,
            "dead_letters": self.dead_letters,
            "pending": self.pending,
            "lost": self.lost,
        });
        match self.surplus {
            Some(surplus) => document["surplus"] = surplus.into(),
            None => {
                document["doubled"] = self.doubled.into();
                document["unexpected"] = self.unexpected.into();
                document["late"] = self.late.into();
                document["listed"] = listed.collect::<Vec<Value>>().into();
            }
        }
        document["unread"] = json!({
            "data_dir": self.unread.data_dir.as_ref().map(|path| path.display().to_string()),
            "dead_letters": self.unread.letters,
            "journal": self.unread.events,
            "held": self.unread.held,
        });
        Ok(writeln!(out, "{document:#}")?)
    }
}

/// The explanation of a surplus.
const SURPLUS: &str = "more than expected; a load generator may leave the last answer of each connection unread when it \
     stops (--connections)";

/// A time in UTC, as text.
fn instant(millis: Option<i64>) -> Option<String> {
    let instant = Timestamp::from_millisecond(millis?).ok()?;
    Some(format!("{instant:.3}"))
}
