//! A writer over a sink that fails as it is told to.

use super::*;
use crate::batch::{Batch, BatchEvents};
use crate::event::{Event, NameRule};
use crate::handoff::{self, Handoff};
use crate::sink::Epoch;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

/// Where a scripted fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Open,
    Insert,
    Commit,
}

/// What the database holds, and what it was asked.
#[derive(Debug, Default)]
struct Database {
    rows: Vec<String>,
    checkpoints: HashMap<LaneId, Checkpoint>,
    abandoned: usize,
}

/// Keeps rows in memory, fails by script, refuses names that start with `bad`.
struct FaultInjector {
    database: Arc<Mutex<Database>>,
    script: VecDeque<(At, SinkError)>,
    inserted: Vec<String>,
    step: Option<Step>,
    committed_in_spite: bool,
}

impl FaultInjector {
    fn fails(&mut self, at: At) -> Result<(), SinkError> {
        match self.script.front() {
            Some((place, _)) if *place == at => Err(self.script.pop_front().unwrap().1),
            _ => Ok(()),
        }
    }
}

impl Sink for FaultInjector {
    fn open(&mut self) -> Result<NameRule, SinkError> {
        self.fails(At::Open)?;
        Ok(NameRule::SQLITE)
    }

    fn adopt(&mut self, lane: LaneId) -> Result<Checkpoint, SinkError> {
        let checkpoints = &mut self.database.lock().unwrap().checkpoints;
        let new = Checkpoint {
            epoch: Epoch(0),
            position: Position::START,
        };
        let checkpoint = checkpoints.entry(lane).or_insert(new);
        checkpoint.epoch.0 += 1;
        Ok(*checkpoint)
    }

    fn ping(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn insert(
        &mut self,
        batch: &Batch,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        self.fails(At::Insert)?;
        let found = self
            .database
            .lock()
            .unwrap()
            .checkpoints
            .get(&step.lane)
            .copied();
        if found
            != Some(Checkpoint {
                epoch: step.epoch,
                position: step.old,
            })
        {
            return Ok(Inserted::Elsewhere(found));
        }
        self.step = Some(step);
        for (index, event) in batch.events().enumerate() {
            if event.name.starts_with("bad") {
                refused.insert(
                    index,
                    Fault {
                        code: Some(1366),
                        text: "no".to_owned(),
                    },
                );
            } else {
                self.inserted.push(event.name.to_owned());
            }
        }
        Ok(Inserted::Open(InsertTimes::default()))
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        let outcome = self.fails(At::Commit);
        if outcome.is_ok() || self.committed_in_spite {
            let mut database = self.database.lock().unwrap();
            let step = self.step.unwrap();
            database.rows.append(&mut self.inserted);
            database.checkpoints.insert(
                step.lane,
                Checkpoint {
                    epoch: step.epoch,
                    position: step.new,
                },
            );
        }
        outcome
    }

    fn abandon(&mut self, _: &SinkError) {
        self.inserted.clear();
        self.database.lock().unwrap().abandoned += 1;
    }
}

struct Outcome {
    rows: Vec<String>,
    abandoned: usize,
    stored: u64,
    dead_lettered: u64,
    letters: usize,
}

/// Stores one batch of `names` through a sink that fails as `script` says.
fn store(names: &[&str], script: Vec<(At, SinkError)>, committed_in_spite: bool) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let database = Arc::new(Mutex::new(Database::default()));
    let counters = Arc::new(WriterCounters::default());
    let writer = Writer {
        index: 0,
        sink: Box::new(FaultInjector {
            database: Arc::clone(&database),
            script: script.into(),
            inserted: Vec::new(),
            step: None,
            committed_in_spite,
        }),
        dead_letters: Arc::new(DeadLetters::new(directory.path())),
        name_rule: Arc::new(SharedNameRule::new(NameRule::DEPLOYED)),
        counters: Arc::clone(&counters),
        batch_events: BatchEvents::new(100).unwrap(),
        recoveries: sync_channel(1).1,
        draining: Arc::default(),
    };
    let (to_writer, inbox) = handoff::inbox(1);
    let mut handoff = Handoff::new(to_writer, BatchEvents::new(100).unwrap());
    let mut batch = handoff.empty_batch().unwrap();
    for name in names {
        batch
            .push(Event {
                name,
                value: 1,
                received_at: UnixMillis(0),
            })
            .unwrap();
    }
    let lane = Arc::new(LaneHandle::in_memory());
    let home = handoff.home();
    handoff
        .send(Work::new(batch, Position::START, lane, home))
        .unwrap();
    drop(handoff);
    let (ready, _is_ready) = sync_channel(1);
    writer.run(&inbox, &ready);
    let letters = std::fs::read_to_string(directory.path().join(crate::dead_letters::FILE_NAME));
    let database = Arc::into_inner(database).unwrap().into_inner().unwrap();
    Outcome {
        rows: database.rows,
        abandoned: database.abandoned,
        stored: counters.stored.get(),
        dead_lettered: counters.dead_lettered.get(),
        letters: letters.map_or(0, |text| text.lines().count()),
    }
}

fn fault() -> Fault {
    Fault {
        code: None,
        text: "injected".to_owned(),
    }
}

#[test]
fn every_kind_of_failure_ends_with_the_batch_stored_once() {
    for error in [
        SinkError::Retry(fault()),
        SinkError::Reconnect(fault()),
        SinkError::Stop(fault()),
    ] {
        for at in [At::Open, At::Insert, At::Commit] {
            let outcome = store(&["a", "b"], vec![(at, error.clone())], false);
            assert_eq!(outcome.rows, ["a", "b"], "{error:?} {at:?}");
            assert_eq!(
                (outcome.stored, outcome.abandoned),
                (2, 1),
                "{error:?} {at:?}"
            );
        }
    }
}

#[test]
fn an_unknown_outcome_is_settled_by_the_checkpoint() {
    for committed_in_spite in [false, true] {
        let script = vec![(At::Commit, SinkError::OutcomeUnknown(fault()))];
        let outcome = store(&["a", "bad", "b"], script, committed_in_spite);
        assert_eq!(outcome.rows, ["a", "b"], "committed: {committed_in_spite}");
        assert_eq!(
            (outcome.stored, outcome.dead_lettered, outcome.letters),
            (2, 1, 1)
        );
    }
}

#[test]
fn refused_events_are_dead_lettered_once_over_many_attempts() {
    let script = vec![
        (At::Commit, SinkError::Retry(fault())),
        (At::Insert, SinkError::Reconnect(fault())),
        (At::Commit, SinkError::Retry(fault())),
    ];
    let outcome = store(&["a", "bad", "b", "bad too"], script, false);
    assert_eq!(outcome.rows, ["a", "b"]);
    assert_eq!(
        (outcome.stored, outcome.dead_lettered, outcome.letters),
        (2, 2, 2)
    );
}
