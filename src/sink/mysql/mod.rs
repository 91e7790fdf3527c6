//! MySQL, MariaDB and other servers with their protocol: prepared multi-value inserts, one transaction per batch.

pub(crate) mod classify;
pub(crate) mod columns;
pub(crate) mod connect;
mod database_row;
pub mod panic_guard;
mod statement_size;

use std::ops::Range;
use std::time::Instant;

use mysql::prelude::Queryable;
use mysql::{Conn, Params, Statement, Value};

pub(crate) use self::classify::sink_error;
use self::classify::{Verdict, verdict};
pub(crate) use self::connect::connect;
use self::statement_size::{StatementSize, StatementSizes};
use super::{Checkpoint, Epoch, Fault, InsertTimes, Inserted, Refused, Sink, SinkError, Step};
use crate::event::batch::{BATCH_NAME_BYTES_MAX, Batch, BatchEvents};
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::event::rule::EventRule;
use crate::sink::dsn::MySqlTarget;

/// Placeholders of one row.
const PLACEHOLDERS_PER_ROW: usize = 3;

/// Bytes of a row in an EXECUTE without its name: two integers of 8, three types of 2, the length of
/// the name, and its part of the NULL bitmap.
const ROW_BYTES: usize = 8 + 8 + 3 * 2 + 3 + 1;

/// The placeholders of one row. The server converts the time to the session's time zone, as `NOW()` does.
pub(crate) const ROW: &str = "(FROM_UNIXTIME(?),?,?)";

/// Most memory for binding and sending one statement, in bytes: a value for each placeholder, a copy of each
/// name with the overhead of its allocation, and the packet, of which two copies may exist while it grows.
pub fn statement_bytes_max(events: BatchEvents) -> usize {
    const ALLOCATION_BYTES: usize = 32;
    let rows = events.get().min(statement_size::ROWS_MAX);
    let values = rows * (PLACEHOLDERS_PER_ROW * size_of::<Value>() + ALLOCATION_BYTES);
    values + 5 * BATCH_NAME_BYTES_MAX + 4 * rows * ROW_BYTES
}

/// One connection to a MySQL server.
pub struct MySqlSink {
    target: MySqlTarget,
    events_max: BatchEvents,
    session: Option<Session>,
}

/// A connection, with what was read and prepared on it.
struct Session {
    connection: Conn,
    event_rule: EventRule,
    sizes: StatementSizes,
    statements: Vec<Option<Statement>>,
    packet_bytes_max: usize,
    /// `None` until it is known.
    database: Option<DatabaseId>,
}

impl MySqlSink {
    /// A sink for batches of up to `events_max`. Does not connect yet.
    pub fn new(target: MySqlTarget, events_max: BatchEvents) -> Self {
        Self {
            target,
            events_max,
            session: None,
        }
    }

    fn session(&mut self) -> Result<&mut Session, SinkError> {
        let not_connected = || SinkError::Reconnect(Fault::new("not connected"));
        self.session.as_mut().ok_or_else(not_connected)
    }
}

impl Sink for MySqlSink {
    fn open(&mut self) -> Result<EventRule, SinkError> {
        if let Some(session) = &self.session {
            return Ok(session.event_rule);
        }
        let mut connection = connect::connect(&self.target)?;
        let event_rule = connect::find_table(&mut connection)?;
        connect::find_checkpoints(&mut connection)?;
        let packet_bytes_max = connect::packet_bytes_max(&mut connection, &self.target)?;
        let sizes = StatementSizes::new(self.events_max);
        let statements = vec![None; sizes.len()];
        let session = Session {
            connection,
            event_rule,
            sizes,
            statements,
            packet_bytes_max,
            database: None,
        };
        self.session = Some(session);
        Ok(event_rule)
    }

    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        let session = self.session()?;
        if session.database.is_none() {
            session.database = database_row::read(&mut session.connection)?;
        }
        Ok(session.database)
    }

    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError> {
        database_row::insert(&mut self.session()?.connection, id)?;
        self.database()?.ok_or_else(super::id_not_kept)
    }

    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError> {
        let session = self.session()?;
        session.database = None;
        database_row::replace(&mut session.connection, id)
    }

    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.session()?.database = None;
        self.database()
    }

    fn knows(&mut self, lane: LaneId) -> Result<bool, SinkError> {
        let query = format!("SELECT 1 FROM hakaru_checkpoint WHERE lane = '{lane}'");
        let connection = &mut self.session()?.connection;
        let row: Option<u8> = connection.query_first(query).map_err(sink_error)?;
        Ok(row.is_some())
    }

    fn adopt(&mut self, lane: LaneId, from: Position) -> Result<Checkpoint, SinkError> {
        let connection = &mut self.session()?.connection;
        // Two transactions. If they are repeated after a lost answer, the epoch increases twice, which is harmless.
        connection
            .query_drop(adopt_statement(lane, from))
            .map_err(sink_error)?;
        read_checkpoint(connection, lane)?.ok_or_else(|| {
            let text = format!("the checkpoint of lane {lane} was created and is missing");
            SinkError::Stop(Fault::new(text))
        })
    }

    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        let session = self.session()?;
        let mut times = InsertTimes::default();
        session
            .connection
            .query_drop("START TRANSACTION")
            .map_err(sink_error)?;
        if !session.take_step(step)? {
            let found = read_checkpoint(&mut session.connection, step.lane)?;
            session
                .connection
                .query_drop("ROLLBACK")
                .map_err(sink_error)?;
            return Ok(Inserted::CheckpointMismatch(found));
        }
        for rows in gaps(from..batch.len(), refused) {
            session.insert_rows(batch, rows, refused, &mut times)?;
        }
        Ok(Inserted::Open(times))
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        let committed = self.session()?.connection.query_drop("COMMIT");
        committed.map_err(classify::commit_error)
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        let connection = &mut self.session()?.connection;
        for write in PROBES {
            connection.query_drop(write).map_err(sink_error)?;
        }
        Ok(())
    }

    fn abandon(&mut self, fault: &SinkError) {
        let rolled_back = match (&mut self.session, fault) {
            (Some(session), SinkError::Retry(_)) => {
                session.connection.query_drop("ROLLBACK").is_ok()
            }
            _ => false,
        };
        if !rolled_back {
            self.session = None;
        }
    }
}

/// Writes that change nothing, but that a read-only server refuses, and any server if the user lacks the rights.
const PROBES: [&str; 2] = [
    "UPDATE hakaru_checkpoint SET position = position WHERE lane = ''",
    "INSERT INTO eventlog (at, name, value) SELECT NULL, '', 0 FROM DUAL WHERE FALSE",
];

/// Creates a lane's checkpoint, or increments its epoch.
pub(crate) fn adopt_statement(lane: LaneId, from: Position) -> String {
    format!(
        "INSERT INTO hakaru_checkpoint (lane, epoch, position) VALUES ('{lane}', 1, {}) \
         ON DUPLICATE KEY UPDATE epoch = epoch + 1",
        from.0
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
    } = step;
    format!(
        "UPDATE hakaru_checkpoint SET position = {} \
         WHERE lane = '{lane}' AND epoch = {} AND position = {}",
        new.0, epoch.0, old.0
    )
}

fn read_checkpoint(connection: &mut Conn, lane: LaneId) -> Result<Option<Checkpoint>, SinkError> {
    let query = checkpoint_query(lane);
    let found: Option<(u64, u64)> = connection.query_first(query).map_err(sink_error)?;
    Ok(found.map(|(epoch, position)| Checkpoint {
        epoch: Epoch(epoch),
        position: Position(position),
    }))
}

impl Session {
    /// Moves the checkpoint. `false`: it is not the one that the step expects. Waits for the row lock of a session
    /// that was lost during COMMIT.
    fn take_step(&mut self, step: Step) -> Result<bool, SinkError> {
        self.connection
            .query_drop(step_statement(step))
            .map_err(sink_error)?;
        Ok(self.connection.affected_rows() == 1)
    }

    /// Inserts `rows`. If the server refuses a row of a statement, tries its halves until the row is found.
    fn insert_rows(
        &mut self,
        batch: &Batch,
        rows: Range<usize>,
        refused: &mut Refused,
        times: &mut InsertTimes,
    ) -> Result<(), SinkError> {
        // Ranges to be inserted, the next one last. A statement that fails because of a row leaves the transaction
        // as it was before, so that its halves can be tried.
        let mut to_do = vec![rows];
        while let Some(rows) = to_do.pop() {
            if rows.is_empty() {
                continue;
            }
            let size = self.size_for(batch, &rows);
            let now = rows.start..rows.start + size.rows();
            to_do.push(now.end..rows.end);
            match self.execute(batch, now.clone(), size, times) {
                Ok(()) => {}
                Err(Verdict::RefusesRow(fault)) if size.rows() == 1 => {
                    refused.insert(now.start, fault);
                }
                Err(Verdict::RefusesRow(_)) => {
                    let middle = now.start + size.rows() / 2;
                    to_do.push(middle..now.end);
                    to_do.push(now.start..middle);
                }
                Err(Verdict::Ends(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// The largest statement of at most `rows` that fits into a packet.
    fn size_for(&self, batch: &Batch, rows: &Range<usize>) -> StatementSize {
        let mut size = self.sizes.fitting(rows.len());
        while size.rows() > 1 {
            let bytes = batch.name_bytes_of(rows.start..rows.start + size.rows());
            if bytes + size.rows() * ROW_BYTES <= self.packet_bytes_max {
                break;
            }
            size = self.sizes.below(size);
        }
        size
    }

    fn execute(
        &mut self,
        batch: &Batch,
        rows: Range<usize>,
        size: StatementSize,
        times: &mut InsertTimes,
    ) -> Result<(), Verdict> {
        let start = Instant::now();
        let statement = self.prepared(size)?;
        times.prepare += start.elapsed();

        let start = Instant::now();
        let executed = self
            .connection
            .exec_drop(&statement, bind(batch, rows.clone()));
        times.execute += start.elapsed();
        executed.map_err(verdict)?;
        self.check_rows(rows.len())
    }

    /// Checks that every row was inserted and none was altered.
    fn check_rows(&mut self, rows: usize) -> Result<(), Verdict> {
        // Read first: the next query overwrites it.
        let affected = self.connection.affected_rows();
        if self.connection.warnings() > 0 {
            let found: Vec<(String, i32, String)> =
                self.connection.query("SHOW WARNINGS").map_err(verdict)?;
            let altered = found.into_iter().find(|(level, code, _)| {
                level != "Note" && u16::try_from(*code).is_ok_and(classify::is_about_a_row)
            });
            if let Some((_, code, text)) = altered {
                // In strict mode the server refuses such a row. A trigger or a proxy may have left that mode.
                let text = format!("the server would alter a row: {text}");
                return Err(Verdict::Ends(SinkError::Stop(Fault::numbered(code, text))));
            }
        }
        if affected == rows as u64 {
            return Ok(());
        }
        let text = format!("{rows} rows were sent, but the server reports {affected} as inserted");
        Err(Verdict::Ends(SinkError::Stop(Fault::new(text))))
    }

    fn prepared(&mut self, size: StatementSize) -> Result<Statement, Verdict> {
        if let Some(statement) = &self.statements[size.index()] {
            return Ok(statement.clone());
        }
        let rows = vec![ROW; size.rows()].join(",");
        let text = format!("INSERT INTO eventlog (at, name, value) VALUES {rows}");
        let statement = self.connection.prep(text).map_err(verdict)?;
        self.statements[size.index()] = Some(statement.clone());
        Ok(statement)
    }
}

/// The parameters of the statement that inserts `rows` of `batch`: three per row: time, name, value.
pub fn bind(batch: &Batch, rows: Range<usize>) -> Params {
    let mut values = Vec::with_capacity(rows.len() * PLACEHOLDERS_PER_ROW);
    for event in rows.map(|index| batch.event(index)) {
        values.push(Value::UInt(event.received_at.seconds()));
        values.push(Value::Bytes(event.name.as_bytes().to_vec()));
        values.push(Value::UInt(u64::from(event.value)));
    }
    Params::Positional(values)
}

/// The ranges of `rows` between the refused ones.
fn gaps(rows: Range<usize>, refused: &Refused) -> Vec<Range<usize>> {
    let mut start = rows.start;
    let mut gaps = Vec::with_capacity(refused.len() + 1);
    let inside = refused.range(rows.clone()).map(|(&index, _)| index);
    for index in inside.chain([rows.end]) {
        gaps.push(start..index);
        start = index + 1;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_leave_out_what_was_refused() {
        let refused = |rows: &[usize]| rows.iter().map(|&row| (row, Fault::new(""))).collect();
        assert_eq!(gaps(0..4, &refused(&[])), vec![0..4]);
        assert_eq!(gaps(0..4, &refused(&[0, 2])), [0..0, 1..2, 3..4]);
        assert_eq!(gaps(0..4, &refused(&[3])), [0..3, 4..4]);
        assert_eq!(gaps(2..4, &refused(&[0, 1, 3])), [2..3, 4..4]);
    }
}
