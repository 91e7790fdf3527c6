//! The database that a lane's events were promised to, noted beside its segments.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::event::database_id::DatabaseId;

/// The file's name in the directory of its lane.
const NAME: &str = "database";

/// Under this name it is written before it takes the other's place.
const NEW_NAME: &str = "database.new";

/// What a lane knows of its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneLabel {
    /// Nothing: a version wrote it that labelled no lanes.
    Missing,
    /// The database had not answered yet when the lane was opened. It is the one that answers at this
    /// address.
    Address(String),
    /// The events belong to this database, then at this address.
    Database(DatabaseId, String),
    /// A person decided that the events go into whichever database is served.
    Any,
}

/// How a lane's label is written and read.
impl LaneLabel {
    /// Reads the label of the lane in `directory`. One that cannot be understood is an error: the lane must
    /// not be taken for one without a label.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(directory.join(NAME)) {
            Ok(text) => text,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Self::Missing),
            Err(fault) => return Err(fault),
        };
        Self::parse(&text).ok_or_else(|| {
            let text = format!("{}: not a lane's label", directory.join(NAME).display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.strip_suffix('\n')?.split_once('\n')?;
        let address = rest.strip_prefix("address ")?.to_owned();
        match first.strip_prefix("id ")? {
            "any" => Some(Self::Any),
            "unknown" => Some(Self::Address(address)),
            id => Some(Self::Database(id.parse().ok()?, address)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Any => "id any\naddress \n".to_owned(),
            Self::Address(address) => format!("id unknown\naddress {}\n", one_line(address)),
            Self::Database(id, address) => format!("id {id}\naddress {}\n", one_line(address)),
        }
    }

    /// Labels the lane in `directory`; the label is durable when this returns, and a crash leaves the one
    /// before or this one.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(NEW_NAME);
        let mut file = File::create(&new)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, directory.join(NAME))?;
        File::open(directory)?.sync_all()
    }
}

fn one_line(address: &str) -> String {
    address.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            LaneLabel::read(directory.path()).unwrap(),
            LaneLabel::Missing
        );
        for label in [
            LaneLabel::Address("tcp(a:1)/b".to_owned()),
            LaneLabel::Database(DatabaseId::random().unwrap(), "sqlite:x y".to_owned()),
            LaneLabel::Any,
        ] {
            label.write(directory.path()).unwrap();
            assert_eq!(LaneLabel::read(directory.path()).unwrap(), label);
        }
        fs::write(directory.path().join(NAME), "id 12").unwrap();
        let fault = LaneLabel::read(directory.path()).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
    }
}
