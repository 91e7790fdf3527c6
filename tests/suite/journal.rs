//! What a 200 promises with a journal: the event is on disk before the answer, and is stored exactly once, whatever
//! fails.

use std::path::Path;
use std::thread;

use crate::support::{Client, MariaDb, Settings, SmallDisk, run, wait_until};

fn send(address: std::net::SocketAddr, from: u32, to: u32) {
    let mut client = Client::connect(address);
    for value in from..to {
        assert_eq!(
            client.get(&format!("/hakaru?name=a&value={value}")).status,
            200
        );
    }
}

fn values(database: &MariaDb) -> Vec<u32> {
    database.query("SELECT value FROM eventlog ORDER BY value")
}

#[test]
fn answered_events_survive_a_kill_and_a_database_that_is_unreachable() {
    let mut database = MariaDb::start();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::mysql(&database)
            .directory(directory.path())
            .flag("--ack=journaled")
            .start()
    };
    let first = start();
    database.stop();
    send(first.address, 0, 500);
    first.crash();
    // A second process is killed too before the database is reachable.
    let settings = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--ack=journaled");
    let second = settings.flag("--cores=1").start();
    send(second.address, 500, 600);
    second.crash();
    database.resume();
    let third = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--ack=journaled")
        .start();
    send(third.address, 600, 700);
    wait_until("the events of all three processes are stored", || {
        database.count() == 700
    });
    assert_eq!(values(&database), (0..700).collect::<Vec<_>>());
    let identity = third.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.pending),
        (700, 700, 0)
    );
}

#[test]
fn answered_events_survive_a_kill_with_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::sqlite()
            .directory(directory.path())
            .flag("--ack=journaled")
            .start()
    };
    let first = Settings::sqlite()
        .directory(directory.path())
        .flag("--ack=journaled")
        .flag("--linger=1h")
        .start();
    send(first.address, 0, 300);
    first.crash();
    let second = start();
    second.wait_for_event("lane_recovered");
    second.stop();
    let rows = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                print(c.execute('select count(*), count(distinct value) from eventlog').fetchone())";
    let file = directory.path().join("eventlog.db");
    assert_eq!(
        run("python3", &["-c", rows, file.to_str().unwrap()]),
        "(300, 300)\n"
    );
}

#[test]
fn with_ack_stored_the_row_is_there_before_the_answer() {
    let database = MariaDb::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=stored")
        .flag("--linger=1h")
        .start();
    let mut client = Client::connect(hakaru.address);
    for value in 0..50 {
        assert_eq!(
            client.get(&format!("/hakaru?name=a&value={value}")).status,
            200
        );
        let rows: u32 = database.query_one(&format!(
            "SELECT COUNT(*) FROM eventlog WHERE value = {value}"
        ));
        assert_eq!(rows, 1);
    }
    assert_eq!(hakaru.stop().stored, 50);
}

#[test]
fn more_than_memory_holds_is_read_back_from_disk_in_order() {
    let mut database = MariaDb::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--batch-events=5")
        .start();
    database.stop();
    // Far more than 64 batches of 5 events hold.
    send(hakaru.address, 0, 3_000);
    database.resume();
    send(hakaru.address, 3_000, 3_100);
    wait_until("all is stored", || database.count() == 3_100);
    hakaru.wait_for_line("events back");
    assert!(
        hakaru.peak_memory() < 150 << 20,
        "{} bytes",
        hakaru.peak_memory()
    );
    let in_order: Vec<u32> = database.query("SELECT value FROM eventlog ORDER BY id");
    assert_eq!(in_order, (0..3_100).collect::<Vec<_>>());
    let identity = hakaru.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.shed),
        (3_100, 3_100, 0)
    );
}

#[test]
fn at_the_limit_of_the_journal_events_are_shed_and_answered_ones_are_stored() {
    let mut database = MariaDb::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--journal-limit=1MiB")
        .start();
    database.stop();
    let mut client = Client::connect(hakaru.address);
    let name = "n".repeat(255);
    let mut answered = 0;
    let shed = loop {
        let answer = client.get(&format!("/hakaru?name={name}&value=1"));
        if answer.status == 503 {
            break answer;
        }
        answered += 1;
        assert!(answered < 20_000, "the journal has no limit");
    };
    assert_eq!(shed.field("Retry-After"), Some("1"));
    database.resume();
    wait_until("answered events are stored", || {
        database.count() == answered
    });
    wait_until("there is room again", || {
        client.get(&format!("/hakaru?name={name}&value=1")).status == 200
    });
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.pending), (answered + 1, 0));
}

#[test]
fn a_check_leaves_nothing_on_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
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
    let mut database = MariaDb::start();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
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
    let database = MariaDb::start();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
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

#[test]
fn two_processes_share_a_data_directory() {
    let database = MariaDb::start();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let settings = Settings::mysql(&database).directory(directory.path());
        settings.flag("--ack=journaled").flag("--linger=1h").start()
    };
    let (old, new) = (start(), start());
    thread::scope(|scope| {
        scope.spawn(|| send(old.address, 0, 300));
        scope.spawn(|| send(new.address, 300, 600));
    });
    // The newer process takes over the lanes of the older one, without a restart.
    old.crash();
    wait_until("the lanes of the killed process are stored", || {
        database.count() >= 300
    });
    new.stop();
    assert_eq!(values(&database), (0..600).collect::<Vec<_>>());
}

#[test]
fn events_that_the_database_lost_are_stored_again() {
    let database = MariaDb::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    send(hakaru.address, 0, 400);
    wait_until("all is stored", || database.count() == 400);
    // What a restore from a backup does: rows and checkpoint as they were at 150.
    database.run("DELETE FROM eventlog WHERE value >= 150");
    database.run("UPDATE hakaru_checkpoint SET position = 150 WHERE position = 400");
    send(hakaru.address, 400, 410);
    wait_until("the lost events are stored again", || {
        database.count() == 410
    });
    assert_eq!(values(&database), (0..410).collect::<Vec<_>>());
    assert_eq!(hakaru.events("database_lost_events").len(), 1);
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.stored), (410, 410));
}

#[test]
fn an_idle_shard_notices_that_the_database_was_restored() {
    let mut database = MariaDb::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    send(hakaru.address, 0, 20);
    wait_until("all is stored", || database.count() == 20);
    database.run("DELETE FROM hakaru.eventlog WHERE value >= 5");
    database.run("UPDATE hakaru.hakaru_checkpoint SET position = 5");
    database.stop();
    database.resume();
    // Without another event.
    wait_until("the lost events are stored again", || {
        database.count() == 20
    });
    assert_eq!(values(&database), (0..20).collect::<Vec<_>>());
    assert_eq!(hakaru.wait_for_event("database_lost_events")["events"], 15);
    assert_eq!(hakaru.stop().stored, 20);
}

#[test]
fn a_restore_that_one_lane_notices_is_checked_for_in_all_others() {
    let database = MariaDb::start();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::mysql(&database)
            .directory(directory.path())
            .flag("--cores=2")
            .flag("--linger=10ms")
            .start()
    };
    let first = start();
    send(first.address, 0, 20);
    first.crash();
    let second = start();
    // Over many connections, so that both shards have some of them.
    (20..40).for_each(|value| send(second.address, value, value + 1));
    wait_until("all is stored", || database.count() == 40);
    // The connections to the database stay open, and only one shard gets an event.
    database.run("DELETE FROM eventlog; UPDATE hakaru_checkpoint SET position = 0");
    send(second.address, 40, 41);
    wait_until("both lanes are there again", || database.count() == 41);
    assert_eq!(values(&database), (0..41).collect::<Vec<_>>());
    assert_eq!(second.stop().pending, 0);
}

#[test]
fn a_lane_without_its_first_block_is_reported_as_damaged_and_its_rest_is_stored() {
    let mut database = MariaDb::start();
    database.stop();
    let directory = tempfile::tempdir().unwrap();
    let settings = || {
        Settings::mysql(&database)
            .directory(directory.path())
            .flag("--cores=1")
    };
    let hakaru = settings().start();
    let name = "n".repeat(250);
    let mut client = Client::connect(hakaru.address);
    for value in 0..40 {
        let answer = client.get(&format!("/hakaru?name={name}&value={value}"));
        assert_eq!(answer.status, 200);
    }
    hakaru.crash();
    let lanes = directory.path().join("hakaru-data/journal");
    let lane = std::fs::read_dir(&lanes).unwrap().next().unwrap().unwrap();
    let segment = lane.path().join("0000000000000000.segment");
    let file = std::fs::File::options().write(true).open(segment).unwrap();
    // The head, the spare block, and the first block of records.
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 3 * 4096], 0).unwrap();
    let hakaru = settings().start();
    database.resume();
    hakaru.wait_for_event("events_unreadable");
    wait_until("the rest is stored", || database.count() > 0);
    let kept = values(&database);
    assert_eq!(kept, (40 - kept.len() as u32..40).collect::<Vec<_>>());
    hakaru.stop();
}

#[test]
fn a_lane_whose_epoch_changed_is_adopted_again_and_its_events_are_stored_once() {
    let database = MariaDb::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    send(hakaru.address, 0, 20);
    wait_until("all is stored", || database.count() == 20);
    database.run("UPDATE hakaru.hakaru_checkpoint SET epoch = epoch + 1");
    send(hakaru.address, 20, 60);
    hakaru.wait_for_event("lane_epoch_changed");
    wait_until("all is stored", || database.count() == 60);
    assert_eq!(values(&database), (0..60).collect::<Vec<_>>());
    hakaru.stop();
}

#[test]
fn without_the_right_to_make_checkpoints_it_does_not_start() {
    let database = MariaDb::start();
    Settings::mysql(&database).start().stop();
    database.run("DROP TABLE hakaru_checkpoint");
    database.run("CREATE USER app@'%' IDENTIFIED BY 's3cret'");
    database.run("GRANT SELECT, INSERT ON hakaru.* TO app@'%'");
    let dsn = format!("app:s3cret@tcp(127.0.0.1:{})/hakaru", database.port());
    let mut hakaru = Settings::datasource(&dsn).spawn();
    assert_eq!(hakaru.wait().code(), Some(2));
    assert!(
        hakaru
            .log()
            .contains("CREATE TABLE IF NOT EXISTS hakaru_checkpoint"),
        "{}",
        hakaru.log()
    );
}

/// Runs `hakaru journal`. Returns exit code and standard output.
fn inspect(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .current_dir(directory)
        .arg("journal")
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn lanes_are_listed_dumped_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let hakaru = Settings::sqlite()
        .directory(directory.path())
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--linger=1h")
        .start();
    send(hakaru.address, 0, 20);
    let (code, list) = inspect(directory.path(), &["list", "--json"]);
    let lane: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (code, &lane["owned"], &lane["end"]),
        (Some(0), &true.into(), &20.into())
    );
    let lane = lane["lane"].as_str().unwrap().to_owned();
    hakaru.crash();

    let (code, text) = inspect(directory.path(), &["list"]);
    assert_eq!(code, Some(0));
    assert!(
        text.lines()
            .nth(1)
            .unwrap()
            .starts_with(&format!("{lane}  no ")),
        "{text}"
    );
    let (code, dump) = inspect(directory.path(), &["dump", &lane, "--json"]);
    assert_eq!((code, dump.lines().count()), (Some(0), 20));
    let event: serde_json::Value = serde_json::from_str(dump.lines().nth(7).unwrap()).unwrap();
    assert_eq!(
        (&event["position"], &event["value"], &event["name"]),
        (&7.into(), &7.into(), &"a".into())
    );
    assert_eq!(inspect(directory.path(), &["verify"]).0, Some(0));
    assert_eq!(inspect(directory.path(), &["dump", "nonsense"]).0, Some(1));

    // One wrong bit in the middle, in both places of the last block, is reported, with place and positions.
    let segment = directory.path().join(format!(
        "hakaru-data/journal/{lane}/0000000000000000.segment"
    ));
    let mut bytes = std::fs::read(&segment).unwrap();
    for block in [4096, 2 * 4096] {
        bytes[block + 5 * 64 + 60] ^= 1;
    }
    std::fs::write(&segment, bytes).unwrap();
    let (code, text) = inspect(directory.path(), &["verify"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("DAMAGED") && text.contains("events are unreadable, positions"),
        "{text}"
    );
}
