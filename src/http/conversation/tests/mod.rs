//! Whole conversations, with the input split into reads in any way.

mod bodies;
mod fake;

use proptest::prelude::*;

use self::fake::Fake;
use super::*;
use crate::http::query::Rejection;

/// Passes `input` in reads that end at `cuts`. Returns all answers, and what the connection does after them.
fn converse(service: &mut Fake, input: &[u8], cuts: &[usize]) -> (String, Next) {
    let mut conversation = Conversation::new();
    let (mut buffer, mut out, mut decoded) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut answers = Vec::new();
    let mut ends: Vec<usize> = cuts.iter().map(|&cut| cut.min(input.len())).collect();
    ends.push(input.len());
    ends.sort_unstable();
    let (mut start, mut next) = (0, Next::Read(RequestProgress::None));
    for end in ends {
        buffer.extend_from_slice(&input[start..end]);
        start = end;
        next = Next::Write;
        while matches!(next, Next::Write | Next::AwaitRoom) {
            next = conversation.turn(&mut buffer, &mut out, &mut decoded, service);
            assert!(out.len() <= OUTPUT_BYTES_MAX);
            answers.append(&mut out);
        }
        if !matches!(next, Next::Read(_)) {
            break;
        }
    }
    (String::from_utf8_lossy(&answers).into_owned(), next)
}

fn ask(input: &str) -> (String, Next) {
    converse(&mut Fake::new(), input.as_bytes(), &[])
}

fn statuses(answers: &str) -> Vec<&str> {
    let after = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3]);
    after
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn each_path_and_method_is_answered_as_documented() {
    let listed = "Allow: GET, HEAD, OPTIONS\r\n";
    let events = "Allow: GET, HEAD, OPTIONS, POST\r\n";
    for (method, target, status, holds) in [
        (
            "GET",
            "/hakaru?name=a&value=1",
            "200",
            "Content-Length: 0\r\n",
        ),
        (
            "HEAD",
            "/hakaru?name=a&value=1",
            "200",
            "Content-Length: 0\r\n",
        ),
        ("GET", "/ok", "200", "Content-Length: 0\r\n"),
        ("HEAD", "/ok", "200", "Content-Length: 0\r\n"),
        ("OPTIONS", "/hakaru", "204", events),
        (
            "OPTIONS",
            "/hakaru",
            "204",
            "Access-Control-Max-Age: 86400\r\n",
        ),
        ("POST", "/hakaru", "400", "{\"error\":\"body: empty; "),
        ("PUT", "/hakaru", "405", events),
        ("POST", "/hakaru.gif", "405", listed),
        (
            "DELETE",
            "/hakaru",
            "405",
            "{\"error\":\"method: not allowed",
        ),
        ("POST", "/ok", "405", "Allow: GET, HEAD\r\n"),
        (
            "GET",
            "/hakaru.gif?name=a&value=1",
            "200",
            "Content-Type: image/gif\r\nContent-Length: 43\r\n",
        ),
        (
            "HEAD",
            "/hakaru.gif?name=a&value=1",
            "200",
            "Content-Length: 43\r\n",
        ),
        (
            "GET",
            "/hakaru.gif?name=a",
            "400",
            "{\"error\":\"value: missing",
        ),
        ("OPTIONS", "/hakaru.gif", "204", listed),
        ("GET", "/hakaru.js", "200", "Content-Type: text/javascript"),
        ("HEAD", "/track.js", "200", "ETag: \""),
        ("POST", "/hakaru.js", "405", listed),
        (
            "GET",
            "/track?name=a&value=1",
            "200",
            "Content-Length: 0\r\n",
        ),
        (
            "GET",
            "/track.gif?name=a&value=1",
            "200",
            "Content-Type: image/gif\r\n",
        ),
        ("GET", "/", "200", "hakaru takes events at /hakaru"),
        ("HEAD", "/", "200", "Content-Type: text/plain"),
        ("OPTIONS", "/", "204", listed),
        ("OPTIONS", "*", "204", listed),
        ("POST", "/", "405", listed),
        ("GET", "/elsewhere", "404", "{\"error\":\"path: not found"),
        ("GET", "/hakaru/", "404", ""),
        ("POST", "/elsewhere", "404", ""),
    ] {
        let (answer, next) = ask(&format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(statuses(&answer), [status], "{method} {target}");
        assert!(answer.contains(holds), "{method} {target}: {answer}");
        assert_eq!(next, Next::Read(RequestProgress::None));
        let is_for_pages = target.starts_with("/hakaru")
            || target.starts_with("/track")
            || matches!(status, "404" | "405");
        for field in [
            "Access-Control-Allow-Origin: *\r\n",
            "Access-Control-Expose-Headers: X-Hakaru-Reason\r\n",
        ] {
            assert_eq!(answer.contains(field), is_for_pages, "{method} {target}");
        }
        let may_be_kept = !answer.contains("\r\nCache-Control: no-store\r\n");
        assert_eq!(
            may_be_kept,
            matches!(
                (target, status),
                ("/ok" | "*" | "/hakaru.js" | "/track.js", "200" | "204") | ("/", "204")
            ),
            "{method} {target}"
        );
    }
}

#[test]
fn head_makes_no_event_and_counts_no_rejection() {
    let mut service = Fake::new();
    let head = |target: &str| format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let input = head("/hakaru?name=a&value=1") + &head("/hakaru?name=a&value=x");
    let (answers, _) = converse(&mut service, input.as_bytes(), &[]);
    assert_eq!(statuses(&answers), ["200", "400"]);
    assert!(answers.ends_with("\r\n\r\n"), "no body: {answers}");
    assert!(service.taken.is_empty() && service.rejected.is_empty());
}

#[test]
fn a_rejected_event_has_its_reason_in_body_and_field_and_is_counted() {
    let mut service = Fake::new();
    let input =
        "GET /hakaru?name=a&value=4294967296 HTTP/1.1\r\nHost: h\r\nOrigin: https://o\r\n\r\n";
    let (answer, next) = converse(&mut service, input.as_bytes(), &[]);
    let reason = "value: too large; accepted: decimal digits, 0 to 4294967295";
    assert!(answer.contains(&format!("\r\nX-Hakaru-Reason: {reason}\r\n")));
    assert!(answer.ends_with(&format!("\r\n\r\n{{\"error\":\"{reason}\"}}")));
    assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://o\r\n"));
    assert_eq!(service.rejected, [Rejection::ValueTooLarge]);
    assert_eq!(next, Next::Read(RequestProgress::None));
}

#[test]
fn refusals_carry_cors_and_close() {
    let (answer, next) = ask("GET /hakaru?name=a HTTP/1.1\r\nOrigin: https://o\r\n\r\n");
    assert_eq!(statuses(&answer), ["400"]);
    assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://o\r\n"));
    assert!(answer.contains("\r\nConnection: close\r\n"));
    assert_eq!(next, Next::CloseAfterSender);
}

#[test]
fn pipelined_requests_are_answered_in_order_up_to_a_close() {
    let mut service = Fake::new();
    let input = get("/hakaru?name=a&value=1")
        + "\r\n"
        + &get("/nowhere")
        + "GET /hakaru?name=b&value=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        + &get("/hakaru?name=c&value=3");
    let (answers, next) = converse(&mut service, input.as_bytes(), &[]);
    assert_eq!(statuses(&answers), ["200", "404", "200"]);
    assert_eq!(next, Next::Close);
    assert_eq!(service.taken, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
}

#[test]
fn answers_of_one_turn_are_bounded_and_none_is_left_out() {
    let origin = "o".repeat(7_000);
    let large = format!("GET /hakaru HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\r\n").repeat(20);
    assert_eq!(statuses(&ask(&large).0).len(), 20);
    assert_eq!(
        statuses(&ask(&get("/nowhere").repeat(1_000)).0).len(),
        1_000
    );
}

#[test]
fn a_body_is_skipped_and_the_next_request_is_found() {
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n",
    ] {
        let mut service = Fake::new();
        let input =
            format!("GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n{body}") + &get("/ok");
        let (answers, next) = converse(&mut service, input.as_bytes(), &[]);
        assert_eq!(statuses(&answers), ["200", "200"], "{body:?}");
        assert_eq!(next, Next::Read(RequestProgress::None));
        assert_eq!(service.taken.len(), 1);
    }
}

#[test]
fn only_a_sender_that_waits_for_it_gets_100_continue() {
    let head =
        "POST /hakaru HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let input = format!("{head}[]");
    let (answers, _) = converse(&mut Fake::new(), input.as_bytes(), &[head.len()]);
    assert_eq!(statuses(&answers), ["100", "200"]);
    let (answers, _) = ask(&input);
    assert_eq!(statuses(&answers), ["200"]);
}

#[test]
fn a_body_above_its_bound_is_refused_at_the_head() {
    let (answer, next) = ask("GET /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n");
    assert_eq!(
        (statuses(&answer), next),
        (vec!["413"], Next::CloseAfterSender)
    );
}

#[test]
fn without_room_an_event_is_shed_with_retry_after() {
    let mut service = Fake::new();
    service.room = 1;
    let input = get("/hakaru?name=a&value=1").repeat(2);
    let (answers, next) = converse(&mut service, input.as_bytes(), &[]);
    assert_eq!(statuses(&answers), ["200", "503"]);
    assert!(answers.contains("\r\nRetry-After: 1\r\n"));
    assert_eq!(next, Next::Read(RequestProgress::None));
}

#[test]
fn draining_answers_all_that_was_pipelined_and_closes_with_the_last() {
    let mut service = Fake::new();
    service.draining = true;
    let (answers, next) = converse(&mut service, get("/ok").repeat(3).as_bytes(), &[]);
    assert_eq!(statuses(&answers), ["200", "200", "200"]);
    assert_eq!(answers.matches("Connection: close").count(), 1);
    assert_eq!(next, Next::CloseAfterSender);
}

#[test]
fn the_progress_of_the_next_request_is_known() {
    for (input, progress) in [
        ("", RequestProgress::None),
        ("\r\n\r\n", RequestProgress::None),
        ("GET /ok HT", RequestProgress::Head),
        (
            "GET /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n12",
            RequestProgress::Body,
        ),
    ] {
        assert_eq!(ask(input).1, Next::Read(progress), "{input:?}");
    }
}

/// One request of every kind, to be sent in any order and split anywhere.
const KINDS: [&str; 9] = [
    "GET /hakaru?name=a%20b&value=7 HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /hakaru?name=a&value=-7 HTTP/1.1\r\nHost: h\r\nOrigin: o\r\n\r\n",
    "POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nGET / HTT",
    "GET /hakaru?name=c&value=1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n",
    "POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 42\r\n\r\n[{\"name\":\"d\",\"value\":1},\n{\"value\":2,\"name\"",
    "POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 22\r\n\r\n{\"name\":\"d\",\"value\":8}",
    "POST /track HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n\
     3\r\nnam\r\n00b;x\r\ne=e&value=9\r\n0\r\n\r\n",
    "GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "BREW / HTTP/3.1\r\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// Splitting the input into reads changes neither the answers nor the events.
    #[test]
    fn splits_change_nothing(
        kinds in proptest::collection::vec(0..KINDS.len(), 1..6),
        cuts in proptest::collection::vec(0..600usize, 0..12),
    ) {
        let input: String = kinds.iter().map(|&kind| KINDS[kind]).collect();
        let (mut whole, mut pieces) = (Fake::new(), Fake::new());
        let once = converse(&mut whole, input.as_bytes(), &[]);
        prop_assert_eq!(converse(&mut pieces, input.as_bytes(), &cuts), once);
        prop_assert_eq!(pieces.taken, whole.taken);
        prop_assert_eq!(pieces.rejected, whole.rejected);
    }
}
