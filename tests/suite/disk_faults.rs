//! Disks that tear or damage blocks, and journals of earlier versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Client, MariaDb, Settings};

/// The only segment of the only lane in a data directory.
fn segment(data_dir: &Path) -> PathBuf {
    let only = |directory: PathBuf| -> PathBuf {
        let names = fs::read_dir(directory).unwrap();
        let mut paths = names.map(|entry| entry.unwrap().path());
        let is_wanted =
            |path: &PathBuf| path.is_dir() || path.ends_with("0000000000000000.segment");
        paths.find(is_wanted).unwrap()
    };
    only(only(data_dir.join("hakaru-data/journal")))
}

fn values(database: &MariaDb) -> Vec<u32> {
    database.query("SELECT value FROM eventlog ORDER BY value")
}

/// Runs `hakaru journal verify`. Returns its exit code and what it says.
fn verify(directory: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .current_dir(directory)
        .args(["journal", "verify"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// Whichever block of a lane is damaged after a crash: what was answered and is in no other block is at most
/// the last event, and then `verify` fails and the log has a warning.
#[test]
fn a_damaged_block_at_the_end_takes_no_more_than_the_last_group() {
    let database = MariaDb::start();
    for block in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let start = |linger: &str| {
            let settings = Settings::mysql(&database).directory(directory.path());
            let settings = settings.flag("--ack=journaled").flag("--cores=1");
            settings.flag(linger).start()
        };
        let first = start("--linger=1h");
        let mut client = Client::connect(first.address);
        // All in one block.
        for value in 0..40 {
            let answer = client.get(&format!("/hakaru?name=a&value={value}"));
            assert_eq!(answer.status, 200);
        }
        first.crash();
        assert_eq!(verify(directory.path()).0, Some(0));
        let path = segment(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[block * 4096..][..4096].fill(0xA5);
        fs::write(&path, bytes).unwrap();

        let (code, text) = verify(directory.path());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("TORN"), "{text}");
        let second = start("--linger=1s");
        let torn = second.wait_for_event("lane_tail_torn");
        assert_eq!(torn["level"].as_str(), Some("warn"));
        assert!(
            torn["bytes"].as_u64().is_some_and(|bytes| bytes > 0),
            "{torn}"
        );
        second.wait_for_event("lane_recovered");
        second.stop();
        let stored = values(&database);
        assert!(stored.len() >= 39, "{stored:?}");
        assert_eq!(
            stored,
            (0..u32::try_from(stored.len()).unwrap()).collect::<Vec<_>>()
        );
        database.run("DELETE FROM hakaru.eventlog");
    }
}

/// A lane that the last release with version 1 of the format wrote.
#[test]
fn a_lane_of_version_1_is_listed_and_stored() {
    let database = MariaDb::start();
    let directory = tempfile::tempdir().unwrap();
    let name = "0123456789abcdef0123456789abcdef";
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-version-1");
    let lane = directory.path().join("hakaru-data/journal").join(name);
    fs::create_dir_all(&lane).unwrap();
    for file in fs::read_dir(fixture.join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), lane.join(file.file_name())).unwrap();
    }
    let (code, text) = verify(directory.path());
    assert_eq!(
        (code, text),
        (Some(0), format!("{name}  whole: 300 events\n"))
    );

    let settings = Settings::mysql(&database).directory(directory.path());
    let hakaru = settings.flag("--adopt=any").start();
    hakaru.wait_for_event("lane_recovered");
    hakaru.stop();
    assert_eq!(values(&database), (0..300).collect::<Vec<_>>());
}
