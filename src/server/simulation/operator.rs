//! What a person does about lanes that wait for one: `hakaru journal adopt` and `hakaru journal settle`.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::database::{EventId, is_same};
use super::history::note;
use super::process::JOURNAL;
use super::rest::Letters;
use super::senders::is_twin;
use super::world::World;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::{Decision, Hold, Settlement};
use crate::journal::lane_keys::LaneKeys;
use crate::journal::lane_label::LaneLabel;
use crate::journal::reader::{Filled, LaneReader, ReadError};
use crate::journal::segment::lanes;
use crate::os::fs::{File, Use};
use crate::os::simulated;

/// Events of held lanes that neither answer would be true for, and of those after them, which wait too.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    pub(super) values: BTreeSet<u32>,
    /// How many more of them cannot be read.
    pub(super) unreadable: u64,
}

impl Undecided {
    fn add(&mut self, more: Self) {
        self.values.extend(more.values);
        self.unreadable += more.unreadable;
    }
}

/// The held lanes of all machines, by the indices of these, and those lanes of which a copy is about to go on as was decided.
fn held_lanes(world: &World) -> (Vec<(usize, LaneId)>, BTreeSet<LaneId>) {
    let (mut held, mut deciding) = (Vec::new(), BTreeSet::new());
    for (index, machine) in world.machines.iter().enumerate() {
        simulated::set_machine(Some(machine.clone()));
        for lane in lanes(Path::new(JOURNAL)).unwrap_or_default() {
            let directory = Path::new(JOURNAL).join(lane.to_string());
            if let Ok(Some(hold)) = Hold::read(&directory) {
                held.push((index, lane));
                let settled = Settlement::read(&directory).ok().flatten();
                if settled.is_some_and(|settled| settled.is_about(&hold)) {
                    deciding.insert(lane);
                }
            }
        }
        simulated::set_machine(None);
    }
    (held, deciding)
}

/// Decides about each lane on each machine by what is true. Returns what was done.
pub(super) fn act(world: &World) -> (Vec<String>, Undecided) {
    let mut done = adopt_all(world);
    let (more, undecided) = settle_all(world);
    done.extend(more);
    (done, undecided)
}

/// Lets lanes into the database that is served, as far as they belong to no other one.
fn adopt_all(world: &World) -> Vec<String> {
    let mut done = Vec::new();
    let server = world.database.server();
    let ids = [server.content.id, server.other.id];
    drop(server);
    for machine in &world.machines {
        simulated::set_machine(Some(machine.clone()));
        for lane in lanes(Path::new(JOURNAL)).unwrap_or_default() {
            let directory = Path::new(JOURNAL).join(lane.to_string());
            done.extend(adopt(lane, &directory, ids, world));
        }
        simulated::set_machine(None);
    }
    done
}

/// Decides about held lanes.
pub(super) fn settle_all(world: &World) -> (Vec<String>, Undecided) {
    let (mut done, mut undecided) = (Vec::new(), Undecided::default());
    let (held, mut deciding) = held_lanes(world);
    if held.is_empty() {
        return (done, undecided);
    }
    let rows = world.rows();
    let letters = world.letters();
    for (machine, lane) in held {
        // One copy of a lane after the other: what is true of the next one follows from the first.
        if deciding.contains(&lane) {
            continue;
        }
        simulated::set_machine(Some(world.machines[machine].clone()));
        let directory = Path::new(JOURNAL).join(lane.to_string());
        match settle(lane, &directory, &rows, &letters) {
            Ok(Some(Ok(line))) => {
                deciding.insert(lane);
                done.push(line);
            }
            Ok(Some(Err(more))) => undecided.add(more),
            Ok(None) | Err(_) => {}
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
    let is_known = |id| known.iter().any(|known| is_same(*known, Some(id)));
    let is_wanted = match &label {
        LaneLabel::Database { id, .. } => known[0].is_some() && !is_known(*id),
        LaneLabel::Address(_) if !is_owned(directory) => {
            let (first, unreadable) = events(lane, directory, Position::START..Position(1));
            if first.is_empty() && unreadable == 0 {
                return None;
            }
            let promised = |event: &EventId| world.oracle.database_of(&world.senders, *event);
            let database = first.first().and_then(promised);
            known[0].is_some()
                && database.is_none_or(|id| is_same(known[0], Some(id)) || !is_known(id))
        }
        _ => false,
    };
    // Also where the other database has lost its id.
    let is_elsewhere = || {
        let (events, _) = events(lane, directory, Position::START..Position(u64::MAX));
        let server = world.database.server();
        let rows: BTreeSet<EventId> = server.other.rows.values().map(|row| row.event).collect();
        let keys = keys_of(lane, directory).unwrap_or_else(|_| vec![lane]);
        events.iter().any(|event| is_row(&rows, &keys, event))
    };
    if !is_wanted || is_elsewhere() {
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
    letters: &Letters,
) -> io::Result<Option<Result<String, Undecided>>> {
    let Some(hold) = Hold::read(directory)? else {
        return Ok(None);
    };
    if Settlement::read(directory)?.is_some_and(|settled| settled.is_about(&hold)) {
        return Ok(None);
    }
    let (events, unreadable) = events(lane, directory, hold.from..hold.to);
    let keys = keys_of(lane, directory)?;
    let is_row = |event: &EventId| is_row(rows, &keys, event);
    // Its letter was stored from another lane, or its sender has repeated it.
    let is_replayed = |event: &EventId| {
        let same = |row: &&EventId| {
            let is_repeated = event.has_id || row.received_at == event.received_at;
            row.value == event.value && is_repeated
        };
        !is_twin(event.value) && !is_row(event) && rows.iter().any(|row| same(&row))
    };
    let is_stored: Vec<bool> = events
        .iter()
        .filter(|event| !letters.contains_key(&event.value) && !is_replayed(event))
        .map(is_row)
        .collect();
    let is_last_read = events
        .last()
        .is_some_and(|last| last.position.plus(1) == hold.to);
    // Events are stored in their order. But a letter tells nothing of the events before it that cannot be read.
    let is_known = is_last_read && (unreadable == 0 || !is_stored.is_empty());
    // Letters stay letters, whatever is decided.
    let decision = if !is_stored.contains(&true) && !is_stored.is_empty() {
        Decision::Refill
    } else if !is_stored.contains(&false) && is_known {
        Decision::Stored
    } else {
        note(|| {
            format!(
                "lane {lane}: of its events from {} to {} these are there: {is_stored:?}",
                hold.from.0, hold.to.0
            )
        });
        // The lane waits with all that follows, and with what a restore has taken before it.
        let (waiting, more) = self::events(lane, directory, Position::START..Position(u64::MAX));
        return Ok(Some(Err(Undecided {
            values: waiting.iter().map(|event| event.value).collect(),
            unreadable: unreadable.max(more),
        })));
    };
    hold.decide(decision).write(directory)?;
    Ok(Some(Ok(format!("lane {lane}: is settled: {decision:?}"))))
}

/// The keys under which a lane is stored, or was.
fn keys_of(lane: LaneId, directory: &Path) -> io::Result<Vec<LaneId>> {
    let mut keys = vec![lane];
    LaneKeys::read(directory, lane)?.stored(|key| {
        keys.push(key);
        Ok::<_, io::Error>(None)
    })?;
    Ok(keys)
}

/// Whether an event is a row under one of these keys.
fn is_row(rows: &BTreeSet<EventId>, keys: &[LaneId], event: &EventId) -> bool {
    let under = |lane| EventId { lane, ..*event };
    keys.iter().any(|key| rows.contains(&under(*key)))
}

/// The events in question that can be read, and how many others are known to have been there.
fn events(lane: LaneId, directory: &Path, range: Range<Position>) -> (Vec<EventId>, u64) {
    let mut reader = LaneReader::new(directory, lane, range.start);
    let mut batch = Batch::new(BatchEvents::new(1000).unwrap());
    let (mut found, mut unreadable) = (Vec::new(), 0);
    while reader.position() < range.end {
        batch.clear();
        let first = reader.position();
        let filled = reader.fill(&mut batch, Some(range.end));
        let events = batch.events().enumerate();
        found.extend(events.map(|(index, event)| EventId {
            lane,
            value: event.value,
            received_at: event.received_at,
            position: first.plus(index),
            has_id: event.id.is_some(),
        }));
        match filled {
            Ok(Filled::More) => {}
            Err(ReadError::Damage(damage)) => unreadable += damage.to.since(damage.from),
            Ok(Filled::End { .. }) | Err(_) => break,
        }
    }
    found.retain(|event| event.position < range.end);
    (found, unreadable)
}
