//! `hakaru journal list`, and what is noted beside a lane.

use std::fs::File;
use std::io::Write;

use serde_json::json;

use super::{InspectError, Inspection, Output, verdict, with_error};
use crate::event::position::LaneId;
use crate::journal::held_lane::Hold;
use crate::journal::lane_keys::LaneKeys;
use crate::journal::lane_label::LaneLabel;
use crate::journal::segment::lanes;
use crate::os::printable::Printable;

impl Inspection {
    /// Lists the lanes.
    pub fn list(&self, out: &mut impl Write) -> Result<(), InspectError> {
        if self.output == Output::Text {
            writeln!(
                out,
                "{:32}  {:5}  {:>8}  {:>12}  {:>12}  {:>12}  DATABASE",
                "LANE", "OWNED", "SEGMENTS", "BYTES", "FIRST", "END"
            )?;
        }
        let mut unreadable = 0;
        for lane in Self::io(&self.journal, lanes(&self.journal))? {
            let Some(contents) = self.contents(lane) else {
                continue;
            };
            unreadable += usize::from(contents.error.is_some());
            let is_owned = self.is_owned(lane);
            let database = self.database(lane);
            let key = self.key(lane);
            let held = self.held(lane);
            let (segments, bytes) = (contents.segments, contents.bytes);
            let (first, end) = (contents.first.0, contents.end.0);
            match self.output {
                Output::Text => {
                    let owned = if is_owned { "yes" } else { "no" };
                    write!(
                        out,
                        "{lane}  {owned:5}  {segments:8}  {bytes:12}  {first:12}  {end:12}  {}",
                        Printable(&database)
                    )?;
                    if let Some(held) = &held {
                        write!(out, "  HELD: {}", Printable(held))?;
                    }
                    if let Some(key) = &key {
                        write!(out, "  key {}", Printable(key))?;
                    }
                    match contents.error {
                        Some(error) => writeln!(out, "  {}", Printable(error))?,
                        None => writeln!(out)?,
                    }
                }
                Output::Json => {
                    let line = json!({
                        "lane": lane.to_string(), "owned": is_owned, "segments": segments,
                        "bytes": bytes, "first": first, "end": end, "database": database, "key": key, "held": held,
                    });
                    writeln!(out, "{}", with_error(line, contents.error.as_ref()))?;
                }
            }
        }
        verdict(0, unreadable)
    }

    /// Whether a process holds the lane's lock.
    pub(super) fn is_owned(&self, lane: LaneId) -> bool {
        let lock = self.directory(lane).join("lock");
        let held = File::open(lock).map(|lock| lock.try_lock_shared());
        matches!(held, Ok(Err(std::fs::TryLockError::WouldBlock)))
    }

    /// The database that a lane was written for, as text.
    pub(super) fn database(&self, lane: LaneId) -> String {
        match LaneLabel::read(&self.journal.join(lane.to_string())) {
            Ok(LaneLabel::Missing) => "unknown".to_owned(),
            Ok(LaneLabel::Any { .. }) => "any".to_owned(),
            Ok(LaneLabel::Address(address)) => format!("at {address}"),
            Ok(LaneLabel::Database { id, address, .. }) if address.is_empty() => id.to_string(),
            Ok(LaneLabel::Database { id, address, .. }) => format!("{id} at {address}"),
            Err(fault) => fault.to_string(),
        }
    }

    /// Why the lane is held, if it is.
    fn held(&self, lane: LaneId) -> Option<String> {
        match Hold::read(&self.directory(lane)) {
            Ok(hold) => hold.map(|hold| hold.reason),
            Err(fault) => Some(fault.to_string()),
        }
    }

    /// The key of a lane's checkpoint, if it is not the lane's id.
    pub(super) fn key(&self, lane: LaneId) -> Option<String> {
        match LaneKeys::read(&self.journal.join(lane.to_string()), lane) {
            Ok(keys) => keys.given().map(|key| key.to_string()),
            Err(fault) => Some(fault.to_string()),
        }
    }
}
