//! Senders that give up while their answers wait: their connections end, their events stay promised.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, DatabaseServer, Hakaru, Settings, wait_until};

const EVENT: &[u8] = b"GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n";

fn stored_by(database: &DatabaseServer) -> Settings {
    Settings::mysql(database)
        .flag("--ack=stored")
        .flag("--cores=1")
}

fn send_events(hakaru: &Hakaru, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count)
        .map(|_| Client::connect(hakaru.address))
        .collect();
    for client in &mut clients {
        client.send(EVENT);
    }
    clients
}

/// HTTP connections that are open.
fn open(hakaru: &Hakaru) -> u64 {
    let stats = Client::connect(hakaru.admin()).get("/stats.json").body;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    stats["http"]["connections"].as_u64().unwrap()
}

/// Events that are in the journal.
fn received(hakaru: &Hakaru) -> u64 {
    let stats = Client::connect(hakaru.admin()).get("/stats.json").body;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    stats["events"]["received"].as_u64().unwrap()
}

#[test]
fn senders_that_gave_up_give_their_slots_back_and_their_events_become_rows() {
    let mut database = DatabaseServer::start();
    let hakaru = stored_by(&database).flag("--max-connections=40").start();
    database.stop();
    let closed = send_events(&hakaru, 10);
    let reset = send_events(&hakaru, 10);
    wait_until("they wait", || open(&hakaru) == 20);
    // As many as may wait do: events of others are shed.
    thread::sleep(Duration::from_secs(2));
    let mut other = Client::connect(hakaru.address);
    assert_eq!(other.get("/hakaru?name=a&value=1").status, 503);
    drop(other);
    for client in &reset {
        client.reset_when_closed();
    }
    drop((closed, reset));
    wait_until("their slots are free", || open(&hakaru) == 0);
    // And so are their places among those who wait.
    let mut patient = send_events(&hakaru, 1);
    thread::sleep(Duration::from_secs(1));
    assert!(!patient[0].has_ended());
    database.resume();
    assert_eq!(patient[0].answer().status, 200);
    assert_eq!(hakaru.stop().stored, 21);
    assert_eq!(database.count(), 21);
}

#[test]
fn a_sender_that_only_ends_its_requests_is_answered() {
    let mut database = DatabaseServer::start();
    let hakaru = stored_by(&database).start();
    database.stop();
    let mut halves = send_events(&hakaru, 3);
    for client in &mut halves {
        client.shutdown_write();
    }
    // Longer than it takes to notice one that was reset.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert!(halves.iter().all(|client| !client.has_ended()));
        thread::sleep(Duration::from_millis(100));
    }
    database.resume();
    assert!(
        halves
            .iter_mut()
            .all(|client| client.answer().status == 200)
    );
    assert_eq!(hakaru.stop().stored, 3);
}

#[test]
fn a_sender_that_gave_up_with_unread_requests_is_noticed() {
    // Nobody answers there.
    let hakaru = Settings::datasource("root@tcp(127.0.0.1:1)/hakaru")
        .flag("--ack=stored")
        .flag("--cores=1")
        .start();
    let mut client = Client::connect(hakaru.address);
    client.send(EVENT);
    // It is in the journal, and its answer waits for the row: nothing more is read.
    wait_until("it waits", || received(&hakaru) == 1);
    client.send(EVENT);
    client.reset_when_closed();
    drop(client);
    wait_until("its slot is free", || open(&hakaru) == 0);
}

#[test]
fn the_kernel_asks_silent_peers_whether_they_are_there() {
    let hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/ok").status, 200);
    // Local address, remote address, state, queues, timer: 02 is that of keep-alive.
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", hakaru.pid())).unwrap();
    let local = format!("0100007F:{:04X}", hakaru.address.port());
    let established = sockets.lines().find(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1] == local && fields[3] == "01"
    });
    let fields: Vec<_> = established.unwrap().split_whitespace().collect();
    assert!(fields[5].starts_with("02:"), "{fields:?}");
}
