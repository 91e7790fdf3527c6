//! Bodies, against a tree of the same JSON and against the reference decoder of forms.

mod reasons;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::event::UnixMillis;
use crate::event::rule::Ids;

const STRICT: Content = Content {
    media: Media::Json,
    is_gzip: false,
    is_lenient: false,
};

const LENIENT: Content = Content {
    is_lenient: true,
    ..STRICT
};

const RULE: EventRule = EventRule {
    ids: Ids::Stored,
    ..EventRule::DEPLOYED
};

/// Name, value and id.
type Read = (String, u32, Option<String>);

/// Reads a body. Returns the events, and what else was found.
fn read(content: Content, body: &[u8]) -> Result<(Vec<Read>, Found), ContentFault> {
    let mut scratch = ContentScratch::default();
    let found = super::read(content, body, 1 << 20, RULE, &mut scratch)?;
    let events = scratch.events.events(UnixMillis(0)).map(|event| {
        let id = event.id.map(|id| id.as_str().to_owned());
        (event.name.to_owned(), event.value, id)
    });
    Ok((events.collect(), found))
}

fn event(name: &str, value: u32, id: Option<&str>) -> Read {
    (name.to_owned(), value, id.map(str::to_owned))
}

fn refusal(rejection: Rejection, event: Option<usize>) -> ContentFault {
    ContentFault::Event { rejection, event }
}

#[test]
fn an_object_is_one_event_and_an_array_several() {
    let one = br#"{"name":"a","value":1}"#;
    let (events, found) = read(STRICT, one).unwrap();
    assert_eq!((events, found.is_many), (vec![event("a", 1, None)], false));
    let several = br#" [{"id":"x","name":"a","value":1},{"value":"2","name":"b","other":[{}]}] "#;
    let (events, found) = read(STRICT, several).unwrap();
    let expected = vec![event("a", 1, Some("x")), event("b", 2, None)];
    assert_eq!((events, found.is_many), (expected, true));
}

#[test]
fn each_part_is_checked() {
    let long_id = format!(r#"{{"name":"a","value":1,"id":"{}"}}"#, "x".repeat(65));
    for (object, rejection) in [
        (r#"{"value":1}"#, Rejection::NameMissing),
        (r#"{"name":null,"value":1}"#, Rejection::NameMissing),
        (r#"{"name":7,"value":1}"#, Rejection::NameNotString),
        (r#"{"name":["a"],"value":1}"#, Rejection::NameNotString),
        (r#"{"name":"","value":1}"#, Rejection::NameEmpty),
        (
            r#"{"name":"\ud83d\ude00","value":1}"#,
            Rejection::NameNotStorable,
        ),
        (r#"{"name":"a"}"#, Rejection::ValueMissing),
        (r#"{"name":"a","value":null}"#, Rejection::ValueMissing),
        (r#"{"name":"a","value":-1}"#, Rejection::ValueNotDecimal),
        (r#"{"name":"a","value":1.0}"#, Rejection::ValueNotDecimal),
        (r#"{"name":"a","value":true}"#, Rejection::ValueNotDecimal),
        (
            r#"{"name":"a","value":{"a":1}}"#,
            Rejection::ValueNotDecimal,
        ),
        (r#"{"name":"a","value":"+1"}"#, Rejection::ValueNotDecimal),
        (r#"{"name":"a","value":""}"#, Rejection::ValueNotDecimal),
        (
            r#"{"name":"a","value":4294967296}"#,
            Rejection::ValueTooLarge,
        ),
        (
            r#"{"name":"a","value":99999999999999999999}"#,
            Rejection::ValueTooLarge,
        ),
        (
            r#"{"name":"a","value":"4294967296"}"#,
            Rejection::ValueTooLarge,
        ),
        (r#"{"name":"a","value":1,"id":""}"#, Rejection::IdEmpty),
        (r#"{"name":"a","value":1,"id":7}"#, Rejection::IdNotString),
        (
            r#"{"name":"a","value":1,"id":["x"]}"#,
            Rejection::IdNotString,
        ),
        (&long_id, Rejection::IdTooLong),
        (
            r#"{"name":"a","value":1,"id":"\n"}"#,
            Rejection::IdNotPrintable,
        ),
        ("7", Rejection::EventNotObject),
        ("[]", Rejection::EventNotObject),
        ("null", Rejection::EventNotObject),
        (r#""a""#, Rejection::EventNotObject),
    ] {
        let good = r#"{"name":"a","value":1}"#;
        let array = format!("[{good},{object},{good}]");
        let fault = read(STRICT, array.as_bytes()).unwrap_err();
        assert_eq!(fault, refusal(rejection, Some(1)), "{object}");
        let lines = Content {
            media: Media::JsonLines,
            ..STRICT
        };
        let fault = read(lines, format!("{good}\n\n{object}").as_bytes()).unwrap_err();
        assert_eq!(fault, refusal(rejection, Some(1)), "{object}");
        let (events, found) = read(LENIENT, array.as_bytes()).unwrap();
        let rejected = found.rejected.unwrap();
        let listed = vec![(1, LeftOut::Event(rejection))];
        assert_eq!((events.len(), rejected.listed), (2, listed));
        assert_eq!(rejected.counts[rejection as usize], 1);
        if object.starts_with('{') {
            let fault = read(STRICT, object.as_bytes()).unwrap_err();
            assert_eq!(fault, refusal(rejection, None), "{object}");
        }
    }
}

#[test]
fn the_first_of_a_repeated_key_wins_and_null_is_no_id() {
    let body = br#"{"name":"a","name":7,"value":1,"value":"x","id":null,"id":"x"}"#;
    assert_eq!(read(STRICT, body).unwrap().0, [event("a", 1, None)]);
}

#[test]
fn the_number_of_events_is_bounded_and_that_of_those_listed() {
    let array = |event: &str, events: usize| format!("[{}]", vec![event; events].join(","));
    let good = r#"{"name":"a","value":1}"#;
    let most = array(good, LIST_EVENTS_MAX);
    assert_eq!(
        read(STRICT, most.as_bytes()).unwrap().0.len(),
        LIST_EVENTS_MAX
    );
    for content in [STRICT, LENIENT] {
        for event in [good, "7"] {
            let more = array(event, LIST_EVENTS_MAX + 1);
            let fault = read(content, more.as_bytes()).unwrap_err();
            let is_first_wrong = content == STRICT && event == "7";
            assert_eq!(fault != ContentFault::TooManyEvents, is_first_wrong);
        }
    }
    let (events, found) = read(LENIENT, array("7", 250).as_bytes()).unwrap();
    let rejected = found.rejected.unwrap();
    assert_eq!((events.len(), rejected.listed.len()), (0, 100));
    assert_eq!(rejected.counts.iter().sum::<u64>(), 250);
}

/// What a tree of the body says.
fn reference(body: &Value) -> Result<Vec<Read>, ContentFault> {
    let one = |value: &Value| -> Result<Read, Rejection> {
        let Value::Object(object) = value else {
            return Err(Rejection::EventNotObject);
        };
        let name = match object.get("name") {
            None | Some(Value::Null) => return Err(Rejection::NameMissing),
            Some(Value::String(name)) => name.clone(),
            Some(_) => return Err(Rejection::NameNotString),
        };
        RULE.check_name(&name)?;
        let value = match object.get("value") {
            None | Some(Value::Null) => return Err(Rejection::ValueMissing),
            Some(Value::String(digits))
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                digits.parse().or(Err(Rejection::ValueTooLarge))?
            }
            Some(Value::Number(number)) if number.is_u64() => {
                let value = number.as_u64().and_then(|value| u32::try_from(value).ok());
                value.ok_or(Rejection::ValueTooLarge)?
            }
            Some(_) => return Err(Rejection::ValueNotDecimal),
        };
        let id = match object.get("id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id))
                if (1..=64).contains(&id.len())
                    && id.bytes().all(|byte| (0x20..0x7f).contains(&byte)) =>
            {
                Some(id.clone())
            }
            Some(Value::String(id)) if id.is_empty() => return Err(Rejection::IdEmpty),
            Some(Value::String(id))
                if id.is_ascii() && !id.bytes().any(|b| b.is_ascii_control()) =>
            {
                return Err(Rejection::IdTooLong);
            }
            Some(Value::String(_)) => return Err(Rejection::IdNotPrintable),
            Some(_) => return Err(Rejection::IdNotString),
        };
        Ok((name, value, id))
    };
    match body {
        Value::Array(values) => (0..)
            .zip(values)
            .map(|(at, value)| one(value).map_err(|rejection| refusal(rejection, Some(at))))
            .collect(),
        value => one(value)
            .map(|event| vec![event])
            .map_err(|rejection| refusal(rejection, None)),
    }
}

fn field() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => "\\PC{0,8}".prop_map(Value::from),
        8 => any::<u32>().prop_map(Value::from),
        2 => "[0-9]{1,11}".prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => (-1e9..1e9).prop_map(|value: f64| json!(value)),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(json!([{ "name": [1] }])),
        1 => Just(json!({ "value": {} })),
    ]
}

fn object() -> impl Strategy<Value = Value> {
    let key = prop_oneof![4 => "name|value", 1 => "id", 1 => "[a-z]{0,3}"];
    let pairs = proptest::collection::vec((key, field()), 0..5);
    let object = pairs.prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>()));
    let whole = ("\\PC{1,8}", any::<u32>(), "[ -~]{1,9}")
        .prop_map(|(name, value, id)| json!({ "name": name, "value": value, "id": id }));
    prop_oneof![1 => object, 3 => whole, 1 => field()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_tree(values in proptest::collection::vec(object(), 0..5), is_array: bool) {
        let body = match values.first() {
            // Alone, only an object is an event.
            Some(first @ Value::Object(_)) if !is_array => first.clone(),
            _ => Value::Array(values),
        };
        let ours = read(STRICT, body.to_string().as_bytes()).map(|(events, _)| events);
        prop_assert_eq!(ours, reference(&body));
    }

    /// The good ones are taken, and each other one is listed.
    #[test]
    fn lenient_takes_what_would_be_taken_alone(values in proptest::collection::vec(object(), 0..6)) {
        let each: Vec<_> = values.iter().map(|value| reference(&json!([value]))).collect();
        let good: Vec<_> = each.iter().flatten().flatten().cloned().collect();
        let bad: Vec<_> = (0..).zip(&each).filter(|(_, read)| read.is_err()).map(|(at, _)| at).collect();
        let lines: Vec<_> = values.iter().map(Value::to_string).collect();
        let as_lines = Content { media: Media::JsonLines, ..LENIENT };
        for (content, body) in [(LENIENT, format!("[{}]", lines.join(","))), (as_lines, lines.join("\n"))] {
            let (events, found) = read(content, body.as_bytes()).unwrap();
            let listed: Vec<usize> = found.rejected.unwrap().listed.iter().map(|&(at, _)| at).collect();
            prop_assert_eq!((&events, &listed), (&good, &bad));
        }
    }

    /// A body that is cut or changed is refused, or is JSON.
    #[test]
    fn no_bytes_are_taken_for_json(
        values in proptest::collection::vec(object(), 1..4), at: usize, byte: u8, is_cut: bool,
    ) {
        let mut body = Value::Array(values).to_string().into_bytes();
        let at = at % body.len();
        if is_cut {
            body.truncate(at);
        } else {
            body[at] = byte;
        }
        let tree = serde_json::from_slice::<Value>(&body);
        match (read(STRICT, &body), tree) {
            // A tree keeps the last of a repeated key.
            (Ok(_) | Err(ContentFault::Event { .. }), Ok(_)) => {}
            (Err(ContentFault::Malformed { .. }), Err(_)) => {}
            // What follows the first event that is wrong is not read.
            (Err(ContentFault::Event { .. }), Err(_)) => {}
            (Err(ContentFault::Malformed { .. }), Ok(Value::Object(_) | Value::Array(_))) => {
                prop_assert!(false, "refused: {}", String::from_utf8_lossy(&body));
            }
            (Err(_), _) => {}
            (Ok(_), Err(fault)) => prop_assert!(false, "taken: {fault}"),
        }
    }

    #[test]
    fn a_form_is_read_as_the_reference_decoder_does(name in "\\PC{1,40}", value: u32, id in "[ -~]{1,64}") {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("id", &id).append_pair("name", &name).append_pair("value", &value.to_string());
        let content = Content { media: Media::Form, ..STRICT };
        let read = read(content, form.finish().as_bytes()).map(|(events, _)| events);
        let storable = RULE.check_name(&name).map(|()| vec![(name, value, Some(id))]);
        prop_assert_eq!(read, storable.map_err(|fault| refusal(fault.into(), None)));
    }
}
