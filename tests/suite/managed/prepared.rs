//! The bound of a server on prepared statements, and how many hakaru prepares.

use crate::support::{DatabaseServer, Settings, wait_until};

/// A connection prepares one statement for each of its sizes, as docs/operating.md says.
const STATEMENTS_MAX: u64 = 6;

#[test]
fn a_server_without_prepared_statements_to_give_is_waited_for() {
    let database = DatabaseServer::start();
    let allowed: u64 = database.query_one("SELECT @@GLOBAL.max_prepared_stmt_count");
    database.run("SET GLOBAL max_prepared_stmt_count = 0");
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    hakaru.send(0..3);
    let line = hakaru.wait_for_event("storing_stopped");
    assert_eq!(line["code"], 1461, "{line}");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("SET GLOBAL max_prepared_stmt_count"),
        "{message}"
    );
    assert!(message.contains("at most 12"), "{message}");
    assert_eq!(database.count(), 0);
    database.run(&format!("SET GLOBAL max_prepared_stmt_count = {allowed}"));
    wait_until("all events are stored", || database.count() == 3);
    assert_eq!(hakaru.events("dead_letters_written").len(), 0);
    assert_eq!(hakaru.stop().stored, 3);
}

#[test]
fn a_connection_prepares_few_statements() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=200ms")
        .start();
    let mut sent = 0;
    // Each size of statement is used: batches of 1 and of more than a thousand events.
    for events in [1, 7, 1500, 80, 3, 2000] {
        hakaru.send(sent..sent + events);
        sent += events;
        wait_until("all are stored", || database.count() == u64::from(sent));
    }
    let status = "SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'";
    let (_, prepared): (String, u64) = database.query_one(status);
    assert!((2..=STATEMENTS_MAX).contains(&prepared), "{prepared}");
    assert_eq!(hakaru.stop().stored, u64::from(sent));
}
