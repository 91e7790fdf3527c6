//! TiDB: the errors of `pkg/errno/errcode.go`, and the page "Error Codes and Troubleshooting" of its manual.

use super::{Answer, At, Run, ServerError, both_ways, rolled_back};

fn error(code: u16, message: &str) -> ServerError {
    ServerError::new(code, message)
}

/// Errors after which nothing is known of a COMMIT.
fn unknown() -> Vec<ServerError> {
    vec![
        error(9001, "PD server timeout"),
        error(9002, "TiKV server timeout"),
        error(9003, "TiKV server is busy"),
        error(9004, "Resolve lock timeout"),
        error(9005, "Region is unavailable"),
        error(9010, "TiKV server reports stale command"),
        error(9011, "TiKV max timestamp is not synced"),
        error(8027, "Information schema is out of date"),
        error(
            8176,
            "Your query has been cancelled due to exceeding the memory limit of the instance",
        ),
        error(
            1105,
            "rpc error: code = Unavailable desc = transport is closing",
        ),
    ]
}

/// Errors that say that a COMMIT was rolled back.
fn certain() -> Vec<ServerError> {
    vec![
        error(8002, "can not retry select for update statement"),
        error(8005, "Write Conflict, txnStartTS is stale"),
        error(8022, "Error: KV error safe to retry"),
        error(
            8028,
            "Information schema is changed during the execution of the statement",
        ),
        error(
            9007,
            "Write conflict, txnStartTS=1, conflictStartTS=2, conflictCommitTS=3",
        ),
    ]
}

#[test]
fn an_undetermined_commit_is_asked_for() {
    let mut run = Run::start();
    // `ErrResultUndetermined` has no number for clients: TiDB closes the connection (`pkg/server/conn.go`).
    let closed = [Answer::Cut, Answer::CutWhenDone];
    run.store_through_errors(At::Commit, "outcome_unknown", &closed);
    run.store_through_errors(At::Commit, "outcome_unknown", &both_ways(&unknown()));
    run.hakaru.wait_for_event("commit_outcome_unknown");
    run.end();
}

#[test]
fn a_commit_that_was_rolled_back_is_tried_again_on_the_same_connection() {
    let mut run = Run::start();
    let connections = run.fake.connections();
    run.store_through_errors(At::Commit, "retry", &rolled_back(&certain()));
    assert_eq!(run.fake.connections(), connections);
    run.hakaru.wait_for_event("transaction_retried");
    run.end();
}

#[test]
fn a_statement_that_failed_is_tried_again() {
    let mut run = Run::start();
    for at in [At::Begin, At::Step, At::Rows] {
        run.store_through_errors(at, "reconnect", &rolled_back(&unknown()));
        run.store_through_errors(at, "retry", &rolled_back(&certain()));
    }
    let of_a_statement = [
        error(8024, "Invalid transaction"),
        error(8055, "snapshot is older than GC safe point"),
        error(8111, "Prepared statement not found"),
        error(8113, "Schema change caused error"),
        error(8120, "can not get 'tikv' transaction start timestamp"),
        error(
            8253,
            "Query execution was interrupted, identified as runaway query",
        ),
        error(9006, "GC life time is shorter than transaction duration"),
        error(9008, "Store token is up to the limit"),
    ];
    run.store_through_errors(At::Rows, "reconnect", &rolled_back(&of_a_statement));
    let of_another = [
        error(8020, "Table 'eventlog' was locked in WRITE by server"),
        error(
            8229,
            "TTL manager has timed out, pessimistic locks may expire",
        ),
        error(8252, "Exceeded resource group quota limitation"),
    ];
    run.store_through_errors(At::Rows, "retry", &rolled_back(&of_another));
    run.end();
}
