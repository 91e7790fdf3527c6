//! The event, and the rule for the names that are accepted.

pub mod ack;
pub mod batch;
pub mod database_id;
pub mod position;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most characters of a name, even if the column takes more.
pub const NAME_CHARS_MAX: u16 = 255;

/// Most bytes of a valid name: UTF-8 takes up to 4 per character.
pub const NAME_BYTES_MAX: usize = NAME_CHARS_MAX as usize * 4;

/// Milliseconds since the Unix epoch, by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The current time. 0 if the clock is set before 1970.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whole seconds since the epoch: the resolution of the `at` column.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// 1 to 255 characters that the [`NameRule`] allows.
    pub name: &'a str,
    /// Any value of `int unsigned`.
    pub value: u32,
    /// When the request that carried it was read.
    pub received_at: UnixMillis,
}

/// The event was not accepted, because a bound is reached or no lane is open. It is answered 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed;

/// Which characters the `name` column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Repertoire {
    /// Every Unicode character: `utf8mb4`, the UTF-16 and UTF-32 sets, and SQLite.
    Unicode = 0,
    /// Up to U+FFFF: `utf8` (`utf8mb3`) and `ucs2`. The server refuses others (error 1366).
    Bmp = 1,
    /// Up to U+007F: `ascii`.
    Ascii = 2,
    /// Windows-1252, which MySQL and MariaDB call `latin1`.
    Latin1 = 3,
}

impl Repertoire {
    /// Whether the column holds every character of `text`.
    fn holds(self, text: &str) -> bool {
        match self {
            Self::Unicode => true,
            // In UTF-8 only the characters above U+FFFF have a byte of 0xF0 or more.
            Self::Bmp => text.bytes().all(|byte| byte < 0xF0),
            Self::Ascii => text.is_ascii(),
            Self::Latin1 => text.chars().all(is_latin1),
        }
    }
}

/// Whether `latin1` of MySQL and MariaDB has the character. It is ISO 8859-1, but 27 of the 32 control
/// characters from 0x80 to 0x9F are replaced by those of Windows-1252.
fn is_latin1(character: char) -> bool {
    const WINDOWS: &str = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ";
    match character {
        '\u{0}'..='\u{7F}' | '\u{A0}'..='\u{FF}' => true,
        '\u{81}' | '\u{8D}' | '\u{8F}' | '\u{90}' | '\u{9D}' => true,
        other => WINDOWS.contains(other),
    }
}

/// What the `name` column takes. An event whose name breaks the rule is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameRule {
    /// Most characters, 1 to [`NAME_CHARS_MAX`].
    pub chars_max: u16,
    /// The characters that fit.
    pub repertoire: Repertoire,
}

/// How a name breaks the [`NameRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// It is empty.
    Empty,
    /// It has more characters than the column takes.
    TooLong,
    /// It has a character outside the column's repertoire.
    NotStorable,
}

impl NameRule {
    /// The rule of the deployed table, `varchar(255)` in `utf8mb3`. In force until the column has been read.
    pub const DEPLOYED: Self = Self {
        chars_max: NAME_CHARS_MAX,
        repertoire: Repertoire::Bmp,
    };

    /// The rule of SQLite: 255 characters of any kind.
    pub const SQLITE: Self = Self {
        chars_max: NAME_CHARS_MAX,
        repertoire: Repertoire::Unicode,
    };

    /// Checks that `name` can be stored.
    pub fn check(self, name: &str) -> Result<(), NameFault> {
        if name.is_empty() {
            return Err(NameFault::Empty);
        }
        // A character has at least one byte: characters are counted only in a name of many bytes.
        if name.len() > usize::from(self.chars_max)
            && name.chars().count() > usize::from(self.chars_max)
        {
            return Err(NameFault::TooLong);
        }
        if !self.repertoire.holds(name) {
            return Err(NameFault::NotStorable);
        }
        Ok(())
    }
}

/// The rule in force. A writer sets it when it has read the column; every shard reads it.
#[derive(Debug)]
pub struct SharedNameRule(AtomicU32);

impl SharedNameRule {
    /// Starts with `rule`.
    pub fn new(rule: NameRule) -> Self {
        Self(AtomicU32::new(Self::pack(rule)))
    }

    /// Sets the rule for later requests.
    pub fn set(&self, rule: NameRule) {
        self.0.store(Self::pack(rule), Ordering::Relaxed);
    }

    /// The rule in force.
    pub fn get(&self) -> NameRule {
        let packed = self.0.load(Ordering::Relaxed);
        let [low, high, repertoire, _] = packed.to_le_bytes();
        NameRule {
            chars_max: u16::from_le_bytes([low, high]),
            repertoire: match repertoire {
                0 => Repertoire::Unicode,
                1 => Repertoire::Bmp,
                2 => Repertoire::Ascii,
                _ => Repertoire::Latin1,
            },
        }
    }

    fn pack(rule: NameRule) -> u32 {
        let [low, high] = rule.chars_max.to_le_bytes();
        u32::from_le_bytes([low, high, rule.repertoire as u8, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters() {
        let rule = NameRule::SQLITE;
        assert_eq!(rule.check(&"計".repeat(255)), Ok(()));
        assert_eq!(rule.check(&"計".repeat(256)), Err(NameFault::TooLong));
        assert_eq!(rule.check(&"x".repeat(256)), Err(NameFault::TooLong));
        assert_eq!(rule.check(""), Err(NameFault::Empty));
    }

    #[test]
    fn a_utf8mb3_column_takes_nothing_above_the_basic_plane() {
        assert_eq!(NameRule::DEPLOYED.check("\u{FFFF}"), Ok(()));
        assert_eq!(
            NameRule::DEPLOYED.check("\u{10000}"),
            Err(NameFault::NotStorable)
        );
        assert_eq!(NameRule::SQLITE.check("\u{1F600}"), Ok(()));
    }

    #[test]
    fn latin1_is_windows_1252_and_its_five_controls() {
        let rule = NameRule {
            chars_max: 255,
            repertoire: Repertoire::Latin1,
        };
        assert_eq!(rule.check("é€\u{8D}"), Ok(()));
        assert_eq!(rule.check("\u{80}"), Err(NameFault::NotStorable));
        assert_eq!(rule.check("計"), Err(NameFault::NotStorable));
    }

    #[test]
    fn a_shared_rule_is_read_as_it_was_set() {
        for repertoire in [
            Repertoire::Unicode,
            Repertoire::Bmp,
            Repertoire::Ascii,
            Repertoire::Latin1,
        ] {
            for chars_max in [1, 64, 255] {
                let rule = NameRule {
                    chars_max,
                    repertoire,
                };
                assert_eq!(SharedNameRule::new(rule).get(), rule);
            }
        }
    }
}
