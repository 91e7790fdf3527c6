//! The database that this process stores into.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::lane_label::LaneLabel;
use crate::event::database_id::DatabaseId;

/// Which database it is, as soon as one has answered. Shared by writers, disk threads and the janitor.
#[derive(Debug)]
pub struct ServedDatabase {
    /// Where it is, for people, and for lanes that are opened before it has answered.
    address: String,
    /// Lanes of other databases are stored too.
    adopts_any: bool,
    id: OnceLock<DatabaseId>,
    /// It had checkpoints and no id: a version that labelled no lanes stored into it.
    was_unnamed: AtomicBool,
    /// Lanes in the journal that belong to another database.
    foreign_lanes: AtomicU64,
    /// Events in them that were not stored there, as far as is noted.
    foreign_events: AtomicU64,
}

/// Where the events of a lane belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belongs {
    /// Into the database that is served.
    Here,
    /// Into another one.
    Elsewhere,
    /// Nobody knows before the database has answered.
    Unknown,
    /// The lane has no label. It belongs to the database that has its checkpoint.
    Unlabelled,
}

/// Another database answers than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherDatabase {
    /// The one that is served.
    pub expected: DatabaseId,
}

impl ServedDatabase {
    /// The database at `address`, which has not answered yet.
    pub fn new(address: String, adopts_any: bool) -> Self {
        Self {
            address,
            adopts_any,
            id: OnceLock::new(),
            was_unnamed: AtomicBool::new(false),
            foreign_lanes: AtomicU64::new(0),
            foreign_events: AtomicU64::new(0),
        }
    }

    /// Its id; `None` while it has not answered.
    pub fn id(&self) -> Option<DatabaseId> {
        self.id.get().copied()
    }

    /// Whether lanes of other databases, and another database under a running server, are accepted.
    pub fn adopts_any(&self) -> bool {
        self.adopts_any
    }

    /// Notes which database answers. The first that does is the one that is served.
    pub fn answered(&self, id: DatabaseId) -> Result<(), OtherDatabase> {
        let expected = *self.id.get_or_init(|| id);
        if expected == id || self.adopts_any {
            Ok(())
        } else {
            Err(OtherDatabase { expected })
        }
    }

    /// Notes that the database had checkpoints and no id.
    pub fn set_was_unnamed(&self) {
        self.was_unnamed.store(true, Ordering::Relaxed);
    }

    /// Whether lanes without a label may belong to it although it lacks their checkpoint: they were never
    /// stored anywhere.
    pub fn was_unnamed(&self) -> bool {
        self.was_unnamed.load(Ordering::Relaxed)
    }

    /// The label of a lane whose events are promised to it.
    pub fn label(&self) -> LaneLabel {
        match self.id() {
            Some(id) => LaneLabel::Database(id, self.address.clone()),
            None => LaneLabel::Address(self.address.clone()),
        }
    }

    /// Where a lane belongs that has this label.
    pub fn belongs(&self, label: &LaneLabel) -> Belongs {
        match (label, self.id()) {
            _ if self.adopts_any => Belongs::Here,
            (LaneLabel::Any, _) => Belongs::Here,
            (LaneLabel::Missing, _) => Belongs::Unlabelled,
            (LaneLabel::Address(address), _) if *address == self.address => Belongs::Here,
            (LaneLabel::Address(_), _) => Belongs::Elsewhere,
            (LaneLabel::Database(id, _), Some(served)) if *id == served => Belongs::Here,
            (LaneLabel::Database(..), Some(_)) => Belongs::Elsewhere,
            // The same database may have another address; its id will say so.
            (LaneLabel::Database(_, address), None) if *address == self.address => Belongs::Unknown,
            (LaneLabel::Database(..), None) => Belongs::Elsewhere,
        }
    }

    /// Lanes that belong to another database, and their events that were not stored there.
    pub fn foreign(&self) -> (u64, u64) {
        let lanes = self.foreign_lanes.load(Ordering::Relaxed);
        (lanes, self.foreign_events.load(Ordering::Relaxed))
    }

    /// Notes what [`Self::foreign`] gives. Only the janitor calls this.
    pub fn set_foreign(&self, lanes: u64, events: u64) {
        self.foreign_lanes.store(lanes, Ordering::Relaxed);
        self.foreign_events.store(events, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_belongs_to_the_database_of_its_label() {
        let (ours, other) = (DatabaseId::from_halves(1, 1), DatabaseId::from_halves(2, 2));
        let served = ServedDatabase::new("here".to_owned(), false);
        let at = |address: &str| LaneLabel::Address(address.to_owned());
        let of = |id, address: &str| LaneLabel::Database(id, address.to_owned());
        assert_eq!(served.label(), at("here"));
        assert_eq!(served.belongs(&of(ours, "here")), Belongs::Unknown);
        assert_eq!(served.belongs(&of(ours, "there")), Belongs::Elsewhere);
        assert_eq!(served.answered(ours), Ok(()));
        assert_eq!(
            served.answered(other),
            Err(OtherDatabase { expected: ours })
        );
        assert_eq!(served.label(), of(ours, "here"));
        for (label, belongs) in [
            (of(ours, "here"), Belongs::Here),
            (of(ours, "there"), Belongs::Here),
            (of(other, "here"), Belongs::Elsewhere),
            (at("here"), Belongs::Here),
            (at("there"), Belongs::Elsewhere),
            (LaneLabel::Any, Belongs::Here),
            (LaneLabel::Missing, Belongs::Unlabelled),
        ] {
            assert_eq!(served.belongs(&label), belongs, "{label:?}");
            let any = ServedDatabase::new("here".to_owned(), true);
            assert_eq!(any.belongs(&label), Belongs::Here, "{label:?}");
        }
    }
}
