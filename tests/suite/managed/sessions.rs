//! A front that gives each transaction another session of the server, in which nothing is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Answer, Command, Run, Session};
use crate::support::{Client, wait_until};

/// What another session of the server has.
const OTHER_SETTINGS: [&str; 3] = [
    "SET NAMES latin1",
    "SET SESSION sql_mode = ''",
    "SET SESSION time_zone = '+05:00'",
];

/// Has everything outside of a transaction, and each transaction, run in a session that has its own settings.
fn change_sessions(session: &Session) {
    if !session.is_in_transaction() {
        for statement in OTHER_SETTINGS {
            session.run(statement);
        }
    }
}

/// A time zone that is neither that of this machine nor that of another session.
const TIME_ZONE: &str = "&time_zone='-11:00'";

/// How many rows have a time within a minute of now, in the time zone of the datasource.
const OF_NOW: &str = "SELECT COUNT(*) FROM eventlog \
    WHERE ABS(TIMESTAMPDIFF(SECOND, at, UTC_TIMESTAMP() - INTERVAL 11 HOUR)) < 60";

#[test]
fn what_is_set_holds_in_each_session() {
    let mut run = Run::start_with(TIME_ZONE, |_, session| {
        change_sessions(session);
        Answer::Servers
    });
    run.store();
    let mut client = Client::connect(run.hakaru.address);
    let name = "%E8%A8%88%E3%82%8B%20%C3%BC";
    assert_eq!(
        client.get(&format!("/hakaru?name={name}&value=6")).status,
        200
    );
    run.sent += 1;
    run.all_stored();
    let names: Vec<String> = run
        .database
        .query("SELECT name FROM eventlog WHERE value = 6");
    assert_eq!(names, ["計る ü"]);
    assert_eq!(run.database.query_one::<u32>(OF_NOW), run.sent);
    run.end();
}

#[test]
fn rows_are_found_in_each_session_where_a_checkpoint_was_set_back() {
    let mut run = Run::start_with(TIME_ZONE, |_, session| {
        change_sessions(session);
        Answer::Servers
    });
    for _ in 0..5 {
        run.store();
    }
    // The rows are still there. Whoever compared their times in another zone would store their events again.
    run.database
        .run("UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'");
    run.store();
    run.hakaru.wait_for_event("checkpoint_put_back");
    let values: Vec<u32> = (0..run.sent).collect();
    assert_eq!(run.database.values(), values, "{}", run.hakaru.log());
    assert_eq!(run.hakaru.stop().stored, u64::from(run.sent));
}

#[test]
fn a_front_that_drops_what_is_set_stores_nothing_at_other_times() {
    let drops = Arc::new(AtomicBool::new(false));
    let is_on = Arc::clone(&drops);
    let mut run = Run::start_with(TIME_ZONE, move |command, session| {
        if !is_on.load(Ordering::Relaxed) {
            return Answer::Servers;
        }
        change_sessions(session);
        match command {
            Command::Query(sql) if sql.starts_with("SET ") => Answer::Ignored,
            _ => Answer::Servers,
        }
    });
    drops.store(true, Ordering::Relaxed);
    run.hakaru.send(run.sent..run.sent + 3);
    run.sent += 3;
    let line = run.hakaru.wait_for_event("storing_stopped");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("drops SET"), "{message}");
    assert_eq!(run.database.count(), u64::from(run.sent) - 3);
    drops.store(false, Ordering::Relaxed);
    run.all_stored();
    wait_until("all rows are of now", || {
        run.database.query_one::<u32>(OF_NOW) == run.sent
    });
    assert_eq!(run.hakaru.stop().stored, u64::from(run.sent));
}
