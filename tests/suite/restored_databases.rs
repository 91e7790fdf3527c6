//! The database is set back, or somebody writes to its checkpoints: what it lacks is stored again, once.

use crate::support::{DatabaseServer, Settings, wait_until};

#[test]
fn events_that_the_database_lost_are_stored_again() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    hakaru.send(0..400);
    wait_until("all is stored", || database.count() == 400);
    // What a restore from a backup does: rows and checkpoint as they were at 150.
    database.run("DELETE FROM eventlog WHERE value >= 150");
    database.run("UPDATE hakaru_checkpoint SET position = 150 WHERE position = 400");
    hakaru.send(400..410);
    wait_until("the lost events are stored again", || {
        database.count() == 410
    });
    assert_eq!(database.values(), (0..410).collect::<Vec<_>>());
    assert_eq!(hakaru.events("database_lost_events").len(), 1);
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.stored), (410, 410));
}

#[test]
fn an_idle_shard_notices_that_the_database_was_restored() {
    let mut database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    hakaru.send(0..20);
    wait_until("all is stored", || database.count() == 20);
    database.run("DELETE FROM hakaru.eventlog WHERE value >= 5");
    database.run("UPDATE hakaru.hakaru_checkpoint SET position = 5");
    database.stop();
    database.resume();
    // Without another event.
    wait_until("the lost events are stored again", || {
        database.count() == 20
    });
    assert_eq!(database.values(), (0..20).collect::<Vec<_>>());
    assert_eq!(hakaru.wait_for_event("database_lost_events")["events"], 15);
    assert_eq!(hakaru.stop().stored, 20);
}

#[test]
fn a_restore_that_one_lane_notices_is_checked_for_in_all_others() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::mysql(&database)
            .directory(directory.path())
            .flag("--cores=2")
            .flag("--linger=10ms")
            .start()
    };
    let first = start();
    first.send(0..20);
    first.crash();
    let second = start();
    // Over many connections, so that both shards have some of them.
    (20..40).for_each(|value| second.send(value..value + 1));
    wait_until("all is stored", || database.count() == 40);
    // The connections to the database stay open, and only one shard gets an event.
    database.run("DELETE FROM eventlog; UPDATE hakaru_checkpoint SET position = 0");
    second.send(40..41);
    wait_until("both lanes are there again", || database.count() == 41);
    assert_eq!(database.values(), (0..41).collect::<Vec<_>>());
    assert_eq!(second.stop().pending, 0);
}

#[test]
fn a_lane_whose_epoch_changed_is_adopted_again_and_its_events_are_stored_once() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    hakaru.send(0..20);
    wait_until("all is stored", || database.count() == 20);
    database.run("UPDATE hakaru.hakaru_checkpoint SET epoch = epoch + 1");
    hakaru.send(20..60);
    hakaru.wait_for_event("lane_epoch_changed");
    wait_until("all is stored", || database.count() == 60);
    assert_eq!(database.values(), (0..60).collect::<Vec<_>>());
    hakaru.stop();
}
