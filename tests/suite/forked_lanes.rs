//! A checkpoint that is ahead of what was sent is of another lane with the same id, as after a reverted snapshot, or was
//! altered. Each event becomes one row all the same.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::{Client, DatabaseServer, Hakaru, Settings, ask, run, wait_until};

/// Sends events until each is answered 200. While a shard has no lane it answers 503, and that is no row.
fn send(address: SocketAddr, from: u32, to: u32) {
    let mut client = Client::connect(address);
    for value in from..to {
        wait_until("the event is taken", || {
            let status = client.get(&format!("/hakaru?name=a&value={value}")).status;
            if status == 503 {
                client = Client::connect(address);
            }
            assert!([200, 503].contains(&status), "{status}");
            status == 200
        });
    }
}

fn settings(database: &DatabaseServer, directory: &Path) -> Settings {
    Settings::mysql(database)
        .directory(directory)
        .flag("--cores=1")
        .flag("--linger=10ms")
}

/// Waits until `count` events are rows, and checks that they are those from 0 on, each of them once.
fn check_rows(database: &DatabaseServer, count: u32) {
    wait_until("all is stored", || database.count() >= u64::from(count));
    let values: Vec<u32> = database.query("SELECT value FROM eventlog ORDER BY value");
    assert_eq!(values, (0..count).collect::<Vec<_>>());
}

/// The highest position that is noted as stored in the journal.
fn noted(directory: &Path) -> u64 {
    let journal = std::fs::read_dir(directory.join("hakaru-data/journal")).unwrap();
    let notes =
        journal.filter_map(|lane| std::fs::read_to_string(lane.ok()?.path().join("stored")).ok());
    let positions = notes.filter_map(|note| note.lines().next()?.trim().parse().ok());
    positions.max().unwrap_or(0)
}

/// What moves the checkpoints of all lanes ahead.
const MOVES: [&str; 4] = [
    "position = position + 1000",
    "position = 18446744073709551615",
    "position = position + 1000, epoch = epoch + 7",
    "position = position + 1000, epoch = 0",
];

fn move_checkpoints(database: &DatabaseServer, assignments: &str) {
    database.run(&format!(
        "UPDATE hakaru_checkpoint SET {assignments} WHERE lane <> 'database'"
    ));
}

fn check_moves_under_a_server(ack: &str) {
    for assignments in MOVES {
        let database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let hakaru = settings(&database, directory.path()).flag(ack).start();
        send(hakaru.address, 0, 10);
        check_rows(&database, 10);
        move_checkpoints(&database, assignments);
        send(hakaru.address, 10, 1010);
        check_rows(&database, 1010);
        hakaru.wait_for_event("lane_forked");
        let ended = hakaru.stop();
        assert_eq!((ended.stored, ended.pending), (1010, 0), "{assignments}");
        // What was found and done is known to the next process.
        let next = settings(&database, directory.path()).flag(ack).start();
        send(next.address, 1010, 1020);
        check_rows(&database, 1020);
        assert!(next.events("lane_forked").is_empty(), "{}", next.log());
        next.stop();
    }
}

#[test]
fn a_checkpoint_that_was_moved_ahead_loses_no_journaled_event() {
    check_moves_under_a_server("--ack=journaled");
}

#[test]
fn a_checkpoint_that_was_moved_ahead_loses_no_stored_event() {
    check_moves_under_a_server("--ack=stored");
}

#[test]
fn a_checkpoint_that_was_moved_ahead_loses_no_received_event() {
    check_moves_under_a_server("--ack=received");
}

#[test]
fn a_checkpoint_that_was_moved_ahead_loses_nothing_in_sqlite() {
    let hakaru = Settings::sqlite()
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    send(hakaru.address, 0, 10);
    let file = rusqlite::Connection::open(hakaru.path("eventlog.db")).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    let count = |what: &str| -> i64 {
        file.query_row(&format!("SELECT COUNT({what}) FROM eventlog"), [], |row| {
            row.get(0)
        })
        .unwrap_or(0)
    };
    wait_until("all is stored", || count("*") == 10);
    file.execute_batch("UPDATE hakaru_checkpoint SET position = position + 1000")
        .unwrap();
    send(hakaru.address, 10, 1010);
    wait_until("all is stored", || count("*") >= 1010);
    assert_eq!((count("*"), count("DISTINCT value")), (1010, 1010));
    hakaru.wait_for_event("lane_forked");
    assert_eq!(hakaru.stop().stored, 1010);
}

#[test]
fn a_checkpoint_that_was_moved_ahead_between_two_processes_loses_nothing() {
    for assignments in MOVES {
        let database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let first = settings(&database, directory.path()).start();
        send(first.address, 0, 10);
        wait_until("the stored position is noted", || {
            noted(directory.path()) == 10
        });
        first.crash();
        move_checkpoints(&database, assignments);
        let second = settings(&database, directory.path()).start();
        second.wait_for_event("lane_forked");
        send(second.address, 10, 1010);
        check_rows(&database, 1010);
        assert_eq!(second.stop().pending, 0, "{assignments}");
    }
}

/// The key of each lane of the journal that was given one.
fn keys(directory: &Path) -> Vec<(String, String)> {
    let listed = ask(directory, "", &["journal", "list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let lanes = listed.out.lines().map(|line| {
        let lane: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| lane[name].as_str().map(str::to_owned);
        Some((text("lane")?, text("key")?))
    });
    lanes.flatten().collect()
}

#[test]
fn the_new_key_of_a_lane_is_known_to_commands() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = settings(&database, directory.path()).start();
    send(hakaru.address, 0, 10);
    check_rows(&database, 10);
    move_checkpoints(&database, MOVES[0]);
    send(hakaru.address, 10, 20);
    check_rows(&database, 20);
    hakaru.stop();
    let keys = keys(directory.path());
    let [(lane, key)] = &keys[..] else {
        panic!("{keys:?}")
    };
    let stored = |key: &str| -> Vec<u64> {
        database.query(&format!(
            "SELECT position FROM hakaru_checkpoint WHERE lane = '{key}'"
        ))
    };
    let end = stored(key)[0];
    assert!((11..=20).contains(&end), "{end}");
    // What another copy of the lane does under its id changes nothing.
    database.run(&format!(
        "UPDATE hakaru_checkpoint SET position = 5 WHERE lane = '{lane}'"
    ));
    let reconciled = ask(
        directory.path(),
        &database.dsn(),
        &["reconcile", "--json", "--expected=20"],
    );
    let answer = reconciled.json();
    assert_eq!(
        (&answer["agrees"], &answer["pending"]),
        (&true.into(), &0.into()),
        "{answer}"
    );
}

/// Copies the data directory of a server, which may run, into another directory.
fn copy(from: &Path, to: &Path) {
    let from = from.join("hakaru-data");
    run("cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()]);
}

#[test]
fn a_copied_data_directory_that_is_served_later_doubles_nothing() {
    let database = DatabaseServer::start();
    let (directory, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = settings(&database, directory.path()).start();
    send(first.address, 0, 100);
    wait_until("the stored position is noted", || {
        noted(directory.path()) == 100
    });
    copy(directory.path(), copied.path());
    send(first.address, 100, 200);
    check_rows(&database, 200);
    first.crash();
    // Its lane ends where it ended when it was copied.
    let second = settings(&database, copied.path()).start();
    second.wait_for_event("lane_forked");
    send(second.address, 200, 300);
    check_rows(&database, 300);
    assert_eq!(second.stop().pending, 0);
    // Not again.
    let third = settings(&database, copied.path()).start();
    send(third.address, 300, 310);
    check_rows(&database, 310);
    assert!(third.events("lane_forked").is_empty());
    third.stop();
}

/// Servers on a directory and on copies of it, none of whose events was stored before.
fn serve_copies(database: &mut DatabaseServer, directory: &Path, is_running: bool) -> Vec<Hakaru> {
    let first = settings(database, directory).start();
    send(first.address, 0, 100);
    // Without a known row, nobody could tell later what a copy has stored.
    wait_until("the stored position is noted", || noted(directory) == 100);
    database.stop();
    send(first.address, 100, 200);
    let copies: Vec<_> = (0..2)
        .map(|copy| directory.join(copy.to_string()))
        .collect();
    for to in &copies {
        std::fs::create_dir(to).unwrap();
        copy(directory, to);
    }
    let mut servers = Vec::new();
    if is_running {
        servers.push(first);
    } else {
        first.crash();
    }
    for copy in &copies {
        servers.push(settings(database, copy).start());
    }
    database.resume();
    servers
}

fn check_copies(is_running: bool) {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let servers = serve_copies(&mut database, directory.path(), is_running);
    let mut next = 200;
    for server in &servers {
        send(server.address, next, next + 50);
        next += 50;
    }
    check_rows(&database, next);
    for copy in &servers[usize::from(is_running)..] {
        copy.wait_for_event("lane_recovered");
    }
    for server in servers {
        assert!(server.events("lane_held").is_empty(), "{}", server.log());
        assert_eq!(server.stop().pending, 0);
    }
    check_rows(&database, next);
}

#[test]
fn copies_of_a_data_directory_that_are_served_at_once_double_nothing() {
    check_copies(false);
}

#[test]
fn copies_of_a_data_directory_that_is_in_use_double_nothing() {
    check_copies(true);
}

/// The events were answered, and nobody has stored them.
#[test]
fn a_checkpoint_that_was_moved_ahead_within_its_lane_loses_nothing() {
    for is_crash in [false, true] {
        let mut database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let first = settings(&database, directory.path()).start();
        send(first.address, 0, 10);
        wait_until("the stored position is noted", || {
            noted(directory.path()) == 10
        });
        database.stop();
        send(first.address, 10, 60);
        let second = if is_crash {
            first.crash();
            database.resume();
            move_checkpoints(&database, "position = position + 20");
            settings(&database, directory.path()).start()
        } else {
            database.resume();
            move_checkpoints(&database, "position = position + 20");
            first
        };
        if is_crash {
            // An earlier process may have stored more than it has noted: a person decides.
            let line = second.wait_for_event("lane_held");
            let lane = line["lane"].as_str().unwrap();
            let settled = ask(
                directory.path(),
                "",
                &["journal", "settle", lane, "--refill"],
            );
            assert_eq!(settled.code, Some(0), "{settled:?}");
        }
        check_rows(&database, 60);
        assert_eq!(second.stop().pending, 0);
    }
}

/// What was stored in the last second before a kill are dead letters. They are no rows, and prove no fork.
#[test]
fn dead_letters_before_a_kill_are_no_fork() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let first = settings(&database, directory.path()).start();
    database.run("ALTER TABLE eventlog ADD CONSTRAINT even CHECK (value % 2 = 0 OR value < 10)");
    send(first.address, 0, 10);
    wait_until("the stored position is noted", || {
        noted(directory.path()) == 10
    });
    // In one batch: every second one is refused.
    send(first.address, 10, 30);
    wait_until("all are stored or refused", || database.count() == 20);
    first.crash();
    let second = settings(&database, directory.path()).start();
    send(second.address, 30, 31);
    second.wait_for_event("lane_recovered");
    wait_until("the new one is stored", || database.count() >= 21);
    assert_eq!(second.stop().pending, 0);
    assert_eq!(database.count(), 21);
}
