//! Removes lanes that were stored long ago.

use std::io;
use std::path::Path;

use super::lane_end;
use super::reader::segment_start;
use super::segment::{segment_name, segments};
use super::stored_note;
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};
use crate::os::fs;

/// Removes a lane that is stored up to `stored`. Its segments go first, and for good: a crash in between must leave none of
/// them without the notes that say which of its events were not promised, under which keys they are stored, or how far it
/// was stored. The segment in which it ends goes last of them: else its checkpoint would seem to be that of another lane,
/// beyond its end. Without segments, the note of its end alone would make it a lane, so that one goes before the others.
pub(super) fn remove_lane(directory: &Path, lane: LaneId, stored: Position) -> io::Result<()> {
    if !planted(Bug::NotesRemovedFirst) {
        let noted =
            stored_note::write(directory, stored).and_then(|()| stored_note::sync(directory));
        if let Err(fault) = noted {
            // A full disk takes no note, and the removal is what frees it.
            log::debug!("{}: not noted: {fault}", directory.display());
        }
        fs::sync_dir(directory)?;
        let mut before = segments(directory)?;
        // The last one may be empty still: no event was written to it.
        let mut last = Vec::new();
        for index in (0..before.len()).rev() {
            match segment_start(directory, lane, before[index]) {
                Ok(Some(_)) => {
                    last.push(before.remove(index));
                    break;
                }
                Ok(None) => {}
                Err(fault) if fs::is_unreadable(&fault) => {}
                Err(fault) => return Err(fault),
            }
        }
        for numbers in [before, last] {
            for number in numbers {
                fs::remove_file(&directory.join(segment_name(number)))?;
            }
            fs::sync_dir(directory)?;
        }
        match fs::remove_file(&lane_end::path(directory)) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
            _ => fs::sync_dir(directory)?,
        }
    }
    fs::remove_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{FormatVersion, SegmentId, SegmentNumber, segment_head};
    use crate::os::bugs::plant;
    use crate::os::fs::Use;
    use crate::os::simulated::disk::Machine;
    use crate::os::simulated::{Pause, Simulated, Task, pause, set_machine};

    /// Whether some power cut while it is removed leaves a lane without its end, or with its end and without a note, one of
    /// which was not durable.
    fn may_lose_end_or_note() -> bool {
        (0..400).any(|seed| {
            let _on = Simulated::start(seed);
            let machine = Machine::new(seed);
            set_machine(Some(machine.clone()));
            let lane = Path::new("data/lane");
            fs::create_dir(lane).unwrap();
            let numbers = [0, 1, 2].map(SegmentNumber);
            let segments = numbers.map(|number| lane.join(segment_name(number)));
            let (note, id) = (lane.join("end"), LaneId::random().unwrap());
            let head = |number| {
                let id = SegmentId { lane: id, number };
                segment_head(FormatVersion::Three, id, Position(number.0))
            };
            // Nothing was written to the last one.
            let contents = [&head(numbers[0])[..], &head(numbers[1]), &[], &[]];
            for (path, content) in segments.iter().chain([&note]).zip(contents) {
                let file = fs::File::with(path, Use::Replace).unwrap();
                file.write_all_at(content, 0).unwrap();
                file.sync_all().unwrap();
            }
            for directory in [Path::new("data"), lane] {
                fs::File::open(directory).unwrap().sync_all().unwrap();
            }
            stored_note::write(lane, Position(7)).unwrap();
            let mut removal = Task::new(machine.process(1), move || {
                remove_lane(lane, id, Position(7)).unwrap();
                loop {
                    pause(Pause::Step);
                }
            });
            for _ in 0..seed % 30 {
                removal.resume();
            }
            machine.cut_power();
            machine.kill(1);
            drop(removal);
            set_machine(Some(machine.clone()));
            let is_left = |path: &Path| machine.content().iter().any(|(left, _)| left == path);
            let are_notes_left = is_left(&note) && stored_note::read(lane) == Position(7);
            match segments.each_ref().map(|path| is_left(path)) {
                [true, false, _] => true,
                [false, true, _] => !are_notes_left,
                [true, true, _] | [false, false, _] => false,
            }
        })
    }

    #[test]
    fn no_segment_is_left_without_its_end_and_notes_where_a_lane_is_removed() {
        assert!(!may_lose_end_or_note());
        plant(Some(Bug::NotesRemovedFirst));
        assert!(may_lose_end_or_note());
        plant(None);
    }

    #[test]
    fn a_lane_is_removed_also_where_nothing_can_be_noted() {
        let directory = tempfile::tempdir().unwrap();
        let lane = directory.path().join("lane");
        // A note cannot be written over a directory.
        std::fs::create_dir_all(lane.join("stored")).unwrap();
        std::fs::write(lane.join(segment_name(SegmentNumber(0))), "events").unwrap();
        let id = LaneId::random().unwrap();
        remove_lane(&lane, id, Position(7)).unwrap();
        assert!(!lane.exists());
    }
}
