//! Events whose ids the table has say nothing about what is stored: the row may be of another event.

use super::*;

const EVENTS: usize = 40;
/// How many events are noted as stored.
const NOTED: usize = 10;

/// Somebody sets the checkpoint and its copy back, and `silent` events after the noted ones say nothing. The one after
/// them is stored, and none that follows.
fn recover_after(silent: usize) -> (Vec<String>, Option<u64>) {
    let names: Vec<_> = (0..EVENTS).map(|at| format!("event {at}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let stored = NOTED + silent + 1;
    let bench = Bench::new();
    bench.database.lock().unwrap().has_ids = true;
    let lane = bench.lane(&names);
    let batches: Vec<_> = (0..stored).map(|at| (at as u64, &names[at..=at])).collect();
    bench.run(&handle(&lane), &batches, &[], None);
    let witnesses = lane
        .rows()
        .spread(Position::START, Position(NOTED as u64), NOTED);
    let id = lane.id;
    drop(lane);
    {
        let mut database = bench.database.lock().unwrap();
        let repeated = names[NOTED..NOTED + silent].iter();
        database.repeated = repeated.map(|name| (*name).to_owned()).collect();
        for checkpoint in database.checkpoints.values_mut() {
            checkpoint.position = Position(3);
        }
    }
    let (own, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
    found.set_stored(Position(NOTED as u64));
    for row in witnesses {
        found.rows().push(row);
    }
    bench.recover(&own, &found);
    (bench.rows(), found.held())
}

#[test]
fn where_the_first_events_in_question_say_nothing_the_next_one_is_asked_for() {
    for silent in [1, 3, 20] {
        let (rows, held) = recover_after(silent);
        let last = format!("event {}", NOTED + silent);
        assert_eq!(
            rows.iter().filter(|row| **row == last).count(),
            1,
            "{silent}"
        );
        assert!(held.is_some(), "{silent}");
    }
}
