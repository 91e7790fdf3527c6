//! What a 200 promises with a journal: the event is on disk before the answer, and is stored exactly once, whatever
//! fails.

use std::thread;

use crate::support::{Client, DatabaseServer, Settings, run, wait_until};

#[test]
fn answered_events_survive_a_kill_and_a_database_that_is_unreachable() {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::mysql(&database)
            .directory(directory.path())
            .flag("--ack=journaled")
            .start()
    };
    let first = start();
    database.stop();
    first.send(0..500);
    first.crash();
    // A second process is killed too before the database is reachable.
    let settings = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--ack=journaled");
    let second = settings.flag("--cores=1").start();
    second.send(500..600);
    second.crash();
    database.resume();
    let third = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--ack=journaled")
        .start();
    third.send(600..700);
    wait_until("the events of all three processes are stored", || {
        database.count() == 700
    });
    assert_eq!(database.values(), (0..700).collect::<Vec<_>>());
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
    first.send(0..300);
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
    let database = DatabaseServer::start();
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
    let mut database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--batch-events=5")
        .start();
    database.stop();
    // Far more than 64 batches of 5 events hold.
    hakaru.send(0..3_000);
    database.resume();
    hakaru.send(3_000..3_100);
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
    let mut database = DatabaseServer::start();
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
fn two_processes_share_a_data_directory() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let settings = Settings::mysql(&database).directory(directory.path());
        settings.flag("--ack=journaled").flag("--linger=1h").start()
    };
    let (old, new) = (start(), start());
    thread::scope(|scope| {
        scope.spawn(|| old.send(0..300));
        scope.spawn(|| new.send(300..600));
    });
    // The newer process takes over the lanes of the older one, without a restart.
    old.crash();
    wait_until("the lanes of the killed process are stored", || {
        database.count() >= 300
    });
    new.stop();
    assert_eq!(database.values(), (0..600).collect::<Vec<_>>());
}

#[test]
fn a_lane_without_its_first_block_is_reported_as_damaged_and_its_rest_is_stored() {
    let mut database = DatabaseServer::start();
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
    let kept = database.values();
    assert_eq!(kept, (40 - kept.len() as u32..40).collect::<Vec<_>>());
    hakaru.stop();
}

#[test]
fn without_the_right_to_make_checkpoints_it_does_not_start() {
    let database = DatabaseServer::start();
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
