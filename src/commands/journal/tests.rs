//! Journals of a few lanes, spoiled on purpose.

use super::*;
use crate::event::UnixMillis;
use crate::journal::record::{SegmentNumber, append_event, begin_record};
use crate::journal::segment::make_directory;
use crate::journal::test_writer::TestWriter;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;

/// A lane of two segments in a journal, two events in each.
fn write_lane(journal: &Path) -> (LaneId, PathBuf) {
    let lane = LaneId::random().unwrap();
    let directory = make_directory(&Disk, journal, lane).unwrap();
    let mut written = TestWriter::create(Disk, &directory, lane, 200).unwrap();
    for value in 0..4 {
        let mut record = Vec::new();
        begin_record(&mut record);
        let (name, received_at) = ("name", UnixMillis(1));
        append_event(
            &mut record,
            Event {
                name,
                value,
                received_at,
            },
        );
        written = written.append(&mut record, 1).unwrap();
    }
    // The third is made ahead.
    let third = directory.join(segment_name(SegmentNumber(2)));
    fs::remove_file(third).unwrap();
    assert_eq!(segments(&Disk, &directory).unwrap().len(), 2);
    (lane, directory)
}

fn spoil(directory: &Path, number: u64, at: usize) {
    let path = directory.join(segment_name(SegmentNumber(number)));
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 3;
    fs::write(path, bytes).unwrap();
}

/// The rows of an answer, by lane, and how it ended.
fn ask(
    data_dir: &Path,
    question: impl Fn(&Inspection, &mut Vec<u8>) -> Result<(), InspectError>,
) -> (HashMap<LaneId, Value>, Result<(), InspectError>) {
    let mut out = Vec::new();
    let ended = question(&Inspection::new(data_dir, Output::Json), &mut out);
    let rows = out.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let row: Value = serde_json::from_slice(line).unwrap();
        (row["lane"].as_str().unwrap().parse().unwrap(), row)
    });
    (rows.collect(), ended)
}

#[test]
fn a_lane_that_cannot_be_read_hides_no_other() {
    let data_dir = tempfile::tempdir().unwrap();
    let journal = data_dir.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let lanes: Vec<_> = (0..6).map(|_| write_lane(&journal)).collect();
    // '1' becomes '2', the version of a format to come.
    spoil(&lanes[2].1, 1, 7);

    let (rows, ended) = ask(data_dir.path(), |inspection, out| inspection.list(out));
    assert!(matches!(ended, Err(InspectError::Unreadable(1))));
    for (index, (lane, _)) in lanes.iter().enumerate() {
        let (end, is_unreadable) = if index == 2 { (2, true) } else { (4, false) };
        assert_eq!(rows[lane]["end"], end);
        assert_eq!(rows[lane]["error"].is_string(), is_unreadable);
    }
    let (rows, ended) = ask(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(matches!(ended, Err(InspectError::Unreadable(1))));
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
fn what_was_stored_and_removed_is_no_damage() {
    let data_dir = tempfile::tempdir().unwrap();
    let journal = data_dir.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let (lane, directory) = write_lane(&journal);
    fs::remove_file(directory.join(segment_name(SegmentNumber(0)))).unwrap();
    let (rows, ended) = ask(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(ended.is_ok());
    assert_eq!(rows[&lane]["events"], 2);

    // Its head would say where the lane begins now; the records do as well.
    spoil(&directory, 1, 20);
    let (rows, ended) = ask(data_dir.path(), |inspection, out| inspection.verify(out));
    assert!(matches!(ended, Err(InspectError::Damaged(1))));
    assert_eq!(rows[&lane]["events"], 2);
    let said = rows[&lane]["damages"][0].to_string();
    assert!(said.contains("no event is missing"), "{said}");
}

#[test]
fn what_is_removed_while_it_is_read_is_no_damage() {
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
    assert!(inspection.look(lane).is_some());
    fs::remove_dir_all(&directory).unwrap();
    assert!(inspection.look(lane).is_none());
}
