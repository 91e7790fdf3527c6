//! Lanes that wait: for a person, for the disk, or for the database.

use super::*;
use crate::journal::held_lane::{Decision, Hold};
use crate::journal::row_witnesses::RowWitness;
use crate::writer::failed_reads::READ_AGAIN_AFTER;

#[test]
fn a_decision_about_other_events_is_not_applied() {
    let bench = Bench::new();
    let id = bench.lane(&["a", "b", "c"]).id;
    let hold = |from, to| Hold {
        from: Position(from),
        to: Position(to),
        reason: "a test".to_owned(),
        checkpoint: None,
    };
    let directory = bench.directory.path().join(id.to_string());
    hold(0, 2).write(&directory).unwrap();
    // Of a version that did not name the events.
    std::fs::write(directory.join("settled"), "stored\n").unwrap();
    let (own, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
    bench.recover(&own, &found);
    assert!(bench.rows().is_empty());
    assert_eq!((found.held(), found.is_waiting()), (Some(2), false));
    drop(found);
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
    let number = segments(&directory).unwrap()[0];
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

/// A lane whose rows cannot be asked for waits. The other lanes of the writer are stored.
#[test]
fn a_question_that_the_database_does_not_answer_stops_no_other_lane() {
    for unread in [
        SinkError::Stop(fault()),
        SinkError::Reconnect(fault()),
        SinkError::Retry(fault()),
    ] {
        let bench = Bench::new();
        let id = bench.lane(&["a", "b", "c"]).id;
        let found = bench.lock(id, Origin::Found);
        let row = RowWitness {
            position: Position(1),
            end: Position(2),
            row: 7,
        };
        found.rows().push(row);
        found.set_stored(Position(2));
        bench.database.lock().unwrap().unread = Some(unread.clone());
        let own = bench.lane(&["d", "e", "f"]);
        let batches: [(u64, &[&str]); 4] = [(0, &[]), (0, &["d"]), (1, &["e"]), (2, &["f"])];
        bench.run(&handle(&own), &batches, &[], Some(Arc::clone(&found)));
        assert_eq!(bench.rows(), ["d", "e", "f"], "{unread:?}");
        assert!(found.is_waiting());
        let (asked, abandoned) = {
            let database = bench.database.lock().unwrap();
            (database.asked, database.abandoned)
        };
        assert!((1..=2).contains(&asked), "{asked}");
        // The other lanes keep the connection, unless it may be lost.
        assert_eq!(abandoned == 0, matches!(unread, SinkError::Stop(_)));

        // The next process gets an answer: the rows are gone.
        bench.database.lock().unwrap().unread = None;
        drop(found);
        let (own, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
        found.rows().push(row);
        found.set_stored(Position(2));
        bench.recover(&own, &found);
        assert_eq!(bench.rows(), ["d", "e", "f", "a", "b", "c"]);
        assert!(!found.is_waiting());
    }
}

/// Its later events wait with it: an outage of hours must not become a wait of days.
#[test]
fn a_lane_does_not_wait_for_as_long_as_an_outage_took() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b"]);
    // More than a second of an outage.
    let script = vec![(At::Insert, Act::Fail(SinkError::Reconnect(fault()))); 5];
    let (_, recoveries) = sync_channel(1);
    let mut storing = Storing::new(bench.writer(&script, recoveries));
    let mut recovery = Recovery::default();
    // The journal lacks the last event, which is looked for once more.
    recovery.read_back(&lane, Position(3));
    assert!(recovery.advance(&mut storing));
    assert_eq!(bench.rows(), ["a", "b"]);
    let due_in = recovery.due_in().unwrap();
    assert!(
        !due_in.is_zero() && due_in <= READ_AGAIN_AFTER,
        "{due_in:?}"
    );
}

/// Without rows that are noted, a checkpoint that is behind later is believed unchecked.
#[test]
fn one_question_about_a_row_that_must_be_repeated_does_not_end_the_noting_of_rows() {
    let noted = |fault: SinkError| {
        let bench = Bench::new();
        bench.database.lock().unwrap().has_ids = true;
        let lane = bench.lane(&["a", "b", "c"]);
        let batches: [(u64, &[&str]); 3] = [(0, &["a"]), (1, &["b"]), (2, &["c"])];
        let script = [(At::Ask, Act::Fail(fault))];
        bench.run(&handle(&lane), &batches, &script, None);
        assert_eq!(bench.rows(), ["a", "b", "c"]);
        let noted = lane.rows().spread(Position::START, Position(3), 9);
        noted.iter().map(|row| row.position.0).collect::<Vec<_>>()
    };
    assert_eq!(noted(SinkError::Retry(fault())), [1, 2]);
    assert_eq!(noted(SinkError::Reconnect(fault())), [1, 2]);
    // Such as without the right to read rows.
    assert!(noted(SinkError::Stop(fault())).is_empty());
}
