//! The two rows of a lane in the table of checkpoints: the checkpoint and its copy.
//!
//! Every transaction locks the checkpoint first and the copy after it.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::classify::sink_error;
use crate::event::position::{LaneId, Position};
use crate::sink::sealed_copy::{Adoption, EPOCH_END, FoundCheckpoint};
use crate::sink::{Begin, Checkpoint, Epoch, Fault, SinkError, Step};

/// Creates a lane's checkpoint, or increments its epoch.
pub(crate) fn adopt_statement(lane: LaneId, from: Position) -> String {
    // Where somebody has set all epochs to the greatest number, its successor would stop the writer.
    format!(
        "INSERT INTO hakaru_checkpoint (lane, epoch, position) VALUES ('{lane}', 1, {}) \
         ON DUPLICATE KEY UPDATE epoch = IF(epoch >= {}, 1, epoch + 1)",
        from.0,
        EPOCH_END - 1
    )
}

/// Reads a lane's checkpoint and locks the row. This waits for a COMMIT that is still under way; a plain read would
/// see the state before it.
pub(crate) fn checkpoint_query(lane: LaneId) -> String {
    format!("SELECT epoch, position FROM hakaru_checkpoint WHERE lane = '{lane}' FOR UPDATE")
}

/// Moves a checkpoint by compare-and-set.
pub(crate) fn step_statement(step: Step) -> String {
    let Step {
        lane,
        epoch,
        old,
        new,
        ..
    } = step;
    format!(
        "UPDATE hakaru_checkpoint SET position = {} \
         WHERE lane = '{lane}' AND epoch = {} AND position = {}",
        new.0, epoch.0, old.0
    )
}

/// Writes the copy of a lane's checkpoint, whether there is one or not.
pub(crate) fn copy_statement(lane: LaneId, copy: Checkpoint) -> String {
    let (epoch, position) = (copy.epoch.0, copy.position.0);
    format!(
        "INSERT INTO hakaru_checkpoint (lane, epoch, position) VALUES ('{}', {epoch}, {position}) \
         ON DUPLICATE KEY UPDATE epoch = {epoch}, position = {position}",
        lane.complement()
    )
}

/// Whether a lane's checkpoint has a copy, without a lock: where it is missing, a locked gap would keep others from adding
/// their lanes, and lead to deadlocks.
fn copy_is_there_query(lane: LaneId) -> String {
    let copy = lane.complement();
    format!("SELECT epoch, position FROM hakaru_checkpoint WHERE lane = '{copy}'")
}

/// Sets the epoch of a checkpoint that was made anew.
fn epoch_statement(lane: LaneId, epoch: Epoch) -> String {
    let epoch = epoch.0;
    format!("UPDATE hakaru_checkpoint SET epoch = {epoch} WHERE lane = '{lane}'")
}

/// Reads the checkpoint of a lane, or its copy, and locks it.
pub(super) fn read_locked(
    connection: &mut Conn,
    lane: LaneId,
) -> Result<Option<Checkpoint>, SinkError> {
    query(connection, &checkpoint_query(lane))
}

fn query(connection: &mut Conn, query: &str) -> Result<Option<Checkpoint>, SinkError> {
    let found: Option<(u64, u64)> = connection.query_first(query).map_err(sink_error)?;
    Ok(found.map(|(epoch, position)| Checkpoint {
        epoch: Epoch(epoch),
        position: Position(position),
    }))
}

/// What [`adopt`] would find.
pub(super) fn look(
    connection: &mut Conn,
    lane: LaneId,
    begin: Begin,
) -> Result<FoundCheckpoint, SinkError> {
    let row = read_locked(connection, lane)?;
    let copy = read_locked(connection, lane.complement())?;
    Ok(Adoption::new(lane, begin, row, copy).found)
}

/// Makes this process the owner of a lane. If it is repeated after a lost answer, the epoch increases twice: it says who may
/// store, and not how often a lane was taken over.
pub(super) fn adopt(
    connection: &mut Conn,
    lane: LaneId,
    begin: Begin,
) -> Result<FoundCheckpoint, SinkError> {
    let run = |connection: &mut Conn, statement: &str| {
        connection.query_drop(statement).map_err(sink_error)
    };
    run(connection, "START TRANSACTION")?;
    run(connection, &adopt_statement(lane, begin.position))?;
    let is_new = connection.affected_rows() == 1;
    let raised = read_locked(connection, lane)?.ok_or_else(|| {
        let text = format!("the checkpoint of lane {lane} was created and is missing");
        SinkError::Stop(Fault::new(text))
    })?;
    let row = (!is_new).then_some(Checkpoint {
        epoch: Epoch(raised.epoch.0.saturating_sub(1)),
        ..raised
    });
    let copy = match query(connection, &copy_is_there_query(lane))? {
        // A plain read may be that of an earlier snapshot, or of a replica.
        Some(_) => read_locked(connection, lane.complement())?,
        None => None,
    };
    let Adoption { found, copy } = Adoption::new(lane, begin, row, copy);
    if found.checkpoint.epoch != raised.epoch {
        run(connection, &epoch_statement(lane, found.checkpoint.epoch))?;
    }
    if let Some(copy) = copy {
        run(connection, &copy_statement(lane, copy))?;
    }
    run(connection, "COMMIT")?;
    Ok(found)
}

/// Moves the checkpoint and its copy. `false`: the checkpoint is not the one that the step expects. Waits for the row
/// lock of a session that was lost during COMMIT.
pub(super) fn take_step(connection: &mut Conn, step: Step) -> Result<bool, SinkError> {
    connection
        .query_drop(step_statement(step))
        .map_err(sink_error)?;
    if connection.affected_rows() != 1 {
        return Ok(false);
    }
    connection
        .query_drop(copy_statement(step.lane, step.copy()))
        .map_err(sink_error)?;
    Ok(true)
}
