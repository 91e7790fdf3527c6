//! Settings of a server that affect sessions, and errors after which hakaru tries again.

use crate::support::{Client, DatabaseServer, Hakaru, Settings, wait_until};

/// Sends one event on a new connection, so that any shard may take it.
fn send(hakaru: &Hakaru, value: u32) {
    let path = format!("/hakaru?name=a&value={value}");
    assert_eq!(Client::connect(hakaru.address).get(&path).status, 200);
}

#[test]
fn a_server_without_autocommit_gets_the_rows_of_all_shards() {
    let database = DatabaseServer::start();
    database.run("SET GLOBAL autocommit = 0");
    let hakaru = Settings::mysql(&database)
        .flag("--cores=2")
        .flag("--linger=10ms")
        .start();
    // The writer of a shard without events has probed the database, and must hold no lock.
    for value in 0..20 {
        send(&hakaru, value);
    }
    wait_until("all are stored", || database.count() == 20);
    assert_eq!(hakaru.events("transaction_retried").len(), 0);
    assert_eq!(hakaru.stop().stored, 20);
}

#[test]
fn a_server_that_releases_sessions_at_commit_causes_no_reconnect() {
    let database = DatabaseServer::start();
    database.run("SET GLOBAL completion_type = 'RELEASE'");
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    for value in 0..5 {
        send(&hakaru, value);
        wait_until("it is stored", || database.count() == u64::from(value) + 1);
    }
    assert_eq!(hakaru.events("database_unreachable").len(), 0);
    assert_eq!(hakaru.stop().stored, 5);
}

/// Stores an event while a trigger fails with this signal. Waits for the log line `event`, and then lets the trigger
/// succeed.
fn fail_with(signal: &str, event: &str) {
    let database = DatabaseServer::start();
    database.run("CREATE TABLE broken (is_broken int)");
    database.run("INSERT INTO broken VALUES (1)");
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    wait_until("there is a table", || {
        let tables = database.query::<String>("SHOW TABLES LIKE 'eventlog'");
        !tables.is_empty()
    });
    database.run(&format!(
        "CREATE TRIGGER fails BEFORE INSERT ON eventlog FOR EACH ROW BEGIN \
           IF (SELECT is_broken FROM broken) THEN SIGNAL {signal}; END IF; \
         END"
    ));
    send(&hakaru, 1);
    hakaru.wait_for_event(event);
    database.run("UPDATE broken SET is_broken = 0");
    wait_until("it is stored", || database.count() == 1);
    for other in ["storing_stopped", "dead_letters_written"] {
        assert_eq!(hakaru.events(other).len(), 0, "{signal}: {}", hakaru.log());
    }
    assert_eq!(hakaru.stop().stored, 1);
}

#[test]
fn a_transaction_that_the_server_rolled_back_is_tried_again() {
    fail_with("SQLSTATE '40001'", "transaction_retried");
    fail_with(
        "SQLSTATE '40000' SET MYSQL_ERRNO = 3101",
        "transaction_retried",
    );
}

#[test]
fn a_connection_that_the_server_reports_as_lost_is_replaced() {
    fail_with(
        "SQLSTATE 'HY000' SET MYSQL_ERRNO = 2013",
        "database_unreachable",
    );
}
