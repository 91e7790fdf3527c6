//! What became of taking a lane over in the database. One that cannot be taken over at present waits and is tried again,
//! and the other lanes of the writer go on.

use std::io;

use super::Storing;
use crate::journal::lane_handle::DiskLane;
use crate::sink::{Checkpoint, SinkError};

/// What became of taking a lane over in the database.
pub(super) enum Adopted {
    /// This process owns it; here is its checkpoint.
    At(Checkpoint),
    /// It belongs to another database.
    Foreign,
    /// It waits for a person.
    Held,
    /// It cannot be taken over at present.
    Waits(Wait),
}

/// Why a lane waits.
#[derive(Debug)]
pub(super) enum Wait {
    /// What is noted beside its segments cannot be read.
    Unreadable(io::Error),
    /// What was found out about it cannot be noted beside its segments.
    Unwritable(io::Error),
    /// The database does not say which of its rows are there.
    Unproven(SinkError),
}

impl Adopted {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::At(_) => "lane: taken over",
            Self::Foreign => "lane: foreign",
            Self::Held => "lane: held",
            Self::Waits(Wait::Unreadable(_)) => "lane: waits, unreadable",
            Self::Waits(Wait::Unwritable(_)) => "lane: waits, unwritable",
            Self::Waits(Wait::Unproven(_)) => "lane: waits, unproven",
        }
    }
}

impl Storing {
    /// Notes whether a lane waits. Logs why, once until it is taken over.
    pub(super) fn note_wait(&self, lane: &DiskLane, adopted: &Adopted) {
        let Adopted::Waits(wait) = adopted else {
            lane.set_not_taken_over(false);
            return;
        };
        if lane.set_not_taken_over(true) {
            return;
        }
        let id = lane.id;
        match wait {
            Wait::Unreadable(fault) => log::error!(
                event = "journal_read_failed", lane:% = id, code = fault.raw_os_error();
                "lane {id}: its segments or what is noted beside them cannot be read: {fault}; it waits, other lanes go on, and hakaru \
                 tries again by itself"
            ),
            Wait::Unwritable(fault) => log::error!(
                event = "lane_not_noted", lane:% = id, code = fault.raw_os_error();
                "lane {id}: its checkpoint cannot be true, and what follows from that cannot be noted beside it: \
                 {fault}; it waits, other lanes go on, and hakaru tries again by itself"
            ),
            Wait::Unproven(fault) => log::error!(
                event = "lane_not_proven", lane:% = id, code = fault.fault().code;
                "lane {id}: its checkpoint is not where it was, and the database does not say which of its rows are \
                 there: {fault}; it waits, other lanes go on, and hakaru tries again by itself"
            ),
        }
    }
}
