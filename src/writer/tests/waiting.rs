//! Lanes that wait: for a person, for the disk, or for the database.

use super::*;
use crate::journal::held_lane::{Decision, Hold};

#[test]
fn a_decision_about_other_events_is_not_applied() {
    let bench = Bench::new();
    let id = bench.lane(&["a", "b", "c"]).id;
    let hold = |from, to| Hold {
        from: Position(from),
        to: Position(to),
        reason: "a test".to_owned(),
    };
    let directory = bench.directory.path().join(id.to_string());
    hold(0, 2).write(&directory).unwrap();
    for (decided, rows) in [
        (hold(0, 1), &[][..]),
        (hold(1, 2), &[]),
        (hold(0, 2), &["c"]),
    ] {
        decided.decide(Decision::Stored).write(&directory).unwrap();
        let (own, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
        bench.recover(&own, &found);
        assert_eq!(bench.rows(), rows, "{decided:?}");
        assert_eq!(found.held().is_some(), rows.is_empty());
    }
    assert_eq!(Hold::read(&directory).unwrap(), None);
}

/// The checkpoint moves over what is lost at the end of a lane: it is not behind what is noted as stored.
#[test]
fn a_lost_end_is_lost_for_the_next_process_too() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b", "lost"]);
    let (id, directory) = (lane.id, lane.directory.clone());
    drop(lane);
    let number = segments(&Disk, &directory).unwrap()[0];
    let path = directory.join(crate::journal::segment::segment_name(number));
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    for at in 0..bytes.len() - 4 {
        if bytes[at..].starts_with(b"lost") {
            bytes[at..at + 4].copy_from_slice(b"LOST");
        }
    }
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(directory.join("end"), "00000000000000000003\n").unwrap();
    for content in [None, Some(&whole)] {
        if let Some(content) = content {
            // The disk reads it again.
            std::fs::write(&path, content).unwrap();
        }
        let (own, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
        // What the process before has noted.
        found.set_stored(Position(if content.is_some() { 3 } else { 0 }));
        // Each batch gives it a step.
        let batches: [(u64, &[&str]); 4] = [(0, &[]); 4];
        bench.run(&handle(&own), &batches, &[], Some(Arc::clone(&found)));
        assert_eq!(found.held(), None);
        assert_eq!(
            (found.stored(), found.end()),
            (Position(3), Some(Position(3)))
        );
        assert_eq!(bench.rows(), ["a", "b"]);
        let checkpoint = bench.database.lock().unwrap().checkpoints[&id];
        assert_eq!(checkpoint.position, Position(3));
    }
}
