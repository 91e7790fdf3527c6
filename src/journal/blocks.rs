//! Memory for direct I/O: whole blocks at a block's boundary.

use monoio::buf::IoBuf;

/// What is written at once, and where: the page of x86 and of most disks, and a multiple of the
/// sector of all of them.
pub const BLOCK_BYTES: usize = 4096;

/// The end of a segment as the next write has it: the block that the last write left unfilled, what
/// is new, and zeros up to a block's end. A block is written again until it is full; the bytes that
/// were in it stay the same, so that a torn write changes nothing that was durable.
#[derive(Debug, Default)]
pub struct Blocks {
    memory: Vec<u8>,
    /// Where in `memory` the first block starts.
    start: usize,
    /// Bytes behind it that are no padding.
    filled: usize,
}

impl Blocks {
    /// Begins a segment with its head.
    pub fn restart(&mut self, head: &[u8]) {
        self.filled = 0;
        self.append(head);
    }

    /// Drops the blocks that are full, for they are written, and appends `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
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

    /// Moves to memory with room for `bytes`.
    fn grow(&mut self, bytes: usize) {
        let grown = vec![0; bytes.next_power_of_two() + BLOCK_BYTES];
        let old = std::mem::replace(&mut self.memory, grown);
        let kept = old.get(self.start..self.start + self.filled);
        self.start = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        if let Some(kept) = kept {
            self.memory[self.start..self.start + kept.len()].copy_from_slice(kept);
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
    reason = "the ring is given an address; a copy into a vector would lose the alignment"
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

        /// A file to which every state is written is the concatenation of all that was added.
        #[test]
        fn what_is_added_follows_what_was(pieces in proptest::collection::vec(1_usize..9000, 1..12)) {
            let mut blocks = Blocks::default();
            let (mut file, mut whole): (Vec<u8>, Vec<u8>) = (Vec::new(), vec![7; 48]);
            blocks.restart(&whole);
            for (number, length) in (1_u8..).zip(pieces) {
                let start = whole.len() / BLOCK_BYTES * BLOCK_BYTES;
                let piece = vec![number; length];
                blocks.add(&piece);
                whole.extend(&piece);
                let written = blocks.as_slice();
                prop_assert_eq!(written.as_ptr().align_offset(BLOCK_BYTES), 0);
                prop_assert_eq!((written.as_ptr(), written.len()), (blocks.read_ptr(), blocks.bytes_init()));
                file.truncate(start);
                file.extend(written);
                prop_assert_eq!(file.len() % BLOCK_BYTES, 0);
                prop_assert_eq!(&file[..whole.len()], &whole[..]);
                prop_assert!(file[whole.len()..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
