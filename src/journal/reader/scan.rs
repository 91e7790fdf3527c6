//! Finds records in a segment. A part of the segment is in memory, the window.

use super::{LaneReader, ReadError};
use crate::journal::record::{
    ParsedRecord, RECORD_ALIGNMENT, RECORD_HEAD_BYTES, RecordHead, parse_record,
};
use crate::journal::storage::{Storage, StorageFile};

/// Bytes read at once.
pub(super) const WINDOW_BYTES: usize = 256 * 1024;

/// What is found at an offset.
pub(super) enum Looked {
    /// A record, in the window.
    Record(RecordHead),
    /// No record. `is_blank`: only zeros where its head would be.
    Nothing { is_blank: bool },
}

impl<S: Storage> LaneReader<S> {
    /// What is found at `offset` of the current segment. A record is in the window afterwards.
    pub(super) fn look(&mut self, offset: u64) -> Result<Looked, ReadError> {
        let Some(id) = self.current.as_ref().map(|segment| segment.id) else {
            return Ok(Looked::Nothing { is_blank: true });
        };
        // The window may be older than the file. A record in it is valid; its absence proves nothing.
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

    /// The part of the window from `offset` on.
    fn in_window(&self, offset: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.window_offset)?).ok()?;
        self.window.get(start..)
    }

    /// Reads up to `bytes` bytes at `offset` into the window; fewer at the end of the file.
    fn load(&mut self, offset: u64, bytes: usize) -> Result<(), ReadError> {
        let Some(segment) = &self.current else {
            return Ok(());
        };
        let number = segment.id.number;
        self.window.resize(bytes, 0);
        let read = segment.file.read_at(&mut self.window, offset);
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

    /// The offset of a later record in the current segment that is not read yet. A record is only written when
    /// the one before it is durable. So no record follows one that a crash tore: a later record proves that
    /// durable bytes at `offset` are damaged.
    pub(super) fn find_later(&mut self, offset: u64) -> Result<Option<u64>, ReadError> {
        let Some(id) = self.current.as_ref().map(|segment| segment.id) else {
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
