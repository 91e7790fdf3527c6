//! Memory for direct I/O: whole blocks, aligned to a block.

use monoio::buf::IoBuf;

/// Offset, length and memory address of a write are multiples of this: the page of x86, and a multiple of
/// every disk's sector.
pub const BLOCK_BYTES: usize = 4096;

/// The bytes of the next write to a segment: the block that the last write did not fill, the new records,
/// and zeros to the end of a block. A block is written again until it is full. Its earlier bytes stay the
/// same, so that a torn write changes nothing that was durable.
#[derive(Debug, Default)]
pub struct Blocks {
    memory: Vec<u8>,
    /// Where in `memory` the first block starts.
    start: usize,
    /// Bytes from `start` on that are not padding.
    filled: usize,
}

impl Blocks {
    /// Begins a segment with its head.
    pub fn restart(&mut self, head: &[u8]) {
        self.filled = 0;
        self.append(head);
    }

    /// Removes the full blocks, which are written already, and appends `bytes`.
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

        /// A file to which every state is written holds all that was added, in order.
        #[test]
        fn writes_append_to_the_file(pieces in proptest::collection::vec(1_usize..9000, 1..12)) {
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
