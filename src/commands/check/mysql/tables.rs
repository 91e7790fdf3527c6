//! Checks the two tables and the rights on them. Missing tables are not made, and no row stays.

use mysql::prelude::Queryable;

use super::Server;
use super::columns::{columns_of, judge};
use super::role::is_mariadb;
use crate::commands::check::{Observation, TAKES_NO_ROW};
use crate::event::UnixMillis;
use crate::event::position::{LaneId, Position};
use crate::event::rule::EventRule;
use crate::sink::mysql::checkpoint_rows::{
    adopt_statement, checkpoint_query, copy_statement, step_statement,
};
use crate::sink::mysql::classify::sink_error;
use crate::sink::mysql::trial::{TrialId, Tried};
use crate::sink::mysql::{ROW, columns, connect, trial};
use crate::sink::sealed_copy::EPOCH_END;
use crate::sink::{CREATE_CHECKPOINTS, DATABASE_ROW, Epoch, Fault, FaultKind, SinkError, Step};

/// Whether `eventlog` exists and can hold events.
pub(super) fn eventlog(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let found = columns_of(server)?;
    if found.is_empty() {
        return missing(server, "eventlog", connect::CREATE_TABLE);
    }
    connect::has_transactions(&mut server.connection, "eventlog")?;
    let rule = columns::event_rule(&mut server.connection)?;
    Ok(judge(&found, rule))
}

/// Whether hakaru may make a missing table, as it does at its start. The statement is prepared and not executed: a
/// server refuses to prepare a statement that the user may not execute.
fn missing(server: &mut Server<'_>, table: &str, create: &str) -> Result<Observation, SinkError> {
    let prepared = server.connection.prep(create).map_err(sink_error).map(drop);
    let found = Observation::new(match &prepared {
        Ok(()) => "missing; it will be made when hakaru starts".to_owned(),
        Err(fault) => format!("missing, or hidden from this user; it cannot be made: {fault}"),
    });
    // One line, to be pasted into a client.
    let create = create.split_whitespace().collect::<Vec<_>>().join(" ");
    let database = &server.target.database;
    match prepared {
        Ok(()) if is_mariadb(server)? => Ok(found),
        // MySQL checks the right to create only when it executes.
        Ok(()) => Ok(Observation::new("missing; it will be made when hakaru starts, if the user may CREATE").warning(
            format!("if the user may not, run as another user, in `{database}`: {create}"),
        )),
        Err(SinkError::Stop(_)) => Ok(found.error(format!(
            "run as another user, in `{database}`: {create}; {}; or: GRANT CREATE ON `{database}`.{table} TO {}",
            server.grants(),
            server.user
        ))),
        Err(other) => Err(other),
    }
}

/// Whether a row can be stored: inserts one and rolls it back. If the table is missing, checks whether an insert would
/// be allowed.
pub(super) fn insert(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let columns = columns_of(server)?;
    let insert = format!("INSERT INTO eventlog (at, name, value) VALUES {ROW}");
    if columns.is_empty() {
        return would_be_allowed(server, &[insert]);
    }
    if !is_transactional(server, "eventlog")? {
        return Ok(not_tried());
    }
    let rule = columns::event_rule(&mut server.connection)?.unwrap_or(EventRule::DEPLOYED);
    let now = UnixMillis::now().seconds();
    let connection = &mut server.connection;
    connection
        .query_drop("START TRANSACTION")
        .map_err(sink_error)?;
    let insert = connection.prep(insert).map_err(sink_error);
    let tried = insert
        .and_then(|insert| trial::try_rows(connection, &insert, now, (rule, TrialId::None), None));
    connection.query_drop("ROLLBACK").map_err(sink_error)?;
    match tried? {
        // A rollback does not give back the id, also not when a batch is tried again.
        Tried::Taken | Tried::TakenWithoutId => Ok(Observation::new(
            "a row was inserted and rolled back; its id is skipped",
        )),
        Tried::Refused(fault) => {
            Ok(Observation::new(format!("the table takes no row: {fault}")).error(TAKES_NO_ROW))
        }
    }
}

/// Whether a change of the table can be rolled back.
fn is_transactional(server: &mut Server<'_>, table: &str) -> Result<bool, SinkError> {
    match connect::has_transactions(&mut server.connection, table) {
        Err(fault) if fault.fault().kind == FaultKind::NoTransactions => Ok(false),
        asked => asked.map(|()| true),
    }
}

/// For a table without transactions.
fn not_tried() -> Observation {
    let found = Observation::new("not tried: the row could not be rolled back");
    found.warning("fix the table first")
}

/// Whether checkpoints can be kept.
pub(super) fn checkpoints(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    if !connect::has_checkpoints(&mut server.connection)? {
        return missing(server, "hakaru_checkpoint", CREATE_CHECKPOINTS);
    }
    connect::has_transactions(&mut server.connection, "hakaru_checkpoint")?;
    // Neither the id of the database nor the copies.
    let lanes: Option<u64> = server.first(&format!(
        "SELECT COUNT(*) FROM hakaru_checkpoint WHERE lane <> '{DATABASE_ROW}' AND epoch < {EPOCH_END}"
    ))?;
    Ok(Observation::new(format!(
        "{} lanes",
        lanes.unwrap_or_default()
    )))
}

/// Whether a checkpoint can be made, moved and read. Does so for a new lane, and rolls it back.
pub(super) fn step(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let lane = LaneId::random().map_err(|fault| {
        SinkError::Stop(Fault::new(format!("the kernel's randomness: {fault}")))
    })?;
    let step = Step {
        lane,
        epoch: Epoch(1),
        old: Position::START,
        new: Position(1),
        last: None,
    };
    let statements = [
        adopt_statement(lane, Position::START),
        checkpoint_query(lane),
        step_statement(step),
        copy_statement(lane, step.copy()),
    ];
    if !connect::has_checkpoints(&mut server.connection)? {
        return would_be_allowed(server, &statements);
    }
    if !is_transactional(server, "hakaru_checkpoint")? {
        return Ok(not_tried());
    }
    let connection = &mut server.connection;
    connection
        .query_drop("START TRANSACTION")
        .map_err(sink_error)?;
    let tried = statements
        .iter()
        .try_for_each(|statement| connection.query_drop(statement));
    connection.query_drop("ROLLBACK").map_err(sink_error)?;
    tried.map_err(sink_error)?;
    Ok(Observation::new(
        "a checkpoint was made, moved and read, and rolled back",
    ))
}

/// Whether statements on a missing table would be allowed. A server checks the rights before it checks that the table
/// exists.
fn would_be_allowed(
    server: &mut Server<'_>,
    statements: &[String],
) -> Result<Observation, SinkError> {
    const NO_SUCH_TABLE: i32 = 1146;
    for statement in statements {
        match server.connection.prep(statement).map_err(sink_error) {
            Err(fault) if fault.fault().code != Some(NO_SUCH_TABLE) => return Err(fault),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(Observation::new("allowed, once the table exists"))
}
