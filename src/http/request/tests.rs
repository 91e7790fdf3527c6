//! Heads that are accepted, heads that are refused, and the bounds.

use super::*;
use proptest::prelude::*;

fn complete(input: &str) -> Request<'_> {
    match parse(input.as_bytes()) {
        Ok(Some((request, length))) => {
            assert_eq!(length, input.len(), "{input:?}");
            request
        }
        other => panic!("{input:?}: {other:?}"),
    }
}

fn refused(input: &str) -> Refusal {
    match parse(input.as_bytes()) {
        Err(refusal) => refusal,
        other => panic!("{input:?}: {other:?}"),
    }
}

#[test]
fn splits_the_target() {
    for (target, path, query) in [
        ("/hakaru?name=a&value=1", "/hakaru", "name=a&value=1"),
        ("/ok", "/ok", ""),
        ("/a?b?c", "/a", "b?c"),
        ("http://host:8081/hakaru?x", "/hakaru", "x"),
        ("https://host", "/", ""),
        ("HTTP://host/ok", "/ok", ""),
        ("http://host?x", "", "x"),
        ("*", "*", ""),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = complete(&head);
        assert_eq!((request.path, request.query), (path, query), "{target}");
    }
}

#[test]
fn persistence_follows_version_and_connection_field() {
    for (version, connection, persistence) in [
        ("1.1", "", Persistence::Keep),
        ("1.1", "Connection: keep-alive\r\n", Persistence::Keep),
        ("1.1", "connection: CLOSE\r\n", Persistence::Close),
        ("1.1", "Connection: x, close ,y\r\n", Persistence::Close),
        ("1.0", "", Persistence::Close),
        (
            "1.0",
            "Connection: Keep-Alive\r\n",
            Persistence::KeepExplicit,
        ),
        (
            "1.0",
            "Connection: keep-alive, close\r\n",
            Persistence::Close,
        ),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n");
        assert_eq!(complete(&head).persistence, persistence, "{head:?}");
    }
}

#[test]
fn framing_is_strict() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    assert_eq!(complete(&with("")).body, Framing::Empty);
    assert_eq!(
        complete(&with("Content-Length: 0\r\n")).body,
        Framing::Empty
    );
    assert_eq!(
        complete(&with("Content-Length: 17\r\n")).body,
        Framing::Length(17)
    );
    assert_eq!(
        complete(&with("Transfer-Encoding: Chunked\r\n")).body,
        Framing::Chunked
    );
    let huge = with("Content-Length: 99999999999999999999999\r\n");
    assert_eq!(complete(&huge).body, Framing::Length(u64::MAX));
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(
            refused(&with(fields)).status(),
            Status::BadRequest,
            "{fields:?}"
        );
    }
    assert_eq!(
        refused(&with("Transfer-Encoding: gzip, chunked\r\n")),
        Refusal::Coding
    );
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(old).status(), Status::BadRequest);
}

#[test]
fn garbage_is_answered_400_and_other_versions_505() {
    for (head, status) in [
        ("\x16\x03\x01\x02\0\x01", Status::BadRequest),
        ("GET\r\n\r\n", Status::BadRequest),
        ("GET /\r\n\r\n", Status::BadRequest),
        ("GET / HTTQ/1.1\r\n\r\n", Status::BadRequest),
        ("GET / http/1.1\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1 x\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost h\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", Status::BadRequest),
        (
            "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
            Status::BadRequest,
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nA: \0\r\n\r\n",
            Status::BadRequest,
        ),
        ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            Status::BadRequest,
        ),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/2.0\r\n\r\n", Status::VersionNotSupported),
        ("GET / HTTP/0.9\r\n\r\n", Status::VersionNotSupported),
        ("GET /a b HTTP/1.1\r\n\r\n", Status::BadRequest),
        ("GET /a b", Status::BadRequest),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Status::VersionNotSupported,
        ),
    ] {
        assert_eq!(refused(head).status(), status, "{head:?}");
    }
}

#[test]
fn bounds_do_not_depend_on_how_much_was_read() {
    let fits = |padding: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
            "x".repeat(padding)
        )
    };
    let room = HEAD_BYTES_MAX - fits(0).len();
    complete(&fits(room));
    assert_eq!(refused(&fits(room + 1)), Refusal::HeadTooLarge);
    assert_eq!(refused(&fits(room * 3)), Refusal::HeadTooLarge);
    let target = format!(
        "GET /{} HTTP/1.1\r\nHost: h\r\n\r\n",
        "x".repeat(HEAD_BYTES_MAX)
    );
    assert_eq!(refused(&target), Refusal::TargetTooLong);
    let fields = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "A: b\r\n".repeat(count)
        )
    };
    complete(&fields(HEADERS_MAX - 1));
    assert_eq!(refused(&fields(HEADERS_MAX)), Refusal::TooManyHeaders);
}

#[test]
fn reasons_name_the_bounds_in_force() {
    assert!(
        Refusal::HeadTooLarge
            .reason()
            .contains(&HEAD_BYTES_MAX.to_string())
    );
    assert!(
        Refusal::TargetTooLong
            .reason()
            .contains(&HEAD_BYTES_MAX.to_string())
    );
    assert!(
        Refusal::TooManyHeaders
            .reason()
            .contains(&HEADERS_MAX.to_string())
    );
    assert!(Refusal::BodyTooLarge(77).reason().contains(" 77 bytes"));
}

#[test]
fn the_origin_of_a_refused_head_is_found_where_it_can_be_echoed() {
    let origin = |head: &'static [u8]| origin_of_refused(head);
    let shop = Some(&b"https://shop.example"[..]);
    let head = b"GET /hakaru?name=a HTTP/3.0\r\nHost: h\r\nORIGIN: https://shop.example\r\n\r\n";
    assert_eq!(origin(head), shop);
    assert_eq!(origin(b"GET /hakaru"), None);
    assert_eq!(origin(b"GET /hakaru HTTP/1.1\r\nOrigin: a\x01b\r\n"), None);
    assert_eq!(origin(b"\x16\x03\x01"), None);
    let raw = b"GET /\xff HTTP/1.1\r\nOrigin: https://shop.example\r\n\r\n";
    assert_eq!(origin(raw), shop);
    let body = b"GET /hakaru HTTP/1.1\r\nHost: h\r\n\r\nOrigin: https://evil\r\n";
    assert_eq!(origin(body), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every prefix of a head is incomplete. Bytes after a head do not change it.
    #[test]
    fn every_prefix_is_partial(
        query in "[a-z0-9=&%+]{0,40}",
        field in "[A-Za-z-]{1,12}: [ -~]{0,30}\r\n",
        rest in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let head = format!("GET /hakaru?{query} HTTP/1.1\r\nHost: h\r\nA-{field}\r\n");
        for cut in 0..head.len() {
            prop_assert_eq!(parse(&head.as_bytes()[..cut]), Ok(None));
        }
        let input = [head.as_bytes(), &rest].concat();
        let (request, length) = parse(&input).unwrap().unwrap();
        prop_assert_eq!(length, head.len());
        prop_assert_eq!(request.query, query);
    }

    #[test]
    fn no_input_panics(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((_, length))) = parse(&input) {
            prop_assert!(length <= input.len());
        }
        origin_of_refused(&input);
    }
}

#[test]
fn a_host_may_have_the_bytes_of_a_name_an_address_and_a_port() {
    for byte in 0..=u8::MAX {
        let is_allowed = byte.is_ascii_graphic() && !b"/?#@,\\<>\"{}|^`".contains(&byte);
        assert_eq!(is_host(&[b'a', byte]), is_allowed, "{byte}");
    }
    assert!(is_host(b"") && is_host(b"[::1]:8081"));
}
