//! The id that a sender may give an event.

/// Most bytes of an id.
pub const EVENT_ID_BYTES_MAX: usize = 64;

/// By its id an event is recognised when its sender repeats it: 1 to [`EVENT_ID_BYTES_MAX`] printable ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId<'a>(&'a str);

/// Why a text is no id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAnEventId {
    /// It has no character.
    Empty,
    /// It has more than [`EVENT_ID_BYTES_MAX`] characters.
    TooLong,
    /// It has a character that is not printable ASCII.
    NotPrintable,
}

impl<'a> EventId<'a> {
    /// The id with this text.
    pub fn new(id: &'a str) -> Result<Self, NotAnEventId> {
        let is_id = (1..=EVENT_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_id {
            Ok(Self(id))
        } else {
            Err(NotAnEventId::of(id))
        }
    }

    /// Its text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl NotAnEventId {
    /// Why `id` is none. Its length is that of ASCII: another text is not too long.
    #[cold]
    fn of(id: &str) -> Self {
        if id.is_empty() {
            Self::Empty
        } else if id.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            Self::TooLong
        } else {
            Self::NotPrintable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printable_ascii_within_its_bound() {
        let long = "x".repeat(EVENT_ID_BYTES_MAX + 1);
        for (id, fault) in [
            ("a", None),
            (" ~", None),
            (&long[1..], None),
            (&long, Some(NotAnEventId::TooLong)),
            ("", Some(NotAnEventId::Empty)),
            ("\t", Some(NotAnEventId::NotPrintable)),
            ("\u{7f}", Some(NotAnEventId::NotPrintable)),
            ("\u{e9}", Some(NotAnEventId::NotPrintable)),
        ] {
            assert_eq!(EventId::new(id).err(), fault, "{id:?}");
        }
    }
}
