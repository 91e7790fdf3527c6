//! SIGTERM: all events are stored, answers carry `Connection: close`, and the process ends in time.

use nix::sys::signal::Signal;

use crate::support::{Client, DatabaseServer, Settings, wait_until};

#[test]
fn all_events_are_stored_before_the_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let database = DatabaseServer::start();
        let mut hakaru = Settings::mysql(&database).flag("--linger=1h").start();
        let mut client = Client::connect(hakaru.address);
        for value in 0..123 {
            assert_eq!(
                client.get(&format!("/hakaru?name=a&value={value}")).status,
                200
            );
        }
        assert_eq!(
            database.count(),
            0,
            "no batch is handed over before `linger`"
        );
        hakaru.signal(signal);
        hakaru.wait_for_event("signal_received");
        // Requests that are under way are answered. When the shard drains, the answer has `Connection: close`.
        while let Some(last) = client.try_get("/hakaru?name=a&value=123") {
            assert_eq!(last.status, 200);
            if last.field("Connection") == Some("close") {
                assert!(client.is_closed());
                break;
            }
        }
        assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
        let identity = hakaru.identity();
        assert!(identity.received >= 123);
        assert_eq!((identity.stored, identity.pending), (identity.received, 0));
        assert_eq!(database.count(), identity.received);
    }
}

#[test]
fn all_answers_arrive_even_if_the_sender_continues() {
    let mut hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.address);
    let request = "GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send(request.repeat(300).as_bytes());
    assert_eq!(client.answer().status, 200);
    hakaru.signal(Signal::SIGTERM);
    hakaru.wait_for_event("signal_received");
    let mut sender = client.try_clone();
    sender.send(request.as_bytes());
    let mut answers = 1;
    while let Some(answer) = client.try_answer() {
        assert_eq!(answer.status, 200);
        answers += 1;
    }
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
    assert_eq!(hakaru.identity().received, answers);
}

#[test]
fn no_connection_is_accepted_while_the_last_ones_end() {
    let mut hakaru = Settings::sqlite().flag("--drain-timeout=20s").start();
    let mut busy = Client::connect(hakaru.address);
    busy.send(b"GET /ok HTTP/1.1\r\nHost: h\r\n");
    let mut idle = Client::connect(hakaru.address);
    assert_eq!(idle.get("/ok").status, 200);
    hakaru.signal(Signal::SIGTERM);
    wait_until("it listens no more", || {
        Client::try_connect(hakaru.address).is_err()
    });
    assert!(
        idle.is_closed(),
        "an idle connection is closed without an answer"
    );
    busy.send(b"\r\n");
    let last = busy.answer();
    assert_eq!(
        (last.status, last.field("Connection")),
        (200, Some("close"))
    );
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
}

#[test]
fn events_that_cannot_be_stored_in_time_are_reported_as_lost() {
    let mut database = DatabaseServer::start();
    let mut hakaru = Settings::mysql(&database)
        .flag("--ack=received")
        .flag("--drain-timeout=2s")
        .start();
    database.stop();
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    hakaru.signal(Signal::SIGTERM);
    assert_eq!(hakaru.wait().code(), Some(1));
    let identity = hakaru.identity();
    assert_eq!(
        (identity.received, identity.stored, identity.pending),
        (1, 0, 1)
    );
    let message = "not drained within 2s: 1 events are lost";
    let line = hakaru.wait_for_event("drain_timed_out");
    assert_eq!(
        (&line["level"], &line["message"]),
        (&"error".into(), &message.into())
    );
    assert!(
        hakaru.log().contains(&format!("hakaru: {message}")),
        "{}",
        hakaru.log()
    );
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut database = DatabaseServer::start();
    let mut hakaru = Settings::mysql(&database)
        .flag("--ack=received")
        .flag("--drain-timeout=1h")
        .start();
    database.stop();
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    hakaru.signal(Signal::SIGTERM);
    hakaru.wait_for_event("signal_received");
    hakaru.signal(Signal::SIGTERM);
    assert_eq!(hakaru.wait().code(), Some(1));
    assert_eq!(hakaru.identity().pending, 1);
}

/// The journal has what a database lacks that hangs: nobody waits for it until `--drain-timeout` is over.
#[test]
fn a_database_that_does_not_answer_is_not_waited_for() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let dsn = format!("{}?readTimeout=1h", database.dsn());
    let start = || Settings::datasource(&dsn).directory(directory.path());
    // One of the writers has nothing to do, and ends at once.
    let settings = start().flag("--drain-timeout=1h").flag("--cores=2");
    let mut hakaru = settings.start();
    hakaru.send(0..1);
    wait_until("it is stored", || database.count() == 1);
    database.freeze();
    hakaru.send(1..50);
    hakaru.signal(Signal::SIGTERM);
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
    hakaru.wait_for_event("storing_given_up");
    let identity = hakaru.identity();
    assert_eq!((identity.stored, identity.pending), (1, 49));
    database.revive();
    let hakaru = start().start();
    wait_until("all is stored", || database.count() == 50);
    assert!(database.values().into_iter().eq(0..50));
    assert_eq!(hakaru.stop().pending, 0);
}
