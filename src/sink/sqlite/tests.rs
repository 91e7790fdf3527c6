//! A sink on a SQLite file. The tests read the file through a second connection.

use super::*;
use crate::event::batch::BatchEvents;
use crate::event::position::Position;
use crate::event::{Event, UnixMillis};
use crate::sink::sealed_copy::SealedCopy;
use crate::sink::{Checkpoint, Epoch};

fn batch(names: &[&str]) -> Batch {
    let mut batch = Batch::new(BatchEvents::new(100).unwrap());
    for (value, name) in (0..).zip(names) {
        let received_at = UnixMillis(1_700_000_000_123);
        batch
            .push(Event {
                name,
                value,
                received_at,
                id: None,
            })
            .unwrap();
    }
    batch
}

/// A sink on a file of its own, and a second connection to the file.
struct Bench {
    sink: SqliteSink,
    other: Connection,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// On a file on which `sql` ran before.
    fn on(sql: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eventlog.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch(sql).unwrap();
        let mut sink = SqliteSink::new(path);
        sink.open().unwrap();
        Self {
            sink,
            other,
            _directory: directory,
        }
    }

    /// On an empty file.
    fn new() -> Self {
        Self::on("")
    }

    /// With `sql` run on the tables that the sink has made.
    fn with(sql: &str) -> Self {
        let bench = Self::new();
        bench.other.execute_batch(sql).unwrap();
        bench
    }

    /// Inserts events with these names, without the first `skip`, in a new lane.
    fn insert(
        &mut self,
        names: &[&str],
        skip: usize,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        insert(&mut self.sink, names, skip, refused)
    }

    /// Stores events with these names. Returns those that were refused.
    fn store(&mut self, names: &[&str]) -> Refused {
        let mut refused = Refused::new();
        let inserted = self.insert(names, 0, &mut refused);
        assert!(matches!(inserted, Ok(Inserted::Open(_))), "{inserted:?}");
        self.sink.commit().unwrap();
        refused
    }

    fn rows(&self) -> Vec<(String, String, u32)> {
        rows(&self.other)
    }

    fn names(&self) -> Vec<String> {
        self.rows().into_iter().map(|(_, name, _)| name).collect()
    }

    fn values(&self) -> Vec<u32> {
        self.rows().into_iter().map(|(_, _, value)| value).collect()
    }
}

fn insert(
    sink: &mut SqliteSink,
    names: &[&str],
    skip: usize,
    refused: &mut Refused,
) -> Result<Inserted, SinkError> {
    let lane = LaneId::random().unwrap();
    let Checkpoint { epoch, position } =
        sink.adopt(lane, Position::START.into()).unwrap().checkpoint;
    let (old, new) = (position, position.plus(names.len() - skip));
    let step = Step {
        lane,
        epoch,
        old,
        new,
        last: None,
    };
    sink.insert(&batch(names), skip, step, refused)
}

fn indices(refused: &Refused) -> Vec<usize> {
    refused.keys().copied().collect()
}

#[test]
fn the_stored_part_of_a_batch_is_left_out() {
    let mut bench = Bench::new();
    let inserted = bench.insert(&["a", "b"], 1, &mut Refused::new());
    assert!(matches!(inserted, Ok(Inserted::Open(_))));
    bench.sink.commit().unwrap();
    assert_eq!(bench.names(), ["b"]);
}

#[test]
fn a_step_is_taken_once_and_only_by_the_owner() {
    let Bench {
        mut sink,
        _directory,
        ..
    } = Bench::new();
    let lane = LaneId::random().unwrap();
    let first = sink.adopt(lane, Position::START.into()).unwrap().checkpoint;
    assert_eq!(
        first,
        Checkpoint {
            epoch: Epoch(1),
            position: Position::START
        }
    );
    let step = Step {
        lane,
        epoch: first.epoch,
        old: Position(0),
        new: Position(1),
        last: None,
    };
    let store = |sink: &mut SqliteSink, step| {
        let inserted = sink
            .insert(&batch(&["a"]), 0, step, &mut Refused::new())
            .unwrap();
        if let Inserted::Open(_) = inserted {
            sink.commit().unwrap();
            return None;
        }
        Some(inserted)
    };
    assert!(store(&mut sink, step).is_none());
    let Some(Inserted::CheckpointMismatch(Some(found))) = store(&mut sink, step) else {
        panic!()
    };
    assert_eq!(
        found,
        Checkpoint {
            epoch: Epoch(1),
            position: Position(1)
        }
    );
    let second = sink.adopt(lane, Position::START.into()).unwrap().checkpoint;
    assert_eq!(
        second,
        Checkpoint {
            epoch: Epoch(2),
            position: Position(1)
        }
    );
    let old_owner = Step {
        old: Position(1),
        new: Position(2),
        ..step
    };
    assert!(store(&mut sink, old_owner).is_some());
    assert!(
        store(
            &mut sink,
            Step {
                epoch: second.epoch,
                ..old_owner
            }
        )
        .is_none()
    );
}

fn rows(connection: &Connection) -> Vec<(String, String, u32)> {
    let mut statement = connection
        .prepare("SELECT at, name, value FROM eventlog ORDER BY id")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn stores_a_batch_and_abandons_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/eventlog.db");
    let mut sink = SqliteSink::new(path.clone());
    assert_eq!(sink.open(), Ok(EventRule::SQLITE));
    let insert = |sink: &mut SqliteSink, names: &[&str]| {
        let inserted = insert(sink, names, 0, &mut Refused::new());
        assert!(matches!(inserted, Ok(Inserted::Open(_))));
    };
    insert(&mut sink, &["open", "😀"]);
    sink.commit().unwrap();
    insert(&mut sink, &["lost"]);
    sink.abandon(&SinkError::Stop(Fault::new("")));
    let stored = rows(&Connection::open(&path).unwrap());
    let at = "2023-11-14 22:13:20".to_owned();
    assert_eq!(
        stored,
        [(at.clone(), "open".to_owned(), 0), (at, "😀".to_owned(), 1)]
    );
}

#[test]
fn a_refused_row_does_not_prevent_the_others() {
    let mut bench = Bench::with(
        "CREATE TRIGGER poison BEFORE INSERT ON eventlog WHEN NEW.name = 'bad'
         BEGIN SELECT RAISE(ABORT, 'no bad names'); END",
    );
    let refused = bench.store(&["a", "bad", "b"]);
    assert_eq!(indices(&refused), [1]);
    assert!(refused[&1].text.contains("no bad names"), "{refused:?}");
    assert_eq!(bench.names(), ["a", "b"]);
}

#[test]
fn a_table_that_takes_no_row_stops_storing_and_refuses_none() {
    for refuses_all in [
        "CREATE TRIGGER closed BEFORE INSERT ON eventlog BEGIN SELECT RAISE(ABORT, 'closed'); END",
        "CREATE TRIGGER closed BEFORE INSERT ON eventlog BEGIN SELECT RAISE(ROLLBACK, 'closed'); END",
        "CREATE TRIGGER closed BEFORE INSERT ON eventlog BEGIN SELECT RAISE(FAIL, 'closed'); END",
        "ALTER TABLE eventlog ADD source int CHECK (name = '')",
    ] {
        let mut bench = Bench::with(refuses_all);
        let mut refused = Refused::new();
        let stopped = bench.insert(&["a", "b"], 0, &mut refused).unwrap_err();
        assert!(matches!(stopped, SinkError::Stop(_)), "{stopped}");
        assert!(refused.is_empty(), "{refused:?}");
        bench.sink.abandon(&stopped);
        assert!(bench.rows().is_empty());
    }
}

#[test]
fn a_trial_row_is_not_refused_for_its_own_content() {
    for constraint in [
        "CREATE TRIGGER picky BEFORE INSERT ON eventlog WHEN NEW.name NOT LIKE 'app.%'
         BEGIN SELECT RAISE(ABORT, 'other names'); END",
        "CREATE TRIGGER picky BEFORE INSERT ON eventlog WHEN NEW.name NOT LIKE 'app.%'
         BEGIN SELECT RAISE(FAIL, 'other names'); END",
        "CREATE UNIQUE INDEX values_once ON eventlog (value)",
    ] {
        let row = "INSERT INTO eventlog (at, name, value) VALUES ('2020-01-01', 'app.first', 0)";
        let mut bench = Bench::with(&format!("{row}; {constraint}"));
        assert_eq!(indices(&bench.store(&["bad", "app.b"])), [0]);
        assert_eq!(bench.rows().len(), 2);
    }
}

/// A row that the table ignores would count as stored.
#[test]
fn a_row_that_is_ignored_stops_storing() {
    let mut bench = Bench::with(
        "CREATE TRIGGER t BEFORE INSERT ON eventlog WHEN new.name = 'b' BEGIN SELECT raise(IGNORE); END",
    );
    let inserted = bench.insert(&["a", "b"], 0, &mut Refused::new());
    let Err(SinkError::Stop(fault)) = inserted else {
        panic!("{inserted:?}")
    };
    assert!(fault.text.contains("ignores"), "{fault}");
}

/// As in a table of billing data that is meant to keep the last row of each name.
#[test]
fn a_conflict_clause_of_the_table_removes_no_row_and_ignores_none() {
    for clause in ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"] {
        let mut bench = Bench::on(&format!(
            "CREATE TABLE eventlog (id integer PRIMARY KEY AUTOINCREMENT, at datetime, \
             name varchar(255) NOT NULL UNIQUE ON CONFLICT {clause}, value int unsigned)"
        ));
        let refused = bench.store(&["a", "b", "a", "c"]);
        assert_eq!(indices(&refused), [2], "{clause}");
        assert_eq!(bench.values(), [0, 1, 3], "{clause}");
    }
}

/// A clause of the statement would take the place of those in the trigger.
#[test]
fn a_trigger_may_ignore_conflicts_in_its_own_tables() {
    let mut bench = Bench::with(
        "CREATE TABLE names (name text PRIMARY KEY, last int);
         CREATE TRIGGER note AFTER INSERT ON eventlog BEGIN
           INSERT OR IGNORE INTO names VALUES (new.name, 0);
           INSERT OR REPLACE INTO names VALUES (new.name, new.value);
         END",
    );
    let refused = bench.store(&["a", "b", "a"]);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(bench.rows().len(), 3);
}

/// One attempt stores the batch. One for each row would wait seconds before each.
#[test]
fn rows_for_which_a_trigger_rolls_back_are_refused_together() {
    let mut bench = Bench::with(
        "CREATE TRIGGER picky BEFORE INSERT ON eventlog WHEN NEW.value % 3 = 1
         BEGIN SELECT RAISE(ROLLBACK, 'not this one'); END",
    );
    let refused = bench.store(&["n"; 60]);
    assert_eq!((refused.len(), bench.rows().len()), (20, 40));
    assert!(refused.keys().all(|index| index % 3 == 1));
}

/// FAIL keeps what the statement has done before it, and reports an error all the same.
#[test]
fn a_refused_row_is_not_left_in_the_table() {
    for trigger in [
        "AFTER INSERT ON eventlog WHEN NEW.name = 'bad' BEGIN SELECT RAISE(FAIL, 'no'); END",
        "BEFORE INSERT ON eventlog WHEN NEW.name = 'bad' BEGIN
         INSERT INTO seen VALUES (NEW.value + 100); SELECT RAISE(FAIL, 'no'); END",
        "AFTER INSERT ON eventlog WHEN NEW.name = 'bad' BEGIN
         INSERT OR FAIL INTO seen VALUES (7); END",
    ] {
        let seen = "CREATE TABLE seen (value int PRIMARY KEY); INSERT INTO seen VALUES (7);";
        let mut bench = Bench::with(&format!("{seen} CREATE TRIGGER picky {trigger}"));
        let refused = bench.store(&["a", "bad", "b", "bad", "c"]);
        assert_eq!(indices(&refused), [1, 3]);
        assert_eq!(bench.values(), [0, 2, 4], "{trigger}");
        let seen = "SELECT count(*) FROM seen";
        let seen = bench.other.query_row(seen, [], |row| row.get::<_, u32>(0));
        assert_eq!(seen, Ok(1), "{trigger}");
    }
}

/// The epoch of a copy has all of its bits: half of all copies have a negative number.
#[test]
fn a_look_finds_what_an_adoption_finds() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        let lane = LaneId::random().unwrap();
        let looked = bench.sink.look(lane, Position(3).into()).unwrap();
        assert_eq!(looked, bench.sink.adopt(lane, Position(3).into()).unwrap());
        let delete = "DELETE FROM hakaru_checkpoint WHERE lane = ?1";
        bench.other.execute(delete, [lane.to_string()]).unwrap();
        let looked = bench.sink.look(lane, Position(2).into()).unwrap();
        let copy = SealedCopy::At {
            position: Position(3),
            last: None,
        };
        assert_eq!(looked.copy, copy);
        assert_eq!(looked, bench.sink.adopt(lane, Position(2).into()).unwrap());
    }
}
