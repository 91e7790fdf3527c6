//! The database that this process stores into.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::durable_note;
use super::lane_handle::DiskLane;
use super::lane_label::LaneLabel;
use super::segment::lanes;
use super::stored_note;
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};
use crate::os::reached::reached;

/// Which database it is, as soon as one has answered. Shared by writers, disk threads and the janitor.
#[derive(Debug)]
pub struct ServedDatabase {
    /// Where it is, for people, and for lanes that are opened before it has answered.
    address: String,
    /// Lanes of other databases are stored too.
    adopts_any: bool,
    /// What the lanes of earlier processes say about databases.
    earlier: EarlierLanes,
    id: OnceLock<DatabaseId>,
    /// How often a writer has seen that the database has lost rows.
    restores: AtomicU64,
    /// Lanes in the journal that belong to another database.
    foreign_lanes: AtomicU64,
    /// Events in them that were not stored there, as far as is noted.
    foreign_events: AtomicU64,
    /// Lanes that wait for a person.
    held_lanes: AtomicU64,
    /// Events in question in them.
    held_events: AtomicU64,
    /// Lanes that their writers cannot take over or read at present.
    waiting_lanes: AtomicU64,
}

/// What was in the journal when the process started.
#[derive(Debug, Default, Clone)]
pub struct EarlierLanes {
    /// The database of each lane that names one, and its address then.
    databases: Vec<(DatabaseId, String)>,
    /// The addresses that lanes name whose database had not answered.
    addresses: Vec<String>,
    /// Lanes without a label that were stored somewhere.
    unlabelled: Vec<LaneId>,
}

impl EarlierLanes {
    /// Reads the labels in a journal.
    pub fn read(journal: &Path) -> io::Result<Self> {
        let mut earlier = Self::default();
        for lane in lanes(journal)? {
            let directory = journal.join(lane.to_string());
            match LaneLabel::read(&directory) {
                Ok(LaneLabel::Database { id, address, .. }) => {
                    earlier.databases.push((id, address));
                }
                Ok(LaneLabel::Address(address)) => earlier.addresses.push(address),
                Ok(LaneLabel::Missing) if stored_note::read(&directory) > Position::START => {
                    earlier.unlabelled.push(lane);
                }
                Ok(LaneLabel::Missing | LaneLabel::Any { .. }) => {}
                // It is read again, and logged, before anything of the lane is stored.
                Err(fault) => log::debug!("lane {lane}: {fault}"),
            }
        }
        Ok(earlier)
    }
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
    pub fn new(address: String, adopts_any: bool, earlier: EarlierLanes) -> Self {
        Self {
            address,
            adopts_any,
            earlier,
            id: OnceLock::new(),
            restores: AtomicU64::new(0),
            foreign_lanes: AtomicU64::new(0),
            foreign_events: AtomicU64::new(0),
            held_lanes: AtomicU64::new(0),
            held_events: AtomicU64::new(0),
            waiting_lanes: AtomicU64::new(0),
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

    /// The id that was at this address before, if the lanes of earlier processes agree on one.
    pub fn earlier_id(&self) -> Option<DatabaseId> {
        let here = |(id, address): &(DatabaseId, String)| {
            is_same_place(address, &self.address).then_some(*id)
        };
        let mut ids = self.earlier.databases.iter().filter_map(here);
        let first = ids.next()?;
        ids.all(|id| id == first).then_some(first)
    }

    /// The id of which `half` is what an `UPDATE` of every checkpoint has left, if lanes of earlier processes
    /// name it.
    pub fn whole_of(&self, half: DatabaseId) -> Option<DatabaseId> {
        let databases = self.earlier.databases.iter();
        databases.map(|(id, _)| *id).find(|&id| half.is_half_of(id))
    }

    /// Whether lanes of earlier processes belong to another database than `served`.
    pub fn is_shared(&self, served: DatabaseId) -> bool {
        let mut addresses = self.earlier.addresses.iter();
        self.earlier.databases.iter().any(|(id, _)| *id != served)
            || addresses.any(|address| self.belongs_at(address) == Belongs::Elsewhere)
    }

    /// Lanes of earlier processes without a label that were stored in some database.
    pub fn unlabelled(&self) -> &[LaneId] {
        &self.earlier.unlabelled
    }

    /// Notes which database answers. The first that does is the one that is served.
    pub fn answered(&self, id: DatabaseId) -> Result<(), OtherDatabase> {
        let expected = *self.id.get_or_init(|| id);
        if expected == id || self.adopts_any || planted(Bug::OtherDatabaseAccepted) {
            Ok(())
        } else {
            Err(OtherDatabase { expected })
        }
    }

    /// How often a writer has seen that the database has lost rows.
    pub fn restores(&self) -> u64 {
        self.restores.load(Ordering::Acquire)
    }

    /// Notes that the database has lost rows: all lanes are checked, and nothing of them is removed before. Returns
    /// how often that was seen.
    pub fn announce_restore(&self) -> u64 {
        1 + self.restores.fetch_add(1, Ordering::AcqRel)
    }

    /// The label of a lane whose events from `from` on are promised to it.
    pub fn label(&self, from: Position) -> LaneLabel {
        match self.id() {
            Some(id) => LaneLabel::Database {
                id,
                address: self.address.clone(),
                from,
            },
            None => LaneLabel::Address(self.address.clone()),
        }
    }

    /// Labels a lane of this process that was opened before the database answered. `false`: it has not answered yet.
    pub(super) fn label_opened(&self, lane: &DiskLane) -> io::Result<bool> {
        if self.id().is_none() {
            return Ok(false);
        }
        let _held = lane.labelling();
        if let LaneLabel::Address(_) = LaneLabel::read(&lane.directory)? {
            reached("janitor: lane labelled");
            self.label(Position::START).write(&lane.directory)?;
        } else {
            // An earlier attempt may have failed behind its change.
            durable_note::confirm(&lane.directory)?;
        }
        Ok(true)
    }

    /// Where a lane is stored that has this label.
    pub fn belongs(&self, label: &LaneLabel) -> Belongs {
        if self.adopts_any {
            Belongs::Here
        } else {
            self.belongs_by_label(label)
        }
    }

    /// Where a lane belongs that has this label, if no other lane than its own is stored.
    pub fn belongs_by_label(&self, label: &LaneLabel) -> Belongs {
        match (label, self.id()) {
            (LaneLabel::Any { .. }, _) => Belongs::Here,
            (LaneLabel::Missing, _) => Belongs::Unlabelled,
            (LaneLabel::Address(address), _) => self.belongs_at(address),
            (LaneLabel::Database { id, .. }, Some(served)) if *id == served => Belongs::Here,
            // The checkpoints were altered before the id was put back.
            (LaneLabel::Database { id, .. }, Some(served)) if id.is_half_of(served) => {
                Belongs::Here
            }
            (LaneLabel::Database { .. }, Some(_)) => Belongs::Elsewhere,
            // It is named by its id alone, as by replayed letters; or the same database may have another address.
            (LaneLabel::Database { address, .. }, None)
                if address.is_empty() || is_same_place(address, &self.address) =>
            {
                Belongs::Unknown
            }
            (LaneLabel::Database { .. }, None) => Belongs::Elsewhere,
        }
    }

    /// Where a lane belongs whose database had not answered at `address`.
    fn belongs_at(&self, address: &str) -> Belongs {
        // Other lanes may say which database that was.
        let databases = self.earlier.databases.iter();
        let there = databases.filter(|(_, place)| is_same_place(place, address));
        let (mut was_served, mut was_another) = (false, false);
        for (id, _) in there {
            let is_served = self.id() == Some(*id);
            was_served |= is_served;
            was_another |= !is_served;
        }
        let is_here = was_served || is_same_place(address, &self.address);
        // Where there was another one, nobody knows which of them had answered.
        if is_here && (!was_another || self.id().is_none()) {
            Belongs::Here
        } else {
            Belongs::Elsewhere
        }
    }

    /// Lanes that belong to another database, and their events that were not stored there.
    pub fn foreign(&self) -> (u64, u64) {
        let lanes = self.foreign_lanes.load(Ordering::Relaxed);
        (lanes, self.foreign_events.load(Ordering::Relaxed))
    }

    /// Lanes that wait for a person, and their events of which nobody can tell whether they are stored.
    pub fn held(&self) -> (u64, u64) {
        let lanes = self.held_lanes.load(Ordering::Relaxed);
        (lanes, self.held_events.load(Ordering::Relaxed))
    }

    /// Notes what [`Self::held`] gives. Only the janitor calls this.
    pub fn set_held(&self, lanes: u64, events: u64) {
        self.held_lanes.store(lanes, Ordering::Relaxed);
        self.held_events.store(events, Ordering::Relaxed);
    }

    /// Lanes that their writers cannot take over or read at present, and try again.
    pub fn waiting(&self) -> u64 {
        self.waiting_lanes.load(Ordering::Relaxed)
    }

    /// Notes what [`Self::waiting`] gives. Only the janitor calls this.
    pub fn set_waiting(&self, lanes: u64) {
        self.waiting_lanes.store(lanes, Ordering::Relaxed);
    }

    /// Notes what [`Self::foreign`] gives. Only the janitor calls this.
    pub fn set_foreign(&self, lanes: u64, events: u64) {
        self.foreign_lanes.store(lanes, Ordering::Relaxed);
        self.foreign_events.store(events, Ordering::Relaxed);
    }
}

/// Whether two addresses are of the same database. The user that logs in makes no difference.
fn is_same_place(one: &str, other: &str) -> bool {
    place(one) == place(other)
}

/// The address without the user: that of `mysql://app@host:3306/hakaru` is `mysql://host:3306/hakaru`.
fn place(address: &str) -> (&str, &str) {
    let Some((scheme, rest)) = address.split_once("://") else {
        return ("", address);
    };
    (
        scheme,
        rest.rsplit_once('@').map_or(rest, |(_, place)| place),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: DatabaseId, address: &str) -> LaneLabel {
        LaneLabel::Database {
            id,
            address: address.to_owned(),
            from: Position::START,
        }
    }

    #[test]
    fn a_lane_belongs_to_the_database_of_its_label() {
        let (ours, other) = (DatabaseId::from_halves(1, 1), DatabaseId::from_halves(2, 2));
        let served = ServedDatabase::new("here".to_owned(), false, EarlierLanes::default());
        let at = |address: &str| LaneLabel::Address(address.to_owned());
        assert_eq!(served.label(Position::START), at("here"));
        assert_eq!(served.belongs(&of(ours, "here")), Belongs::Unknown);
        assert_eq!(served.belongs(&of(ours, "there")), Belongs::Elsewhere);
        // Replayed letters, where no lane says where their database is.
        assert_eq!(served.belongs(&of(ours, "")), Belongs::Unknown);
        assert_eq!(served.answered(ours), Ok(()));
        assert_eq!(
            served.answered(other),
            Err(OtherDatabase { expected: ours })
        );
        assert_eq!(served.label(Position::START), of(ours, "here"));
        for (label, belongs) in [
            (of(ours, "here"), Belongs::Here),
            (of(ours, "there"), Belongs::Here),
            (of(DatabaseId::from_halves(1, 0), "here"), Belongs::Here),
            (of(other, "here"), Belongs::Elsewhere),
            (at("here"), Belongs::Here),
            (at("there"), Belongs::Elsewhere),
            (LaneLabel::Any { was: None }, Belongs::Here),
            (LaneLabel::Missing, Belongs::Unlabelled),
        ] {
            assert_eq!(served.belongs(&label), belongs, "{label:?}");
            let any = ServedDatabase::new("here".to_owned(), true, EarlierLanes::default());
            assert_eq!(any.belongs(&label), Belongs::Here, "{label:?}");
        }
    }

    #[test]
    fn earlier_lanes_say_which_database_was_where() {
        let journal = tempfile::tempdir().unwrap();
        let (ours, other) = (DatabaseId::from_halves(1, 1), DatabaseId::from_halves(2, 2));
        let lane = |label: &LaneLabel| {
            let lane = LaneId::random().unwrap();
            let directory = journal.path().join(lane.to_string());
            std::fs::create_dir(&directory).unwrap();
            label.write(&directory).unwrap();
            lane
        };
        let serve = |address: &str| {
            let earlier = EarlierLanes::read(journal.path()).unwrap();
            ServedDatabase::new(address.to_owned(), false, earlier)
        };
        lane(&of(ours, "mysql://app@one:3306/h"));
        let served = serve("mysql://root@one:3306/h");
        assert_eq!(served.earlier_id(), Some(ours));
        assert_eq!(serve("mysql://root@two:3306/h").earlier_id(), None);
        assert_eq!(served.whole_of(DatabaseId::from_halves(1, 7)), Some(ours));
        assert!(!served.is_shared(ours) && served.is_shared(other));
        // The database that was at the first address serves at the second one now.
        let failed_over = serve("mysql://root@two:3306/h");
        let before = LaneLabel::Address("mysql://app@one:3306/h".to_owned());
        assert_eq!(failed_over.belongs(&before), Belongs::Elsewhere);
        assert_eq!(failed_over.answered(ours), Ok(()));
        assert_eq!(failed_over.belongs(&before), Belongs::Here);
        lane(&of(other, "mysql://app@one:3306/h"));
        assert_eq!(serve("mysql://root@one:3306/h").earlier_id(), None);
        let unlabelled = lane(&LaneLabel::Any { was: None });
        let directory = journal.path().join(unlabelled.to_string());
        std::fs::remove_file(directory.join("database")).unwrap();
        assert!(serve("x").unlabelled().is_empty());
        stored_note::write(&directory, Position(1)).unwrap();
        assert_eq!(serve("x").unlabelled(), [unlabelled]);
    }
}
