//! Reads around blocks that the disk does not read.

use std::io;

use crate::journal::blocks::BLOCK_BYTES;
use crate::journal::storage::{StorageFile, is_unreadable};

/// What unreadable bytes are replaced by: neither zeros nor part of a record.
const UNREADABLE: u8 = 0xA5;

/// Reads block by block what could not be read at once. Fails if no block of the file can be read: then the whole
/// disk is away.
pub(super) fn salvage(
    file: &impl StorageFile,
    window: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut fault = None;
    let (mut length, mut is_any_read) = (0, false);
    while length < window.len() {
        let at = offset + length as u64;
        // Up to the end of the block.
        let bytes = BLOCK_BYTES as u64 - at % BLOCK_BYTES as u64;
        let end = length.saturating_add(usize::try_from(bytes).unwrap_or(BLOCK_BYTES));
        let end = window.len().min(end);
        let block = &mut window[length..end];
        match file.read_at(block, at) {
            Ok(read) => {
                is_any_read |= read > 0;
                let is_end = read < block.len();
                length += read;
                if is_end {
                    break;
                }
            }
            Err(unread) if is_unreadable(&unread) => {
                block.fill(UNREADABLE);
                fault = Some(unread);
                length = end;
            }
            Err(other) => return Err(other),
        }
    }
    match fault {
        Some(fault) if !is_any_read && file.read_at(&mut [0; 1], 0).is_err() => Err(fault),
        _ => Ok(length),
    }
}
