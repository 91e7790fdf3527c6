//! The two rows of a lane in the table of checkpoints: the checkpoint and its copy.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::signed;
use crate::event::position::{LaneId, Position};
use crate::sink::sealed_copy::{Adoption, FoundCheckpoint};
use crate::sink::{Begin, Checkpoint, Epoch, Step};

/// Reads a row.
pub(super) const READ: &str = "SELECT epoch, position FROM hakaru_checkpoint WHERE lane = ?1";

/// Writes a row, whether there is one or not.
pub(crate) const WRITE: &str = "
    INSERT INTO hakaru_checkpoint (lane, epoch, position) VALUES (?1, ?2, ?3)
    ON CONFLICT (lane) DO UPDATE SET epoch = excluded.epoch, position = excluded.position";

/// Moves a checkpoint by compare-and-set.
const STEP: &str = "
    UPDATE hakaru_checkpoint SET position = ?1 WHERE lane = ?2 AND epoch = ?3 AND position = ?4";

/// The checkpoint of a lane.
pub(super) fn read(connection: &Connection, lane: LaneId) -> Result<Option<Checkpoint>> {
    let row = connection.query_row(READ, params![lane.to_string()], read_checkpoint);
    row.optional()
}

fn adoption(connection: &Connection, lane: LaneId, begin: Begin) -> Result<Adoption> {
    let row = read(connection, lane)?;
    let copy = connection
        .query_row(READ, params![lane.complement().to_string()], read_copy)
        .optional()?;
    Ok(Adoption::new(lane, begin, row, copy))
}

/// What [`adopt`] would find.
pub(super) fn look(connection: &Connection, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint> {
    Ok(adoption(connection, lane, begin)?.found)
}

/// Makes this process the owner of a lane.
pub(super) fn adopt(
    connection: &Connection,
    lane: LaneId,
    begin: Begin,
) -> Result<FoundCheckpoint> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let Adoption { found, copy } = adoption(connection, lane, begin)?;
    let Checkpoint { epoch, position } = found.checkpoint;
    let row = params![lane.to_string(), signed(epoch.0), signed(position.0)];
    connection.prepare_cached(WRITE)?.execute(row)?;
    if let Some(copy) = copy {
        write_copy(connection, lane, copy)?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(found)
}

/// Moves the checkpoint and its copy, in the open transaction. `false`: the checkpoint is not the one that the step
/// expects.
pub(super) fn take_step(connection: &Connection, step: Step) -> Result<bool> {
    let lane = step.lane.to_string();
    let (old, new) = (signed(step.old.0), signed(step.new.0));
    let parameters = params![new, lane, signed(step.epoch.0), old];
    let moved = connection.prepare_cached(STEP)?.execute(parameters)?;
    if moved != 1 {
        return Ok(false);
    }
    write_copy(connection, step.lane, step.copy())?;
    Ok(true)
}

fn write_copy(connection: &Connection, lane: LaneId, copy: Checkpoint) -> Result<()> {
    let lane = lane.complement().to_string();
    // All of its bits are used: half of all copies have a negative number.
    let epoch = copy.epoch.0.cast_signed();
    let row = params![lane, epoch, signed(copy.position.0)];
    connection.prepare_cached(WRITE)?.execute(row).map(drop)
}

fn read_checkpoint(row: &Row<'_>) -> Result<Checkpoint> {
    let number = |index: usize| row.get::<_, i64>(index).map(i64::unsigned_abs);
    Ok(Checkpoint {
        epoch: Epoch(number(0)?),
        position: Position(number(1)?),
    })
}

fn read_copy(row: &Row<'_>) -> Result<Checkpoint> {
    let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    Ok(Checkpoint {
        epoch: Epoch(number(0)?),
        position: Position(number(1)?),
    })
}
