//! RDS Proxy and ProxySQL: their own errors, those of servers that they pass on, and connections that they close.

use super::{Answer, At, Run, ServerError, both_ways, rolled_back};
use crate::support::wait_until;

/// Errors of a front that has no server, has lost it or has another one now.
fn errors() -> Vec<ServerError> {
    vec![
        // `PROXYSQL_MYSQL_ERR` of ProxySQL.
        ServerError::new(
            9001,
            "Max connect timeout reached while reaching hostgroup 10 after 10000ms",
        ),
        ServerError::new(9002, "Max connect failure while reaching hostgroup 10"),
        ServerError::with_state(
            9006,
            "Y0000",
            "ProxySQL Error: connection is locked to hostgroup 10 but trying to reach hostgroup 20",
        ),
        // The guide of RDS Proxy, "Troubleshooting for RDS Proxy".
        ServerError::new(9501, "Timed-out waiting to acquire database connection"),
        // Errors of the front as a client of its server.
        ServerError::new(2006, "MySQL server has gone away"),
        ServerError::new(2013, "Lost connection to MySQL server during query"),
        // A server that has another role now.
        ServerError::with_state(
            1047,
            "08S01",
            "WSREP has not yet prepared node for application use",
        ),
        ServerError::new(
            1290,
            "The MySQL server is running with the --read-only option",
        ),
        ServerError::new(1836, "Running in read-only mode"),
        ServerError::new(1874, "InnoDB is in read only mode."),
        ServerError::with_state(1053, "08S01", "Server shutdown in progress"),
        ServerError::with_state(
            1226,
            "42000",
            "User 'app' has exceeded the 'max_user_connections' resource",
        ),
    ]
}

#[test]
fn a_front_without_its_server_is_tried_again() {
    let mut run = Run::start();
    let errors = rolled_back(&errors());
    for at in [At::Begin, At::Step, At::Rows] {
        run.store_through_errors(at, "reconnect", &errors);
    }
    run.end();
}

#[test]
fn a_commit_that_a_front_does_not_answer_for_is_asked_for() {
    let mut run = Run::start();
    let errors = both_ways(&errors());
    run.store_through_errors(At::Commit, "outcome_unknown", &errors);
    run.end();
}

#[test]
fn a_front_that_has_no_connection_to_give_is_tried_again() {
    let mut run = Run::start();
    let refused = errors().into_iter().map(Answer::Refused);
    run.store_through_errors(At::Connect, "reconnect", &refused.collect::<Vec<_>>());
    run.end();
}

#[test]
fn a_connection_that_is_closed_while_it_is_idle_is_replaced() {
    let mut run = Run::start();
    for _ in 0..3 {
        let connections = run.fake.connections();
        run.fake.close();
        run.store();
        assert!(run.fake.connections() > connections);
    }
    run.end();
}

#[test]
fn a_prepared_statement_that_a_front_has_forgotten_is_prepared_again() {
    let mut run = Run::start();
    let forgotten = ServerError::new(
        1243,
        "Unknown prepared statement handler (7) given to mysqld_stmt_execute",
    );
    let forgotten = [Answer::Refused(forgotten)];
    for _ in 0..3 {
        run.store_through_errors(At::Rows, "reconnect", &forgotten);
    }
    wait_until("it says that it stores again", || {
        !run.hakaru.events("storing_resumed").is_empty()
    });
    run.end();
}
