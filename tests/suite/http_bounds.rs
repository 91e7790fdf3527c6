//! Requests that are split, pipelined, malformed or too large. Each bound has its status, and no other connection is
//! affected.

use crate::support::{Client, Settings, exchange, wait_until};

const EVENT: &str = "GET /hakaru?name=open&value=1 HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn a_request_may_arrive_in_any_number_of_pieces() {
    let hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.address);
    for byte in EVENT.bytes() {
        client.send(&[byte]);
    }
    assert_eq!(client.answer().status, 200);
    let large = format!(
        "GET /ok HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
        "x".repeat(8_000)
    );
    for piece in large.as_bytes().chunks(999) {
        client.send(piece);
    }
    assert_eq!(client.answer().status, 200);
    assert_eq!(hakaru.stop().stored, 1);
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    let hakaru = Settings::sqlite().start();
    const ROUNDS: usize = 2_000;
    let pile = format!("{EVENT}GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n").repeat(ROUNDS);
    // More answers than the sockets hold: the server must wait for the client and lose none.
    let mut reader = Client::connect(hakaru.address);
    std::thread::scope(|scope| {
        let mut writer = reader.try_clone();
        scope.spawn(move || writer.send(pile.as_bytes()));
        for _ in 0..ROUNDS {
            assert_eq!(reader.answer().status, 200);
            assert_eq!(reader.answer().status, 404);
        }
    });
    assert_eq!(hakaru.stop().stored, ROUNDS as u64);
}

#[test]
fn every_bound_has_its_status_and_closes_the_connection() {
    let hakaru = Settings::sqlite().start();
    let fields = "A: b\r\n".repeat(64);
    let field = "x".repeat(9_000);
    for (request, status) in [
        (format!("GET /{field} HTTP/1.1\r\nHost: h\r\n\r\n"), "414"),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {field}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"), "431"),
        ("POST /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n".to_owned(), "413"),
        ("POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n".to_owned(), "413"),
        ("GET /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), "505"),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "501"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned(), "400"),
        ("GET /hakaru\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = exchange(hakaru.address, request.as_bytes());
        let start = &request[..request.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {answer:?}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{start:?}: {answer:?}");
        assert!(answer.contains("\r\nX-Hakaru-Reason: "), "{start:?}: {answer:?}");
    }
    assert_eq!(hakaru.stop().received, 0);
}

#[test]
fn the_answer_before_a_close_arrives_even_if_the_sender_continues() {
    let hakaru = Settings::sqlite().start();
    // More than the socket buffers hold: if the server did not wait for the sender, a reset could discard the answer.
    let request = format!(
        "POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 1100000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    for _ in 0..20 {
        assert!(exchange(hakaru.address, request.as_bytes()).starts_with("HTTP/1.1 413 "));
    }
}

#[test]
fn an_incomplete_request_is_answered_408_after_ten_seconds_and_an_idle_connection_is_kept() {
    let hakaru = Settings::sqlite().start();
    let mut idle = Client::connect(hakaru.address);
    assert_eq!(idle.get("/ok").status, 200);
    let mut body = Client::connect(hakaru.address);
    body.send(b"POST /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    let mut head = Client::connect(hakaru.address);
    head.send(b"GET /hakaru?name=slow HTTP/1.1\r\nHos");
    for mut late in [head, body] {
        let answer = late.answer();
        assert_eq!(
            (answer.status, answer.field("Connection")),
            (408, Some("close"))
        );
        assert!(late.is_closed());
    }
    assert_eq!(idle.get("/ok").status, 200);
}

#[test]
fn peers_that_disconnect_leave_no_open_sockets() {
    let hakaru = Settings::sqlite().start();
    let mut witness = Client::connect(hakaru.address);
    assert_eq!(witness.get("/ok").status, 200);
    let sockets = hakaru.sockets_at_rest();
    for _ in 0..50 {
        let mut half = Client::connect(hakaru.address);
        half.send(&EVENT.as_bytes()[..20]);
        drop(half);
        let mut unread = Client::connect(hakaru.address);
        unread.send(EVENT.repeat(100).as_bytes());
        drop(unread);
        let mut finished = Client::connect(hakaru.address);
        finished.send(EVENT.as_bytes());
        finished.shutdown_write();
        assert_eq!(finished.answer().status, 200);
        assert!(finished.is_closed());
    }
    wait_until("all connections are closed", || {
        hakaru.open_sockets() <= sockets
    });
    assert_eq!(witness.get("/ok").status, 200);
}
