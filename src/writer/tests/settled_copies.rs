//! Copies of a data directory, all of them held, are settled one after the other.

use super::*;
use crate::journal::held_lane::{Decision, Hold};
use crate::journal::lane_keys::LaneKeys;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Two data directories with the same lane, of which the first two events are rows. In both it is held, since the two
/// rows of its checkpoint were altered.
struct Copies {
    benches: [Bench; 2],
    lane: LaneId,
}

impl Copies {
    fn hold(altered: u64) -> Self {
        let first = Bench::new();
        let opened = first.lane(&NAMES);
        first.run(&handle(&opened), &[(0, &NAMES[..2])], &[], None);
        let (from, lane) = (opened.directory.clone(), opened.id);
        drop(opened);
        let second = Bench {
            database: Arc::clone(&first.database),
            served: Arc::clone(&first.served),
            ..Bench::new()
        };
        let to = second.directory.path().join(lane.to_string());
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        {
            let rows = &mut first.database.lock().unwrap().checkpoints;
            for key in [lane, lane.complement()] {
                rows.get_mut(&key).unwrap().position = Position(altered);
            }
        }
        let copies = Self {
            benches: [first, second],
            lane,
        };
        for bench in &copies.benches {
            assert!(copies.recover(bench).held().is_some());
            assert_eq!(bench.rows(), NAMES[..2]);
        }
        copies
    }

    fn recover(&self, bench: &Bench) -> Arc<DiskLane> {
        let (own, found) = (bench.lane(&[]), bench.lock(self.lane, Origin::Found));
        found.set_stored(Position(2));
        bench.recover(&own, &found);
        found
    }

    /// Returns whether a person is asked once more, who looks at the rows then.
    fn settle(&self, bench: &Bench, decision: Decision) -> bool {
        let directory = bench.directory.path().join(self.lane.to_string());
        let decide = |decision| {
            let hold = Hold::read(&directory).unwrap().unwrap();
            hold.decide(decision).write(&directory).unwrap();
            self.recover(bench).held()
        };
        let is_asked_again = decide(decision).is_some();
        if is_asked_again {
            let hold = Hold::read(&directory).unwrap().unwrap();
            let last = NAMES[usize::try_from(hold.to.0).unwrap() - 1];
            let is_stored = bench.rows().iter().any(|row| row == last);
            let again = if is_stored {
                Decision::Stored
            } else {
                Decision::Refill
            };
            assert_eq!(decide(again), None);
        }
        assert_eq!(Hold::read(&directory).unwrap(), None);
        let keys = LaneKeys::read(&directory, self.lane).unwrap();
        assert_eq!(keys.given(), None);
        is_asked_again
    }

    fn hold_of(&self, index: usize) -> Hold {
        let directory = self.benches[index].directory.path();
        let directory = directory.join(self.lane.to_string());
        Hold::read(&directory).unwrap().unwrap()
    }

    fn position(&self) -> Position {
        self.benches[0].database.lock().unwrap().checkpoints[&self.lane].position
    }
}

#[test]
fn each_event_is_stored_once_where_they_are_filled_again() {
    // Within the lane, and at its end: where the first one to be settled leaves the checkpoint.
    for altered in [4, 6] {
        for order in [[0, 1], [1, 0]] {
            let copies = Copies::hold(altered);
            for index in order {
                let is_asked_again = copies.settle(&copies.benches[index], Decision::Refill);
                // The second one finds the checkpoint where it was. And the first one to be held has lost the lane to the
                // other one since.
                let was_taken_over = index == 0 && index == order[0];
                let is_where_it_was = altered == 6 && index == order[1];
                assert_eq!(is_asked_again, was_taken_over || is_where_it_was);
                assert_eq!(copies.benches[0].rows(), NAMES, "{altered} {order:?}");
                assert_eq!(copies.position(), Position(6));
            }
        }
    }
}

#[test]
fn each_event_is_stored_once_where_the_doubtful_ones_are_stored() {
    for altered in [4, 6, 0] {
        for order in [[0, 1], [1, 0]] {
            let copies = Copies::hold(altered);
            let stored = copies.hold_of(0).to;
            let doubtful = NAMES[2..usize::try_from(stored.0).unwrap()]
                .iter()
                .map(|&name| name.to_owned());
            let database = &copies.benches[0].database;
            database.lock().unwrap().rows.extend(doubtful);
            for index in order {
                copies.settle(&copies.benches[index], Decision::Stored);
                assert_eq!(copies.benches[0].rows(), NAMES, "{altered} {order:?}");
                assert_eq!(copies.position(), Position(6));
            }
        }
    }
}

/// What one of them stores while it waits for its turn is not moved back by the other one.
#[test]
fn the_second_one_goes_on_where_the_first_one_is() {
    let copies = Copies::hold(0);
    let [first, second] = &copies.benches;
    first.database.lock().unwrap().rows.clear();
    copies.settle(first, Decision::Refill);
    assert_eq!(first.rows(), NAMES);
    copies.settle(second, Decision::Refill);
    assert_eq!(first.rows(), NAMES);
}

/// Another process fills the lane again. What it has not stored yet is not stored, whatever was decided here.
#[test]
fn a_checkpoint_that_has_moved_is_believed_before_a_decision() {
    let copies = Copies::hold(0);
    let bench = &copies.benches[0];
    {
        let mut database = bench.database.lock().unwrap();
        let checkpoint = Checkpoint {
            epoch: Epoch(database.checkpoints[&copies.lane].epoch.0 + 2),
            position: Position(1),
        };
        database.checkpoints.insert(copies.lane, checkpoint);
        database.checkpoints.remove(&copies.lane.complement());
        database.rows.truncate(1);
    }
    copies.settle(bench, Decision::Stored);
    assert_eq!(bench.rows(), NAMES);
}

/// The step to where the decision says was committed, and the note of the hold was not removed.
#[test]
fn a_decision_that_was_applied_in_part_is_applied_once() {
    for decision in [Decision::Stored, Decision::Refill] {
        let copies = Copies::hold(4);
        let bench = &copies.benches[0];
        let directory = bench.directory.path().join(copies.lane.to_string());
        let hold = Hold::read(&directory).unwrap().unwrap();
        {
            // It was taken over twice for that.
            let mut database = bench.database.lock().unwrap();
            let checkpoint = Checkpoint {
                epoch: Epoch(database.checkpoints[&copies.lane].epoch.0 + 2),
                position: hold.settled(decision),
            };
            database.checkpoints.insert(copies.lane, checkpoint);
            database.checkpoints.remove(&copies.lane.complement());
            if decision == Decision::Stored {
                let to = usize::try_from(hold.to.0).unwrap();
                let more = NAMES[2..to].iter().map(|&name| name.to_owned());
                database.rows.extend(more);
            }
        }
        copies.settle(bench, decision);
        assert_eq!(bench.rows(), NAMES, "{decision:?}");
    }
}
