//! What becomes of each event: `received = stored + dead-lettered + lost + pending` at every moment.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::support::{Client, DatabaseServer, Hakaru, Settings, wait_until};

/// The terms, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    received: u64,
    stored: u64,
    dead_lettered: u64,
    lost: u64,
    pending: u64,
}

impl Terms {
    fn of(hakaru: &Hakaru) -> Self {
        let answer = Client::connect(hakaru.admin()).get("/stats.json");
        let stats: Value = serde_json::from_str(&answer.body).unwrap();
        let term = |name: &str| stats["events"][name].as_u64().unwrap();
        Self {
            received: term("received"),
            stored: term("stored"),
            dead_lettered: term("dead_lettered"),
            lost: term("lost"),
            pending: term("pending"),
        }
    }

    fn settled(self) -> u64 {
        self.stored + self.dead_lettered + self.lost
    }
}

/// A lane of an earlier process is stored, with a hole in it and events that the database refuses, while new events
/// are taken.
#[test]
fn the_identity_holds_during_recovery_and_damage_and_under_load() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let settings = || {
        let settings = Settings::mysql(&database).directory(directory.path());
        settings.flag("--ack=journaled").flag("--cores=1")
    };
    let first = settings().flag("--linger=1h").start();
    let mut client = Client::connect(first.address);
    for value in 0..400 {
        let target = format!("/hakaru?name=a&value={value}");
        assert_eq!(client.get(&target).status, 200);
    }
    first.crash();
    let journal = directory.path().join("hakaru-data/journal");
    let lane = fs::read_dir(journal)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let path = lane.join("0000000000000000.segment");
    let mut bytes = fs::read(&path).unwrap();
    // The second block of records.
    bytes[3 * 4096..4 * 4096].fill(0xA5);
    fs::write(path, bytes).unwrap();
    database
        .run("ALTER TABLE hakaru.eventlog ADD CONSTRAINT CHECK (value <> 350 AND value <> 1350)");

    let settings = settings().flag("--batch-events=7").flag("--linger=1ms");
    let second = settings.start();
    let is_over = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let load = || {
            let mut client = Client::connect(second.address);
            for value in 1000..1400 {
                let target = format!("/hakaru?name=a&value={value}");
                assert_eq!(client.get(&target).status, 200);
            }
        };
        let load = scope.spawn(load);
        let watch = || {
            let (mut moments, mut before) = (Vec::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let terms = Terms::of(&second);
                assert_eq!(terms.received, terms.settled() + terms.pending, "{terms:?}");
                assert!(terms.received >= before, "{terms:?} after {before}");
                before = terms.received;
                moments.push(terms);
            }
            moments
        };
        let watch = scope.spawn(watch);
        load.join().unwrap();
        wait_until("nothing is pending", || {
            let terms = Terms::of(&second);
            terms.pending == 0 && terms.received == 800
        });
        is_over.store(true, Ordering::Relaxed);
        let moments = watch.join().unwrap();
        assert!(moments.iter().any(|terms| terms.pending > 0));
        *moments.last().unwrap()
    });
    assert_eq!((last.received, last.dead_lettered), (800, 2));
    // 64 bytes for each event of a single sender.
    assert_eq!(last.lost, 64);
    assert_eq!(last.stored, database.count());
    assert_eq!(second.stop().lost, 64);
}

/// The database lost what an earlier process had stored: that is pending again before the first of it is stored.
#[test]
fn the_identity_holds_while_a_restored_database_is_filled() {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let settings = || {
        let settings = Settings::mysql(&database).directory(directory.path());
        settings.flag("--ack=journaled").flag("--cores=1")
    };
    let first = settings().flag("--linger=10ms").start();
    let mut client = Client::connect(first.address);
    let events = 3000;
    for value in 0..events {
        let target = format!("/hakaru?name=a&value={value}");
        assert_eq!(client.get(&target).status, 200);
    }
    wait_until("all is stored", || database.count() == events);
    let journal = directory.path().join("hakaru-data/journal");
    let lane = fs::read_dir(journal).unwrap().next().unwrap().unwrap();
    let note = format!("{events:020}\n");
    wait_until("it is noted how far the lane is stored", || {
        fs::read_to_string(lane.path().join("stored")).is_ok_and(|noted| noted == note)
    });
    first.crash();
    database.run(
        "DELETE FROM eventlog; UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'",
    );
    let second = settings().flag("--batch-events=1000").start();
    wait_until("all is filled", || {
        let terms = Terms::of(&second);
        assert_eq!(terms.received, terms.settled() + terms.pending, "{terms:?}");
        terms.stored == events
    });
    database.stop();
    drop(second);
}
