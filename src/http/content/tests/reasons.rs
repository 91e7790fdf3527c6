//! Why a body that is not read is not.

use super::*;

fn malformed(reason: &str, event: Option<usize>) -> ContentFault {
    let reason = reason.to_owned();
    ContentFault::Malformed { reason, event }
}

#[test]
fn what_is_not_json_is_refused_and_says_where() {
    for (body, event, words) in [
        ("", None, "body: empty; accepted: an object"),
        (" \n", None, "body: empty; accepted: an object"),
        ("{", None, "line 1"),
        (r#"{"name":"a","value":1}x"#, None, "column 23"),
        (
            r#"{"name":"a","value":1}{"name":"a","value":1}"#,
            None,
            "application/x-ndjson",
        ),
        (r#"{'name':"a"}"#, None, "column 2"),
        (r#"{"name":"\ud800","value":1}"#, None, "not JSON"),
        ("[{\"name\":\"a\",\"value\":1},\n{]", Some(1), "line 2"),
        (r#"[{"name":"a","value":1}"#, Some(1), "line 1"),
    ] {
        for content in [STRICT, LENIENT] {
            match read(content, body.as_bytes()).unwrap_err() {
                ContentFault::Malformed { reason, event: at } => {
                    assert_eq!(at, event, "{body}");
                    assert!(reason.contains(words), "{body}: {reason}");
                    assert!(reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }
    let fault = read(STRICT, b"{\"name\":\"\xff\",\"value\":1}").unwrap_err();
    assert!(matches!(fault, ContentFault::Malformed { .. }), "{fault:?}");
}

#[test]
fn a_reason_repeats_little_of_the_body() {
    let text = format!("\"{}\"", "\u{7f}".repeat(1 << 20));
    for content in [STRICT, LENIENT] {
        match read(content, text.as_bytes()).unwrap_err() {
            ContentFault::Malformed { reason, .. } => {
                assert!(reason.contains("a string, expected an object"), "{reason}");
                assert!(reason.len() < 400, "{}", reason.len());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_line_that_is_not_json_is_one_event_of_many() {
    let lines = |is_lenient| Content {
        media: Media::JsonLines,
        is_lenient,
        ..STRICT
    };
    let body = b"{\"name\":\"a\",\"value\":1}\n{\"name\":\n\xff\n{\"name\":\"b\",\"value\":2}";
    let reasons = [
        "body: not JSON at line 2, column 8: EOF while parsing a value; accepted: an object a line",
        "body: line 3 is not UTF-8; accepted: an object a line",
    ];
    let fault = read(lines(false), body).unwrap_err();
    assert_eq!(fault, malformed(reasons[0], Some(1)));
    // A sender that prefers the others to be taken is told the same of each.
    let (events, found) = read(lines(true), body).unwrap();
    assert_eq!(events, [event("a", 1, None), event("b", 2, None)]);
    let listed = reasons.map(|reason| LeftOut::Malformed(reason.to_owned()));
    let rejected = found.rejected.unwrap();
    assert_eq!(rejected.counts[Rejection::BodyMalformed as usize], 2);
    assert!(rejected.listed.into_iter().eq((1..).zip(listed)));
}

#[test]
fn a_json_body_that_is_read_as_a_form_is_refused_as_such() {
    let form = |is_lenient| Content {
        media: Media::Form,
        is_lenient,
        ..STRICT
    };
    for body in [
        r#"{"name":"a","value":1}"#,
        " \n[]",
        r#"{"url":"?x&name=b"}"#,
    ] {
        let fault = read(form(false), body.as_bytes()).unwrap_err();
        assert_eq!(fault, malformed(JSON_AS_FORM, None), "{body}");
        let (events, found) = read(form(true), body.as_bytes()).unwrap();
        let left_out = LeftOut::Malformed(JSON_AS_FORM.to_owned());
        assert!(events.is_empty(), "{events:?}");
        assert_eq!(found.rejected.unwrap().listed, [(0, left_out)], "{body}");
    }
    // What is an event is one, and a form without a name is a form.
    let (events, _) = read(form(false), b"{x&name=a&value=1").unwrap();
    assert_eq!(events, [event("a", 1, None)]);
    for body in ["", "value=1"] {
        let fault = read(form(false), body.as_bytes()).unwrap_err();
        assert_eq!(fault, refusal(Rejection::NameMissing, None), "{body}");
    }
}

#[test]
fn gzip_that_the_request_does_not_name_is_refused_as_such() {
    let body = b"\x1f\x8b\x08\x00";
    for media in [Media::Json, Media::JsonLines, Media::Form] {
        let content = Content { media, ..STRICT };
        let fault = read(content, body).unwrap_err();
        assert_eq!(fault, malformed(UNDECLARED_GZIP, None), "{media:?}");
    }
    assert_eq!(
        read(LENIENT, body).unwrap_err(),
        malformed(UNDECLARED_GZIP, None)
    );
}
