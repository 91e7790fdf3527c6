//! Which database a lane belongs to, and letting it into another.

use std::io::{self, Write};

use super::{InspectError, Inspection};
use crate::event::position::LaneId;
use crate::journal::lane_label::LaneLabel;
use crate::os::printable::Printable;

impl Inspection {
    /// The database that a lane's events were promised to, in words.
    pub(super) fn database(&self, lane: LaneId) -> String {
        match LaneLabel::read(&self.journal.join(lane.to_string())) {
            Ok(LaneLabel::Missing) => "unknown".to_owned(),
            Ok(LaneLabel::Any) => "any".to_owned(),
            Ok(LaneLabel::Address(address)) => format!("at {address}"),
            Ok(LaneLabel::Database(id, address)) => format!("{id} at {address}"),
            Err(fault) => fault.to_string(),
        }
    }

    /// Labels a lane so that the database that is served takes it. A server that runs takes it within a
    /// second.
    pub(super) fn adopt(&self, out: &mut impl Write, lane: &str) -> Result<(), InspectError> {
        let id: LaneId = lane.parse().map_err(|fault| InspectError::Name {
            text: lane.to_owned(),
            fault,
        })?;
        let directory = self.journal.join(id.to_string());
        let is_there = directory.is_dir();
        if !is_there {
            return Self::io(&directory, Err(io::ErrorKind::NotFound.into()));
        }
        let before = self.database(id);
        Self::io(&directory, LaneLabel::Any.write(&directory))?;
        writeln!(
            out,
            "lane {id} was written for the database {}; the one that is served takes it",
            Printable(&before)
        )?;
        Ok(())
    }
}
