//! Moments as users write them, and ranges of time as the table holds them.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A point in time, independent of time zones.
    Instant(Timestamp),
    /// A date and time in the time zone of the column `at`.
    Civil(DateTime),
}

/// The text is no [`Moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted: 2026-01-31T08:00:00Z, 2026-01-31, \"2026-01-31 08:00\" (in the time zone of `at`), now, \
     or a time ago such as 15min, 1h, 7d"
)]
pub struct NotAMoment;

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        let text = text.trim();
        let ago = text.strip_suffix("ago").map_or(text, str::trim_end);
        if let Some(age) = age(ago) {
            let instant = Timestamp::now().checked_sub(age);
            return instant.ok().map(Self::Instant).ok_or(NotAMoment);
        }
        // A time without an offset from UTC is not an instant.
        if let Ok(instant) = text.parse() {
            return Ok(Self::Instant(instant));
        }
        text.parse().ok().map(Self::Civil).ok_or(NotAMoment)
    }
}

/// Reads `now`, `7d`, `1h`, `15min`.
fn age(text: &str) -> Option<SignedDuration> {
    if text == "now" {
        return Some(SignedDuration::ZERO);
    }
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse().ok()) {
        let days: u32 = days;
        return Some(SignedDuration::from_hours(24 * i64::from(days)));
    }
    let age = crate::units::duration(text)?;
    (text != "0").then(|| SignedDuration::try_from(age).ok())?
}

impl Moment {
    /// The second that it is in.
    pub fn floor(self) -> Self {
        match self {
            Self::Instant(instant) => Self::Instant(
                Timestamp::from_second(instant.as_millisecond().div_euclid(1000))
                    .unwrap_or(instant),
            ),
            Self::Civil(civil) => {
                Self::Civil(civil.with().subsec_nanosecond(0).build().unwrap_or(civil))
            }
        }
    }

    /// The first whole second that is not before it.
    pub fn ceiling(self) -> Self {
        let floor = self.floor();
        let second = Duration::from_secs(1);
        match floor {
            floor if floor == self => floor,
            Self::Instant(instant) => Self::Instant(instant.checked_add(second).unwrap_or(instant)),
            Self::Civil(civil) => Self::Civil(civil.checked_add(second).unwrap_or(civil)),
        }
    }

    /// As a bound of a column in UTC.
    pub fn in_utc(self) -> Bound {
        match self {
            Self::Instant(instant) => Bound {
                civil: text(TimeZone::UTC.to_datetime(instant)),
                unix: Some(instant.as_second()),
            },
            Self::Civil(civil) => Bound {
                civil: text(civil),
                unix: TimeZone::UTC
                    .to_timestamp(civil)
                    .ok()
                    .map(Timestamp::as_second),
            },
        }
    }
}

/// As the column holds it.
pub fn text(civil: DateTime) -> String {
    civil.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A span of time as it was given: from one moment until before another.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeSpan {
    /// The first moment. `None`: from the beginning.
    pub from: Option<Moment>,
    /// The first moment after the span. `None`: to the end.
    pub to: Option<Moment>,
}

/// An end of a [`TimeRange`], at a whole second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// As the column holds it, in its time zone.
    pub civil: String,
    /// The same in seconds since 1970 UTC; `None` if the database cannot convert it.
    pub unix: Option<i64>,
}

/// A span of time as the table holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// The first second; `None`: from the beginning.
    pub from: Option<Bound>,
    /// The second after the last one; `None`: to the end.
    pub to: Option<Bound>,
}

impl TimeRange {
    /// Whether the range contains an event that was received at this second.
    pub fn holds(&self, unix_seconds: i64) -> bool {
        let unix = |bound: &Option<Bound>| bound.as_ref().and_then(|bound| bound.unix);
        unix(&self.from).is_none_or(|from| unix_seconds >= from)
            && unix(&self.to).is_none_or(|to| unix_seconds < to)
    }
}

impl std::fmt::Display for TimeRange {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.from, &self.to) {
            (None, None) => out.write_str("all rows"),
            (Some(from), None) => write!(out, "from {}", from.civil),
            (None, Some(to)) => write!(out, "before {}", to.civil),
            (Some(from), Some(to)) => write!(out, "from {} to before {}", from.civil, to.civil),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_moment_is_read() {
        for (text, civil, unix) in [
            ("2026-01-31", "2026-01-31 00:00:00", 1_769_817_600),
            ("2026-01-31 08:00", "2026-01-31 08:00:00", 1_769_846_400),
            ("2026-01-31 08:00:01", "2026-01-31 08:00:01", 1_769_846_401),
            ("2026-01-31T08:00:01", "2026-01-31 08:00:01", 1_769_846_401),
            ("2026-01-31T08:00:01Z", "2026-01-31 08:00:01", 1_769_846_401),
            (
                "2026-01-31T08:00:01+09:00",
                "2026-01-30 23:00:01",
                1_769_814_001,
            ),
        ] {
            let bound = text.parse::<Moment>().unwrap().floor().in_utc();
            assert_eq!(
                (bound.civil.as_str(), bound.unix),
                (civil, Some(unix)),
                "{text}"
            );
        }
        for text in [
            "",
            "yesterday",
            "1",
            "5 parsecs",
            "2026-13-01",
            "-1h",
            "08:00",
            "d",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(NotAMoment), "{text:?}");
        }
    }

    #[test]
    fn reads_times_ago() {
        for (text, seconds) in [
            ("now", 0),
            ("15min", 900),
            ("1h ago", 3600),
            ("7d", 604_800),
        ] {
            let Ok(Moment::Instant(instant)) = text.parse() else {
                panic!("{text}")
            };
            let age = Timestamp::now().as_second() - instant.as_second();
            assert!((seconds..seconds + 60).contains(&age), "{text}: {age}");
        }
    }

    #[test]
    fn part_of_a_second_widens_the_range() {
        for (text, floor, ceiling) in [
            ("2026-01-31T08:00:01.5Z", "08:00:01", "08:00:02"),
            ("2026-01-31 08:00:59.001", "08:00:59", "08:01:00"),
            ("2026-01-31 08:00:59", "08:00:59", "08:00:59"),
        ] {
            let moment: Moment = text.parse().unwrap();
            let at = |moment: Moment| moment.in_utc().civil.split_off(11);
            assert_eq!(at(moment.floor()), floor);
            assert_eq!(at(moment.ceiling()), ceiling);
        }
    }
}
