//! Events are stored in the database that they were received for, and in no other without a command or `--adopt`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::{Client, DatabaseServer, Hakaru, Settings, wait_until};

fn send(address: SocketAddr, from: u32, to: u32) {
    let mut client = Client::connect(address);
    for value in from..to {
        let answer = client.get(&format!("/hakaru?name=a&value={value}"));
        assert_eq!(answer.status, 200);
    }
}

fn values(database: &DatabaseServer) -> Vec<u32> {
    database.query("SELECT value FROM eventlog ORDER BY value")
}

fn start(database: &DatabaseServer, directory: &Path) -> Hakaru {
    Settings::mysql(database)
        .directory(directory)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start()
}

/// Runs `hakaru journal …`, which must succeed. Returns its standard output.
fn journal(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .current_dir(directory)
        .arg("journal")
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The position up to which the only lane of the journal is noted as stored.
fn noted(directory: &Path) -> u64 {
    let journal = std::fs::read_dir(directory.join("hakaru-data/journal")).unwrap();
    let notes =
        journal.filter_map(|lane| std::fs::read_to_string(lane.ok()?.path().join("stored")).ok());
    notes
        .filter_map(|note| note.trim().parse::<u64>().ok())
        .sum()
}

/// Starts two servers with different databases on one data directory. The first one crashes with events that are not
/// stored. Returns the two databases and the second server.
fn crashed(directory: &Path) -> (DatabaseServer, DatabaseServer, Hakaru) {
    let (mut production, staging) = (DatabaseServer::start(), DatabaseServer::start());
    let first = start(&production, directory);
    send(first.address, 0, 1);
    wait_until("the stored position is noted", || noted(directory) == 1);
    production.stop();
    send(first.address, 1, 100);
    let other = start(&staging, directory);
    send(other.address, 1000, 1001);
    wait_until("the other server stores its event", || staging.count() == 1);
    first.crash();
    (production, staging, other)
}

#[test]
fn a_lane_waits_for_its_own_database() {
    let directory = tempfile::tempdir().unwrap();
    let (mut production, staging, other) = crashed(directory.path());
    let line = other.wait_for_event("lane_of_other_database");
    assert_eq!(line["events"], 99);
    let listed = journal(directory.path(), &["list"]);
    let address = format!("127.0.0.1:{}", production.port());
    assert!(listed.contains(&address), "{listed}");
    let stats = Client::connect(other.admin()).get("/metrics").body;
    assert!(
        stats.contains("\nhakaru_journal_foreign_events 99\n"),
        "{stats}"
    );
    // A server of its own database stores it, while the other server runs.
    production.resume();
    let again = start(&production, directory.path());
    wait_until("all are stored", || production.count() == 100);
    assert_eq!(values(&production), (0..100).collect::<Vec<_>>());
    assert_eq!(values(&staging), [1000]);
    assert_eq!(again.stop().pending, 0);
    assert_eq!(other.stop().stored, 1);
}

#[test]
fn journal_adopt_stores_a_lane_in_another_database() {
    let directory = tempfile::tempdir().unwrap();
    let (production, staging, other) = crashed(directory.path());
    let line = other.wait_for_event("lane_of_other_database");
    let lane = line["lane"].as_str().unwrap();
    let text = journal(directory.path(), &["adopt", lane]);
    assert!(text.contains(lane), "{text}");
    // Events that its own database has are not stored again.
    wait_until("its events are stored", || staging.count() == 100);
    let expected: Vec<u32> = (1..100).chain([1000]).collect();
    assert_eq!(values(&staging), expected);
    drop(production);
    assert_eq!(other.stop().pending, 0);
}

#[test]
fn adopt_any_stores_lanes_of_another_database() {
    let directory = tempfile::tempdir().unwrap();
    let (production, staging, other) = crashed(directory.path());
    other.wait_for_event("lane_of_other_database");
    other.stop();
    drop(production);
    let any = Settings::mysql(&staging)
        .directory(directory.path())
        .flag("--adopt=any")
        .start();
    wait_until("its events are stored", || staging.count() == 100);
    assert_eq!(any.stop().pending, 0);
}

#[test]
fn events_that_one_database_has_are_not_stored_in_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = Settings::sqlite()
        .directory(directory.path())
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    send(sqlite.address, 0, 10);
    assert_eq!(sqlite.stop().stored, 10);
    assert_eq!(noted(directory.path()), 10);
    let database = DatabaseServer::start();
    let hakaru = start(&database, directory.path());
    send(hakaru.address, 10, 11);
    hakaru.wait_for_line("is stored in the database");
    wait_until("the new event is stored", || database.count() == 1);
    assert_eq!(hakaru.stop().stored, 1);
    assert_eq!(values(&database), [10]);
}

#[test]
fn storing_stops_if_the_database_of_a_running_server_is_replaced() {
    let hakaru = Settings::sqlite().flag("--linger=10ms").start();
    let path = |name: &str| hakaru.path(name);
    let count = || -> i64 {
        let rows = rusqlite::Connection::open(path("eventlog.db"))
            .and_then(|file| file.query_row("SELECT COUNT(*) FROM eventlog", [], |row| row.get(0)));
        rows.unwrap_or(0)
    };
    let files = ["eventlog.db", "eventlog.db-wal", "eventlog.db-shm"];
    send(hakaru.address, 0, 20);
    wait_until("all is stored", || count() == 20);
    for name in files {
        std::fs::rename(path(name), path(&format!("{name}.kept"))).unwrap();
    }
    send(hakaru.address, 20, 21);
    let line = hakaru.wait_for_event("storing_stopped");
    let text = line["message"].as_str().unwrap();
    assert!(text.contains("another database answers"), "{text}");
    assert_eq!(count(), 0);
    // The right database is back.
    for name in files {
        std::fs::remove_file(path(name)).unwrap_or_default();
        std::fs::rename(path(&format!("{name}.kept")), path(name)).unwrap();
    }
    wait_until("all is stored", || count() == 21);
    assert_eq!(hakaru.stop().stored, 21);
}

/// The events of earlier processes are stored again too, whichever connection notices the loss first.
#[test]
fn events_that_a_database_lost_are_stored_again_for_all_lanes() {
    for loss in [
        "DELETE FROM hakaru_checkpoint",
        "UPDATE hakaru_checkpoint SET position = 0, epoch = 0 WHERE lane <> 'database'",
        "UPDATE hakaru_checkpoint SET position = 0",
    ] {
        // As from a backup of an older version. One of this version has copies that belong to the checkpoints.
        let copies =
            "DELETE FROM hakaru_checkpoint WHERE epoch >= 4294967296 AND lane <> 'database'";
        let database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let first = start(&database, directory.path());
        send(first.address, 0, 20);
        wait_until("all is stored", || database.count() == 20);
        first.crash();
        let named = id(&database);
        let second = start(&database, directory.path());
        second.wait_for_line("its owner is gone");
        send(second.address, 20, 40);
        wait_until("all is stored", || database.count() == 40);
        database.run("DELETE FROM eventlog");
        database.run(copies);
        database.run(loss);
        send(second.address, 40, 41);
        wait_until("all is stored again", || database.count() == 41);
        second.wait_for_event("database_lost_events");
        assert_eq!(values(&database), (0..41).collect::<Vec<_>>(), "{loss}");
        assert_eq!(second.stop().pending, 0);
        // It is still the same database.
        assert_eq!(id(&database), named, "{loss}");
        let third = start(&database, directory.path());
        send(third.address, 41, 42);
        wait_until("all is stored", || database.count() == 42);
        let stats = Client::connect(third.admin()).get("/metrics").body;
        assert!(
            stats.contains("\nhakaru_journal_foreign_lanes 0\n"),
            "{stats}"
        );
        assert_eq!(third.stop().stored, 1, "{loss}");
    }
}

/// The two numbers of the id of a database.
fn id(database: &DatabaseServer) -> (u64, u64) {
    database.query_one("SELECT epoch, position FROM hakaru_checkpoint WHERE lane = 'database'")
}

/// A dump of another database was loaded under a connection: its id stays, and nothing is stored into it.
#[test]
fn the_id_of_another_database_is_not_overwritten() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = start(&database, directory.path());
    send(hakaru.address, 0, 10);
    wait_until("all is stored", || database.count() == 10);
    database.run(
        "START TRANSACTION; DELETE FROM eventlog; DELETE FROM hakaru_checkpoint; \
         INSERT INTO hakaru_checkpoint VALUES ('database', 1, 2); COMMIT",
    );
    send(hakaru.address, 10, 11);
    let line = hakaru.wait_for_event("storing_stopped");
    let text = line["message"].as_str().unwrap();
    assert!(text.contains("another database answers"), "{text}");
    assert_eq!((id(&database), database.count()), ((1, 2), 0));
    hakaru.crash();
}

/// The first process that sees an altered id knows the whole one from the lanes.
#[test]
fn an_altered_id_is_put_back_at_a_start() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let first = start(&database, directory.path());
    send(first.address, 0, 10);
    wait_until("it is noted how far the lane is stored", || {
        noted(directory.path()) == 10
    });
    first.crash();
    let named = id(&database);
    database.run("UPDATE hakaru_checkpoint SET position = 7 WHERE lane = 'database'");
    let second = start(&database, directory.path());
    send(second.address, 10, 20);
    wait_until("all is stored", || database.count() == 20);
    assert_eq!(id(&database), named);
    assert_eq!(second.events("database_id_altered").len(), 1);
    assert_eq!(second.stop().pending, 0);
}

/// A database that was made anew is another one, until a person has it filled in place of the one before.
#[test]
fn adopt_any_fills_a_database_that_was_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let database = DatabaseServer::start();
    let first = start(&database, directory.path());
    send(first.address, 0, 10);
    wait_until("it is noted how far the lane is stored", || {
        noted(directory.path()) == 10
    });
    first.crash();
    let named = id(&database);
    database.run("DROP TABLE hakaru_checkpoint, eventlog");
    let any = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--adopt=any")
        .start();
    wait_until("all is filled", || database.count() == 10);
    assert_eq!(id(&database), named);
    assert_eq!(any.stop().pending, 0);
}

#[test]
fn a_database_that_was_made_anew_is_named_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let database = DatabaseServer::start();
    let first = start(&database, directory.path());
    send(first.address, 0, 10);
    wait_until("it is noted how far the lane is stored", || {
        noted(directory.path()) == 10
    });
    first.crash();
    database.run("DROP TABLE hakaru_checkpoint, eventlog");
    let second = start(&database, directory.path());
    second.wait_for_event("database_made_anew");
    send(second.address, 10, 11);
    wait_until("the new event is stored", || database.count() == 1);
    second.crash();
}

#[test]
fn a_lane_that_is_in_use_is_not_adopted() {
    let directory = tempfile::tempdir().unwrap();
    let database = DatabaseServer::start();
    let hakaru = start(&database, directory.path());
    send(hakaru.address, 0, 1);
    let lane = std::fs::read_dir(directory.path().join("hakaru-data/journal")).unwrap();
    let lane = lane.map(|lane| lane.unwrap().file_name()).next().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .current_dir(directory.path())
        .args(["journal", "adopt", lane.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is in use"), "{text}");
    hakaru.stop();
}

/// A backup that knows nothing of a lane is filled from the lane's start, also at another address.
#[test]
fn a_restored_database_at_another_address_is_filled_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (DatabaseServer::start(), DatabaseServer::start());
    let first = start(&before, directory.path());
    send(first.address, 0, 20);
    wait_until("it is noted how far the lane is stored", || {
        noted(directory.path()) == 20
    });
    first.crash();
    // The same database, as it was before the lane.
    let (high, low) = id(&before);
    let table = "CREATE TABLE hakaru_checkpoint (lane char(32) CHARACTER SET ascii NOT NULL PRIMARY KEY, \
                 epoch bigint unsigned NOT NULL, position bigint unsigned NOT NULL) ENGINE=InnoDB";
    after.run(table);
    after.run(&format!(
        "INSERT INTO hakaru_checkpoint VALUES ('database', {high}, {low})"
    ));
    let second = start(&after, directory.path());
    wait_until("all is filled again", || after.count() == 20);
    assert_eq!(second.stop().pending, 0);
}

#[test]
fn sqlite_without_its_checkpoints_is_filled_again() {
    // One shard: the loss is noticed when the lane that lost events stores its next one.
    let hakaru = Settings::sqlite()
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    send(hakaru.address, 0, 20);
    let file = rusqlite::Connection::open(hakaru.path("eventlog.db")).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    let count = || -> i64 {
        file.query_row("SELECT COUNT(*) FROM eventlog", [], |row| row.get(0))
            .unwrap_or(0)
    };
    wait_until("all is stored", || count() == 20);
    file.execute_batch(
        "BEGIN IMMEDIATE; DELETE FROM eventlog; DELETE FROM hakaru_checkpoint; COMMIT",
    )
    .unwrap();
    send(hakaru.address, 20, 21);
    wait_until("all is filled again", || count() == 21);
    assert_eq!(hakaru.stop().pending, 0);
}

/// A label that cannot be understood holds its lane, and no other event.
#[test]
fn an_unreadable_label_holds_one_lane_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = DatabaseServer::start();
    let first = start(&database, directory.path());
    wait_until("the database was reached", || {
        !first.events("listening").is_empty()
    });
    database.stop();
    send(first.address, 0, 10);
    first.crash();
    let journal = directory.path().join("hakaru-data/journal");
    for lane in std::fs::read_dir(journal).unwrap() {
        std::fs::write(lane.unwrap().path().join("database"), "rubbish").unwrap();
    }
    database.resume();
    let second = start(&database, directory.path());
    second.wait_for_event("journal_read_failed");
    send(second.address, 10, 20);
    wait_until("what is taken now is stored", || database.count() == 10);
    assert_eq!(values(&database), (10..20).collect::<Vec<_>>());
    assert!(second.events("storing_stopped").is_empty());
}
