//! Disks that tear or damage blocks, and journals of earlier versions.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::{Client, DatabaseServer, Settings, ask, run, wait_until};

/// A library that makes system calls on segments fail, as a test wants it.
const FAULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/disk_faults.c");

/// Builds it in `directory`, to be preloaded.
pub fn faults(directory: &Path) -> String {
    let library = directory.join("disk_faults.so");
    let library = library.to_str().unwrap().to_owned();
    run(
        "cc",
        &["-shared", "-fPIC", "-O2", "-o", &library, FAULTS, "-ldl"],
    );
    library
}

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

/// Runs `hakaru journal`. Returns its exit code and what it says.
fn inspect(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let asked = ask(directory, "", &[&["journal"], arguments].concat());
    (asked.code, asked.out)
}

fn verify(directory: &Path) -> (Option<i32>, String) {
    inspect(directory, &["verify"])
}

/// A server with one shard, whose 200s promise that the event is on the disk.
fn settings(database: &DatabaseServer, directory: &Path) -> Settings {
    let settings = Settings::mysql(database).directory(directory);
    settings.flag("--ack=journaled").flag("--cores=1")
}

/// Overwrites a block of the only segment by what was never written.
fn damage(data_dir: &Path, block: u64) {
    let file = fs::File::options().write(true).open(segment(data_dir));
    file.unwrap()
        .write_all_at(&[0xA5; 4096], block * 4096)
        .unwrap();
}

/// Whichever block of a lane is damaged after a crash: what was answered and is in no other block is at most
/// the last event, and then `verify` fails and the log has a warning.
#[test]
fn a_damaged_block_at_the_end_takes_no_more_than_the_last_group() {
    let database = DatabaseServer::start();
    for block in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let start = |linger: &str| settings(&database, directory.path()).flag(linger).start();
        let first = start("--linger=1h");
        // All in one block.
        first.send(0..40);
        first.crash();
        assert_eq!(verify(directory.path()).0, Some(0));
        damage(directory.path(), block);
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
        let stored = database.values();
        assert!(stored.len() >= 39, "{stored:?}");
        assert_eq!(
            stored,
            (0..u32::try_from(stored.len()).unwrap()).collect::<Vec<_>>()
        );
        database.run("DELETE FROM hakaru.eventlog");
    }
}

/// After an orderly end it is known where the lane ends, and so that something is missing.
#[test]
fn a_damaged_block_at_the_end_of_a_drained_lane_is_reported_as_damage() {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = |database: &DatabaseServer| {
        let settings = settings(database, directory.path()).flag("--drain-timeout=1s");
        settings.flag("--journal-keep=1s").start()
    };
    let first = start(&database);
    database.stop();
    first.send(0..40);
    first.stop();
    assert_eq!(verify(directory.path()).0, Some(0));
    // The 40th write went to the spare block.
    damage(directory.path(), 1);
    let (code, text) = verify(directory.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("1 events are unreadable, positions 39 to 39"),
        "{text}"
    );

    database.resume();
    let second = start(&database);
    second.wait_for_event("events_unreadable");
    second.wait_for_event("damaged_lane_kept");
    second.stop();
    assert_eq!(database.values(), (0..39).collect::<Vec<_>>());
}

/// A lane that the last release with version 1 of the format wrote.
#[test]
fn a_lane_of_version_1_is_listed_and_stored() {
    let database = DatabaseServer::start();
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

    let (code, list) = inspect(directory.path(), &["list", "--json"]);
    let row: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (code, &row["first"], &row["end"]),
        (Some(0), &0.into(), &300.into())
    );
    let (code, dump) = inspect(directory.path(), &["dump", name]);
    assert_eq!((code, dump.lines().count()), (Some(0), 300));

    let settings = Settings::mysql(&database).directory(directory.path());
    let hakaru = settings.flag("--adopt=any").start();
    hakaru.wait_for_event("lane_recovered");
    hakaru.stop();
    assert_eq!(database.values(), (0..300).collect::<Vec<_>>());
}

/// The write reaches the disk and is reported as failed.
#[test]
fn events_that_are_answered_503_are_no_rows_after_a_restart() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let library = faults(directory.path());
    let trigger = directory.path().join("fail-a-write");
    let settings = || settings(&database, directory.path());
    let first = settings().flag("--linger=1h").flag("--io=epoll");
    let first = first.variable("LD_PRELOAD", &library);
    let first = first.variable("FAIL_A_WRITE", trigger.to_str().unwrap());
    let first = first.start();
    let send = |value: u32| {
        // A connection may be closed after a 503.
        let mut client = Client::connect(first.address);
        client.get(&format!("/hakaru?name=a&value={value}")).status
    };
    let mut answered = Vec::new();
    let mut refused = Vec::new();
    for value in 0..60 {
        if value % 20 == 10 {
            fs::write(&trigger, "").unwrap();
        }
        match send(value) {
            200 => answered.push(value),
            503 => {
                refused.push(value);
                wait_until("events are taken again", || send(1_000) == 200);
            }
            status => panic!("{status}"),
        }
    }
    assert_eq!(refused, [10, 30, 50]);
    first.crash();
    let second = settings().start();
    wait_until("all is stored", || {
        database.query_one::<u32>("SELECT COUNT(*) FROM eventlog WHERE value < 1000") >= 57
    });
    wait_until("all lanes are read", || {
        second.events("lane_recovered").len() == 4
    });
    second.stop();
    let rows: Vec<u32> =
        database.query("SELECT value FROM eventlog WHERE value < 1000 ORDER BY value");
    assert_eq!(rows, answered);
}

#[test]
fn events_that_the_disk_has_lost_are_counted_and_the_rest_is_stored() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = |linger: &str| {
        let settings = settings(&database, directory.path());
        settings.flag(linger).flag("--journal-keep=0s").start()
    };
    let first = start("--linger=1h");
    first.send(0..300);
    first.crash();
    // A block has 64 records, and the first are in block 2.
    damage(directory.path(), 3);
    let second = start("--linger=1s");
    second.wait_for_event("lane_recovered");
    second.wait_for_event("damaged_lane_kept");
    let identity = second.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.lost),
        (300, 236, 64)
    );
    assert_eq!(
        database.values(),
        (0..64).chain(128..300).collect::<Vec<_>>()
    );
    let mut left = fs::read_dir(directory.path().join("hakaru-data/journal")).unwrap();
    assert!(left.any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().starts_with("damaged-")
    }));
}

/// A disk that is away, except for what is in the page cache, and one with bad blocks. The lane waits, and new events
/// are stored.
#[test]
fn nothing_is_lost_when_a_disk_that_could_not_be_read_comes_back() {
    let database = DatabaseServer::start();
    // From the spare block on, and from the third block of records on.
    for offset in ["4096", "16384"] {
        let directory = tempfile::tempdir().unwrap();
        let library = faults(directory.path());
        let away = directory.path().join("away");
        let start = |linger: &str| {
            let settings = settings(&database, directory.path());
            let settings = settings.flag(linger).flag("--journal-keep=0s");
            let settings = settings.variable("LD_PRELOAD", &library);
            let settings = settings.variable("UNREADABLE_WHILE", away.to_str().unwrap());
            settings.variable("UNREADABLE", offset).start()
        };
        let first = start("--linger=1h");
        first.send(0..300);
        first.crash();
        fs::write(&away, "").unwrap();
        let second = start("--linger=1s");
        second.send(1000..1001);
        wait_until("the new event is stored", || {
            database.values().contains(&1000)
        });
        wait_until("it was tried often", || {
            assert!(second.events("lane_recovered").is_empty());
            second.lines("still cannot be read").len() >= 4
        });
        assert_eq!(second.events("journal_read_failed").len(), 1);
        fs::remove_file(&away).unwrap();
        wait_until("all is stored", || database.values().len() == 301);
        let identity = second.stop();
        assert_eq!(
            (identity.received, identity.stored, identity.lost),
            (301, 301, 0)
        );
        database.run("DELETE FROM hakaru.eventlog");
    }
}
