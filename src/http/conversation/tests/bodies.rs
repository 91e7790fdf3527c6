//! Conversations about events in bodies.

use super::fake::BODY_LIMIT;
use super::*;
use crate::http::body::BodyBudget;

fn post(fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /hakaru HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

fn named(names: &[&str]) -> Vec<(String, u32)> {
    names.iter().map(|name| ((*name).to_owned(), 1)).collect()
}

#[test]
fn the_answer_says_how_many_were_taken_where_there_could_be_several() {
    let object = r#"{"name":"a","value":1}"#;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let lines = "Content-Type: application/x-ndjson\r\n";
    for (fields, body, answer, names) in [
        ("", object, "", &["a"][..]),
        (form, "name=a&value=1", "", &["a"]),
        ("", &format!("[{object}]"), r#"{"taken":1}"#, &["a"]),
        ("", "[]", r#"{"taken":0}"#, &[]),
        (lines, object, r#"{"taken":1}"#, &["a"]),
        (
            lines,
            &format!("{object}\n\r\n{object}\r\n"),
            r#"{"taken":2}"#,
            &["a", "a"],
        ),
        (lines, "\n", r#"{"taken":0}"#, &[]),
    ] {
        let mut service = Fake::new();
        let (answers, next) = converse(&mut service, post(fields, body).as_bytes(), &[]);
        assert_eq!(statuses(&answers), ["200"], "{body}");
        assert!(answers.ends_with(&format!("\r\n\r\n{answer}")), "{answers}");
        assert_eq!(service.taken, named(names));
        assert_eq!(next, Next::Read(RequestProgress::None));
    }
}

#[test]
fn a_body_is_followed_by_the_next_request_however_it_is_split() {
    let object = r#"{"name":"a","value":1}"#;
    let chunked = format!(
        "POST /hakaru HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{object}\r\n0\r\n\r\n",
        object.len()
    );
    for first in [post("", object), chunked] {
        let input = first + &get("/hakaru?name=b&value=1");
        for cut in 0..input.len() {
            let mut service = Fake::new();
            let (answers, _) = converse(&mut service, input.as_bytes(), &[cut]);
            assert_eq!(statuses(&answers), ["200", "200"], "{cut}");
            assert_eq!(service.taken, named(&["a", "b"]), "{cut}");
        }
    }
}

#[test]
fn a_request_that_comes_later_is_passed_again() {
    let input = get("/hakaru?name=a&value=1")
        + &post("", r#"{"name":"b","value":1}"#)
        + &get("/hakaru?name=c&value=1");
    for cut in (0..input.len()).step_by(7) {
        let mut service = Fake::new();
        service.later = 3;
        let (answers, _) = converse(&mut service, input.as_bytes(), &[cut]);
        assert_eq!(statuses(&answers), ["200", "200", "200"], "{cut}");
        assert_eq!(service.taken, named(&["a", "b", "c"]), "{cut}");
    }
}

#[test]
fn a_body_above_the_limit_is_refused_by_its_length_or_when_it_comes() {
    let most = "x".repeat(BODY_LIMIT);
    let (answers, _) = ask(&post("", &most));
    assert_eq!(statuses(&answers), ["400"]);
    let (answers, next) = ask(&post("", &format!("{most}x")));
    assert_eq!(statuses(&answers), ["413"]);
    assert!(answers.contains("at most 1024 bytes"), "{answers}");
    assert_eq!(next, Next::CloseAfterSender);
    let chunk = format!("401\r\n{most}x\r\n0\r\n\r\n");
    let head = "POST /hakaru HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (answers, next) = ask(&format!("{head}{chunk}"));
    assert_eq!(
        (statuses(&answers), next),
        (vec!["413"], Next::CloseAfterSender)
    );
}

#[test]
fn a_body_is_shed_where_the_memory_for_bodies_is_in_use() {
    let mut service = Fake::new();
    service.budget = BodyBudget::new(0, 0);
    let input = post("", r#"{"name":"a","value":1}"#);
    // All of it in one read needs no memory of its own.
    let (answers, _) = converse(&mut service, input.as_bytes(), &[]);
    assert_eq!(statuses(&answers), ["200"]);
    let (answers, next) = converse(&mut service, input.as_bytes(), &[input.len() - 3]);
    assert_eq!(
        (statuses(&answers), next),
        (vec!["503"], Next::CloseAfterSender)
    );
    assert!(answers.contains("\r\nRetry-After: 1\r\n"), "{answers}");
    assert_eq!(service.taken.len(), 1);
}

/// Answers may wait for their events without a bound, and a body that is not complete would keep its memory as long.
#[test]
fn a_body_that_is_not_complete_waits_for_the_answers_before_it() {
    let mut service = Fake::new();
    let mut conversation = Conversation::new();
    let (mut out, mut decoded) = (Vec::new(), Vec::new());
    let get = "GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n";
    let whole = post("", r#"{"name":"a","value":1}"#);
    let mut input = BytesMut::from(&format!("{get}{}", &whole[..whole.len() - 3])[..]);
    let mut turn = |out: &mut Vec<u8>, input: &mut BytesMut| {
        conversation.turn(input, out, &mut decoded, &mut service)
    };
    assert_eq!(turn(&mut out, &mut input), Next::Write);
    assert!(!out.is_empty());
    out.clear();
    let next = turn(&mut out, &mut input);
    assert_eq!(next, Next::Read(RequestProgress::Body));
    input.extend_from_slice(&whole.as_bytes()[whole.len() - 3..]);
    assert_eq!(
        turn(&mut out, &mut input),
        Next::Read(RequestProgress::None)
    );
    assert!(out.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(service.taken.len(), 2);
}

#[test]
fn a_long_body_has_more_time() {
    let mut service = Fake::new();
    service.limit = 4 * BODY_BYTES_IN_TIME;
    let mut conversation = Conversation::new();
    let (mut out, mut decoded) = (Vec::new(), Vec::new());
    let mut turn =
        |input: &mut BytesMut| conversation.turn(input, &mut out, &mut decoded, &mut service);
    let length = 4 * BODY_BYTES_IN_TIME;
    let head = format!("POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let mut input = BytesMut::from(&head[..]);
    assert_eq!(turn(&mut input), Next::Read(RequestProgress::Body));
    let mut renewed = 0;
    for _ in 0..length / 1000 {
        input.extend_from_slice(&[b' '; 1000]);
        renewed += usize::from(turn(&mut input) == Next::Read(RequestProgress::MoreBody));
    }
    assert_eq!(renewed, length / BODY_BYTES_IN_TIME - 1);
}

#[test]
fn what_is_not_read_is_refused_with_what_is() {
    for (fields, holds) in [
        (
            "Content-Type: text/html\r\n",
            "\r\nAccept-Post: application/json, ",
        ),
        ("Content-Encoding: br\r\n", "\r\nAccept-Encoding: gzip\r\n"),
    ] {
        let (answers, next) = ask(&post(fields, "{}"));
        assert_eq!(statuses(&answers), ["415"]);
        assert!(answers.contains(holds), "{answers}");
        assert_eq!(next, Next::Read(RequestProgress::None));
    }
}
