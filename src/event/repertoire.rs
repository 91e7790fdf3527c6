//! Which characters a column can hold.

use std::fmt;
use std::sync::OnceLock;

/// Which characters the `name` column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repertoire {
    /// Every Unicode character: `utf8mb4`, the UTF-16 and UTF-32 sets, and SQLite.
    Unicode,
    /// Up to U+FFFF: `utf8` (`utf8mb3`) and `ucs2`. The server refuses others (error 1366).
    Bmp,
    /// Up to U+007F: `ascii`.
    Ascii,
    /// Windows-1252, which MySQL and MariaDB call `latin1`.
    Latin1,
    /// Another set, such as `sjis`: the characters that the server converts to it.
    Listed(&'static CharacterSet),
}

/// The first code of a [`Repertoire::Listed`].
const LISTED: u8 = 4;

impl Repertoire {
    /// Whether the column holds every character of `text`.
    pub(super) fn holds(self, text: &str) -> bool {
        match self {
            Self::Unicode => true,
            // In UTF-8 only the characters above U+FFFF have a byte of 0xF0 or more.
            Self::Bmp => text.bytes().all(|byte| byte < 0xF0),
            Self::Ascii => text.is_ascii(),
            Self::Latin1 => text.chars().all(is_latin1),
            Self::Listed(set) => text.chars().all(|character| set.holds(character)),
        }
    }

    /// A number for it, in this process.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Unicode => 0,
            Self::Bmp => 1,
            Self::Ascii => 2,
            Self::Latin1 => 3,
            Self::Listed(set) => LISTED + set.slot,
        }
    }

    /// The repertoire with this [`Repertoire::code`].
    pub(super) fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Unicode,
            1 => Self::Bmp,
            3 => Self::Latin1,
            other => other
                .checked_sub(LISTED)
                .and_then(|slot| KNOWN.get(usize::from(slot))?.get())
                .map_or(Self::Ascii, Self::Listed),
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

/// A character set that is not Unicode, with the characters that a server has in it.
#[derive(PartialEq, Eq)]
pub struct CharacterSet {
    name: String,
    slot: u8,
    /// A bit for each code point up to U+FFFF.
    characters: Vec<u64>,
}

/// Each set that this process has read from a server. Its index is its code. A server has about 40 sets.
static KNOWN: [OnceLock<CharacterSet>; 64] = [const { OnceLock::new() }; 64];

impl CharacterSet {
    /// The set of this name with these characters, which is kept until the process ends. `None` if there are already
    /// too many.
    pub fn known(name: &str, characters: impl Iterator<Item = char>) -> Option<&'static Self> {
        let mut bits = vec![0_u64; 0x1_0000 / 64];
        for code in characters.map(u32::from) {
            if let Some(word) = bits.get_mut(code as usize / 64) {
                *word |= 1 << (code % 64);
            }
        }
        for (slot, known) in (0..).zip(&KNOWN) {
            let set = known.get_or_init(|| Self {
                name: name.to_owned(),
                slot,
                characters: bits.clone(),
            });
            // Another server may have other characters in a set of the same name.
            if set.name == name && set.characters == bits {
                return Some(set);
            }
        }
        None
    }

    /// Its name in MySQL and MariaDB.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn holds(&self, character: char) -> bool {
        let code = u32::from(character);
        let word = self.characters.get(code as usize / 64);
        word.is_some_and(|word| word >> (code % 64) & 1 == 1)
    }
}

impl fmt::Debug for CharacterSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latin1_is_windows_1252_and_its_five_controls() {
        assert!(Repertoire::Latin1.holds("é€\u{8D}"));
        assert!(!Repertoire::Latin1.holds("\u{80}"));
        assert!(!Repertoire::Latin1.holds("計"));
    }

    #[test]
    fn a_listed_set_holds_what_is_listed() {
        let set = CharacterSet::known("some", "aé計\u{FFFF}".chars()).unwrap();
        let some = Repertoire::Listed(set);
        assert!(some.holds("計éa\u{FFFF}"));
        for other in ["b", "計b", "\u{10061}", "\u{FFFE}"] {
            assert!(!some.holds(other), "{other}");
        }
        assert_eq!(Repertoire::of_code(some.code()), some);
        let again = CharacterSet::known("some", "aé計\u{FFFF}".chars()).unwrap();
        assert!(std::ptr::eq(set, again));
        // The same name on another server.
        let other = CharacterSet::known("some", "a".chars()).unwrap();
        assert!(!Repertoire::of_code(other.slot + LISTED).holds("é"));
    }
}
