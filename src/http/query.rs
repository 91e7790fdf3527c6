//! Parses the query of an event: `application/x-www-form-urlencoded`, as in the URL standard.
//!
//! One difference: bytes that are not UTF-8 are refused, where the standard replaces them by U+FFFD. An event is
//! stored as it was sent or not at all.

use std::fmt;

use crate::event::rule::{EventRule, NameFault};

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
}

impl Rejection {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::NameMissing,
        Self::NameEmpty,
        Self::NameTooLong,
        Self::NameNotUtf8,
        Self::NameNotStorable,
        Self::ValueMissing,
        Self::ValueNotDecimal,
        Self::ValueTooLarge,
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

/// Displays a [`Rejection`] together with what is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    rejection: Rejection,
    rule: EventRule,
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parameter, fault) = match self.rejection {
            Rejection::NameMissing => ("name", "missing"),
            Rejection::NameEmpty => ("name", "empty"),
            Rejection::NameTooLong => ("name", "too long"),
            Rejection::NameNotUtf8 => ("name", "not UTF-8"),
            Rejection::NameNotStorable => ("name", "has a character the column cannot store"),
            Rejection::ValueMissing => ("value", "missing"),
            Rejection::ValueNotDecimal => ("value", "not a decimal number"),
            Rejection::ValueTooLarge => ("value", "too large"),
        };
        write!(out, "{parameter}: {fault}; accepted: ")?;
        if parameter == "value" {
            return write!(out, "decimal digits, 0 to {}", self.rule.value_max);
        }
        write!(out, "{}", self.rule.names())
    }
}

/// Reads `name` and `value` from a query. The first of a repeated key wins; other keys are ignored.
///
/// The name borrows from `query`, or from `decoded` where it had to be unescaped.
pub fn measurement<'a>(
    query: &'a [u8],
    rule: EventRule,
    decoded: &'a mut Vec<u8>,
) -> Result<(&'a str, u32), Rejection> {
    let (name, value) = first_of_each(query);
    let name = name.ok_or(Rejection::NameMissing)?;
    let name = if name.iter().any(|&byte| byte == b'%' || byte == b'+') {
        decoded.clear();
        decoded.extend(Unescaped(name));
        &decoded[..]
    } else {
        name
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(Rejection::NameNotUtf8);
    };
    rule.check_name(name)?;
    let value = decimal(value.ok_or(Rejection::ValueMissing)?, rule.value_max)?;
    Ok((name, value))
}

/// The raw values of the first `name` and the first `value`.
fn first_of_each(query: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let (mut name, mut value) = (None, None);
    for pair in query.split(|&byte| byte == b'&') {
        let (key, raw) = match pair.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        if name.is_none() && is_key(key, b"name") {
            name = Some(raw);
        } else if value.is_none() && is_key(key, b"value") {
            value = Some(raw);
        }
    }
    (name, value)
}

fn is_key(raw: &[u8], key: &[u8]) -> bool {
    raw == key || (raw.contains(&b'%') && Unescaped(raw).eq(key.iter().copied()))
}

/// Decimal digits, 0 to `max`; leading zeros are allowed.
fn decimal(raw: &[u8], max: u32) -> Result<u32, Rejection> {
    let mut number: Option<u64> = None;
    for byte in Unescaped(raw) {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str) -> Result<(String, u32), Rejection> {
        let mut decoded = Vec::new();
        measurement(query.as_bytes(), EventRule::DEPLOYED, &mut decoded)
            .map(|(name, value)| (name.to_owned(), value))
    }

    fn accepted(name: &str, value: u32) -> Result<(String, u32), Rejection> {
        Ok((name.to_owned(), value))
    }

    #[test]
    fn reads_an_event() {
        assert_eq!(read("name=open&value=0"), accepted("open", 0));
        assert_eq!(read("value=4294967295&x=y&name=a"), accepted("a", u32::MAX));
        assert_eq!(read("name=a+b%2Bc&value=%31%32"), accepted("a b+c", 12));
        assert_eq!(read("n%61me=%E8%A8%88&v%61lue=007"), accepted("計", 7));
        assert_eq!(read("name=100%&value=1"), accepted("100%", 1));
        assert_eq!(read("name=%zz%4&value=1"), accepted("%zz%4", 1));
        assert_eq!(read("name=a=b&value=1"), accepted("a=b", 1));
    }

    #[test]
    fn the_first_of_a_repeated_key_wins() {
        assert_eq!(read("name=a&name=b&value=1&value=x"), accepted("a", 1));
        assert_eq!(read("name=&name=b&value=1"), Err(Rejection::NameEmpty));
        assert_eq!(
            read("name=a&value&value=1"),
            Err(Rejection::ValueNotDecimal)
        );
    }

    #[test]
    fn refuses_what_cannot_be_stored() {
        let long = format!("name={}&value=1", "x".repeat(256));
        for (query, rejection) in [
            ("", Rejection::NameMissing),
            ("value=1", Rejection::NameMissing),
            ("Name=a&value=1", Rejection::NameMissing),
            ("name=&value=1", Rejection::NameEmpty),
            (&long, Rejection::NameTooLong),
            ("name=%FF&value=1", Rejection::NameNotUtf8),
            ("name=%ED%A0%80&value=1", Rejection::NameNotUtf8),
            ("name=%F0%9F%98%80&value=1", Rejection::NameNotStorable),
            ("name=a", Rejection::ValueMissing),
            ("name=a&value=", Rejection::ValueNotDecimal),
            ("name=a&value=-1", Rejection::ValueNotDecimal),
            ("name=a&value=+1", Rejection::ValueNotDecimal),
            ("name=a&value=1.5", Rejection::ValueNotDecimal),
            ("name=a&value=0x10", Rejection::ValueNotDecimal),
            ("name=a&value=%D9%A1", Rejection::ValueNotDecimal),
            ("name=a&value=4294967296", Rejection::ValueTooLarge),
            (
                "name=a&value=99999999999999999999999",
                Rejection::ValueTooLarge,
            ),
        ] {
            assert_eq!(read(query), Err(rejection), "{query}");
        }
    }

    #[test]
    fn a_reason_names_the_parameter_and_the_bound_in_one_ascii_line() {
        for rejection in Rejection::ALL {
            let reason = rejection.reason(EventRule::DEPLOYED).to_string();
            let (parameter, bound) = match rejection.label().split_once('_') {
                Some(("value", _)) => ("value:", "4294967295"),
                _ => ("name:", "255"),
            };
            assert!(
                reason.starts_with(parameter) && reason.contains(bound),
                "{reason}"
            );
            assert!(
                reason.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{reason}"
            );
        }
    }

    /// The result of the reference crate for the same query.
    fn reference(query: &[u8]) -> Result<(String, u32), Rejection> {
        let first = |key: &str| {
            form_urlencoded::parse(query)
                .find(|(name, _)| name == key)
                .map(|(_, value)| value)
        };
        let name = first("name").ok_or(Rejection::NameMissing)?;
        EventRule::SQLITE.check_name(&name)?;
        let value = first("value").ok_or(Rejection::ValueMissing)?;
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Rejection::ValueNotDecimal);
        }
        let digits = value.trim_start_matches('0');
        match digits.len() {
            0 => Ok((name.into_owned(), 0)),
            1..=10 => match digits.parse::<u64>().map(u32::try_from) {
                Ok(Ok(value)) => Ok((name.into_owned(), value)),
                _ => Err(Rejection::ValueTooLarge),
            },
            _ => Err(Rejection::ValueTooLarge),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_the_reference_decoder(
            query in "((name|value|n%61me|x|)(=|)([a-z0-9%+=é計]|%[0-9a-fA-F]{2}|[0-9]{1,12}){0,6}(&|)){0,5}",
        ) {
            let mut decoded = Vec::new();
            let ours = measurement(query.as_bytes(), EventRule::SQLITE, &mut decoded)
                .map(|(name, value)| (name.to_owned(), value));
            if ours != Err(Rejection::NameNotUtf8) {
                prop_assert_eq!(ours, reference(query.as_bytes()));
            }
        }

        #[test]
        fn agrees_on_any_bytes(query in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut query = query;
            query.splice(0..0, *b"name=");
            query.extend(b"&value=5");
            let mut decoded = Vec::new();
            let ours = measurement(&query, EventRule::SQLITE, &mut decoded)
                .map(|(name, value)| (name.to_owned(), value));
            if ours != Err(Rejection::NameNotUtf8) {
                prop_assert_eq!(ours, reference(&query));
            }
        }

        #[test]
        fn every_name_and_value_comes_through_encoded(name in "\\PC{1,80}", value: u32) {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("name", &name).append_pair("value", &value.to_string());
            let query = query.finish();
            let mut decoded = Vec::new();
            prop_assert_eq!(
                measurement(query.as_bytes(), EventRule::SQLITE, &mut decoded),
                Ok((&name[..], value))
            );
        }
    }
}
