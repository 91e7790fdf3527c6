//! The sink of a simulated process: calls to the database that may be lost on the way there or back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::database::{Database, EventId, Row, Server, SessionId};
use crate::event::Event;
use crate::event::batch::Batch;
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::event::rule::{EventRule, Ids};
use crate::os::reached::reached;
use crate::os::simulated::{self, Pause, pause, set_busy};
use crate::sink::sealed_copy::{Adoption, FoundCheckpoint};
use crate::sink::{
    Begin, Checkpoint, Fault, FoundRow, Inserted, InsertedRows, Refused, Sink, SinkError, Step,
};

/// How long a statement waits for a row lock (`innodb_lock_wait_timeout`).
const LOCK_WAIT: Duration = Duration::from_secs(50);

/// How often it looks whether the lock is free.
const LOCK_POLL: Duration = Duration::from_secs(1);

/// Names that begin so are refused by the table.
pub(super) const REFUSED_PREFIX: &str = "bad";

/// A connection of one writer.
#[derive(Debug)]
pub(super) struct SimulatedSink {
    database: Database,
    session: Option<SessionId>,
    /// The id that was read on this connection.
    id: Option<DatabaseId>,
    inserted: Option<(usize, u64)>,
}

/// What the loss of a connection before a statement arrives, and before its answer does, is counted as.
macro_rules! losses {
    ($statement:literal) => {
        [
            concat!("database: connection lost before ", $statement),
            concat!("database: connection lost after ", $statement),
        ]
    };
}

fn lost() -> SinkError {
    SinkError::Reconnect(Fault::new("the connection was lost"))
}

impl SimulatedSink {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            session: None,
            id: None,
            inserted: None,
        }
    }

    /// Runs a statement. The connection may be lost before it arrives, and before its answer does. `losses` are what these
    /// are counted as.
    fn call<T>(
        &mut self,
        losses: [&'static str; 2],
        statement: impl FnOnce(&mut Server, SessionId) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        pause(Pause::Step);
        set_busy();
        let session = self.session.ok_or_else(lost)?;
        let database = self.database.clone();
        let mut server = database.server();
        if !server.has(session) {
            reached("database: its session is gone");
            return Err(lost());
        }
        if server.loses() {
            reached(losses[0]);
            server.orphan(session, false);
            return Err(lost());
        }
        let done = statement(&mut server, session)?;
        if server.loses() {
            reached(losses[1]);
            server.orphan(session, false);
            return Err(lost());
        }
        Ok(done)
    }

    /// Waits until no other session has locked a lane's checkpoint.
    fn wait_for_lock(&mut self, lane: LaneId) -> Result<(), SinkError> {
        self.wait_while(|server, session| server.is_locked(lane, session))
    }

    /// Waits until no other session holds this.
    fn wait_while(
        &mut self,
        is_locked: impl Fn(&Server, SessionId) -> bool,
    ) -> Result<(), SinkError> {
        let Some(now) = simulated::now() else {
            return Ok(());
        };
        let until = now + LOCK_WAIT;
        loop {
            let session = self.session.ok_or_else(lost)?;
            if !is_locked(&self.database.server(), session) {
                return Ok(());
            }
            let now = simulated::now().unwrap_or(until);
            if now >= until {
                reached("database: waited too long for a lock");
                return Err(SinkError::Retry(Fault::numbered(1205, "lock wait")));
            }
            reached("database: waits for a lock");
            pause(Pause::Wait(Some(now + LOCK_POLL)));
        }
    }
}

/// The ids of the events of a batch, from this one on.
fn ids_of(batch: &Batch, from: usize) -> BTreeSet<&str> {
    let events = (from..batch.len()).map(|index| batch.event(index));
    events
        .filter_map(|event| event.id.map(|id| id.as_str()))
        .collect()
}

fn may_write(server: &Server) -> Result<(), SinkError> {
    if server.faults.is_read_only {
        reached("database: read only");
        return Err(SinkError::Reconnect(Fault::numbered(1290, "read only")));
    }
    Ok(())
}

fn row(event: Event<'_>, (lane, position): (LaneId, Position)) -> Row {
    Row {
        event: EventId {
            lane,
            value: event.value,
            received_at: event.received_at,
            position,
            has_id: event.id.is_some(),
        },
        at: event.received_at.seconds(),
        name: event.name.to_owned(),
        value: event.value,
        id: event.id.map(|id| id.as_str().to_owned()),
    }
}

impl Sink for SimulatedSink {
    fn open(&mut self) -> Result<EventRule, SinkError> {
        if self.session.is_none() {
            pause(Pause::Step);
            set_busy();
            self.id = None;
            self.session = self.database.server().connect();
        }
        let Some(session) = self.session else {
            reached("database: cannot be reached");
            return Err(lost());
        };
        if !self.database.server().has(session) {
            return Err(lost());
        }
        Ok(EventRule {
            ids: Ids::Stored,
            ..EventRule::SQLITE
        })
    }

    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        if self.id.is_none() {
            self.id = self.call(losses!("the id is read"), |server, _| Ok(server.content.id))?;
        }
        Ok(self.id)
    }

    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError> {
        let id = self.call(losses!("the id is written"), |server, _| {
            may_write(server)?;
            Ok(*server.content.id.get_or_insert(id))
        })?;
        self.id = Some(id);
        Ok(id)
    }

    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError> {
        self.call(losses!("the id is put back"), |server, _| {
            may_write(server)?;
            server.content.id = Some(id);
            Ok(())
        })?;
        self.id = Some(id);
        Ok(())
    }

    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.id = None;
        self.database()
    }

    fn checkpoint(&mut self, lane: LaneId) -> Result<Option<Checkpoint>, SinkError> {
        self.call(losses!("a checkpoint is read"), |server, _| {
            Ok(server.content.checkpoints.get(&lane).copied())
        })
    }

    fn look(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        self.call(losses!("a checkpoint is read"), |server, _| {
            let row = |key: LaneId| server.content.checkpoints.get(&key).copied();
            Ok(Adoption::new(lane, begin, row(lane), row(lane.complement())).found)
        })
    }

    fn adopt(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        self.wait_for_lock(lane)?;
        self.call(losses!("a lane is taken over"), |server, session| {
            may_write(server)?;
            if server.is_locked(lane, session) {
                reached("database: deadlock");
                return Err(SinkError::Retry(Fault::numbered(1213, "deadlock")));
            }
            let rows = &mut server.content.checkpoints;
            let row = rows.get(&lane).copied();
            let copy = rows.get(&lane.complement()).copied();
            let Adoption { found, copy } = Adoption::new(lane, begin, row, copy);
            rows.insert(lane, found.checkpoint);
            rows.extend(copy.map(|copy| (lane.complement(), copy)));
            Ok(found)
        })
    }

    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        self.inserted = None;
        let ids = ids_of(batch, from);
        self.wait_while(|server, session| {
            server.is_locked(step.lane, session) || server.is_inserting(&ids, session)
        })?;
        let (inserted, row) = self.call(losses!("rows are inserted"), |server, session| {
            may_write(server)?;
            if server.is_locked(step.lane, session) || server.is_inserting(&ids, session) {
                reached("database: deadlock");
                return Err(SinkError::Retry(Fault::numbered(1213, "deadlock")));
            }
            let found = server.content.checkpoints.get(&step.lane).copied();
            let expected = Checkpoint {
                epoch: step.epoch,
                position: step.old,
            };
            if found != Some(expected) {
                reached("database: the checkpoint is another");
                return Ok((Inserted::CheckpointMismatch(found), None));
            }
            if server.faults.refuses_all && from < batch.len() {
                reached("database: the table refuses all rows");
                return Err(SinkError::Stop(Fault::numbered(
                    1526,
                    "no partition for it",
                )));
            }
            let (mut rows, mut first, mut duplicates) = (Vec::<Row>::new(), None, 0);
            for index in from..batch.len() {
                let event = batch.event(index);
                if event.name.starts_with(REFUSED_PREFIX) && !server.takes_refused(event.value) {
                    reached("database: a row is refused");
                    refused
                        .entry(index)
                        .or_insert(Fault::numbered(3819, "a check is violated"));
                } else if refused.contains_key(&index) {
                    continue;
                } else if event.id.is_some_and(|id| {
                    let id = id.as_str();
                    server.has_row_with(id) || rows.iter().any(|row| row.has_id(id))
                }) {
                    reached("database: a row is a duplicate");
                    duplicates += 1;
                } else {
                    first.get_or_insert(index);
                    let after = (batch.len() - index) as u64;
                    rows.push(row(event, (step.lane, Position(step.new.0 - after))));
                }
            }
            let id = server.begin(session, step, rows);
            let rows = InsertedRows {
                duplicates,
                ..InsertedRows::default()
            };
            // Where some are duplicates, it is not known which rows are new.
            let first = first.filter(|_| duplicates == 0);
            Ok((Inserted::Open(rows), first.zip(id)))
        })?;
        self.inserted = row;
        Ok(inserted)
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        pause(Pause::Step);
        set_busy();
        let unknown = || SinkError::OutcomeUnknown(Fault::new("the answer to COMMIT was lost"));
        let session = self.session.ok_or_else(lost)?;
        let mut server = self.database.server();
        if !server.has(session) {
            reached("database: its session is gone at COMMIT");
            return Err(unknown());
        }
        if server.loses() {
            server.orphan(session, true);
            return Err(unknown());
        }
        server.commit(session);
        if server.loses() {
            reached("database: COMMIT takes effect, its answer is lost");
            server.orphan(session, false);
            return Err(unknown());
        }
        Ok(())
    }

    fn inserted_row(&self) -> Option<(usize, u64)> {
        self.inserted
    }

    fn is_row_of(&mut self, id: u64, event: Event<'_>) -> Result<bool, SinkError> {
        self.call(losses!("a row is asked for"), |server, _| {
            Ok({
                let row = server.content.rows.get(&id);
                let has_id = |row: &Row| {
                    let id = event.id.map(|id| id.as_str());
                    row.id.is_none() || id.is_none_or(|id| row.has_id(id))
                };
                row.is_some_and(|row| row.is_equal(event) && has_id(row))
            })
        })
    }

    fn has_row_after(&mut self, after: u64, event: Event<'_>) -> Result<FoundRow, SinkError> {
        self.call(losses!("a row is searched"), |server, _| {
            if event.id.is_some_and(|id| server.has_row_with(id.as_str())) {
                reached("database: a row has the id of an event that is searched");
                return Ok(FoundRow::Repeatable);
            }
            let mut rows = server.content.rows.range(after.saturating_add(1)..);
            let is_there = rows
                .any(|(_, row)| row.is_equal(event) && (event.id.is_none() || row.id.is_none()));
            Ok(FoundRow::by_content(Some(is_there)))
        })
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.call(losses!("a probe"), |server, _| may_write(server))
    }

    fn abandon(&mut self, fault: &SinkError) {
        let Some(session) = self.session else { return };
        let mut server = self.database.server();
        if matches!(fault, SinkError::Retry(_)) {
            server.roll_back(session);
        } else {
            self.session = None;
            self.id = None;
            // Where it was not lost, the server is told.
            if matches!(fault, SinkError::Stop(_)) {
                server.close(session);
            } else {
                server.orphan(session, false);
            }
        }
    }
}

impl Drop for SimulatedSink {
    /// The process has ended: the server notices that its connections are closed, at once or later.
    fn drop(&mut self) {
        if let Some(session) = self.session {
            let mut server = self.database.server();
            if server.random.bool() {
                server.close(session);
            } else {
                server.orphan(session, false);
            }
        }
    }
}
