//! What a person does about lanes that wait for one: `hakaru journal adopt` and `hakaru journal settle`.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::database::EventId;
use super::history::note;
use super::process::JOURNAL;
use super::world::World;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::{Decision, Hold, Settlement};
use crate::journal::lane_label::LaneLabel;
use crate::journal::reader::{Filled, LaneReader};
use crate::journal::segment::lanes;
use crate::os::fs::{File, Use};
use crate::os::simulated;

/// Events of a held lane that neither answer would be true for.
pub(super) type Undecided = BTreeSet<u32>;

/// Decides about each lane on each machine by what is true. Returns what was done.
pub(super) fn act(world: &World) -> (Vec<String>, Undecided) {
    let (mut done, mut undecided) = (Vec::new(), Undecided::new());
    let rows = world.rows();
    let letters = world.letters();
    let server = world.database.server();
    let ids = [server.content.id, server.other.id];
    drop(server);
    for machine in &world.machines {
        simulated::set_machine(Some(machine.clone()));
        for lane in lanes(Path::new(JOURNAL)).unwrap_or_default() {
            let directory = Path::new(JOURNAL).join(lane.to_string());
            done.extend(adopt(lane, &directory, ids, world));
            match settle(lane, &directory, &rows, &letters) {
                Ok(Some(Ok(line))) => done.push(line),
                Ok(Some(Err(events))) => undecided.extend(events),
                Ok(None) | Err(_) => {}
            }
        }
        simulated::set_machine(None);
    }
    (done, undecided)
}

/// The first of `known` is served. A lane of neither goes into any; one that was opened before its database answered
/// goes into the one that its process served then.
fn adopt(
    lane: LaneId,
    directory: &Path,
    known: [Option<DatabaseId>; 2],
    world: &World,
) -> Option<String> {
    let label = LaneLabel::read(directory).ok()?;
    let is_wanted = match &label {
        LaneLabel::Database { id, .. } => known[0].is_some() && !known.contains(&Some(*id)),
        LaneLabel::Address(_) if !is_owned(directory) => {
            let first = events(lane, directory, Position::START..Position(1));
            let database = world.oracle.database_of(&world.senders, *first.first()?);
            known[0].is_some()
                && database.is_none_or(|id| known[0] == Some(id) || !known.contains(&Some(id)))
        }
        _ => false,
    };
    if !is_wanted {
        return None;
    }
    label.adopted().write(directory).ok()?;
    Some(format!("lane {lane}: is let into any database"))
}

/// Whether a process works on the lane.
fn is_owned(directory: &Path) -> bool {
    let lock = File::with(&directory.join("lock"), Use::Keep);
    lock.is_ok_and(|lock| lock.try_lock().is_err())
}

/// `None`: it is not held, or is decided. An error: the events of which some are there and some are not.
fn settle(
    lane: LaneId,
    directory: &Path,
    rows: &BTreeSet<EventId>,
    letters: &BTreeSet<u32>,
) -> io::Result<Option<Result<String, Vec<u32>>>> {
    let Some(hold) = Hold::read(directory)? else {
        return Ok(None);
    };
    if Settlement::read(directory)?.is_some_and(|settled| settled.is_about(&hold)) {
        return Ok(None);
    }
    let events = events(lane, directory, hold.from..hold.to);
    let is_stored: Vec<bool> = events
        .iter()
        .filter(|event| !letters.contains(&event.value))
        .map(|event| rows.contains(event))
        .collect();
    let are_all_read = events.len() as u64 == hold.events();
    // Letters stay letters, whatever is decided.
    let decision = if !is_stored.contains(&true) && !is_stored.is_empty() {
        Decision::Refill
    } else if !is_stored.contains(&false) && are_all_read {
        Decision::Stored
    } else {
        note(|| {
            format!(
                "lane {lane}: of its events from {} to {} these are there: {is_stored:?}",
                hold.from.0, hold.to.0
            )
        });
        return Ok(Some(Err(events.iter().map(|event| event.value).collect())));
    };
    hold.decide(decision).write(directory)?;
    Ok(Some(Ok(format!("lane {lane}: is settled: {decision:?}"))))
}

/// The events in question.
fn events(lane: LaneId, directory: &Path, range: Range<Position>) -> Vec<EventId> {
    let mut reader = LaneReader::new(directory, lane, range.start);
    let mut batch = Batch::new(BatchEvents::new(1000).unwrap());
    let mut found = Vec::new();
    while reader.position() < range.end {
        batch.clear();
        let filled = reader.fill(&mut batch, Some(range.end));
        let first = Position(reader.position().0 - batch.len() as u64);
        let events = batch.events().enumerate();
        found.extend(events.map(|(index, event)| EventId {
            value: event.value,
            received_at: event.received_at,
            position: first.plus(index),
        }));
        if !matches!(filled, Ok(Filled::More)) {
            break;
        }
    }
    let count = usize::try_from(range.end.since(range.start)).unwrap_or(usize::MAX);
    found.truncate(count);
    found
}
