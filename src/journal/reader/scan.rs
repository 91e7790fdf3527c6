//! Looks for records in a segment, through a window of it in memory.

use super::{LaneReader, ReadError};
use crate::journal::record::{
    ParsedRecord, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, RecordHead, parse_record,
};
use crate::journal::storage::{Storage, StorageFile};

/// Bytes read at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// What stands at an offset.
pub(super) enum Looked {
    /// A record, in the window.
    Record(RecordHead),
    /// None. `is_blank`: zeros, where its head would be.
    Nothing { is_blank: bool },
}

impl<S: Storage> LaneReader<S> {
    /// What stands at `offset` of the present segment. A record is in the window afterwards.
    pub(super) fn look(&mut self, offset: u64) -> Result<Looked, ReadError> {
        let Some(id) = self.place.as_ref().map(|place| place.id) else {
            return Ok(Looked::Nothing { is_blank: true });
        };
        // The window may be older than the file: only a record in it is to be believed.
        if let Some(bytes) = self.in_window(offset)
            && let ParsedRecord::Record(head, _) = parse_record(bytes, id)
        {
            return Ok(Looked::Record(head));
        }
        let mut wanted = WINDOW_BYTES;
        loop {
            self.load(offset, wanted)?;
            match parse_record(&self.window, id) {
                ParsedRecord::Record(head, _) => return Ok(Looked::Record(head)),
                ParsedRecord::Needs(bytes) if bytes > wanted => wanted = bytes,
                ParsedRecord::Needs(_) | ParsedRecord::Nothing => {
                    let head = &self.window[..self.window.len().min(RECORD_HEAD_BYTES)];
                    let is_blank = head.iter().all(|&byte| byte == 0);
                    return Ok(Looked::Nothing { is_blank });
                }
            }
        }
    }

    /// What of the window stands at `offset` and behind.
    fn in_window(&self, offset: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.window_offset)?).ok()?;
        self.window.get(start..)
    }

    /// Reads `bytes` bytes at `offset`, or what there is of them, into the window.
    fn load(&mut self, offset: u64, bytes: usize) -> Result<(), ReadError> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let number = place.id.number;
        self.window.resize(bytes, 0);
        let read = place.file.read_at(&mut self.window, offset);
        self.window_offset = offset;
        match read {
            Ok(length) => {
                self.window.truncate(length);
                Ok(())
            }
            Err(fault) => {
                self.window.clear();
                self.io(number, Err(fault))
            }
        }
    }

    /// Where in the present segment, behind `offset`, a record of it starts that is not yet read. One
    /// write is one record, and the next is written when it is durable: what a crash tore is never
    /// followed by another, so that one that follows says that something durable is damaged.
    pub(super) fn find_later(&mut self, offset: u64) -> Result<Option<u64>, ReadError> {
        let Some(id) = self.place.as_ref().map(|place| place.id) else {
            return Ok(None);
        };
        let mut at = offset + RECORD_ALIGNMENT as u64;
        loop {
            self.load(at, WINDOW_BYTES)?;
            let length = self.window.len();
            if length < RECORD_HEAD_BYTES {
                return Ok(None);
            }
            let last = length - RECORD_HEAD_BYTES;
            for start in (0..=last).step_by(RECORD_ALIGNMENT) {
                if parse_record(&self.window[start..], id) == ParsedRecord::Nothing {
                    continue;
                }
                let candidate = at + start as u64;
                if let Looked::Record(head) = self.look(candidate)?
                    && head.end() > self.position
                {
                    return Ok(Some(candidate));
                }
                self.load(at, WINDOW_BYTES)?;
            }
            at += (last / RECORD_ALIGNMENT * RECORD_ALIGNMENT + RECORD_ALIGNMENT) as u64;
        }
    }
}
