//! What bounds bodies with events: their size, their number, the memory and the journal.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use crate::bodies::{array, gzip, post};
use crate::support::{Client, DEADLINE, DatabaseServer, Settings, exchange, wait_until};

/// An array with names as long as the table takes, of about this many bytes.
fn long_array(bytes: usize) -> String {
    let name = "n".repeat(255);
    let mut body = "[".to_owned();
    while body.len() + 300 < bytes {
        write!(body, "{{\"name\":\"{name}\",\"value\":1}},").unwrap();
    }
    body.pop();
    body + "]"
}

#[test]
fn each_bound_has_its_status() {
    let hakaru = Settings::sqlite()
        .flag("--body-limit=2MiB")
        .flag("--cores=1")
        .start();
    let mut client = Client::connect(hakaru.address);
    let mut ask = |fields: &str, body: &[u8]| {
        client.send(&post(fields, body));
        client.answer()
    };
    let most = ask("", array(0..10_000).as_bytes());
    assert_eq!((most.status, &most.body[..]), (200, "{\"taken\":10000}"));
    let more = ask("", array(0..10_001).as_bytes());
    assert_eq!(more.status, 413);
    assert!(more.body.contains("at most 10000"), "{}", more.body);
    let gzipped = "Content-Encoding: gzip\r\n";
    let bomb = gzip(&vec![b' '; 100 << 20]);
    let inflated = ask(gzipped, &bomb);
    assert_eq!(inflated.status, 413);
    assert!(
        inflated.body.contains("at most 2097152 bytes"),
        "{}",
        inflated.body
    );
    assert_eq!(ask(gzipped, b"not gzip").status, 400);
    assert_eq!(ask("Content-Encoding: br\r\n", b"[]").status, 415);
    let other = ask("Content-Type: text/html\r\n", b"[]");
    assert_eq!(other.status, 415);
    assert!(
        other
            .field("Accept-Post")
            .unwrap()
            .contains("application/x-ndjson")
    );
    // The connection goes on, and the limit is one of the body alone.
    let large = ask("", long_array(2 << 20).as_bytes());
    assert_eq!(large.status, 200);
    let too_large = format!(
        "POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        (2 << 20) + 1
    );
    assert!(exchange(hakaru.address, too_large.as_bytes()).starts_with("HTTP/1.1 413 "));
    // Far below what the bomb inflates to.
    assert!(hakaru.peak_memory() < 90 << 20, "{}", hakaru.peak_memory());
    let identity = hakaru.stop();
    assert_eq!(identity.received, identity.stored);
    assert_eq!((identity.shed, identity.lost), (0, 0));
}

#[test]
fn bodies_that_arrive_slowly_are_answered_503_beyond_their_memory() {
    let hakaru = Settings::sqlite().flag("--cores=1").start();
    let body = long_array(1 << 20);
    let request = post("", body.as_bytes());
    let (begin, end) = request.split_at(request.len() - 10);
    let mut slow: Vec<_> = (0..24)
        .map(|_| {
            let mut client = Client::connect(hakaru.address);
            client.send_further(begin);
            client
        })
        .collect();
    // What needs no memory of its own is taken meanwhile.
    let mut other = Client::connect(hakaru.address);
    other.send(&post("", array(0..10).as_bytes()));
    assert_eq!(other.answer().body, "{\"taken\":10}");
    // Small bodies in two parts, too: they have memory of their own.
    let small = post("", array(0..10).as_bytes());
    let (small_begin, small_end) = small.split_at(small.len() - 10);
    other.send_further(small_begin);
    // Without memory for more than 16 large ones, the others are answered before they are complete.
    wait_until("the others are refused", || {
        hakaru.stats()["http"]["requests"]["503"] == 8
    });
    let refused = slow.extract_if(.., |client| {
        client.give_up_after(Duration::from_millis(100));
        let answer = client.try_answer();
        answer.is_some_and(|answer| {
            assert_eq!(answer.status, 503, "{answer:?}");
            answer.field("Retry-After").is_some()
        })
    });
    assert_eq!(refused.count(), 8);
    other.send_further(small_end);
    assert_eq!(other.answer().body, "{\"taken\":10}");
    // Those that have begun are complete at some time, however many others come.
    for client in &mut slow {
        client.give_up_after(DEADLINE);
        client.send_further(end);
        assert_eq!(client.answer().status, 200);
    }
    drop(slow);
    // Their memory is free again.
    for _ in 0..3 {
        other.send(&request);
        assert_eq!(other.answer().status, 200);
    }
    let identity = hakaru.stop();
    assert_eq!(identity.received, identity.stored);
}

/// A sender that is refused may keep its connection open for a while, without memory.
#[test]
fn the_memory_of_refused_bodies_is_free_at_once() {
    let hakaru = Settings::sqlite().flag("--cores=1").start();
    let part = format!("{:x}\r\n{}\r\n", 900_000, " ".repeat(900_000));
    let head = "POST /hakaru HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused: Vec<_> = (0..16)
        .map(|_| {
            let mut client = Client::connect(hakaru.address);
            client.send_further(format!("{head}{part}").as_bytes());
            client.send_further(b"no size\r\n");
            assert_eq!(client.answer().status, 400);
            client
        })
        .collect();
    let request = post("", long_array(1 << 20).as_bytes());
    let (begin, end) = request.split_at(request.len() - 10);
    let mut client = Client::connect(hakaru.address);
    client.send_further(begin);
    client.send_further(end);
    assert_eq!(client.answer().status, 200);
    drop(refused);
    hakaru.stop();
}

/// The smallest limit has memory for as many bodies as any other.
#[test]
fn small_bodies_that_come_in_two_parts_are_taken() {
    let hakaru = Settings::sqlite()
        .flag("--body-limit=1KiB")
        .flag("--cores=1")
        .start();
    let request = post("", array(0..10).as_bytes());
    let (begin, end) = request.split_at(request.len() - 10);
    let mut clients: Vec<_> = (0..16).map(|_| Client::connect(hakaru.address)).collect();
    for client in &mut clients {
        client.send_further(begin);
    }
    // All have been read: an answer to a later request is there.
    hakaru.send(0..1);
    for client in &mut clients {
        client.send_further(end);
        assert_eq!(client.answer().body, "{\"taken\":10}");
    }
    assert_eq!(hakaru.stop().stored, 161);
}

/// Requests wait for room in the journal's next group, and single events find room meanwhile.
#[test]
fn many_large_bodies_at_once_are_all_taken() {
    let database = DatabaseServer::start();
    for io in ["--io=auto", "--io=epoll"] {
        database.run("DROP TABLE IF EXISTS eventlog");
        let hakaru = Settings::mysql(&database)
            .flag(io)
            .flag("--cores=1")
            .start();
        let request = post("", long_array(1 << 20).as_bytes());
        let events = 3_700;
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let mut client = Client::connect(hakaru.address);
                    for _ in 0..4 {
                        client.send(&request);
                        let answer = client.answer();
                        assert_eq!(answer.status, 200, "{}", answer.body);
                    }
                });
            }
            scope.spawn(|| hakaru.send(0..2_000));
        });
        let identity = hakaru.stop();
        assert!(identity.received > 48 * events, "{identity:?}");
        assert_eq!((identity.received, identity.shed), (identity.stored, 0));
        assert_eq!(database.count(), identity.stored);
    }
}

#[test]
fn memory_without_a_journal_takes_all_events_of_a_request_or_none() {
    let hakaru = Settings::sqlite()
        .flag("--ack=received")
        .flag("--batch-events=2")
        .flag("--cores=1")
        .start();
    let mut client = Client::connect(hakaru.address);
    let mut taken = 0;
    for _ in 0..50 {
        client.send(&post("", array(0..60).as_bytes()));
        match client.answer() {
            answer if answer.status == 200 => taken += 60,
            answer => assert_eq!(answer.status, 503, "{}", answer.body),
        }
    }
    client.send(&post("", array(0..100).as_bytes()));
    let refused = client.answer();
    assert_eq!(refused.status, 413);
    assert!(refused.body.contains("at most 64 with"), "{}", refused.body);
    assert!(taken > 0);
    assert_eq!(hakaru.stop().stored, taken);
}

/// The disk is full in the middle of requests: what was answered 503 is no row.
#[test]
fn the_journal_s_limit_takes_whole_requests_alone() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--journal-limit=1MiB")
        .flag("--batch-events=1000")
        .flag("--cores=1")
        .start();
    database.freeze();
    let mut client = Client::connect(hakaru.address);
    let (mut taken, mut shed) = (0, 0);
    let body = array(0..500);
    while shed < 5 {
        client.send(&post("", body.as_bytes()));
        match client.answer().status {
            200 => taken += 500,
            503 => shed += 1,
            other => panic!("{other}"),
        }
    }
    database.revive();
    let identity = hakaru.stop();
    assert!(taken > 1_000, "{taken}");
    assert_eq!((identity.received, identity.stored), (taken, taken));
    assert_eq!(identity.shed, 5 * 500);
}
