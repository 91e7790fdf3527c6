//! Which database an event is promised to.

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::os::random;

/// Names a database, wherever its server is. Drawn at random once and kept in the database itself, so that a
/// replica, a dump and a restored backup have it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabaseId(u128);

impl DatabaseId {
    /// A new one, unlike any other.
    pub fn random() -> io::Result<Self> {
        random::bits().map(Self)
    }

    /// From the two numbers that the database keeps.
    pub fn from_halves(high: u64, low: u64) -> Self {
        Self(u128::from(high) << 64 | u128::from(low))
    }

    /// Whether `other` is this one with one of its two numbers overwritten, as by an `UPDATE` of every row of
    /// the table that holds it. Two random numbers of 64 bits are not equal by chance.
    pub fn is_half_of(self, other: Self) -> bool {
        let ((high, low), (other_high, other_low)) = (self.halves(), other.halves());
        (high == other_high) != (low == other_low)
    }

    /// The two numbers that the database keeps, the higher half first.
    pub fn halves(self) -> (u64, u64) {
        let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0);
        (half(self.0 >> 64), half(self.0))
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a database is named by 32 lower-case hexadecimal digits")]
pub struct NotADatabaseId;

impl FromStr for DatabaseId {
    type Err = NotADatabaseId;

    fn from_str(text: &str) -> Result<Self, NotADatabaseId> {
        let number = u128::from_str_radix(text, 16).ok().map(Self);
        number
            .filter(|id| id.to_string() == text)
            .ok_or(NotADatabaseId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_id_is_its_text_and_its_halves() {
        let id = DatabaseId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        let (high, low) = id.halves();
        assert_eq!(DatabaseId::from_halves(high, low), id);
        assert_eq!(
            DatabaseId::from_halves(1, 2).to_string(),
            format!("{:016x}{:016x}", 1, 2)
        );
        let [one, two] = [(1, 2), (1, 9)].map(|(high, low)| DatabaseId::from_halves(high, low));
        assert!(one.is_half_of(two) && !one.is_half_of(one));
        assert!(!one.is_half_of(DatabaseId::from_halves(3, 4)));
        for text in ["", "7", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(text.parse::<DatabaseId>(), Err(NotADatabaseId), "{text}");
        }
    }
}
