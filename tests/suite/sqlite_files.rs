//! The files of SQLite are cut, removed or replaced under a running server.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::Connection;

use crate::support::{Client, Hakaru, Settings, wait_until};

fn send(hakaru: &Hakaru, from: u32, to: u32) {
    let mut client = Client::connect(hakaru.address);
    for value in from..to {
        let path = format!("/hakaru?name={}&value={value}", "n".repeat(200));
        assert_eq!(client.get(&path).status, 200);
    }
}

fn start() -> Hakaru {
    Settings::sqlite()
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start()
}

fn count(path: &Path) -> u64 {
    let rows = Connection::open(path).and_then(|file| {
        file.query_row("SELECT COUNT(*) FROM eventlog", [], |row| {
            row.get::<_, u32>(0)
        })
    });
    rows.map_or(0, u64::from)
}

fn stored(hakaru: &Hakaru) -> u64 {
    let stats = Client::connect(hakaru.admin()).get("/stats.json").body;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    stats["events"]["stored"].as_u64().unwrap()
}

/// Has 200 rows in the file, and none of them in the log.
fn filled(hakaru: &Hakaru) {
    send(hakaru, 0, 200);
    let path = hakaru.path("eventlog.db");
    wait_until("all is stored", || count(&path) == 200);
    let file = Connection::open(&path).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    wait_until("the log is empty", || {
        let busy = file.query_row(checkpoint, [], |row| row.get::<_, u32>(0));
        busy == Ok(0)
    });
    // The server looks at the files before each batch.
    send(hakaru, 1000, 1001);
    wait_until("it is stored", || count(&path) == 201);
}

#[test]
fn a_file_that_is_cut_stops_storing() {
    for bytes in [0, 100, 8192] {
        let hakaru = start();
        filled(&hakaru);
        let path = hakaru.path("eventlog.db");
        let backup = hakaru.path("backup.db");
        fs::copy(&path, &backup).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        assert!(file.metadata().unwrap().len() > bytes);
        file.set_len(bytes).unwrap();
        send(&hakaru, 201, 210);
        let line = hakaru.wait_for_event("storing_stopped");
        let text = line["message"].as_str().unwrap();
        assert!(text.contains("has become shorter"), "{text}");
        wait_until("the damage is named", || {
            hakaru.events("storing_stopped").iter().any(|line| {
                let text = line["message"].as_str().unwrap();
                text.contains("put a backup in its place")
            })
        });
        assert_eq!(stored(&hakaru), 201, "{bytes}");
        // The way back.
        for name in ["eventlog.db", "eventlog.db-wal", "eventlog.db-shm"] {
            fs::remove_file(hakaru.path(name)).unwrap_or_default();
        }
        fs::rename(&backup, &path).unwrap();
        wait_until("all is stored", || count(&path) == 210);
        assert_eq!(hakaru.stop().pending, 0);
    }
}

/// The log of the file before would be taken for that of the new one.
#[test]
fn a_file_that_is_replaced_beside_the_log_of_the_one_before_is_not_opened() {
    let hakaru = start();
    filled(&hakaru);
    let path = hakaru.path("eventlog.db");
    let backup = hakaru.path("backup.db");
    fs::copy(&path, &backup).unwrap();
    send(&hakaru, 201, 300);
    wait_until("it is stored in the log", || count(&path) == 300);
    let whole = fs::read(&backup).unwrap();
    fs::rename(&backup, &path).unwrap();
    send(&hakaru, 300, 310);
    let line = hakaru.wait_for_event("storing_stopped");
    let text = line["message"].as_str().unwrap();
    assert!(text.contains("eventlog.db-wal is still the log"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_eq!(stored(&hakaru), 300);
    for name in ["eventlog.db-wal", "eventlog.db-shm"] {
        fs::rename(hakaru.path(name), hakaru.path(&format!("{name}.moved"))).unwrap();
    }
    // The journal still has what the backup lacks.
    wait_until("all is stored", || count(&path) == 310);
    assert_eq!(hakaru.stop().pending, 0);
}

#[test]
fn a_log_that_is_removed_takes_no_row_with_it() {
    let hakaru = start();
    filled(&hakaru);
    send(&hakaru, 201, 210);
    let path = hakaru.path("eventlog.db");
    wait_until("it is stored in the log", || count(&path) == 210);
    for name in ["eventlog.db-wal", "eventlog.db-shm"] {
        fs::remove_file(hakaru.path(name)).unwrap();
    }
    send(&hakaru, 210, 220);
    hakaru.wait_for_event("database_unreachable");
    wait_until("all is stored", || count(&path) == 220);
    assert_eq!(hakaru.stop().pending, 0);
}

/// A file may become shorter.
#[test]
fn vacuum_in_another_process_stops_nothing() {
    let hakaru = start();
    filled(&hakaru);
    let path = hakaru.path("eventlog.db");
    let file = Connection::open(&path).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    let before = fs::metadata(&path).unwrap().len();
    let sql = "DELETE FROM eventlog WHERE value < 100; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)";
    file.execute_batch(sql).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < before);
    send(&hakaru, 201, 210);
    wait_until("all is stored", || count(&path) == 110);
    for event in ["storing_stopped", "database_unreachable"] {
        assert!(hakaru.events(event).is_empty(), "{event}");
    }
    assert_eq!(hakaru.stop().pending, 0);
}

/// The pages of a commit that is only in the log make the file look as if it was cut.
#[test]
fn a_file_that_only_looks_cut_is_checked_and_storing_goes_on() {
    let hakaru = start();
    filled(&hakaru);
    let path = hakaru.path("eventlog.db");
    let file = Connection::open(&path).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    let sql = "DELETE FROM eventlog WHERE value < 100; VACUUM; PRAGMA wal_checkpoint(TRUNCATE);
               INSERT INTO eventlog (name, value) SELECT name, value FROM eventlog";
    file.execute_batch(sql).unwrap();
    send(&hakaru, 201, 210);
    hakaru.wait_for_event("storing_stopped");
    hakaru.wait_for_event("storing_resumed");
    wait_until("all is stored", || count(&path) == 211);
    for line in hakaru.events("storing_stopped") {
        let text = line["message"].as_str().unwrap();
        assert!(text.contains("it is checked"), "{text}");
    }
    send(&hakaru, 210, 220);
    wait_until("all is stored", || count(&path) == 221);
    assert_eq!(hakaru.stop().pending, 0);
}
