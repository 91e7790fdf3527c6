//! `hakaru journal settle`.

use std::io::Write;

use super::{InspectError, Inspection};
use crate::event::UnixMillis;
use crate::event::position::LaneId;
use crate::journal::held_lane::{Decision, Hold};

impl Inspection {
    /// Decides about the events in question of a held lane. A server acts on it within seconds, or when it starts.
    pub(super) fn settle(
        &self,
        out: &mut impl Write,
        lane: &str,
        decision: Decision,
    ) -> Result<(), InspectError> {
        let id: LaneId = lane.parse().map_err(|fault| InspectError::Name {
            text: lane.to_owned(),
            fault,
        })?;
        let directory = self.directory(id);
        let hold = Self::io(&directory, Hold::read(&directory))?;
        let hold = hold.ok_or(InspectError::NotHeld(id))?;
        let mut times = None;
        // What cannot be read has no time. The decision is about positions.
        self.read(id, |position, event| {
            if (hold.from..hold.to).contains(&position) {
                let at = event.received_at;
                let (first, last) = times.unwrap_or((at, at));
                times = Some((first.min(at), last.max(at)));
            }
            Ok(())
        });
        Self::io(&directory, hold.decide(decision).write(&directory))?;
        let received = times.map_or_else(String::new, |(first, last)| {
            format!(", received from {} to {},", time(first), time(last))
        });
        let outcome = match decision {
            Decision::Stored => "count as stored",
            Decision::Refill => "will be stored",
        };
        writeln!(
            out,
            "lane {id}: {} events{received} {outcome}; a server acts on this within seconds, or when it starts\n\
             it is held because {}",
            hold.events(),
            hold.reason
        )?;
        Ok(())
    }
}

/// A time in UTC.
fn time(at: UnixMillis) -> String {
    let at = i64::try_from(at.0).ok();
    let at = at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(|| "an unknown time".to_owned(), |at| format!("{at:.3}"))
}
