//! The disk of the data directory is full: what was answered is stored, and nothing is taken that cannot be.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::{Client, DatabaseServer, Settings, SmallDisk, wait_until};

/// A directory for hakaru, and in it an empty one `data` that a small disk is to be mounted on.
fn directories() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    (directory, data)
}

#[test]
fn a_check_leaves_nothing_on_a_full_disk() {
    let (directory, data) = directories();
    let _disk = SmallDisk::mount(&data, "1m");
    let full = std::fs::write(data.join("filler"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let output = Settings::sqlite()
        .flag("check")
        .flag("--data-dir=data")
        .run_in(directory.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let names: Vec<_> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["filler"]);
}

#[test]
fn events_on_a_full_disk_are_answered_503_until_there_is_room() {
    let mut database = DatabaseServer::start();
    let (directory, data) = directories();
    let _disk = SmallDisk::mount(&data, "16m");
    let hakaru = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--data-dir=data")
        .flag("--ack=journaled")
        .flag("--cores=1")
        .start();
    database.stop();
    let mut answered = 0;
    let name = "n".repeat(255);
    // Before each event, in the same read, is a request whose answer looks like the answer to an event.
    let head = "HEAD /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n";
    let event = format!(
        "GET /hakaru?name={name}&value=1 HTTP/1.1\r\nHost: h\r\nOrigin: https://shop.example\r\n\r\n"
    );
    let mut client = Client::connect(hakaru.address);
    loop {
        client.send(format!("{head}{event}").as_bytes());
        assert_eq!(client.answer().status, 200, "HEAD waits for no event");
        let answer = client.answer();
        if answer.status == 503 {
            for (name, value) in [
                ("Retry-After", "1"),
                ("Access-Control-Allow-Origin", "https://shop.example"),
                ("Vary", "Origin"),
                ("Connection", "close"),
            ] {
                assert_eq!(answer.field(name), Some(value), "{answer:?}");
            }
            let reason = answer.field("X-Hakaru-Reason").unwrap();
            assert!(reason.starts_with("journal: "), "{reason}");
            assert_eq!(answer.body, format!("{{\"error\":\"{reason}\"}}"));
            assert!(client.is_closed());
            break;
        }
        answered += 1;
        assert!(answered < 100_000, "the disk is not full");
    }
    hakaru.wait_for_event("journal_write_failed");
    database.resume();
    wait_until("answered events are stored", || {
        database.count() >= answered
    });
    wait_until("events are taken again", || {
        let answer = Client::connect(hakaru.address).get("/hakaru?name=after&value=1");
        answered += u64::from(answer.status == 200);
        answer.status == 200
    });
    wait_until("all is stored", || database.count() >= answered);
    assert_eq!(hakaru.stop().pending, 0);
    // An event whose write failed was answered 503, but may still be a row.
    assert!(database.count() <= answered + 1);
}

#[test]
fn kept_segments_are_removed_on_a_small_disk() {
    let database = DatabaseServer::start();
    let (directory, data) = directories();
    let _disk = SmallDisk::mount(&data, "16m");
    let hakaru = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--data-dir=data")
        .flag("--cores=1")
        .flag("--linger=100ms")
        .start();
    let name = "n".repeat(255);
    // More than the disk holds, and all of it is stored at once.
    let mut answered = 0;
    wait_until("all are taken", || {
        // A 503 closes its connection.
        let mut client = Client::connect(hakaru.address);
        while answered < 70_000 && client.get(&format!("/hakaru?name={name}&value=1")).status == 200
        {
            answered += 1;
        }
        answered >= 70_000
    });
    wait_until("all are stored", || database.count() >= answered);
    assert_eq!(hakaru.stop().pending, 0);
}
