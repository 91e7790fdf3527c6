//! A lane without work whose checkpoint goes back, while its writer is busy with another lane.

use mysql::prelude::Queryable;

use crate::support::{Client, DatabaseServer, Settings, wait_until};

/// As where a proxy goes over to a replica without closing the connection: the replica lacks the last commit of one lane,
/// and has those of the other one.
#[test]
fn what_a_lane_without_work_has_lost_is_stored_again_under_a_busy_writer() {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let settings = |database: &DatabaseServer| {
        let settings = Settings::mysql(database).directory(directory.path());
        settings.flag("--cores=1").flag("--linger=10ms")
    };
    let stored = |database: &DatabaseServer, from: u32, to: u32| {
        let count = format!("SELECT COUNT(*) FROM eventlog WHERE value >= {from} AND value < {to}");
        database.query_one::<u32>(&count)
    };
    let first = settings(&database).start();
    let mut client = Client::connect(first.address);
    let mut send = |value: u32| {
        let answer = client.get(&format!("/hakaru?name=idle&value={value}"));
        assert_eq!(answer.status, 200);
    };
    (0..10).for_each(&mut send);
    wait_until("the first ten are stored", || {
        stored(&database, 0, 20) == 10
    });
    database.run("CREATE TABLE before_commit AS SELECT * FROM hakaru_checkpoint");
    (10..20).for_each(&mut send);
    wait_until("all are stored", || stored(&database, 0, 20) == 20);
    database.stop();
    (20..25).for_each(&mut send);
    first.crash();
    database.resume();

    let second = settings(&database).start();
    second.wait_for_event("lane_recovered");
    let mut client = Client::connect(second.address);
    let mut value = 100;
    let mut send = || {
        let answer = client.get(&format!("/hakaru?name=busy&value={value}"));
        assert_eq!(answer.status, 200);
        value += 1;
    };
    send();
    let mut connection = database.connect("hakaru").unwrap();
    for statement in [
        "START TRANSACTION",
        "DELETE FROM eventlog WHERE value BETWEEN 10 AND 24",
        "REPLACE INTO hakaru_checkpoint SELECT * FROM before_commit",
        "COMMIT",
    ] {
        connection.query_drop(statement).unwrap();
    }
    wait_until("what the lane has lost is stored again", || {
        send();
        stored(&database, 10, 25) == 15
    });
    assert_eq!(second.events("database_lost_events").len(), 1);
    assert_eq!(second.stop().pending, 0);
    assert_eq!(stored(&database, 0, 25), 25);
}
