//! A process that starts while the database is unreachable knows which events of earlier processes are stored and
//! which are pending.

use crate::support::{Client, DatabaseServer, Hakaru, Settings, wait_until};

#[test]
fn a_start_without_the_database_knows_what_is_stored_and_what_is_pending() {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let dsn = database.dsn();
    let start = || {
        Settings::datasource(&dsn)
            .directory(directory.path())
            .flag("--linger=20ms")
            .start()
    };
    let figure = |hakaru: &Hakaru, name: &str| -> f64 {
        let metrics = Client::connect(hakaru.admin()).get("/metrics").body;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let send = |hakaru: &Hakaru, events: usize| {
        let mut client = Client::connect(hakaru.address);
        for _ in 0..events {
            assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
        }
    };
    let first = start();
    send(&first, 50);
    assert_eq!(first.stop().pending, 0);
    // Nothing is pending, although the database is unreachable.
    database.stop();
    let hakaru = start();
    hakaru.wait_for_event("database_unreachable");
    hakaru.wait_for_line("its owner is gone");
    assert_eq!(figure(&hakaru, "hakaru_events_pending"), 0.0);
    assert_eq!(figure(&hakaru, "hakaru_journal_bytes"), 0.0);
    send(&hakaru, 7);
    wait_until("they are pending", || {
        figure(&hakaru, "hakaru_events_pending") == 7.0
    });
    hakaru.crash();
    // The events of an earlier process are pending too.
    let hakaru = start();
    wait_until("they are pending", || {
        figure(&hakaru, "hakaru_events_pending") == 7.0
    });
    wait_until("they age", || {
        figure(&hakaru, "hakaru_journal_oldest_age_seconds") > 0.0
    });
    assert!(figure(&hakaru, "hakaru_journal_bytes") > 0.0);
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.pending), (7, 7));
    database.resume();
    let hakaru = start();
    wait_until("all are stored", || database.count() == 57);
    assert_eq!(hakaru.stop().pending, 0);
}

#[test]
fn starts_without_the_database_do_not_fill_the_journal_with_empty_segments() {
    let mut database = DatabaseServer::start();
    database.stop();
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let hakaru = Settings::mysql(&database)
            .directory(directory.path())
            .flag("--cores=1")
            .flag("--journal-limit=40MiB")
            .start();
        let mut client = Client::connect(hakaru.address);
        hakaru.wait_for_event("database_unreachable");
        assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
        hakaru.crash();
    }
    let hakaru = Settings::mysql(&database)
        .directory(directory.path())
        .start();
    database.resume();
    wait_until("each is stored", || database.count() == 5);
    assert_eq!(hakaru.stop().pending, 0);
}
