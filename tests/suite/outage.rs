//! The database is stopped and started again: answers continue, and no event that was answered 200 is missing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, DatabaseServer, Settings, wait_until};

/// Sends events until `stop` is set. Counts the 200s, and fails on any status other than 200 and 503.
fn send_until(stop: &AtomicBool, answered: &AtomicU64, address: std::net::SocketAddr) {
    let mut client = Client::connect(address);
    while !stop.load(Ordering::Relaxed) {
        match client.get("/hakaru?name=open&value=1").status {
            200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
            503 => {}
            status => panic!("status {status}"),
        }
    }
}

#[test]
fn a_database_that_is_stopped_and_started_under_load_gets_every_answered_event() {
    let mut database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--batch-events=500")
        .flag("--linger=100ms")
        .start();
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| send_until(&stop, &answered, hakaru.address));
        }
        for round in 0..3 {
            let rows = database.count();
            wait_until("rows are stored", || database.count() > rows);
            if round == 1 {
                database.crash()
            } else {
                database.stop()
            }
            let before = answered.load(Ordering::Relaxed);
            wait_until("answers continue", || {
                answered.load(Ordering::Relaxed) > before + 500
            });
            wait_until("the loss is noticed", || {
                hakaru.events("database_unreachable").len() > round
            });
            database.resume();
        }
        let rows = database.count();
        wait_until("rows are stored again", || database.count() > rows);
        stop.store(true, Ordering::Relaxed);
    });
    let identity = hakaru.stop();
    let answered = answered.load(Ordering::Relaxed);
    assert_eq!(
        (identity.received, identity.stored, identity.pending),
        (answered, answered, 0)
    );
    assert_eq!(database.count(), answered);
}

#[test]
fn a_database_that_is_down_at_the_start_is_waited_for() {
    let mut database = DatabaseServer::start();
    database.stop();
    let hakaru = Settings::mysql(&database).start();
    assert_eq!(
        hakaru.wait_for_event("database_unreachable")["level"],
        "warn"
    );
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/ok").status, 200);
    for value in 0..100 {
        assert_eq!(
            client
                .get(&format!("/hakaru?name=early&value={value}"))
                .status,
            200
        );
    }
    database.resume();
    wait_until("all is stored", || database.count() == 100);
    hakaru.wait_for_event("storing_resumed");
    assert_eq!(hakaru.stop().stored, 100);
}

#[test]
fn batches_are_filled_during_a_long_outage() {
    let mut database = DatabaseServer::start();
    let settings = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--batch-events=100");
    let hakaru = settings.flag("--ack=received").flag("--linger=1ms").start();
    database.stop();
    let mut client = Client::connect(hakaru.address);
    // Each event is older than `linger` before the next one is sent. There are only 64 batches, so each event must not
    // take a batch of its own.
    let start = Instant::now();
    for value in 0..200 {
        while start.elapsed() < Duration::from_millis(3) * value {
            thread::yield_now();
        }
        assert_eq!(
            client.get(&format!("/hakaru?name=a&value={value}")).status,
            200
        );
    }
    database.resume();
    assert_eq!(hakaru.stop().stored, 200);
    assert_eq!(database.count(), 200);
}

#[test]
fn a_missing_right_is_logged_and_waited_for() {
    let database = DatabaseServer::start();
    database.run("CREATE USER app@'%' IDENTIFIED BY 's3cret'");
    let dsn = format!("app:s3cret@tcp(127.0.0.1:{})/hakaru", database.port());
    let hakaru = Settings::datasource(&dsn).start();
    let line = hakaru.wait_for_event("storing_stopped");
    assert_eq!(
        (&line["level"], &line["code"]),
        (&"error".into(), &1044.into())
    );
    assert!(
        line["message"].as_str().unwrap().contains("error 1044"),
        "{line}"
    );
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    database.run("GRANT ALL ON hakaru.* TO app@'%'");
    wait_until("it is stored", || database.count() == 1);
    assert!(!hakaru.log().contains("s3cret"));
    hakaru.stop();
}

#[test]
fn with_every_batch_full_events_are_shed_and_answered_ones_are_stored() {
    let mut database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--batch-events=2")
        .flag("--ack=received")
        .start();
    database.stop();
    let mut client = Client::connect(hakaru.address);
    let mut answered = 0;
    let shed = loop {
        let answer = client.get("/hakaru?name=a&value=1");
        match answer.status {
            200 => answered += 1,
            _ => break answer,
        }
        assert!(answered < 10_000, "memory is not bounded");
    };
    assert_eq!((shed.status, shed.field("Retry-After")), (503, Some("1")));
    assert!(shed.field("X-Hakaru-Reason").is_some());
    assert_eq!(client.get("/ok").status, 200);
    database.resume();
    wait_until("answered events are stored", || {
        database.count() == answered
    });
    assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.pending), (answered + 1, 0));
    assert!(identity.shed >= 1);
}

#[test]
fn a_database_that_does_not_answer_is_told_while_it_is_waited_for() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=1ms")
        .start();
    hakaru.send(0..1);
    wait_until("it is stored", || database.count() == 1);
    database.freeze();
    hakaru.send(1..2);
    // Long before the timeout of the connection, 30 s.
    let line = hakaru.wait_for_event("database_slow");
    assert!(line["seconds"].as_u64().unwrap() < 15, "{line}");
    assert!(hakaru.events("database_unreachable").is_empty());
    database.revive();
    wait_until("it is stored", || database.count() == 2);
    assert_eq!(hakaru.events("database_slow").len(), 1);
    assert_eq!(hakaru.stop().stored, 2);
}
