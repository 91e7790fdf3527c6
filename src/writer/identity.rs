//! Which database the connection is to, and which lanes belong to it.

use std::io;
use std::sync::Arc;

use super::Storing;
use crate::event::database_id::DatabaseId;
use crate::event::position::Position;
use crate::journal::lane_handle::{DiskLane, Origin};
use crate::journal::lane_label::LaneLabel;
use crate::journal::served_database::{Belongs, OtherDatabase};
use crate::sink::{Fault, SinkError};

impl Storing {
    /// Makes sure that there is a connection to the database that is served, and learns what it takes.
    pub(super) fn open(&mut self) -> Result<(), SinkError> {
        let rule = self.writer.sink.open()?;
        self.identify()?;
        self.writer.counters.set(|counters| &counters.connected, 1);
        if self.writer.name_rule.get() != rule {
            log::info!(
                event = "name_rule_changed", characters = rule.chars_max;
                "the name column takes {} characters, {:?}", rule.chars_max, rule.repertoire
            );
            self.writer.name_rule.set(rule);
        }
        Ok(())
    }

    /// Makes sure that the connection is to the database that is served. One without an id is given one, if
    /// it is the first that answers.
    pub(super) fn identify(&mut self) -> Result<(), SinkError> {
        let served = Arc::clone(&self.writer.served);
        let id = match (self.writer.sink.database()?, served.id()) {
            (Some(id), Some(expected)) if id.is_half_of(expected) => {
                log::error!(
                    event = "database_id_altered", id:% = id, expected:% = expected;
                    "the id of the database was altered from {expected} to {id}, as by an UPDATE of every row of \
                     hakaru_checkpoint; it is put back"
                );
                self.writer.sink.restore_database_id(expected)?;
                expected
            }
            (Some(id), _) => id,
            (None, None) => self.name_database()?,
            (None, Some(expected)) if served.adopts_any() => {
                self.writer.sink.name_database(expected)?
            }
            (None, Some(expected)) => return Err(other_database(expected, None)),
        };
        match served.answered(id) {
            Ok(()) => Ok(()),
            Err(OtherDatabase { expected }) => Err(other_database(expected, Some(id))),
        }
    }

    /// On a connection that was to the database that is served, checkpoints are gone: the id may be gone with
    /// them.
    pub(super) fn keep_id(&mut self) -> Result<(), SinkError> {
        match self.writer.served.id() {
            Some(id) => self.writer.sink.restore_database_id(id),
            None => Ok(()),
        }
    }

    fn name_database(&mut self) -> Result<DatabaseId, SinkError> {
        let sink = &mut self.writer.sink;
        if sink.has_checkpoints()? {
            self.writer.served.set_was_unnamed();
        }
        let id = DatabaseId::random().map_err(|fault| stop(fault.to_string()))?;
        sink.name_database(id)
    }

    /// Whether the lane belongs to the database that is served, which has answered; and if so, how it is
    /// adopted.
    pub(super) fn claim(&mut self, lane: &DiskLane) -> Result<Claim, SinkError> {
        let served = Arc::clone(&self.writer.served);
        let label = match LaneLabel::read(&lane.directory) {
            Ok(label) => label,
            // A lane of this process was opened for the database that is served.
            Err(_) if lane.origin == Origin::Opened => served.label(),
            Err(fault) => return Ok(Claim::Unreadable(fault)),
        };
        let is_ours = match served.belongs(&label) {
            Belongs::Here => true,
            Belongs::Unlabelled => self.writer.sink.knows(lane.id)? || served.was_unnamed(),
            // Unknown only before any database has answered.
            Belongs::Elsewhere | Belongs::Unknown => false,
        };
        if !is_ours {
            return Ok(Claim::Foreign);
        }
        let own = served.label();
        Ok(Claim::Ours {
            from: match &label {
                // What another database is noted to have is not stored here once more.
                LaneLabel::Any => lane.stored(),
                LaneLabel::Database(id, _) if Some(*id) != served.id() => lane.stored(),
                _ => Position::START,
            },
            label: (label != own).then_some(own),
        })
    }
}

/// Whether a lane is stored here.
pub(super) enum Claim {
    /// It belongs to the database that is served.
    Ours {
        /// Where its checkpoint begins, if the database has none.
        from: Position,
        /// What it is to be labelled with, so that it goes into no other database.
        label: Option<LaneLabel>,
    },
    /// It belongs to another database.
    Foreign,
    /// Its label cannot be read.
    Unreadable(io::Error),
}

/// Labels a lane. Where that fails, as on a full disk, its events are stored all the same: that is what frees
/// the disk, and the label before this one led here too.
pub(super) fn label(lane: &DiskLane, label: &LaneLabel) {
    if let Err(fault) = label.write(&lane.directory) {
        log::warn!(
            event = "lane_not_labelled", lane:% = lane.id, code = fault.raw_os_error();
            "the database of lane {} cannot be noted: {fault}; its events are stored all the same", lane.id
        );
    }
}

fn other_database(expected: DatabaseId, found: Option<DatabaseId>) -> SinkError {
    let found = match found {
        Some(found) => format!("has the id {found}"),
        None => "has no id, as one that was made anew".to_owned(),
    };
    stop(format!(
        "another database answers: events were promised to {expected}, and this one {found}; they stay in \
         the journal until {expected} answers, or hakaru is started with --adopt any"
    ))
}

fn stop(text: String) -> SinkError {
    SinkError::Stop(Fault::new(text))
}
