//! Journals of a few lanes, damaged on purpose.

use super::*;
use crate::event::UnixMillis;
use crate::journal::lane_writer::LaneWriter;
use crate::journal::record::{SegmentNumber, append_event, begin_record};
use crate::journal::segment::make_directory;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;

/// A lane of two segments in a journal, two events in each.
fn write_lane(journal: &Path) -> (LaneId, PathBuf) {
    write_segments(journal, 2)
}

/// The same with this many segments.
fn write_segments(journal: &Path, count: u32) -> (LaneId, PathBuf) {
    let lane = LaneId::random().unwrap();
    let directory = make_directory(journal, lane).unwrap();
    let mut written = LaneWriter::create(&directory, lane, 3 * 4096).unwrap();
    for first in 0..count {
        let mut record = Vec::new();
        begin_record(&mut record);
        for value in [2 * first, 2 * first + 1] {
            // Only two fit into a block, and a segment has one block of them.
            let (name, received_at) = (&*"n".repeat(1000), UnixMillis(1));
            append_event(
                &mut record,
                Event {
                    name,
                    value,
                    received_at,
                    id: None,
                },
            );
        }
        written = written.append(&mut record, 2).unwrap();
    }
    assert_eq!(segments(&directory).unwrap().len(), count as usize);
    (lane, directory)
}

fn corrupt(directory: &Path, number: u64, at: usize) {
    corrupt_bits(directory, (number, at), 1);
}

fn corrupt_bits(directory: &Path, (number, at): (u64, usize), bits: u8) {
    let path = directory.join(segment_name(SegmentNumber(number)));
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= bits;
    fs::write(path, bytes).unwrap();
}

/// Runs a command. Returns its rows by lane, and its result.
fn run(
    data_dir: &Path,
    command: impl Fn(&Inspection, &mut Vec<u8>) -> Result<(), InspectError>,
) -> (HashMap<LaneId, Value>, Result<(), InspectError>) {
    let mut out = Vec::new();
    let outcome = command(&Inspection::new(data_dir, Output::Json), &mut out);
    let rows = out.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let row: Value = serde_json::from_slice(line).unwrap();
        (row["lane"].as_str().unwrap().parse().unwrap(), row)
    });
    (rows.collect(), outcome)
}

#[test]
fn a_lane_that_cannot_be_read_does_not_hide_others() {
    let data_dir = tempfile::tempdir().unwrap();
    let journal = data_dir.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let lanes: Vec<_> = (0..6).map(|_| write_lane(&journal)).collect();
    // Changes the version of the format from '3' to '4'.
    corrupt_bits(&lanes[2].1, (1, 7), b'3' ^ b'4');

    let (rows, outcome) = run(data_dir.path(), |inspection, out| inspection.list(out));
    assert!(matches!(outcome, Err(InspectError::Unreadable(1))));
    for (index, (lane, _)) in lanes.iter().enumerate() {
        let (end, is_unreadable) = if index == 2 { (2, true) } else { (4, false) };
        assert_eq!(rows[lane]["end"], end);
        assert_eq!(rows[lane]["error"].is_string(), is_unreadable);
    }
    let (rows, outcome) = run(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(matches!(outcome, Err(InspectError::Unreadable(1))));
    assert_eq!(rows[&lanes[1].0]["events"], 4);
    let error = rows[&lanes[2].0]["error"].to_string();
    assert!(error.contains("another version of hakaru"), "{error}");

    let mut out = Vec::new();
    let text = Inspection::new(data_dir.path(), Output::Text);
    assert!(text.list(&mut out).is_err() && text.verify(&mut out).is_err());
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out.matches("another version of hakaru").count(), 2, "{out}");
}

#[test]
fn segments_that_were_stored_and_removed_are_no_damage() {
    let data_dir = tempfile::tempdir().unwrap();
    let journal = data_dir.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let (lane, directory) = write_segments(&journal, 3);
    fs::remove_file(directory.join(segment_name(SegmentNumber(0)))).unwrap();
    let (rows, outcome) = run(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(outcome.is_ok());
    assert_eq!(rows[&lane]["events"], 4);

    // Damages the head, which has the position where the lane begins. The records have it too.
    corrupt(&directory, 1, 20);
    let (rows, outcome) = run(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(matches!(outcome, Err(InspectError::Damaged(1))));
    assert_eq!(rows[&lane]["events"], 4);
    let damage = rows[&lane]["damages"][0].to_string();
    assert!(damage.contains("no event is missing"), "{damage}");
}

#[test]
fn segments_that_are_removed_while_they_are_read_are_no_damage() {
    let journal = tempfile::tempdir().unwrap();
    let (lane, directory) = write_lane(journal.path());
    let missing = |from, to| Damage {
        file: directory.clone(),
        offset: 0,
        from: Position(from),
        to: Position(to),
    };
    assert!(!is_removed(&directory, lane, &missing(1, 2)));
    fs::remove_file(directory.join(segment_name(SegmentNumber(0)))).unwrap();
    assert!(is_removed(&directory, lane, &missing(1, 2)));
    assert!(!is_removed(&directory, lane, &missing(1, 3)));

    let inspection = Inspection {
        journal: journal.path().to_owned(),
        output: Output::Json,
    };
    assert!(inspection.contents(lane).is_some());
    fs::remove_dir_all(&directory).unwrap();
    assert!(inspection.contents(lane).is_none());
}

#[test]
fn a_lane_whose_file_end_says_nothing_is_read_to_its_last_record() {
    let data_dir = tempfile::tempdir().unwrap();
    let journal = data_dir.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let (lane, directory) = write_lane(&journal);
    fs::write(directory.join("end"), "four").unwrap();
    let (rows, outcome) = run(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(matches!(outcome, Err(InspectError::Unreadable(1))));
    assert_eq!(rows[&lane]["events"], 4);
    assert!(rows[&lane]["error"].is_string());
}
