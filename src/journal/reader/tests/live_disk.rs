//! A lane that is read while it is written.

use super::*;
use crate::os::fs::{File, Use};
use crate::os::simulated::disk::Machine;
use crate::os::simulated::{Simulated, Task, set_machine};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

const LANE: &str = "data";

/// The path and the content of each file.
type Content = Vec<(PathBuf, Vec<u8>)>;

/// What a disk has after each operation of a writer that changes it.
fn write_step_by_step(lane: LaneId, records: u32, segment_bytes: u64, name: &str) -> Vec<Content> {
    let machine = Machine::new(1);
    let name = name.to_owned();
    let mut writer = Task::new(machine.clone(), move || {
        write_lane_on(Path::new(LANE), lane, records, segment_bytes, &name);
    });
    let mut contents = Vec::new();
    while writer.resume().pause.is_some() {
        contents.push(machine.content());
    }
    contents.push(machine.content());
    contents.dedup();
    contents
}

/// Bytes that appear at an offset of a file.
#[derive(Debug)]
struct Step {
    path: PathBuf,
    offset: usize,
    bytes: Vec<u8>,
}

impl Step {
    fn apply(&self) {
        let file = File::with(&self.path, Use::Keep).unwrap();
        file.write_all_at(&self.bytes, self.offset as u64).unwrap();
    }
}

/// The steps from one content to the next. A reader may see one half of a write.
fn steps(contents: &[Content]) -> Vec<Step> {
    let mut steps = Vec::new();
    for pair in contents.windows(2) {
        for (path, after) in &pair[1] {
            let before = pair[0].iter().find(|(known, _)| known == path);
            let step = |range: Range<usize>| Step {
                path: path.clone(),
                offset: range.start,
                bytes: after[range].to_vec(),
            };
            match before {
                Some((_, before)) if before.len() == after.len() => {
                    let is_changed = |at: &usize| before[*at] != after[*at];
                    if let Some(first) = (0..after.len()).find(is_changed)
                        && let Some(last) = (first..after.len()).rfind(is_changed)
                    {
                        let middle = usize::midpoint(first, last + 1);
                        steps.extend([first..middle, middle..last + 1].map(step));
                    }
                }
                // It is made, or becomes longer.
                before => steps.push(step(
                    before.map_or(0, |(_, before)| before.len())..after.len(),
                )),
            }
        }
    }
    steps
}

/// Reads while `steps` are taken: all of them at once, after the reader has made `calls` calls. Returns the reader, what
/// it has read, and whether it made that many calls.
fn read_with_burst(
    machine: &Machine,
    lane: LaneId,
    steps: &[Step],
    calls: usize,
) -> (LaneReader, Read, bool) {
    let read = Rc::new(Cell::new(None));
    let result = Rc::clone(&read);
    let mut task = Task::new(machine.clone(), move || {
        let mut reader = LaneReader::new(Path::new(LANE), lane, Position(0));
        let read = read_on(&mut reader).unwrap();
        result.set(Some((reader, read)));
    });
    let is_interrupted = (0..=calls).all(|_| task.resume().pause.is_some());
    if is_interrupted {
        steps.iter().for_each(Step::apply);
        while task.resume().pause.is_some() {}
    }
    let (reader, read) = read.take().unwrap();
    (reader, read, is_interrupted)
}

/// Reads at every moment: with any number of steps taken at the start, any number more at any call of the reader, and
/// then the rest. Expects these values and damages each time.
fn read_at_every_moment(
    contents: &[Content],
    lane: LaneId,
    values: &[u32],
    damages: &[(u64, u64)],
) {
    let steps = steps(contents);
    let shown = Machine::new(1);
    for start in 0..steps.len() {
        for end in start + 1..=steps.len() {
            for calls in 0.. {
                let machine = shown.copy(1);
                let (mut reader, before, is_interrupted) =
                    read_with_burst(&machine, lane, &steps[start..end], calls);
                let rest = if is_interrupted { end } else { start };
                steps[rest..].iter().for_each(Step::apply);
                let after = read_on(&mut reader).unwrap();
                let moment = format!("steps {start} to {end} of {}, at call {calls}", steps.len());
                assert_eq!([before.0, after.0].concat(), values, "{moment}");
                let found = before.1.iter().chain(&after.1);
                let found: Vec<_> = found.map(|damage| (damage.from.0, damage.to.0)).collect();
                assert_eq!((found.as_slice(), after.2), (damages, 0), "{moment}");
                if !is_interrupted {
                    break;
                }
            }
        }
        set_machine(Some(shown.clone()));
        steps[start].apply();
    }
}

#[test]
fn a_lane_that_is_written_meanwhile_is_not_reported_as_damaged() {
    let _simulated = Simulated::start(1);
    let lane = LaneId::random().unwrap();
    // Three records in a block, two blocks in a segment, two segments.
    let mut contents = write_step_by_step(lane, 8, 4 * 4096, &"n".repeat(400));
    read_at_every_moment(&contents, lane, &(0..24).collect::<Vec<_>>(), &[]);

    // With the first record damaged wherever it is written, only that one is reported.
    let first = file(Path::new(LANE), 0);
    let segments = contents.iter_mut().flatten();
    for (_, bytes) in segments.filter(|(path, _)| *path == first) {
        for start in (0..bytes.len()).step_by(RECORD_ALIGNMENT) {
            let record = &bytes[start..];
            let is_first = record
                .get(40..48)
                .is_some_and(|position| position == [0; 8]);
            if is_first && record.starts_with(b"hRec") {
                bytes[start + RECORD_HEAD_BYTES] ^= 1;
            }
        }
    }
    read_at_every_moment(&contents, lane, &(3..24).collect::<Vec<_>>(), &[(0, 3)]);
}
