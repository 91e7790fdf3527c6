//! The end of a lane that a file says.

use super::{Filled, LaneReader, ReadError};
use crate::event::batch::Batch;
use crate::event::position::Position;
use crate::journal::lane_end;
use crate::journal::record::SegmentNumber;

impl LaneReader {
    /// Appends events to `batch` until it is full, or `end` is reached, or the lane ends. What follows the end
    /// of a closed lane was never promised, and is not read.
    pub fn fill(&mut self, batch: &mut Batch, end: Option<Position>) -> Result<Filled, ReadError> {
        let Some(closed_at) = self.closed_at()? else {
            return self.fill_to(batch, end);
        };
        let closed = Filled::End { torn_bytes: 0 };
        if self.position >= closed_at {
            return Ok(closed);
        }
        let end = end.map_or(closed_at, |end| end.min(closed_at));
        match self.fill_to(batch, Some(end)) {
            Ok(Filled::More) if self.position >= closed_at => Ok(closed),
            Ok(Filled::More) => Ok(Filled::More),
            // The events up to there were promised.
            Ok(Filled::End { .. }) | Err(ReadError::UnknownEnd { .. }) => {
                let segment = self.current.as_ref();
                let (number, offset) = segment.map_or((SegmentNumber(0), 0), |segment| {
                    (segment.id.number, segment.offset)
                });
                let from = std::mem::replace(&mut self.position, closed_at);
                Err(self.damage(number, offset, from))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Reads to the last record, whatever the file says.
    pub fn ignore_end_file(&mut self) {
        self.closed_at = Some(None);
    }

    /// Where the lane ends, if a file says it.
    fn closed_at(&mut self) -> Result<Option<Position>, ReadError> {
        if let Some(known) = self.closed_at {
            return Ok(known);
        }
        let read = lane_end::read(&self.directory);
        let closed_at = read.map_err(|fault| ReadError::EndFile {
            file: lane_end::path(&self.directory),
            fault,
        })?;
        self.closed_at = Some(closed_at);
        Ok(closed_at)
    }
}
