//! The bytes of one file: those that are durable, and those that are only written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// A power cut keeps, loses or tears a block.
pub const BLOCK_BYTES: usize = 4096;

/// The unit in which a disk writes. A torn block has a prefix of new sectors.
const SECTOR_BYTES: usize = 512;

/// The content of a block.
type Block = Arc<[u8; BLOCK_BYTES]>;

/// Bytes as they are at one moment. A block that is not in the map is zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bytes {
    size: u64,
    blocks: BTreeMap<u64, Block>,
}

impl Bytes {
    fn block(&self, index: u64) -> Block {
        let zeros = || Arc::new([0; BLOCK_BYTES]);
        self.blocks.get(&index).cloned().unwrap_or_else(zeros)
    }

    /// Cuts what is behind the size: a file that grows again has zeros there.
    fn cut(&mut self) {
        let size = self.size;
        let is_within = |index: u64| index * (BLOCK_BYTES as u64) < size;
        self.blocks.retain(|&index, _| is_within(index));
        let (last, within) = place(size);
        if let Some(block) = self.blocks.get_mut(&last) {
            Arc::make_mut(block)[within..].fill(0);
        }
    }
}

/// The block of an offset, and where in it.
fn place(offset: u64) -> (u64, usize) {
    let bytes = BLOCK_BYTES as u64;
    (offset / bytes, (offset % bytes) as usize)
}

/// A file.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// What a read returns.
    present: Bytes,
    /// What a power cut keeps for certain, apart from what is unsynced.
    durable: Bytes,
    /// What was written to a block since it was synced, oldest first.
    unsynced: BTreeMap<u64, Vec<Block>>,
    /// Sizes since the last one that was synced.
    sizes: Vec<u64>,
    /// Blocks that were being written when the power was cut.
    in_flight: BTreeSet<u64>,
    /// Blocks that cannot be read until they are written again.
    unreadable: BTreeSet<u64>,
}

/// A block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Content {
    pub fn size(&self) -> u64 {
        self.present.size
    }

    /// Blocks whose last content is not durable.
    pub fn unsynced_blocks(&self) -> usize {
        self.unsynced.len()
    }

    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Unreadable> {
        let end = self.present.size.min(offset + length as u64);
        let mut bytes = Vec::with_capacity(length);
        let mut at = offset;
        while at < end {
            let (index, within) = place(at);
            if self.unreadable.contains(&index) {
                return Err(Unreadable);
            }
            let some = (BLOCK_BYTES - within).min((end - at) as usize);
            match self.present.blocks.get(&index) {
                Some(block) => bytes.extend_from_slice(&block[within..within + some]),
                None => bytes.resize(bytes.len() + some, 0),
            }
            at += some as u64;
        }
        Ok(bytes)
    }

    /// Writes. Nothing of it is durable. Returns the blocks.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Range<u64> {
        let (first, _) = place(offset);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (index, within) = place(at);
            let (some, later) = rest.split_at(rest.len().min(BLOCK_BYTES - within));
            let mut block = self.present.block(index);
            Arc::make_mut(&mut block)[within..within + some.len()].copy_from_slice(some);
            self.put(index, block);
            self.unreadable.remove(&index);
            (at, rest) = (at + some.len() as u64, later);
        }
        if at > self.present.size {
            self.set_size(at);
        }
        first..at.div_ceil(BLOCK_BYTES as u64)
    }

    fn put(&mut self, index: u64, block: Block) {
        self.unsynced
            .entry(index)
            .or_default()
            .push(Arc::clone(&block));
        self.present.blocks.insert(index, block);
    }

    /// Replaces a range by zeros. The size stays.
    pub fn punch(&mut self, offset: u64, length: u64) {
        let end = self.present.size.min(offset + length);
        let zeros = vec![0; end.saturating_sub(offset) as usize];
        self.write(offset, &zeros);
    }

    /// Cuts the file, or lets it grow by zeros.
    pub fn set_size(&mut self, size: u64) {
        if size < self.present.size {
            let (first, within) = place(size);
            let gone: Vec<u64> = self
                .present
                .blocks
                .range(first..)
                .map(|(&index, _)| index)
                .collect();
            for index in gone {
                let mut block = self.present.block(index);
                let from = if index == first { within } else { 0 };
                Arc::make_mut(&mut block)[from..].fill(0);
                self.put(index, block);
            }
        }
        self.present.size = size;
        self.present.cut();
        self.sizes.push(size);
    }

    /// Makes blocks durable, and the size if they reach behind the durable one. So does a write with `O_DSYNC`.
    pub fn sync_blocks(&mut self, blocks: Range<u64>) {
        let end = blocks.end * BLOCK_BYTES as u64;
        for index in blocks {
            if let Some(block) = self.unsynced.remove(&index).and_then(|mut all| all.pop()) {
                self.durable.blocks.insert(index, block);
            }
        }
        // A size that would cut what is durable now is out of date.
        let end = end.min(self.present.size);
        self.sizes.retain(|&size| size >= end);
        self.durable.size = self.durable.size.max(end);
    }

    /// Makes everything durable that was written since the last sync, whether that has succeeded or not.
    pub fn sync(&mut self) {
        for (index, mut blocks) in std::mem::take(&mut self.unsynced) {
            if let Some(block) = blocks.pop() {
                self.durable.blocks.insert(index, block);
            }
        }
        if self.sizes.pop().is_some() {
            self.sizes.clear();
            self.durable.size = self.present.size;
        }
        self.durable.cut();
    }

    /// A sync that fails: some blocks have reached the disk. The system takes all of them for clean, so that the next
    /// sync does not write them.
    pub fn fail_sync(&mut self, random: &mut fastrand::Rng) {
        for (index, blocks) in std::mem::take(&mut self.unsynced) {
            let kept = keep(&self.durable.block(index), &blocks, false, random);
            self.durable.blocks.insert(index, kept);
        }
    }

    /// A write to the disk that fails: the blocks have any content.
    pub fn tear(&mut self, blocks: Range<u64>, random: &mut fastrand::Rng) {
        for index in blocks {
            if let Some(written) = self.unsynced.remove(&index) {
                let kept = keep(&self.durable.block(index), &written, true, random);
                self.durable.blocks.insert(index, Arc::clone(&kept));
                self.present.blocks.insert(index, kept);
            }
        }
        self.durable.cut();
        self.present.cut();
    }

    /// The power is cut while these blocks are written.
    pub fn interrupt(&mut self, blocks: Range<u64>) {
        self.in_flight.extend(blocks);
    }

    /// Makes a block unreadable until it is written.
    pub fn damage(&mut self, block: u64) {
        self.unreadable.insert(block);
    }

    /// Makes all blocks readable.
    pub fn mend(&mut self) {
        self.unreadable.clear();
    }

    /// What is found when the power is back.
    pub fn survivor(&self, random: &mut fastrand::Rng) -> Self {
        let mut kept = self.durable.clone();
        for (&index, written) in &self.unsynced {
            // A block may be on its way to the disk also when nobody has asked for a sync.
            let is_torn = self.in_flight.contains(&index) || random.u8(0..8) == 0;
            let block = keep(&kept.block(index), written, is_torn, random);
            kept.blocks.insert(index, block);
        }
        // Any of the later ones, or the durable one.
        if let Some(&size) = self.sizes.get(random.usize(0..=self.sizes.len())) {
            kept.size = size;
        }
        kept.cut();
        Self {
            present: kept.clone(),
            durable: kept,
            unreadable: self.unreadable.clone(),
            ..Self::default()
        }
    }
}

/// What a power cut leaves of a block: what was durable, or any later content; and where it was being written, anything.
fn keep(durable: &Block, written: &[Block], is_torn: bool, random: &mut fastrand::Rng) -> Block {
    let Some(newest) = written.last().filter(|_| is_torn) else {
        let any = written.get(random.usize(0..=written.len()));
        return Arc::clone(any.unwrap_or(durable));
    };
    let sectors = BLOCK_BYTES / SECTOR_BYTES;
    let cut = random.usize(0..=sectors) * SECTOR_BYTES;
    let mut torn = **durable;
    match random.u8(0..6) {
        0 => {}
        1 => torn.copy_from_slice(&newest[..]),
        2 => torn[..cut].copy_from_slice(&newest[..cut]),
        3 => torn[cut..].copy_from_slice(&newest[cut..]),
        4 => random.fill(&mut torn[cut.min(BLOCK_BYTES - SECTOR_BYTES)..]),
        _ => torn.fill(0),
    }
    Arc::new(torn)
}
