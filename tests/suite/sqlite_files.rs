//! The files of SQLite are cut, removed or replaced under a running server.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::support::{Client, Hakaru, Settings, wait_until};

fn count(path: &Path) -> u64 {
    let rows = Connection::open(path).and_then(|file| {
        file.query_row("SELECT COUNT(*) FROM eventlog", [], |row| {
            row.get::<_, u32>(0)
        })
    });
    rows.map_or(0, u64::from)
}

/// A server and its file.
struct Server {
    hakaru: Hakaru,
    path: PathBuf,
}

impl Server {
    /// With 200 rows in the file, of which none is in the log, and one in the log.
    fn filled() -> Self {
        let settings = Settings::sqlite().flag("--cores=1");
        let hakaru = settings.flag("--linger=10ms").start();
        let path = hakaru.path("eventlog.db");
        let server = Self { hakaru, path };
        server.send(0..200);
        server.wait_for_rows(200);
        let file = server.open();
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        wait_until("the log is empty", || {
            let busy = file.query_row(checkpoint, [], |row| row.get::<_, u32>(0));
            busy == Ok(0)
        });
        // The server looks at the files before each batch.
        server.send(1000..1001);
        server.wait_for_rows(201);
        server
    }

    /// Sends events with a long name.
    fn send(&self, values: Range<u32>) {
        let mut client = Client::connect(self.hakaru.address);
        for value in values {
            let path = format!("/hakaru?name={}&value={value}", "n".repeat(200));
            assert_eq!(client.get(&path).status, 200);
        }
    }

    /// Waits until the file has so many rows.
    fn wait_for_rows(&self, rows: u64) {
        wait_until("all is stored", || count(&self.path) == rows);
    }

    /// Another connection to the file.
    fn open(&self) -> Connection {
        let file = Connection::open(&self.path).unwrap();
        file.busy_timeout(Duration::from_secs(10)).unwrap();
        file
    }

    /// Copies the file without its log.
    fn back_up(&self) -> PathBuf {
        let backup = self.hakaru.path("backup.db");
        fs::copy(&self.path, &backup).unwrap();
        backup
    }

    fn stored(&self) -> u64 {
        self.hakaru.stats()["events"]["stored"].as_u64().unwrap()
    }

    /// Waits until it stores no more, and returns why.
    fn wait_for_stop(&self) -> String {
        let line = self.hakaru.wait_for_event("storing_stopped");
        line["message"].as_str().unwrap().to_owned()
    }

    /// Waits until the file has so many rows, and ends the server, which has no other.
    fn end_with(self, rows: u64) {
        self.wait_for_rows(rows);
        assert_eq!(self.hakaru.stop().pending, 0);
    }
}

#[test]
fn a_file_that_is_cut_stops_storing() {
    for bytes in [0, 100, 8192] {
        let server = Server::filled();
        let backup = server.back_up();
        let file = File::options().write(true).open(&server.path).unwrap();
        assert!(file.metadata().unwrap().len() > bytes);
        file.set_len(bytes).unwrap();
        server.send(201..210);
        let text = server.wait_for_stop();
        assert!(text.contains("has become shorter"), "{text}");
        wait_until("the damage is named", || {
            server.hakaru.events("storing_stopped").iter().any(|line| {
                let text = line["message"].as_str().unwrap();
                text.contains("put a backup in its place")
            })
        });
        assert_eq!(server.stored(), 201, "{bytes}");
        // The way back.
        for name in ["eventlog.db", "eventlog.db-wal", "eventlog.db-shm"] {
            fs::remove_file(server.hakaru.path(name)).unwrap_or_default();
        }
        fs::rename(&backup, &server.path).unwrap();
        server.end_with(210);
    }
}

/// The log of the file before would be taken for that of the new one.
#[test]
fn a_file_that_is_replaced_beside_the_log_of_the_one_before_is_not_opened() {
    let server = Server::filled();
    let backup = server.back_up();
    server.send(201..300);
    server.wait_for_rows(300);
    let whole = fs::read(&backup).unwrap();
    fs::rename(&backup, &server.path).unwrap();
    server.send(300..310);
    let text = server.wait_for_stop();
    assert!(text.contains("eventlog.db-wal is still the log"), "{text}");
    assert_eq!(fs::read(&server.path).unwrap(), whole);
    assert_eq!(server.stored(), 300);
    for name in ["eventlog.db-wal", "eventlog.db-shm"] {
        let moved = server.hakaru.path(&format!("{name}.moved"));
        fs::rename(server.hakaru.path(name), moved).unwrap();
    }
    // The journal still has what the backup lacks.
    server.end_with(310);
}

#[test]
fn a_log_that_is_removed_takes_no_row_with_it() {
    let server = Server::filled();
    server.send(201..210);
    server.wait_for_rows(210);
    for name in ["eventlog.db-wal", "eventlog.db-shm"] {
        fs::remove_file(server.hakaru.path(name)).unwrap();
    }
    server.send(210..220);
    server.hakaru.wait_for_event("database_unreachable");
    server.end_with(220);
}

/// A file may become shorter.
#[test]
fn vacuum_in_another_process_stops_nothing() {
    let server = Server::filled();
    let before = fs::metadata(&server.path).unwrap().len();
    let sql = "DELETE FROM eventlog WHERE value < 100; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)";
    let file = server.open();
    file.execute_batch(sql).unwrap();
    assert!(fs::metadata(&server.path).unwrap().len() < before);
    server.send(201..210);
    server.wait_for_rows(110);
    for event in ["storing_stopped", "database_unreachable"] {
        assert!(server.hakaru.events(event).is_empty(), "{event}");
    }
    assert_eq!(server.hakaru.stop().pending, 0);
}

/// The pages of a commit that is only in the log make the file look as if it was cut.
#[test]
fn a_file_that_only_looks_cut_is_checked_and_storing_goes_on() {
    let server = Server::filled();
    let file = server.open();
    let sql = "DELETE FROM eventlog WHERE value < 100; VACUUM; PRAGMA wal_checkpoint(TRUNCATE);
               INSERT INTO eventlog (name, value) SELECT name, value FROM eventlog";
    file.execute_batch(sql).unwrap();
    server.send(201..210);
    server.hakaru.wait_for_event("storing_stopped");
    server.hakaru.wait_for_event("storing_resumed");
    server.wait_for_rows(211);
    for line in server.hakaru.events("storing_stopped") {
        let text = line["message"].as_str().unwrap();
        assert!(text.contains("it is checked"), "{text}");
    }
    server.send(210..220);
    server.end_with(221);
}
