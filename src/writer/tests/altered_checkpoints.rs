//! Somebody alters rows of the table of checkpoints while no process knows better.

use super::*;
use crate::journal::held_lane::Hold;
use crate::sink::Step;
use crate::sink::sealed_copy::{Adoption, SealedCopy};

type Rows = std::collections::HashMap<LaneId, Checkpoint>;

/// A lane of which the first `stored` events are rows, and whose process was killed. The next one finds `noted` as
/// stored beside it.
struct Killed {
    bench: Bench,
    lane: LaneId,
    noted: Position,
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

impl Killed {
    fn new(stored: usize, noted: u64) -> Self {
        let bench = Bench::new();
        let lane = bench.lane(&NAMES);
        bench.run(&handle(&lane), &[(0, &NAMES[..stored])], &[], None);
        assert_eq!(bench.rows(), NAMES[..stored]);
        let noted = Position(noted);
        let lane = lane.id;
        Self { bench, lane, noted }
    }

    fn alter(&self, alter: impl FnOnce(&mut Rows)) {
        alter(&mut self.bench.database.lock().unwrap().checkpoints);
    }

    /// What an older version does: it takes the lane over, knows no copy, and stores one more event.
    fn store_by_an_older_version(&self) {
        let mut database = self.bench.database.lock().unwrap();
        let row = database.checkpoints.get_mut(&self.lane).unwrap();
        row.epoch.0 += 1;
        let index = usize::try_from(row.position.0).unwrap();
        row.position = row.position.plus(1);
        database.rows.push(NAMES[index].to_owned());
    }

    /// The next process. Returns the lane.
    fn recover(&self) -> Arc<DiskLane> {
        let (own, found) = (
            self.bench.lane(&[]),
            self.bench.lock(self.lane, Origin::Found),
        );
        found.set_stored(self.noted);
        self.bench.recover(&own, &found);
        found
    }

    fn check_stored_once(&self, found: &DiskLane) {
        assert_eq!(self.bench.rows(), NAMES);
        assert_eq!(found.held(), None);
        let database = self.bench.database.lock().unwrap();
        let rows = &database.checkpoints;
        let row = rows[&self.lane];
        assert_eq!(row.position, Position(6));
        // What the next process will find.
        let copy = rows.get(&self.lane.complement()).copied();
        let found = Adoption::new(self.lane, Position::START.into(), Some(row), copy).found;
        let is_at =
            matches!(found.copy, SealedCopy::At { position, .. } if position == Position(6));
        assert!(is_at, "{:?}", found.copy);
    }

    fn check_held(&self, found: &DiskLane, stored: usize) {
        assert!(found.held().is_some());
        assert_eq!(self.bench.rows(), NAMES[..stored]);
        assert!(Hold::read(&found.directory).unwrap().is_some());
    }
}

#[test]
fn a_checkpoint_that_was_set_ahead_within_its_lane_loses_nothing() {
    for (noted, by) in [(0, 1), (0, 4), (1, 2), (2, 1)] {
        let killed = Killed::new(2, noted);
        killed.alter(|rows| rows.get_mut(&killed.lane).unwrap().position.0 += by);
        killed.check_stored_once(&killed.recover());
    }
}

#[test]
fn a_checkpoint_that_was_set_back_doubles_nothing() {
    for (noted, position) in [(4, 0), (4, 3), (0, 0), (2, 1)] {
        let killed = Killed::new(4, noted);
        killed.alter(|rows| rows.get_mut(&killed.lane).unwrap().position.0 = position);
        killed.check_stored_once(&killed.recover());
    }
}

#[test]
fn a_checkpoint_that_was_removed_doubles_nothing() {
    for noted in [0, 2, 4] {
        let killed = Killed::new(4, noted);
        killed.alter(|rows| {
            rows.remove(&killed.lane).unwrap();
        });
        killed.check_stored_once(&killed.recover());
    }
}

#[test]
fn a_removed_checkpoint_gets_a_later_epoch_than_its_last_owner_had() {
    let killed = Killed::new(4, 4);
    let epoch = killed.bench.database.lock().unwrap().checkpoints[&killed.lane].epoch;
    killed.alter(|rows| {
        rows.remove(&killed.lane).unwrap();
    });
    drop(killed.recover());
    let found = killed.bench.database.lock().unwrap().checkpoints[&killed.lane].epoch;
    assert!(found > epoch, "{found:?} {epoch:?}");
}

#[test]
fn a_copy_that_was_removed_or_altered_changes_nothing() {
    for is_removed in [true, false] {
        let killed = Killed::new(4, 4);
        let copy = killed.lane.complement();
        killed.alter(|rows| {
            if is_removed {
                rows.remove(&copy).unwrap();
            } else {
                rows.get_mut(&copy).unwrap().position.0 = 1;
            }
        });
        killed.check_stored_once(&killed.recover());
    }
}

#[test]
fn where_both_rows_were_altered_a_person_decides() {
    for (noted, set) in [(0, 3), (1, 5), (2, 0), (2, 1)] {
        let killed = Killed::new(2, noted);
        killed.alter(|rows| {
            for row in rows.values_mut() {
                row.position.0 = set;
            }
        });
        killed.check_held(&killed.recover(), 2);
    }
}

#[test]
fn what_an_older_version_has_stored_is_stored_once() {
    // It has noted what it stored.
    let killed = Killed::new(2, 3);
    killed.store_by_an_older_version();
    killed.check_stored_once(&killed.recover());
    // It has not, and was killed. Nobody can tell it from somebody who alters the row.
    let killed = Killed::new(2, 2);
    killed.store_by_an_older_version();
    killed.check_held(&killed.recover(), 3);
}

#[test]
fn a_lane_of_an_older_version_gets_a_copy() {
    for noted in [0, 2] {
        let killed = Killed::new(2, noted);
        killed.alter(|rows| {
            rows.remove(&killed.lane.complement()).unwrap();
        });
        killed.check_stored_once(&killed.recover());
    }
}

#[test]
fn a_restore_that_moves_both_rows_back_is_a_restore() {
    let killed = Killed::new(2, 4);
    let before = killed.bench.database.lock().unwrap().checkpoints.clone();
    let (own, found) = (
        killed.bench.lane(&[]),
        killed.bench.lock(killed.lane, Origin::Found),
    );
    killed.bench.recover(&own, &found);
    drop(found);
    assert_eq!(killed.bench.rows(), NAMES);
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.checkpoints = before;
        database.rows.truncate(2);
    }
    killed.check_stored_once(&killed.recover());
}

/// Whose rows are found where a running server finds its checkpoint further on, at the end of the lane.
#[derive(Debug, Clone, Copy)]
enum Mover {
    /// A person has altered both rows. The rows of the events are those of another lane.
    Person,
    /// A process with the same memory has stored equal events of its own.
    Twin,
    /// A process on a copy of the data directory has stored these events.
    Copy,
}

impl Mover {
    fn alteration(self) -> fn(&mut Database) {
        fn move_by_process(database: &mut Database, taken_over: u64) {
            let lane = database.adopted.unwrap();
            let found = database.checkpoints[&lane];
            let step = Step {
                lane,
                epoch: Epoch(found.epoch.0 + taken_over),
                old: found.position,
                new: Position(6),
                last: None,
            };
            database.checkpoints.insert(lane, step.checkpoint());
            database.checkpoints.insert(lane.complement(), step.copy());
        }
        fn store(database: &mut Database) {
            database
                .rows
                .extend(NAMES[2..].iter().map(|&name| name.to_owned()));
        }
        match self {
            Self::Person => |database| {
                store(database);
                for row in database.checkpoints.values_mut() {
                    row.position.0 += 4;
                }
            },
            Self::Twin => |database| {
                store(database);
                move_by_process(database, 0);
            },
            Self::Copy => |database| {
                store(database);
                move_by_process(database, 1);
            },
        }
    }
}

#[test]
fn rows_of_others_prove_nothing_to_a_running_server() {
    let lost = SinkError::Reconnect(fault());
    for script in [
        &[][..],
        &[(At::Insert, Act::Nothing), (At::Insert, Act::Fail(lost))],
    ] {
        for mover in [Mover::Person, Mover::Twin, Mover::Copy] {
            let bench = Bench::new();
            bench.database.lock().unwrap().has_ids = true;
            let lane = bench.lane(&NAMES);
            bench.database.lock().unwrap().before_step = Some(Alteration {
                lane: lane.id,
                at: Position(2),
                alter: mover.alteration(),
            });
            let batches: [(u64, &[&str]); 2] = [(0, &NAMES[..2]), (2, &NAMES[2..])];
            bench.run(&handle(&lane), &batches, script, None);
            assert_eq!(bench.rows(), NAMES, "{mover:?}");
            let is_held = lane.held().is_some();
            assert_eq!(is_held, !matches!(mover, Mover::Copy), "{mover:?}");
        }
    }
}
