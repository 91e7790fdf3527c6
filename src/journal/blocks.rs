//! Memory for direct I/O: whole blocks, aligned to a block.

use monoio::buf::IoBuf;

/// Offset, length and memory address of a write are multiples of this: the page of x86, and a multiple of
/// every disk's sector.
pub const BLOCK_BYTES: usize = 4096;

/// The bytes of the next write to a segment: whole blocks, with zeros to the end of the last one.
#[derive(Debug, Default)]
pub struct Blocks {
    memory: Vec<u8>,
    /// Where in `memory` the first block starts.
    start: usize,
    /// Bytes from `start` on that are not padding.
    filled: usize,
}

impl Blocks {
    /// Starts again with `bytes`.
    pub fn restart(&mut self, bytes: &[u8]) {
        self.filled = 0;
        self.append(bytes);
    }

    /// Appends `bytes` at the start of a block.
    pub fn add_block(&mut self, bytes: &[u8]) {
        self.filled = self.filled.next_multiple_of(BLOCK_BYTES);
        self.append(bytes);
    }

    /// Appends `bytes` to the last block, and removes the blocks before it.
    pub fn extend_last(&mut self, bytes: &[u8]) {
        let full = self.filled - self.filled % BLOCK_BYTES;
        let from = self.start + full;
        self.memory
            .copy_within(from..self.start + self.filled, self.start);
        self.filled -= full;
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let filled = self.filled + bytes.len();
        let padded = filled.next_multiple_of(BLOCK_BYTES);
        if self.memory.len() < self.start + padded {
            self.grow(padded);
        }
        let memory = &mut self.memory[self.start..];
        memory[self.filled..filled].copy_from_slice(bytes);
        memory[filled..padded].fill(0);
        self.filled = filled;
    }

    /// Moves the content to memory of at least `bytes`.
    fn grow(&mut self, bytes: usize) {
        let grown = vec![0; bytes.next_power_of_two() + BLOCK_BYTES];
        let old = std::mem::replace(&mut self.memory, grown);
        let filled = old.get(self.start..self.start + self.filled);
        self.start = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        if let Some(filled) = filled {
            self.memory[self.start..self.start + filled.len()].copy_from_slice(filled);
        }
    }

    /// The blocks, padding included.
    pub fn as_slice(&self) -> &[u8] {
        let padded = self.filled.next_multiple_of(BLOCK_BYTES);
        &self.memory[self.start..self.start + padded]
    }
}

#[expect(
    unsafe_code,
    reason = "io_uring is given an address; a copy into a vector would lose the alignment"
)]
// SAFETY: the slice is initialised, and lies in a vector on the heap that moving `self` does not move
// and that only `&mut self` changes, which nobody has while an operation owns `self`.
unsafe impl IoBuf for Blocks {
    fn read_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.as_slice().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// What is appended follows what was kept, at the start of a block or in the last one.
        #[test]
        fn what_is_added_follows_what_was(pieces in proptest::collection::vec((1_usize..9000, any::<bool>()), 1..12)) {
            let mut blocks = Blocks::default();
            let mut whole: Vec<u8> = vec![7; 48];
            blocks.restart(&whole);
            for (number, (length, is_extended)) in (1_u8..).zip(pieces) {
                let piece = vec![number; length];
                if is_extended {
                    blocks.extend_last(&piece);
                    whole.drain(..whole.len() / BLOCK_BYTES * BLOCK_BYTES);
                } else {
                    blocks.add_block(&piece);
                    whole.resize(whole.len().next_multiple_of(BLOCK_BYTES), 0);
                }
                whole.extend(&piece);
                let written = blocks.as_slice();
                prop_assert_eq!(written.as_ptr().align_offset(BLOCK_BYTES), 0);
                prop_assert_eq!((written.as_ptr(), written.len()), (blocks.read_ptr(), blocks.bytes_init()));
                prop_assert_eq!(written.len(), whole.len().next_multiple_of(BLOCK_BYTES));
                prop_assert_eq!(&written[..whole.len()], &whole[..]);
                prop_assert!(written[whole.len()..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
