//! The id that a sender may give an event.

/// Most bytes of an id.
pub const EVENT_ID_BYTES_MAX: usize = 64;

/// By its id an event is recognised when its sender repeats it: 1 to [`EVENT_ID_BYTES_MAX`] printable ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId<'a>(&'a str);

/// A text is no id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnEventId;

impl<'a> EventId<'a> {
    /// The id with this text.
    pub fn new(id: &'a str) -> Result<Self, NotAnEventId> {
        let is_id = (1..=EVENT_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_id {
            Ok(Self(id))
        } else {
            Err(NotAnEventId)
        }
    }

    /// Its text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printable_ascii_within_its_bound() {
        let long = "x".repeat(EVENT_ID_BYTES_MAX + 1);
        for (id, is_id) in [
            ("a", true),
            (" ~", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("\t", false),
            ("\u{7f}", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(
                EventId::new(id).map(EventId::as_str).is_ok(),
                is_id,
                "{id:?}"
            );
        }
    }
}
