//! Parses the query of an event: `application/x-www-form-urlencoded`, as in the URL standard.
//!
//! One difference: bytes that are not UTF-8 are refused, where the standard replaces them by U+FFFD. An event is
//! stored as it was sent or not at all.

use std::fmt;

use crate::event::event_id::{EVENT_ID_BYTES_MAX, EventId, NotAnEventId};
use crate::event::rule::{EventRule, Ids, NameFault};

/// Why a request made no event. Each has its own counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No `name` key.
    NameMissing,
    /// `name` has no character.
    NameEmpty,
    /// `name` has more characters than the column takes.
    NameTooLong,
    /// `name` is not UTF-8.
    NameNotUtf8,
    /// `name` has a character that the column's character set does not have.
    NameNotStorable,
    /// No `value` key.
    ValueMissing,
    /// `value` is empty or has something else than decimal digits.
    ValueNotDecimal,
    /// `value` is above what the column takes.
    ValueTooLarge,
    /// `name` is no string, in JSON.
    NameNotString,
    /// `id` is no string, in JSON.
    IdNotString,
    /// `id` has no character.
    IdEmpty,
    /// `id` has more characters than an id may have.
    IdTooLong,
    /// `id` has a character that is not printable ASCII.
    IdNotPrintable,
    /// It is no object, in JSON.
    EventNotObject,
    /// The body, or a line of it, is not of its media type.
    BodyMalformed,
}

impl Rejection {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 15] = [
        Self::NameMissing,
        Self::NameEmpty,
        Self::NameTooLong,
        Self::NameNotUtf8,
        Self::NameNotStorable,
        Self::ValueMissing,
        Self::ValueNotDecimal,
        Self::ValueTooLarge,
        Self::NameNotString,
        Self::IdNotString,
        Self::IdEmpty,
        Self::IdTooLong,
        Self::IdNotPrintable,
        Self::EventNotObject,
        Self::BodyMalformed,
    ];

    /// Its name in counters and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NameMissing => "name_missing",
            Self::NameEmpty => "name_empty",
            Self::NameTooLong => "name_too_long",
            Self::NameNotUtf8 => "name_not_utf8",
            Self::NameNotStorable => "name_not_storable",
            Self::ValueMissing => "value_missing",
            Self::ValueNotDecimal => "value_not_decimal",
            Self::ValueTooLarge => "value_too_large",
            Self::NameNotString => "name_not_string",
            Self::IdNotString => "id_not_string",
            Self::IdEmpty => "id_empty",
            Self::IdTooLong => "id_too_long",
            Self::IdNotPrintable => "id_not_printable",
            Self::EventNotObject => "event_not_object",
            Self::BodyMalformed => "body_malformed",
        }
    }

    /// The reason in the answer: the parameter, what is wrong, what is accepted. ASCII, one line.
    pub fn reason(self, rule: EventRule) -> Reason {
        Reason {
            rejection: self,
            rule,
        }
    }
}

impl From<NameFault> for Rejection {
    fn from(fault: NameFault) -> Self {
        match fault {
            NameFault::Empty => Self::NameEmpty,
            NameFault::TooLong => Self::NameTooLong,
            NameFault::NotStorable => Self::NameNotStorable,
        }
    }
}

impl From<NotAnEventId> for Rejection {
    fn from(fault: NotAnEventId) -> Self {
        match fault {
            NotAnEventId::Empty => Self::IdEmpty,
            NotAnEventId::TooLong => Self::IdTooLong,
            NotAnEventId::NotPrintable => Self::IdNotPrintable,
        }
    }
}

/// Displays a [`Rejection`] together with what is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    rejection: Rejection,
    rule: EventRule,
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OBJECT: &str = "an object such as {\"name\":\"open\",\"value\":1}";
        let (parameter, fault) = match self.rejection {
            Rejection::NameMissing => ("name", "missing"),
            Rejection::NameEmpty => ("name", "empty"),
            Rejection::NameTooLong => ("name", "too long"),
            Rejection::NameNotUtf8 => ("name", "not UTF-8"),
            Rejection::NameNotStorable => ("name", "has a character the column cannot store"),
            Rejection::ValueMissing => ("value", "missing"),
            Rejection::ValueNotDecimal => ("value", "not a decimal number"),
            Rejection::ValueTooLarge => ("value", "too large"),
            Rejection::NameNotString => ("name", "not a string"),
            Rejection::IdNotString => ("id", "not a string"),
            Rejection::IdEmpty => ("id", "empty"),
            Rejection::IdTooLong => ("id", "too long"),
            Rejection::IdNotPrintable => ("id", "not printable ASCII"),
            Rejection::EventNotObject => ("event", "not an object"),
            Rejection::BodyMalformed => ("event", "not JSON"),
        };
        write!(out, "{parameter}: {fault}; accepted: ")?;
        match parameter {
            "name" => write!(out, "{}", self.rule.names()),
            "value" => write!(out, "decimal digits, 0 to {}", self.rule.value_max),
            "id" => write!(out, "1 to {EVENT_ID_BYTES_MAX} printable ASCII characters"),
            _ => out.write_str(OBJECT),
        }
    }
}

/// An event as its sender gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: u32,
    /// Its id, where ids are not ignored.
    pub id: Option<EventId<'a>>,
}

/// Reads `name`, `value` and `id` from a query. The first of a repeated key wins; other keys are ignored.
///
/// Name and id borrow from `query`, or from `decoded` where one of them had to be unescaped.
pub fn measurement<'a>(
    query: &'a [u8],
    rule: EventRule,
    decoded: &'a mut Vec<u8>,
) -> Result<Measurement<'a>, Rejection> {
    let raw = first_of_each(query, rule.ids);
    let name = raw.name.ok_or(Rejection::NameMissing)?;
    let (name, id) = match raw.id {
        Some(id) => with_id(name, id, decoded),
        None if is_escaped(name) => {
            decoded.clear();
            decoded.extend(Unescaped(name));
            (&decoded[..], None)
        }
        None => (name, None),
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(Rejection::NameNotUtf8);
    };
    rule.check_name(name)?;
    let value = raw.value.ok_or(Rejection::ValueMissing)?;
    let value = decimal(Unescaped(value), rule.value_max)?;
    let id = match id {
        None => None,
        Some(id) => check_id(id, rule.ids)?,
    };
    Ok(Measurement { name, value, id })
}

fn is_escaped(part: &[u8]) -> bool {
    part.iter().any(|&byte| byte == b'%' || byte == b'+')
}

/// A name and an id, both decoded if one of them must be.
#[cold]
fn with_id<'a>(
    name: &'a [u8],
    id: &'a [u8],
    decoded: &'a mut Vec<u8>,
) -> (&'a [u8], Option<&'a [u8]>) {
    if !is_escaped(name) && !is_escaped(id) {
        return (name, Some(id));
    }
    decoded.clear();
    decoded.extend(Unescaped(name));
    let name_end = decoded.len();
    decoded.extend(Unescaped(id));
    let (name, id) = decoded.split_at(name_end);
    (name, Some(id))
}

/// The id that a sender gives, if it is kept.
#[cold]
fn check_id(id: &[u8], ids: Ids) -> Result<Option<EventId<'_>>, Rejection> {
    let id = match std::str::from_utf8(id) {
        Ok(id) => EventId::new(id),
        Err(_) => Err(NotAnEventId::NotPrintable),
    };
    match id {
        Ok(id) => Ok(Some(id)),
        Err(fault) if ids == Ids::Stored => Err(fault.into()),
        Err(_) => Ok(None),
    }
}

/// The raw values of a query.
#[derive(Default)]
struct Raw<'a> {
    name: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
}

/// The raw values of the first `name`, the first `value`, and the first `id` unless it is ignored.
fn first_of_each(query: &[u8], ids: Ids) -> Raw<'_> {
    let mut first = Raw::default();
    for pair in query.split(|&byte| byte == b'&') {
        // Nearly all senders write the keys so. Then the `=` need not be looked for.
        if let Some(raw) = pair.strip_prefix(b"name=") {
            first.name.get_or_insert(raw);
        } else if let Some(raw) = pair.strip_prefix(b"value=") {
            first.value.get_or_insert(raw);
        } else {
            first.read_other(pair, ids);
        }
    }
    first
}

impl<'a> Raw<'a> {
    /// Reads any other pair. Its key may be `name` or `value` too: escaped, or without a `=`.
    fn read_other(&mut self, pair: &'a [u8], ids: Ids) {
        let equals = pair.iter().position(|&byte| byte == b'=');
        let (key, raw) = match equals {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        let is = |name: &[u8]| {
            key == name || (key.contains(&b'%') && Unescaped(key).eq(name.iter().copied()))
        };
        if is(b"name") {
            self.name.get_or_insert(raw);
        } else if is(b"value") {
            self.value.get_or_insert(raw);
        } else if ids != Ids::Ignored && is(b"id") {
            self.id.get_or_insert(raw);
        }
    }
}

/// Decimal digits, 0 to `max`; leading zeros are allowed.
pub(super) fn decimal(digits: impl Iterator<Item = u8>, max: u32) -> Result<u32, Rejection> {
    let mut number: Option<u64> = None;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(Rejection::ValueNotDecimal);
        }
        let digits = number.unwrap_or(0).saturating_mul(10);
        number = Some(digits.saturating_add(u64::from(byte - b'0')));
    }
    let number = number.ok_or(Rejection::ValueNotDecimal)?;
    match u32::try_from(number) {
        Ok(number) if number <= max => Ok(number),
        _ => Err(Rejection::ValueTooLarge),
    }
}

/// The bytes of a form-urlencoded string: `%XX` and `+` decoded, a `%` that starts no escape kept.
struct Unescaped<'a>(&'a [u8]);

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        match first {
            b'+' => Some(b' '),
            b'%' => match rest {
                [high, low, after @ ..] => match (hex(*high), hex(*low)) {
                    (Some(high), Some(low)) => {
                        self.0 = after;
                        Some(high << 4 | low)
                    }
                    _ => Some(b'%'),
                },
                _ => Some(b'%'),
            },
            byte => Some(byte),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
