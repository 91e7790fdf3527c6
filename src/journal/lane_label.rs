//! The database that a lane's events were promised to, noted beside its segments.

use std::io;
use std::path::Path;

use super::durable_note;
use crate::event::database_id::DatabaseId;
use crate::event::position::Position;

/// The file's name in the directory of its lane.
const NAME: &str = "database";

/// What a lane knows of its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneLabel {
    /// Nothing: a version wrote it that labelled no lanes.
    Missing,
    /// The database had not answered yet when the lane was opened. It is the one that answers at this
    /// address.
    Address(String),
    /// The events belong to this database.
    Database {
        /// Its id.
        id: DatabaseId,
        /// Its address then.
        address: String,
        /// Where the checkpoint of the lane begins there. What is before it was stored in another database.
        from: Position,
    },
    /// A person decided that the events go into whichever database is served.
    Any {
        /// What the label said before.
        was: Option<(DatabaseId, Position)>,
    },
}

/// How a lane's label is written and read.
impl LaneLabel {
    /// Reads the label of the lane in `directory`. One that cannot be understood is an error: the lane must
    /// not be taken for one without a label.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let label = durable_note::read(directory, NAME, Self::parse)?;
        Ok(label.unwrap_or(Self::Missing))
    }

    /// The label of a lane whose label is this one, once a person has let it into any database.
    #[must_use]
    pub fn adopted(&self) -> Self {
        let was = match self {
            Self::Database { id, from, .. } => Some((*id, *from)),
            Self::Any { was } => *was,
            Self::Missing | Self::Address(_) => None,
        };
        Self::Any { was }
    }

    /// A line for the id, one for the address, and one for where the checkpoint begins, unless that is the start.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let id = lines.next()?.strip_prefix("id ")?;
        let address = lines.next()?.strip_prefix("address ")?.to_owned();
        let from = match lines.next() {
            None => Position::START,
            Some(line) => Position(line.strip_prefix("from ")?.parse().ok()?),
        };
        if lines.next().is_some() {
            return None;
        }
        match id.split_once(' ').unwrap_or((id, "")) {
            ("any", "") => Some(Self::Any { was: None }),
            ("any", was) => Some(Self::Any {
                was: Some((was.parse().ok()?, from)),
            }),
            ("unknown", "") => Some(Self::Address(address)),
            (id, "") => Some(Self::Database {
                id: id.parse().ok()?,
                address,
                from,
            }),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Any { was: None } => "id any\naddress \n".to_owned(),
            Self::Any {
                was: Some((id, from)),
            } => format!("id any {id}\naddress \n{}", from_line(*from)),
            Self::Address(address) => format!("id unknown\naddress {}\n", one_line(address)),
            Self::Database { id, address, from } => format!(
                "id {id}\naddress {}\n{}",
                one_line(address),
                from_line(*from)
            ),
        }
    }

    /// Labels the lane in `directory`; the label is durable when this returns, and a crash leaves the one
    /// before or this one. Only the owner of a lane may label it.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        durable_note::replace(directory, NAME, &self.text())
    }
}

fn one_line(address: &str) -> String {
    address.replace(['\n', '\r'], " ")
}

fn from_line(from: Position) -> String {
    match from {
        Position::START => String::new(),
        Position(from) => format!("from {from}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fs::{File, create_dir};
    use crate::os::simulated::disk::Machine;
    use crate::os::simulated::{Simulated, Task, set_machine};

    #[test]
    fn a_label_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            LaneLabel::read(directory.path()).unwrap(),
            LaneLabel::Missing
        );
        let id = DatabaseId::random().unwrap();
        let database = |from| LaneLabel::Database {
            id,
            address: "sqlite:x y".to_owned(),
            from: Position(from),
        };
        for label in [
            LaneLabel::Address("tcp(a:1)/b".to_owned()),
            database(0),
            database(7),
            LaneLabel::Any { was: None },
            database(0).adopted(),
            database(7).adopted(),
        ] {
            label.write(directory.path()).unwrap();
            assert_eq!(LaneLabel::read(directory.path()).unwrap(), label);
        }
        assert_eq!(database(7).adopted().adopted(), database(7).adopted());
        for wrong in [
            "id 12",
            "id any\naddress \nfrom x\n",
            "id any\naddress \nfrom 1\n\n",
        ] {
            std::fs::write(directory.path().join(NAME), wrong).unwrap();
            let fault = LaneLabel::read(directory.path()).unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
        }
    }

    /// Whether a power cut may bring an old label back after another process has read the new one, whose writer was
    /// killed anywhere.
    fn may_come_back(is_confirmed: bool) -> bool {
        let directory = Path::new("data/lane");
        let (old, new) = (
            LaneLabel::Address("here".to_owned()),
            LaneLabel::Any { was: None },
        );
        let runs = (0..20).flat_map(|seed| (1..12).map(move |pauses| (seed, pauses)));
        runs.into_iter().any(|(seed, pauses)| {
            let _on = Simulated::start(seed);
            let machine = Machine::new(seed);
            set_machine(Some(machine.clone()));
            create_dir(directory).unwrap();
            File::open(Path::new("data")).unwrap().sync_all().unwrap();
            old.write(directory).unwrap();
            let written = new.clone();
            let mut writer = Task::new(machine.process(1), move || {
                written.write(directory).unwrap_or_default();
            });
            for _ in 0..pauses {
                writer.resume();
            }
            machine.kill(1);
            drop(writer);
            set_machine(Some(machine.process(2)));
            let is_read = LaneLabel::read(directory).unwrap() == new;
            if is_confirmed {
                durable_note::confirm(directory).unwrap();
            }
            machine.cut_power();
            is_read && LaneLabel::read(directory).unwrap() != new
        })
    }

    #[test]
    fn a_label_that_was_confirmed_survives_a_power_cut() {
        assert!(may_come_back(false));
        assert!(!may_come_back(true));
    }
}
