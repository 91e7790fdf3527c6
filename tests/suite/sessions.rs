//! What a server's own settings make of a session.

use crate::support::{Client, Hakaru, MariaDb, Settings, wait_until};

/// Sends one event on a connection of its own, so that any shard may take it.
fn send(hakaru: &Hakaru, value: u32) {
    let path = format!("/hakaru?name=a&value={value}");
    assert_eq!(Client::connect(hakaru.address).get(&path).status, 200);
}

#[test]
fn a_server_without_autocommit_gets_the_rows_of_all_shards() {
    let database = MariaDb::start();
    database.run("SET GLOBAL autocommit = 0");
    let hakaru = Settings::mysql(&database)
        .flag("--cores=2")
        .flag("--linger=10ms")
        .start();
    // The shard that takes none has made its proof, and must hold no lock.
    for value in 0..20 {
        send(&hakaru, value);
    }
    wait_until("all are stored", || database.count() == 20);
    assert_eq!(hakaru.events("transaction_retried").len(), 0);
    assert_eq!(hakaru.stop().stored, 20);
}

#[test]
fn a_server_that_releases_sessions_at_commit_costs_no_reconnect() {
    let database = MariaDb::start();
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
