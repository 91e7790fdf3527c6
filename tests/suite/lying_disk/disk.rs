//! The file system in memory: files, names, and what of both is durable. It knows nothing of FUSE.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use fuser::Errno;

use super::content::Content;
use super::names::{Change, Names};
use super::power::{Done, Fate, Kind, Power, Refusal};

/// The number of a file or directory.
pub type Number = u64;

/// The root directory.
pub const ROOT: Number = 1;

/// A file or a directory.
#[derive(Debug, Clone)]
pub enum Node {
    File(Content),
    Directory(Names),
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    pub nodes: HashMap<Number, Node>,
    pub next: Number,
    /// Changes of names that are not durable, oldest first.
    pub changes: Vec<Change>,
    pub power: Power,
}

/// The disk, shared by FUSE and the test.
pub fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::Directory(Names::default()))]),
            next: ROOT + 1,
            changes: Vec::new(),
            power: Power::default(),
        }
    }
}

impl Disk {
    /// The power is back: what survives is chosen by the seed. To be called when the process is gone.
    pub fn restart(&mut self) {
        let mut lost = 0;
        for change in std::mem::take(&mut self.changes) {
            if self.power.random.bool() {
                self.apply_durably(&change);
            } else {
                lost += 1;
            }
        }
        let mut kept = HashMap::new();
        let mut reached = vec![ROOT];
        let mut blocks = 0;
        while let Some(number) = reached.pop() {
            let survivor = match self.nodes.get(&number) {
                Some(Node::Directory(names)) => {
                    reached.extend(names.durable.values());
                    Node::Directory(Names {
                        present: names.durable.clone(),
                        durable: names.durable.clone(),
                    })
                }
                Some(Node::File(content)) => {
                    blocks += content.unsynced_blocks();
                    Node::File(content.survivor(&mut self.power.random))
                }
                None => continue,
            };
            kept.insert(number, survivor);
        }
        self.nodes = kept;
        self.power.restore(format!(
            "power is back: {lost} changes of names are lost, {blocks} blocks were not synced"
        ));
    }
}

/// Files.
impl Disk {
    pub fn node(&mut self, number: Number) -> Done<&Node> {
        self.power.powered()?;
        self.nodes.get(&number).ok_or(Refusal::Fails(Errno::ENOENT))
    }

    fn content(&mut self, number: Number) -> Done<&mut Content> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Directory(_)) => Err(Refusal::Fails(Errno::EISDIR)),
            None => Err(Refusal::Fails(Errno::ENOENT)),
        }
    }

    pub fn read(&mut self, number: Number, offset: u64, length: usize) -> Done<Vec<u8>> {
        self.power.powered()?;
        Ok(self.content(number)?.read(offset, length)?)
    }

    pub fn write(&mut self, number: Number, offset: u64, bytes: &[u8], synced: bool) -> Done<()> {
        let how = if synced { "synced write" } else { "write" };
        let (name, length) = (self.name_of(number), bytes.len());
        let what = format!("{how} {name} at {offset}, {length} bytes");
        let fate = self.power.begin(Kind::Write, what)?;
        let mut random = self.power.random.fork();
        let content = self.content(number)?;
        let blocks = content.write(offset, bytes);
        match fate {
            Fate::Done if synced => content.sync_blocks(blocks),
            Fate::Done => {}
            Fate::Cut => content.interrupt(blocks),
            Fate::Fails(_) => content.tear(blocks, &mut random),
        }
        self.power.end(fate, ())
    }

    pub fn set_size(&mut self, number: Number, size: u64) -> Done<()> {
        let what = format!("cut {} to {size} bytes", self.name_of(number));
        let fate = self.power.begin(Kind::Removal, what)?;
        self.content(number)?.set_size(size);
        self.power.end(fate, ())
    }

    pub fn allocate(&mut self, number: Number, end: u64) -> Done<()> {
        let what = format!("allocate {} to {end} bytes", self.name_of(number));
        let fate = self.power.begin(Kind::Room, what)?;
        let content = self.content(number)?;
        if !matches!(fate, Fate::Fails(_)) && end > content.size() {
            content.set_size(end);
        }
        self.power.end(fate, ())
    }

    pub fn punch(&mut self, number: Number, offset: u64, length: u64) -> Done<()> {
        let name = self.name_of(number);
        let what = format!("punch {name} at {offset}, {length} bytes");
        let fate = self.power.begin(Kind::Removal, what)?;
        self.content(number)?.punch(offset, length);
        self.power.end(fate, ())
    }

    pub fn sync(&mut self, number: Number) -> Done<()> {
        let what = format!("sync {}", self.name_of(number));
        let fate = self.power.begin(Kind::Sync, what)?;
        let mut random = self.power.random.fork();
        let content = self.content(number)?;
        match fate {
            Fate::Done => content.sync(),
            Fate::Cut => {}
            Fate::Fails(_) => content.fail_sync(&mut random),
        }
        self.power.end(fate, ())
    }

    /// Damages a block, so that a read of it fails.
    pub fn damage(&mut self, number: Number, block: u64) {
        if let Ok(content) = self.content(number) {
            content.damage(block);
        }
    }

    /// Mends all blocks.
    pub fn mend(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(content) = node {
                content.mend();
            }
        }
    }
}
