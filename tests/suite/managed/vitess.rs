//! Vitess, and PlanetScale, which is made of it.
//!
//! An error of a vttablet has the number that MySQL gave, where there is one in its text, and else one by the code of the
//! call (`go/mysql/sqlerror/sql_error.go`). Older versions, and codes without a number of MySQL, give 1105.

use super::{Answer, At, Command, Run, ServerError, both_ways, rolled_back};
use crate::support::{DatabaseServer, Settings, wait_until};

fn tablet(what: &str) -> ServerError {
    let text = format!("target: hakaru.-.primary: vttablet: rpc error: {what}");
    ServerError::new(1105, &text)
}

/// What is over before the transaction is: the table of errors of PlanetScale, `tx_pool.go`, `tabletgateway.go`.
fn errors() -> Vec<ServerError> {
    vec![
        tablet("code = Unavailable desc = error reading from server: EOF"),
        tablet(
            "code = Aborted desc = transaction 1782950310686082683: ended at 2026-07-02 05:31:19.003 UTC \
             (exceeded timeout: 20s)",
        ),
        tablet(
            "code = Aborted desc = transaction 1782950310686082683: not found (potential transaction timeout)",
        ),
        tablet("code = ResourceExhausted desc = transaction pool connection limit exceeded"),
        tablet("code = DeadlineExceeded desc = context deadline exceeded"),
        tablet("code = FailedPrecondition desc = operation not allowed in state NOT_SERVING"),
        ServerError::new(
            1105,
            "target: hakaru.-.primary: primary is not serving, there may be a reparent operation in progress",
        ),
        ServerError::with_state(
            1317,
            "70100",
            "vttablet: rpc error: code = Canceled desc = context canceled",
        ),
        ServerError::with_state(
            1203,
            "42000",
            "ResourceExhausted desc = transaction pool connection limit exceeded",
        ),
        ServerError::new(1041, "ResourceExhausted desc = Transaction throttled"),
        ServerError::new(
            1815,
            "rpc error: code = Internal desc = stream terminated by RST_STREAM",
        ),
        ServerError::new(
            2013,
            "vttablet: (errno 2013) due to context deadline exceeded, elapsed time: 20s",
        ),
    ]
}

#[test]
fn the_outcome_of_a_commit_is_asked_for_where_a_tablet_does_not_tell_it() {
    let mut run = Run::start();
    let errors = both_ways(&errors());
    run.store_through_errors(At::Commit, "outcome_unknown", &errors);
    run.hakaru.wait_for_event("commit_outcome_unknown");
    run.end();
}

#[test]
fn a_transaction_that_a_tablet_has_ended_is_stored_on_another_connection() {
    let mut run = Run::start();
    let errors = rolled_back(&errors());
    for at in [At::Begin, At::Step, At::Rows] {
        run.store_through_errors(at, "reconnect", &errors);
    }
    run.hakaru.wait_for_event("database_unreachable");
    run.end();
}

#[test]
fn settings_of_the_session_that_a_server_does_not_know_are_left_out() {
    // vtgate ignores some (`sysvars.go`) and refuses others.
    let unknown = |variable: &str| {
        ServerError::new(
            1193,
            &format!("VT05006: unknown system variable '{variable}'"),
        )
    };
    let mut run = Run::start_with("", move |command, _| match command {
        Command::Query(sql) if sql.contains("completion_type =") => {
            Answer::Refused(unknown("completion_type"))
        }
        Command::Query(sql) if sql.contains("innodb_lock_wait_timeout") => {
            Answer::Refused(ServerError::with_state(
                1235,
                "42000",
                "VT12001: unsupported: system setting: innodb_lock_wait_timeout",
            ))
        }
        Command::Query(sql) if sql.contains("wait_timeout") => Answer::Ignored,
        Command::Query(sql) if sql.contains("@@SESSION.completion_type") => {
            Answer::Refused(unknown("completion_type"))
        }
        _ => Answer::Servers,
    });
    run.store();
    run.end();
}

#[test]
fn a_table_that_a_branch_lets_nobody_create_is_waited_for() {
    let database = DatabaseServer::start();
    let fake = super::Fake::start(database.port(), |command, _| match command {
        // A branch with safe migrations. It says so with the number of all that it has no number for.
        Command::Query(sql) if sql.starts_with("CREATE TABLE") => {
            Answer::Refused(ServerError::new(1105, "direct DDL is disabled"))
        }
        _ => Answer::Servers,
    });
    let hakaru = Settings::datasource(&fake.dsn("")).start();
    let line = hakaru.wait_for_event("storing_stopped");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("direct DDL is disabled"), "{message}");
    assert!(message.contains("eventlog is missing"), "{message}");
    hakaru.send(0..3);
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, at datetime, \
         name varchar(255) NOT NULL, value int unsigned)",
    );
    database.run(
        "CREATE TABLE hakaru_checkpoint (lane char(32) CHARACTER SET ascii NOT NULL PRIMARY KEY, \
         epoch bigint unsigned NOT NULL, position bigint unsigned NOT NULL)",
    );
    wait_until("all events are stored", || database.count() == 3);
    assert_eq!(hakaru.stop().stored, 3);
}

#[test]
fn a_primary_key_that_repeats_is_known_within_the_words_of_a_tablet() {
    let mut run = Run::start();
    let text = "target: hakaru.-.primary: vttablet: rpc error: code = AlreadyExists desc = Duplicate entry '1' for key \
                'eventlog.PRIMARY' (errno 1062) (sqlstate 23000) (CallerID: app): Sql: \"insert into eventlog(`at`, \
                `name`, `value`) values (FROM_UNIXTIME(:v1), :v2, :v3)\", BindVars: {v1: \"1\"}";
    // The id that the server has given is that of a row: the fault of the table, and of no event.
    run.fake.order(
        At::Rows,
        Answer::Refused(ServerError::with_state(1062, "23000", text)),
    );
    run.hakaru.send(run.sent..run.sent + 1);
    run.sent += 1;
    run.hakaru.wait_for_event("storing_stopped");
    run.all_stored();
    assert_eq!(run.hakaru.events("dead_letters_written").len(), 0);
    assert_eq!(run.hakaru.stop().stored, u64::from(run.sent));
}
