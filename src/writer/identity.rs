//! Which database the connection is to, and which lanes belong to it.

use std::io;
use std::sync::Arc;

use super::Storing;
use crate::event::UnixMillis;
use crate::event::database_id::DatabaseId;
use crate::event::position::Position;
use crate::event::rule::{EventRule, Ids};
use crate::journal::durable_note;
use crate::journal::lane_handle::{DiskLane, Origin};
use crate::journal::lane_label::LaneLabel;
use crate::journal::served_database::{Belongs, OtherDatabase};
use crate::os::bugs::{Bug, planted};
use crate::sink::{Fault, SinkError};

impl Storing {
    /// Makes sure that there is a connection to the database that is served, and learns what it takes.
    pub(super) fn open(&mut self) -> Result<(), SinkError> {
        self.outage.tries();
        let now = UnixMillis::now().0;
        let counters = &self.writer.counters;
        counters.set(|counters| &counters.attempt_since, now);
        let rule = self.writer.sink.open()?;
        self.identify()?;
        self.writer.counters.set(|counters| &counters.connected, 1);
        let before = self.writer.event_rule.get();
        // That ids are ignored is not worth a line where the columns are as they were taken to be.
        let is_as_before = EventRule {
            ids: rule.ids,
            ..before
        } == rule
            && (before.ids == Ids::Stored) == (rule.ids == Ids::Stored);
        if !is_as_before {
            log::info!(
                event = "name_rule_changed", characters = rule.chars_max, bytes = rule.bytes_max,
                value_max = rule.value_max, ids = rule.ids == Ids::Stored;
                "the table takes names of {}, and values of 0 to {}; {}", rule.names(), rule.value_max, rule.ids
            );
        }
        if (before.ids, rule.ids) == (Ids::Stored, Ids::Ignored) {
            log::warn!(
                event = "ids_ignored", writer = self.writer.index;
                "the column event_id can no longer be used: what a sender repeats is a second row from now on; \
                 hakaru check says why"
            );
        }
        if before != rule {
            self.writer.event_rule.set(rule);
        }
        Ok(())
    }

    /// Makes sure that the connection is to the database that is served. One without an id is given one, if
    /// it is the first that answers.
    fn identify(&mut self) -> Result<(), SinkError> {
        let found = self.writer.sink.database()?;
        self.decide(found)
    }

    /// Reads the id anew, on a connection that was to the database that is served: a checkpoint is not the one
    /// that was expected, and the id may have been altered with it.
    pub(super) fn identify_again(&mut self) -> Result<(), SinkError> {
        match (self.writer.sink.reread_database()?, self.writer.served.id()) {
            // It was removed with the checkpoints.
            (None, Some(id)) => self.writer.sink.restore_database_id(id),
            (found, _) => self.decide(found),
        }
    }

    fn decide(&mut self, found: Option<DatabaseId>) -> Result<(), SinkError> {
        let served = Arc::clone(&self.writer.served);
        let whole = found.and_then(|found| match served.id() {
            Some(id) => found.is_half_of(id).then_some(id),
            None => served.whole_of(found),
        });
        let id = match (found, served.id()) {
            (Some(altered), _) if let Some(id) = whole => {
                log::error!(
                    event = "database_id_altered", id:% = altered, expected:% = id;
                    "the id of the database was altered from {id} to {altered}, as by an UPDATE of every row of \
                     hakaru_checkpoint; it is put back"
                );
                self.writer.sink.restore_database_id(id)?;
                id
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

    /// Gives an id to a database that has none, the first that answers. With `--adopt any` it takes the place of
    /// the one that was here, and is filled with all that the journal has of that one.
    fn name_database(&mut self) -> Result<DatabaseId, SinkError> {
        let earlier = self.writer.served.earlier_id();
        if let Some(id) = earlier.filter(|_| self.writer.served.adopts_any()) {
            return self.writer.sink.name_database(id);
        }
        let id = DatabaseId::random().map_err(|fault| stop(fault.to_string()))?;
        let id = self.writer.sink.name_database(id)?;
        if let Some(earlier) = earlier.filter(|&earlier| earlier != id) {
            log::error!(
                event = "database_made_anew", id:% = id, earlier:% = earlier;
                "the database has no id, as one that was made anew: it is {id} now, and events in the journal are \
                 for {earlier}; they wait, and what {earlier} had is not stored again; --adopt any stores all of it \
                 here, if no server has given this one an id yet"
            );
        }
        Ok(id)
    }

    /// Whether the lane belongs to the database that is served, which has answered; and if so, how it is
    /// adopted.
    pub(super) fn claim(&mut self, lane: &DiskLane) -> Result<Claim, SinkError> {
        let served = Arc::clone(&self.writer.served);
        let label = match LaneLabel::read(&lane.directory) {
            // A lane of this process was opened for the database that is served.
            Ok(LaneLabel::Missing) | Err(_) if lane.origin == Origin::Opened => {
                served.label(Position::START)
            }
            Ok(label) => label,
            Err(fault) => return Ok(Claim::Unreadable(fault)),
        };
        let is_ours = match served.belongs(&label) {
            Belongs::Here => true,
            Belongs::Elsewhere if planted(Bug::LabelIgnored) => true,
            // Its database had not answered when it was opened. It is the one that answers this process.
            Belongs::Elsewhere
                if lane.origin == Origin::Opened && matches!(label, LaneLabel::Address(_)) =>
            {
                true
            }
            Belongs::Unlabelled => self.claims_unlabelled(lane)?,
            // Unknown only before any database has answered.
            Belongs::Elsewhere | Belongs::Unknown => false,
        };
        if !is_ours {
            return Ok(Claim::Foreign);
        }
        let from = self.begins(lane, &label);
        let own = served.label(from);
        let is_noted = label == own;
        let write = || {
            let _held = lane.labelling();
            if is_noted {
                durable_note::confirm(&lane.directory)
            } else {
                own.write(&lane.directory)
            }
        };
        if (!is_noted || lane.origin == Origin::Found)
            && let Err(fault) = write()
        {
            // By its old label it would not come back here, or its old one may come back. It could be stored in both
            // databases.
            if is_noted || served.belongs_by_label(&label) == Belongs::Elsewhere {
                return Ok(Claim::Unreadable(fault));
            }
            // Its events are stored all the same, as on a full disk: that is what frees the disk.
            log::warn!(
                event = "lane_not_labelled", lane:% = lane.id, code = fault.raw_os_error();
                "the database of lane {} cannot be noted: {fault}; its events are stored all the same", lane.id
            );
        }
        Ok(Claim::Ours { from })
    }

    /// Where the checkpoint of a lane with this label begins in the database that is served. What is before it was stored in
    /// another one.
    pub(super) fn begins(&self, lane: &DiskLane, label: &LaneLabel) -> Position {
        let served = &self.writer.served;
        match label {
            LaneLabel::Database { from, .. } if served.belongs_by_label(label) == Belongs::Here => {
                *from
            }
            LaneLabel::Any {
                was: Some((id, from)),
            } if Some(*id) == served.id() => *from,
            // What another database is noted to have is not stored here once more.
            LaneLabel::Database { .. } | LaneLabel::Any { .. } => lane.stored(),
            LaneLabel::Address(_) | LaneLabel::Missing => Position::START,
        }
    }

    /// Whether a lane without a label belongs here. An older version wrote it. Either the database has its
    /// checkpoint, or it was stored nowhere, and nothing in the journal belongs to another database.
    fn claims_unlabelled(&mut self, lane: &DiskLane) -> Result<bool, SinkError> {
        if self.writer.sink.checkpoint(lane.id)?.is_some() {
            return Ok(true);
        }
        let served = Arc::clone(&self.writer.served);
        if lane.stored() > Position::START || served.id().is_none_or(|id| served.is_shared(id)) {
            return Ok(false);
        }
        for &other in served.unlabelled() {
            if self.writer.sink.checkpoint(other)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a lane is stored here.
pub(super) enum Claim {
    /// It belongs to the database that is served.
    Ours {
        /// Where its checkpoint begins, if the database has none.
        from: Position,
    },
    /// It belongs to another database.
    Foreign,
    /// Its label cannot be read, or not be written.
    Unreadable(io::Error),
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
