//! A sink in memory that fails by script.

use super::*;
use crate::event::batch::Batch;
use crate::event::database_id::DatabaseId;
use crate::event::fingerprint::Fingerprint;
use crate::sink::sealed_copy::{Adoption, FoundCheckpoint};
use crate::sink::{Begin, FoundRow, Inserted, InsertedRows, Refused, Step};
use std::collections::{HashMap, VecDeque};

/// The call in which something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Open,
    Insert,
    Commit,
    /// A question about a row.
    Ask,
}

/// What happens in it.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Fail(SinkError),
    /// The COMMIT takes effect, and its answer is lost.
    LoseAnswer,
    /// The same, and somebody empties the table of checkpoints.
    LoseAnswerAndCheckpoints,
    /// The server is replaced by an empty one.
    Restore,
    /// Another process adopts the lane.
    Steal,
    /// The COMMIT fails, and a process that has the same memory stores so many others.
    StoreOthers(usize),
    /// The call succeeds.
    Nothing,
}

/// The content of the database, and how often a transaction was abandoned.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) id: Option<DatabaseId>,
    pub(super) rows: Vec<String>,
    /// The rows of checkpoints and of their copies.
    pub(super) checkpoints: HashMap<LaneId, Checkpoint>,
    /// The lane that was adopted last.
    pub(super) adopted: Option<LaneId>,
    pub(super) abandoned: usize,
    /// What a question about a row fails with.
    pub(super) unread: Option<SinkError>,
    /// How often a row was asked for.
    pub(super) asked: usize,
    /// The lane of which the answer to the next adoption is lost.
    pub(super) unanswered: Option<LaneId>,
    /// What somebody does to the rows before a step.
    pub(super) before_step: Option<Alteration>,
    /// The lane of which the next adoption does not happen.
    pub(super) unadopted: Option<LaneId>,
    /// Whether rows have ids, by which each is found.
    pub(super) has_ids: bool,
    /// Events whose ids the table has.
    pub(super) repeated: Vec<String>,
}

/// What somebody does to the rows before the step of a lane that begins at a position.
#[derive(Debug)]
pub(super) struct Alteration {
    pub(super) lane: LaneId,
    pub(super) at: Position,
    pub(super) alter: fn(&mut Database),
}

/// Stores rows in memory, fails by script, refuses names that start with `bad`.
pub(super) struct FaultInjector {
    database: Arc<Mutex<Database>>,
    script: VecDeque<(At, Act)>,
    inserted: Vec<String>,
    /// The index of the event that was inserted last.
    last: usize,
    step: Option<Step>,
}

pub(super) fn fault() -> Fault {
    Fault::new("injected")
}

impl FaultInjector {
    pub(super) fn new(database: &Arc<Mutex<Database>>, script: &[(At, Act)]) -> Self {
        Self {
            database: Arc::clone(database),
            script: script.iter().cloned().collect(),
            inserted: Vec::new(),
            last: 0,
            step: None,
        }
    }

    fn act(&mut self, at: At) -> Result<(), SinkError> {
        let is_next = self.script.front().is_some_and(|(next, _)| *next == at);
        let act = if is_next {
            self.script.pop_front().map_or(Act::Nothing, |(_, act)| act)
        } else {
            Act::Nothing
        };
        match act {
            Act::Nothing => Ok(()),
            Act::Fail(fault) => Err(fault),
            Act::LoseAnswer => {
                self.apply();
                Err(SinkError::OutcomeUnknown(fault()))
            }
            Act::LoseAnswerAndCheckpoints => {
                self.apply();
                self.database.lock().unwrap().checkpoints.clear();
                Err(SinkError::OutcomeUnknown(fault()))
            }
            Act::Restore => {
                let mut database = self.database.lock().unwrap();
                // To an earlier state of its own: it keeps its name.
                *database = Database {
                    id: database.id,
                    ..Database::default()
                };
                Err(SinkError::Reconnect(fault()))
            }
            Act::StoreOthers(events) => {
                let mut database = self.database.lock().unwrap();
                let lane = database.adopted.unwrap();
                let checkpoint = database.adopt(lane, Position::START.into()).checkpoint;
                let step = Step {
                    lane,
                    epoch: checkpoint.epoch,
                    old: checkpoint.position,
                    new: checkpoint.position.plus(events),
                    last: Fingerprint::from_bits(1 << 4),
                };
                database.checkpoints.insert(lane, step.checkpoint());
                database.checkpoints.insert(lane.complement(), step.copy());
                Err(SinkError::OutcomeUnknown(fault()))
            }
            Act::Steal => {
                let mut database = self.database.lock().unwrap();
                let lane = database.adopted.unwrap();
                database.adopt(lane, Position::START.into());
                Ok(())
            }
        }
    }

    /// What COMMIT does: moves the checkpoint and stores the inserted rows.
    fn apply(&mut self) {
        let mut database = self.database.lock().unwrap();
        let step = self.step.unwrap();
        database.rows.append(&mut self.inserted);
        let checkpoints = &mut database.checkpoints;
        checkpoints.insert(step.lane, step.checkpoint());
        checkpoints.insert(step.lane.complement(), step.copy());
    }
}

impl Database {
    fn adopt(&mut self, lane: LaneId, begin: Begin) -> FoundCheckpoint {
        self.adopted = Some(lane);
        let rows = &mut self.checkpoints;
        let row = rows.get(&lane).copied();
        let copy = rows.get(&lane.complement()).copied();
        let Adoption { found, copy } = Adoption::new(lane, begin, row, copy);
        rows.insert(lane, found.checkpoint);
        if let Some(copy) = copy {
            rows.insert(lane.complement(), copy);
        }
        found
    }
}

impl Sink for FaultInjector {
    fn open(&mut self) -> Result<EventRule, SinkError> {
        self.act(At::Open)?;
        Ok(EventRule::SQLITE)
    }

    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        Ok(self.database.lock().unwrap().id)
    }

    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError> {
        Ok(*self.database.lock().unwrap().id.get_or_insert(id))
    }

    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError> {
        self.database.lock().unwrap().id = Some(id);
        Ok(())
    }

    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.database()
    }

    fn checkpoint(&mut self, lane: LaneId) -> Result<Option<Checkpoint>, SinkError> {
        let database = self.database.lock().unwrap();
        Ok(database.checkpoints.get(&lane).copied())
    }

    fn look(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        let database = self.database.lock().unwrap();
        let row = |key: LaneId| database.checkpoints.get(&key).copied();
        Ok(Adoption::new(lane, begin, row(lane), row(lane.complement())).found)
    }

    fn adopt(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        let mut database = self.database.lock().unwrap();
        if database
            .unadopted
            .take_if(|unadopted| *unadopted == lane)
            .is_some()
        {
            return Err(SinkError::Reconnect(fault()));
        }
        let found = database.adopt(lane, begin);
        match database
            .unanswered
            .take_if(|unanswered| *unanswered == lane)
        {
            Some(_) => Err(SinkError::Reconnect(fault())),
            None => Ok(found),
        }
    }

    fn inserted_row(&self) -> Option<(usize, u64)> {
        let database = self.database.lock().unwrap();
        let id = database.rows.len() as u64;
        database.has_ids.then_some((self.last, id))
    }

    fn is_row_of(&mut self, id: u64, event: Event<'_>) -> Result<bool, SinkError> {
        self.act(At::Ask)?;
        let mut database = self.database.lock().unwrap();
        database.asked += 1;
        let row = usize::try_from(id - 1).unwrap();
        let row = database.rows.get(row).filter(|_| database.has_ids);
        let is_there = Ok(row.is_some_and(|row| row == event.name));
        database.unread.clone().map_or(is_there, Err)
    }

    fn has_row_after(&mut self, after: u64, event: Event<'_>) -> Result<FoundRow, SinkError> {
        let database = self.database.lock().unwrap();
        if database.repeated.iter().any(|name| name == event.name) {
            return Ok(FoundRow::Repeatable);
        }
        let after = usize::try_from(after).unwrap();
        let mut later = database.rows.iter().skip(after);
        let is_there = later.any(|row| row == event.name);
        Ok(FoundRow::by_content(database.has_ids.then_some(is_there)))
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        let is_now = |next: &mut Alteration| (next.lane, next.at) == (step.lane, step.old);
        {
            let mut database = self.database.lock().unwrap();
            if let Some(next) = database.before_step.take_if(is_now) {
                (next.alter)(&mut database);
            }
        }
        self.act(At::Insert)?;
        let database = self.database.lock().unwrap();
        let found = database.checkpoints.get(&step.lane).copied();
        let wanted = Checkpoint {
            epoch: step.epoch,
            position: step.old,
        };
        if found != Some(wanted) {
            return Ok(Inserted::CheckpointMismatch(found));
        }
        self.step = Some(step);
        for (index, event) in batch.events().enumerate().skip(from) {
            if event.name.starts_with("bad") {
                refused.insert(index, fault());
            } else if !refused.contains_key(&index) {
                self.inserted.push(event.name.to_owned());
                self.last = index;
            }
        }
        Ok(Inserted::Open(InsertedRows::default()))
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        self.act(At::Commit)?;
        self.apply();
        Ok(())
    }

    fn abandon(&mut self, _: &SinkError) {
        self.inserted.clear();
        self.database.lock().unwrap().abandoned += 1;
    }
}
