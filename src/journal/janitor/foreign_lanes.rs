//! Lanes of earlier processes that belong to another database than the one that is served.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::event::position::LaneId;
use crate::journal::lane_handle::{DiskLane, Origin};
use crate::journal::lane_label::LaneLabel;
use crate::journal::served_database::{Belongs, ServedDatabase};
use crate::journal::stored_note;

/// What the janitor remembers of them. It holds no lock of such a lane: the process that serves its database
/// may take it.
#[derive(Debug, Default)]
pub(super) struct ForeignLanes {
    /// Those without an owner, and their events that are not noted as stored.
    waiting: BTreeMap<LaneId, u64>,
    /// Those that a writer did not claim for the served database.
    unclaimed: BTreeSet<LaneId>,
}

impl ForeignLanes {
    /// Notes that a writer did not claim a lane for the served database.
    pub(super) fn add_unclaimed(&mut self, lane: LaneId) {
        self.unclaimed.insert(lane);
    }

    /// Forgets lanes that are gone.
    pub(super) fn retain(&mut self, exists: impl Fn(LaneId) -> bool) {
        self.waiting.retain(|&id, _| exists(id));
        self.unclaimed.retain(|&id| exists(id));
    }

    /// Whether a lane is left alone; `lock` locks it if it has no owner. A label that cannot be read does not
    /// say so: then the lane's writer says what is wrong.
    pub(super) fn is_foreign(
        &mut self,
        id: LaneId,
        directory: &Path,
        served: &ServedDatabase,
        lock: impl FnOnce() -> Option<DiskLane>,
    ) -> bool {
        let Ok(label) = LaneLabel::read(directory) else {
            return false;
        };
        let belongs = match served.belongs(&label) {
            Belongs::Unlabelled if self.unclaimed.contains(&id) => Belongs::Elsewhere,
            belongs => belongs,
        };
        if belongs != Belongs::Elsewhere {
            self.waiting.remove(&id);
            return false;
        }
        // Before the database has answered, it may be the same one at another address.
        if served.id().is_none() {
            return true;
        }
        match self.waiting.entry(id) {
            Entry::Occupied(waiting) => {
                let has_owner = matches!(lock_only(id, directory), Ok(None));
                if has_owner {
                    waiting.remove();
                }
            }
            Entry::Vacant(new) => {
                if let Some(lane) = lock() {
                    let events = unstored_events(&lane);
                    new.insert(events);
                    log_foreign(id, &label, events);
                }
            }
        }
        true
    }

    /// Shows how many there are.
    pub(super) fn publish(&self, served: &ServedDatabase) {
        let events = self.waiting.values().sum();
        served.set_foreign(self.waiting.len() as u64, events);
    }
}

/// Locks the lane, without a look at what is in it. `None` if it has an owner.
fn lock_only(id: LaneId, directory: &Path) -> io::Result<Option<DiskLane>> {
    DiskLane::lock(id, directory.to_owned(), Origin::Found, None)
}

/// Events of the lane that are not noted as stored, as far as its end can be read.
fn unstored_events(lane: &DiskLane) -> u64 {
    let noted = stored_note::read(&lane.directory);
    let (end, fault) = stored_note::end_or_more(&lane.directory, lane.id);
    if let Some(fault) = fault {
        log::debug!("lane {}: its end is not known: {fault}", lane.id);
    }
    end.since(noted)
}

fn log_foreign(id: LaneId, label: &LaneLabel, events: u64) {
    let database = match label {
        // Replayed letters name their database, and not where it is.
        LaneLabel::Database { id, address, .. } if address.is_empty() => {
            format!("the database {id}")
        }
        LaneLabel::Database { id, address, .. } => format!("the database {id} at {address}"),
        LaneLabel::Address(address) => format!("the database at {address}"),
        LaneLabel::Missing | LaneLabel::Any { .. } => "a database that is not known".to_owned(),
    };
    if events == 0 {
        // What is stored there already waits for nothing.
        return log::debug!("lane {id} is stored in {database}");
    }
    log::error!(
        event = "lane_of_other_database", lane:% = id, events;
        "lane {id} holds {events} events for {database}; they are not stored into the one that is served, and \
         wait; `hakaru journal adopt {id}` lets them in"
    );
}
