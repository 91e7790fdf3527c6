//! A checkpoint that went back is believed only where the rows are gone too.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::{Client, DatabaseServer, Hakaru, Settings, ask, wait_until};

fn send(address: SocketAddr, from: u32, to: u32) {
    let mut client = Client::connect(address);
    for value in from..to {
        let answer = client.get(&format!("/hakaru?name=a&value={value}"));
        assert_eq!(answer.status, 200);
    }
}

fn settings(database: &DatabaseServer, directory: &Path) -> Settings {
    Settings::mysql(database)
        .directory(directory)
        .flag("--cores=1")
        .flag("--linger=10ms")
}

fn values(database: &DatabaseServer) -> Vec<u32> {
    database.query("SELECT value FROM eventlog ORDER BY value")
}

fn check_rows(database: &DatabaseServer, count: u32) {
    wait_until("all is stored", || database.count() >= u64::from(count));
    assert_eq!(values(database), (0..count).collect::<Vec<_>>());
}

/// The sum of the positions that are noted as stored in the journal.
fn noted(directory: &Path) -> u64 {
    let journal = std::fs::read_dir(directory.join("hakaru-data/journal")).unwrap();
    let notes =
        journal.filter_map(|lane| std::fs::read_to_string(lane.ok()?.path().join("stored")).ok());
    notes
        .filter_map(|note| note.trim().parse::<u64>().ok())
        .sum()
}

/// What alters the checkpoints and leaves the rows.
const ALTERED: [&str; 4] = [
    "UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'",
    "UPDATE hakaru_checkpoint SET position = position - 35 WHERE lane <> 'database'",
    "UPDATE hakaru_checkpoint SET position = 7, epoch = 0 WHERE lane <> 'database'",
    "DELETE FROM hakaru_checkpoint",
];

#[test]
fn checkpoints_that_were_set_back_under_a_server_are_put_back() {
    for altered in ALTERED {
        let database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let hakaru = settings(&database, directory.path()).start();
        for from in (0..100).step_by(10) {
            send(hakaru.address, from, from + 10);
            check_rows(&database, from + 10);
        }
        database.run(altered);
        send(hakaru.address, 100, 110);
        hakaru.wait_for_event("checkpoint_put_back");
        check_rows(&database, 110);
        let ended = hakaru.stop();
        assert_eq!((ended.stored, ended.pending), (110, 0), "{altered}");
        assert_eq!(database.count(), 110, "{altered}");
    }
}

#[test]
fn checkpoints_that_were_set_back_between_two_processes_are_put_back() {
    for altered in ALTERED {
        let database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let first = settings(&database, directory.path()).start();
        for from in (0..100).step_by(10) {
            send(first.address, from, from + 10);
            check_rows(&database, from + 10);
        }
        wait_until("the stored position is noted", || {
            noted(directory.path()) == 100
        });
        first.crash();
        // The id of the database is not what this is about.
        let altered = altered.replace("checkpoint", "checkpoint /**/");
        let only_lanes = if altered.contains("WHERE") {
            altered
        } else {
            altered + " WHERE lane <> 'database'"
        };
        database.run(&only_lanes);
        let second = settings(&database, directory.path()).start();
        second.wait_for_event("checkpoint_put_back");
        send(second.address, 100, 110);
        check_rows(&database, 110);
        assert_eq!(second.stop().pending, 0);
        assert_eq!(database.count(), 110, "{only_lanes}");
    }
}

#[test]
fn sqlite_checkpoints_that_were_set_back_are_put_back() {
    let hakaru = Settings::sqlite()
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    let file = rusqlite::Connection::open(hakaru.path("eventlog.db")).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    let count = || -> i64 {
        file.query_row("SELECT COUNT(*) FROM eventlog", [], |row| row.get(0))
            .unwrap_or(0)
    };
    for from in (0..20).step_by(4) {
        send(hakaru.address, from, from + 4);
        wait_until("all is stored", || count() == i64::from(from + 4));
    }
    file.execute_batch("DELETE FROM hakaru_checkpoint").unwrap();
    send(hakaru.address, 20, 25);
    hakaru.wait_for_event("checkpoint_put_back");
    wait_until("all is stored", || count() >= 25);
    assert_eq!(hakaru.stop().pending, 0);
    assert_eq!(count(), 25);
}

/// Rows that were removed with their checkpoint are stored again, those before it are not.
#[test]
fn a_restore_to_an_earlier_moment_is_believed() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = settings(&database, directory.path()).start();
    for from in (0..100).step_by(10) {
        send(hakaru.address, from, from + 10);
        check_rows(&database, from + 10);
    }
    database.run("UPDATE hakaru_checkpoint SET position = 43, epoch = 1 WHERE lane <> 'database'");
    database.run("DELETE FROM eventlog WHERE value >= 43");
    // The ids are given again.
    database.run("ALTER TABLE eventlog AUTO_INCREMENT = 1");
    database.run("INSERT INTO eventlog (at, name, value) SELECT at, 'a', value + 1000 FROM eventlog WHERE value < 40");
    send(hakaru.address, 100, 110);
    hakaru.wait_for_event("database_lost_events");
    let expected: Vec<u32> = (0..110).chain(1000..1040).collect();
    wait_until("all is stored", || database.count() >= 150);
    assert_eq!(values(&database), expected);
    assert!(hakaru.events("checkpoint_put_back").is_empty());
    assert_eq!(hakaru.stop().pending, 0);
}

/// Events that are equal: after a restore, another lane may have stored its own on the ids of this one's.
#[test]
fn rows_that_may_be_those_of_other_events_prove_nothing() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = settings(&database, directory.path()).start();
    let mut client = Client::connect(hakaru.address);
    for count in 1..=20 {
        assert_eq!(client.get("/hakaru?name=view&value=1").status, 200);
        wait_until("it is stored", || database.count() == count);
    }
    database.run("UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'");
    assert_eq!(client.get("/hakaru?name=view&value=1").status, 200);
    let line = hakaru.wait_for_event("lane_held");
    assert_eq!(line["events"], 20);
    let lane = line["lane"].as_str().unwrap();
    settle(directory.path(), lane, "--stored");
    wait_until("the last one is stored", || database.count() == 21);
    assert!(hakaru.events("checkpoint_put_back").is_empty());
    assert_eq!(hakaru.stop().pending, 0);
    assert_eq!(database.count(), 21);
}

/// Half of the rows are gone, and all of the checkpoint. Returns the server and the lane.
fn hold(database: &DatabaseServer, directory: &Path) -> (Hakaru, String) {
    let hakaru = settings(database, directory).start();
    for from in (0..100).step_by(10) {
        send(hakaru.address, from, from + 10);
        check_rows(database, from + 10);
    }
    database.run("DELETE FROM eventlog WHERE value >= 50");
    database.run("UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'");
    // One event: while the shard has no lane, it answers 503.
    send(hakaru.address, 100, 101);
    let line = hakaru.wait_for_event("lane_held");
    let text = line["message"].as_str().unwrap();
    assert!(text.contains("hakaru journal settle"), "{text}");
    assert_eq!(line["events"], 100);
    let lane = line["lane"].as_str().unwrap().to_owned();
    (hakaru, lane)
}

/// Runs `hakaru journal settle`. Returns its standard output.
fn settle(directory: &Path, lane: &str, decision: &str) -> String {
    let asked = ask(directory, "", &["journal", "settle", lane, decision]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    asked.out
}

#[test]
fn a_held_lane_waits_and_others_go_on() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let (hakaru, lane) = hold(&database, directory.path());
    let admin = hakaru.admin();
    wait_until("the gauge is published", || {
        let metrics = Client::connect(admin).get("/metrics").body;
        metrics.contains("\nhakaru_journal_held_events 100\n")
    });
    assert_eq!(Client::connect(admin).get("/sink-health").status, 503);
    let stats: serde_json::Value =
        serde_json::from_str(&Client::connect(admin).get("/stats.json").body).unwrap();
    assert_eq!(stats["database"]["held_lanes"], 1);
    let listed = ask(directory.path(), "", &["journal", "list"]);
    assert!(listed.out.contains("HELD"), "{listed:?}");
    // New events go into another lane.
    wait_until("another lane is open", || {
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=200")
            .status
            == 200
    });
    wait_until("the new event is stored", || {
        values(&database).contains(&200)
    });
    // The next process knows that it is held.
    hakaru.crash();
    let next = settings(&database, directory.path()).start();
    next.wait_for_event("lane_held");
    let text = settle(directory.path(), &lane, "--stored");
    assert!(text.contains("100 events, received from"), "{text}");
    next.wait_for_event("lane_settled");
    // What came after the events in question was never stored.
    wait_until("the rest is stored", || values(&database).contains(&100));
    let expected: Vec<u32> = (0..50).chain([100, 200]).collect();
    assert_eq!(values(&database), expected);
    assert_eq!(next.stop().pending, 0);
    let none = ask(
        directory.path(),
        "",
        &["journal", "settle", &lane, "--stored"],
    );
    assert_eq!(none.code, Some(1), "{none:?}");
}

#[test]
fn a_held_lane_is_filled_again_under_a_server() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let (hakaru, lane) = hold(&database, directory.path());
    database.run("DELETE FROM eventlog");
    settle(directory.path(), &lane, "--refill");
    hakaru.wait_for_event("lane_settled");
    check_rows(&database, 101);
    assert_eq!(hakaru.stop().pending, 0);
}

#[test]
fn a_held_lane_is_settled_before_a_server_starts() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let (hakaru, lane) = hold(&database, directory.path());
    hakaru.stop();
    database.run("DELETE FROM eventlog");
    settle(directory.path(), &lane, "--refill");
    let next = settings(&database, directory.path()).start();
    check_rows(&database, 101);
    next.wait_for_event("lane_settled");
    assert_eq!(next.stop().pending, 0);
}

/// Neither a 200 nor a 503 would be true.
#[test]
fn who_waits_for_a_row_of_a_held_lane_gets_no_answer() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = settings(&database, directory.path())
        .flag("--ack=stored")
        .start();
    send(hakaru.address, 0, 100);
    database.run("DELETE FROM eventlog WHERE value >= 50");
    database.run("UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'");
    let mut client = Client::connect(hakaru.address);
    assert!(client.try_get("/hakaru?name=a&value=100").is_none());
    let line = hakaru.wait_for_event("lane_held");
    // Others are answered, as soon as another lane is open.
    wait_until("the next one is a row", || {
        let mut client = Client::connect(hakaru.address);
        client.get("/hakaru?name=a&value=200").status == 200
    });
    settle(directory.path(), line["lane"].as_str().unwrap(), "--stored");
    wait_until("it is a row", || values(&database).contains(&100));
    hakaru.stop();
}
