//! Queries, against the reference decoder.

use super::*;
use proptest::prelude::*;

fn read(query: &str) -> Result<(String, u32), Rejection> {
    let mut decoded = Vec::new();
    measurement(query.as_bytes(), EventRule::DEPLOYED, &mut decoded)
        .map(|event| (event.name.to_owned(), event.value))
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
            Some(("name", _)) => ("name:", "255"),
            Some(("id", _)) => ("id:", "64"),
            _ => ("event:", "object"),
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

#[test]
fn an_id_is_kept_refused_or_not_looked_at() {
    let read = |query: &str, ids| {
        let rule = EventRule {
            ids,
            ..EventRule::DEPLOYED
        };
        let mut decoded = Vec::new();
        measurement(query.as_bytes(), rule, &mut decoded).map(|event| {
            let id = event.id.map(|id| id.as_str().to_owned());
            (event.name.to_owned(), id)
        })
    };
    let long = format!("name=a&value=1&id={}", "x".repeat(65));
    for (query, name, id) in [
        ("name=a&value=1&id=b&id=c", "a", Some("b")),
        ("id=b%20c&name=a+a&value=1", "a a", Some("b c")),
        ("%69d=%62&name=a&value=1", "a", Some("b")),
        ("name=%61&value=1", "a", None),
    ] {
        let expected = |id: Option<&str>| Ok((name.to_owned(), id.map(str::to_owned)));
        assert_eq!(read(query, Ids::Stored), expected(id));
        assert_eq!(read(query, Ids::Unknown), expected(id));
        assert_eq!(read(query, Ids::Ignored), expected(None));
    }
    for (query, rejection) in [
        ("name=a&value=1&id=", Rejection::IdEmpty),
        ("name=a&value=1&id", Rejection::IdEmpty),
        ("name=a&value=1&id=%00", Rejection::IdNotPrintable),
        ("name=a&value=1&id=%C3%A9", Rejection::IdNotPrintable),
        ("name=a&value=1&id=%FF", Rejection::IdNotPrintable),
        (&long, Rejection::IdTooLong),
    ] {
        let without = Ok(("a".to_owned(), None));
        assert_eq!(read(query, Ids::Stored), Err(rejection), "{query}");
        assert_eq!(read(query, Ids::Unknown), without, "{query}");
        assert_eq!(read(query, Ids::Ignored), without, "{query}");
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
            .map(|event| (event.name.to_owned(), event.value));
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
            .map(|event| (event.name.to_owned(), event.value));
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
            Ok(Measurement { name: &name, value, id: None })
        );
    }
}
