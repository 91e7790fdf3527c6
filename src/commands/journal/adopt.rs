//! `hakaru journal adopt`.

use std::io::{self, Write};

use super::{InspectError, Inspection};
use crate::event::position::LaneId;
use crate::journal::lane_handle::{DiskLane, Origin};
use crate::journal::lane_label::LaneLabel;
use crate::os::printable::Printable;

impl Inspection {
    /// Labels a lane so that a server stores it in any database. A running server does so within a second.
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
        let locked = DiskLane::lock(id, directory.clone(), Origin::Found, None);
        // Held until the label is written: nobody takes the lane over meanwhile.
        let Some(_lane) = Self::io(&directory, locked)? else {
            return Err(InspectError::InUse { lane: id });
        };
        let label = match LaneLabel::read(&directory) {
            // Adopting the lane is what mends a label that cannot be understood.
            Err(fault) if fault.kind() == io::ErrorKind::InvalidData => LaneLabel::Missing,
            label => Self::io(&directory, label)?,
        };
        Self::io(&directory, label.adopted().write(&directory))?;
        writeln!(
            out,
            "lane {id} was written for the database {}; it will be stored in the database that is served",
            Printable(&before)
        )?;
        Ok(())
    }
}
