//! The rule for the events that are accepted: what the columns of the table take.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::repertoire::Repertoire;

/// Most characters of a name, even if the column takes more.
pub const NAME_CHARS_MAX: u8 = 255;

/// Most bytes of a valid name: UTF-8 takes up to 4 per character.
pub const NAME_BYTES_MAX: usize = NAME_CHARS_MAX as usize * 4;

/// What the columns take. An event that breaks the rule is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRule {
    /// Most characters of a name, 1 to [`NAME_CHARS_MAX`].
    pub chars_max: u8,
    /// Most bytes of a name in UTF-8, at least `chars_max`. [`EventRule::ANY_BYTES`] if the column counts
    /// characters.
    pub bytes_max: u16,
    /// The characters that fit.
    pub repertoire: Repertoire,
    /// The largest value.
    pub value_max: u32,
    /// What becomes of the ids that senders give events.
    pub ids: Ids,
}

/// What becomes of the ids that senders give events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The columns have not been read. Ids are kept where they are valid, and ignored where they are not.
    Unknown,
    /// There is no column for them.
    Ignored,
    /// They are stored, and each only once.
    Stored,
}

impl fmt::Display for Ids {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unknown => "the ids of events are kept, until it is known whether the table stores them",
            Self::Ignored => "the ids of events are ignored, since eventlog has no column event_id that can be used",
            Self::Stored => "an event whose id the table has is no second row",
        })
    }
}

/// How a name breaks the [`EventRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// It is empty.
    Empty,
    /// It has more characters or bytes than the column takes.
    TooLong,
    /// It has a character outside the column's repertoire.
    NotStorable,
}

impl EventRule {
    /// The rule of the deployed table, `varchar(255)` in `utf8mb3` and `int unsigned`. In force until the columns
    /// have been read.
    pub const DEPLOYED: Self = Self {
        repertoire: Repertoire::Bmp,
        ids: Ids::Unknown,
        ..Self::SQLITE
    };

    /// Most bytes of 255 characters: no bound of its own.
    pub const ANY_BYTES: u16 = NAME_CHARS_MAX as u16 * 4;

    /// The rule of SQLite: 255 characters of any kind, and every value.
    pub const SQLITE: Self = Self {
        chars_max: NAME_CHARS_MAX,
        bytes_max: Self::ANY_BYTES,
        repertoire: Repertoire::Unicode,
        value_max: u32::MAX,
        ids: Ids::Ignored,
    };

    /// Checks that `name` can be stored.
    pub fn check_name(self, name: &str) -> Result<(), NameFault> {
        if name.is_empty() {
            return Err(NameFault::Empty);
        }
        // A character has at least one byte: characters are counted only in a name of many bytes.
        if name.len() > usize::from(self.chars_max)
            && (name.len() > usize::from(self.bytes_max)
                || name.chars().count() > usize::from(self.chars_max))
        {
            return Err(NameFault::TooLong);
        }
        if !self.repertoire.holds(name) {
            return Err(NameFault::NotStorable);
        }
        Ok(())
    }

    /// The names that are taken, in words.
    pub fn names(self) -> Names {
        Names(self)
    }
}

/// Displays which names an [`EventRule`] takes, in ASCII.
#[derive(Debug, Clone, Copy)]
pub struct Names(EventRule);

impl fmt::Display for Names {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "1 to {} characters of UTF-8", self.0.chars_max)?;
        if self.0.bytes_max < EventRule::ANY_BYTES {
            write!(out, ", at most {} bytes", self.0.bytes_max)?;
        }
        match self.0.repertoire {
            Repertoire::Unicode => Ok(()),
            Repertoire::Bmp => write!(out, ", none above U+FFFF"),
            Repertoire::Ascii => write!(out, ", none above U+007F"),
            Repertoire::Latin1 => write!(out, ", none outside Windows-1252"),
            Repertoire::Listed(set) => write!(out, ", none outside {}", set.name()),
        }
    }
}

/// The rule in force. A writer sets it when it has read the columns; every shard reads it.
#[derive(Debug)]
pub struct SharedEventRule(AtomicU64);

impl SharedEventRule {
    /// Starts with `rule`.
    pub fn new(rule: EventRule) -> Self {
        Self(AtomicU64::new(Self::pack(rule)))
    }

    /// Sets the rule for later requests.
    pub fn set(&self, rule: EventRule) {
        self.0.store(Self::pack(rule), Ordering::Relaxed);
    }

    /// The rule in force.
    pub fn get(&self) -> EventRule {
        let packed = self.0.load(Ordering::Relaxed);
        let [v0, v1, v2, v3, b0, b1, chars_max, repertoire] = packed.to_le_bytes();
        EventRule {
            chars_max,
            bytes_max: u16::from_le_bytes([b0, b1 & BYTES_MASK]),
            repertoire: Repertoire::of_code(repertoire),
            value_max: u32::from_le_bytes([v0, v1, v2, v3]),
            ids: match b1 >> IDS_SHIFT {
                0 => Ids::Unknown,
                1 => Ids::Ignored,
                _ => Ids::Stored,
            },
        }
    }

    fn pack(rule: EventRule) -> u64 {
        let [v0, v1, v2, v3] = rule.value_max.to_le_bytes();
        let [b0, b1] = rule.bytes_max.to_le_bytes();
        let ids: u8 = match rule.ids {
            Ids::Unknown => 0,
            Ids::Ignored => 1,
            Ids::Stored => 2,
        };
        let b1 = b1 | ids << IDS_SHIFT;
        let repertoire = rule.repertoire.code();
        u64::from_le_bytes([v0, v1, v2, v3, b0, b1, rule.chars_max, repertoire])
    }
}

/// Of a packed rule, the bits of a byte that `bytes_max` has. The others are those of `ids`.
const BYTES_MASK: u8 = 0x3F;
const IDS_SHIFT: u32 = 6;
const _: () = assert!(EventRule::ANY_BYTES <= (BYTES_MASK as u16) << 8 | 0xFF);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::repertoire::CharacterSet;

    #[test]
    fn length_is_counted_in_characters() {
        let rule = EventRule::SQLITE;
        assert_eq!(rule.check_name(&"計".repeat(255)), Ok(()));
        assert_eq!(rule.check_name(&"計".repeat(256)), Err(NameFault::TooLong));
        assert_eq!(rule.check_name(&"x".repeat(256)), Err(NameFault::TooLong));
        assert_eq!(rule.check_name(""), Err(NameFault::Empty));
    }

    #[test]
    fn and_in_bytes_where_the_column_counts_them() {
        let rule = EventRule {
            chars_max: 10,
            bytes_max: 12,
            ..EventRule::SQLITE
        };
        assert_eq!(rule.check_name("計計計計"), Ok(()));
        assert_eq!(rule.check_name("計計計計x"), Err(NameFault::TooLong));
        assert_eq!(rule.check_name("xxxxxxxxxx"), Ok(()));
        assert_eq!(rule.check_name("xxxxxxxxxxx"), Err(NameFault::TooLong));
    }

    #[test]
    fn a_utf8mb3_column_takes_nothing_above_the_basic_plane() {
        assert_eq!(EventRule::DEPLOYED.check_name("\u{FFFF}"), Ok(()));
        assert_eq!(
            EventRule::DEPLOYED.check_name("\u{10000}"),
            Err(NameFault::NotStorable)
        );
        assert_eq!(EventRule::SQLITE.check_name("\u{1F600}"), Ok(()));
    }

    #[test]
    fn a_shared_rule_is_read_as_it_was_set() {
        let listed = CharacterSet::known("shared", "a".chars()).unwrap();
        for repertoire in [
            Repertoire::Unicode,
            Repertoire::Bmp,
            Repertoire::Ascii,
            Repertoire::Latin1,
            Repertoire::Listed(listed),
        ] {
            for (chars_max, bytes_max, value_max, ids) in [
                (1, 4, 0, Ids::Unknown),
                (64, 64, 32_767, Ids::Ignored),
                (255, 1020, u32::MAX, Ids::Stored),
            ] {
                let rule = EventRule {
                    chars_max,
                    bytes_max,
                    repertoire,
                    value_max,
                    ids,
                };
                assert_eq!(SharedEventRule::new(rule).get(), rule);
            }
        }
    }
}
