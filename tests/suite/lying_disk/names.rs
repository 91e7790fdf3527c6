//! The names of files and directories, and which changes of them are durable.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use fuser::Errno;

use super::disk::{Disk, Node, Number, ROOT};
use super::power::{Done, Fate, Kind, Refusal};

/// The names in a directory: those that are found, and those that a power cut keeps for certain.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub present: BTreeMap<OsString, Number>,
    pub durable: BTreeMap<OsString, Number>,
}

/// Changes of names that a power cut keeps or loses together. `None` removes a name.
pub type Change = Vec<(Number, OsString, Option<Number>)>;

impl Disk {
    pub fn names(&mut self, number: Number) -> Done<&mut Names> {
        match self.nodes.get_mut(&number) {
            Some(Node::Directory(names)) => Ok(names),
            Some(Node::File(_)) => Err(Refusal::Fails(Errno::ENOTDIR)),
            None => Err(Refusal::Fails(Errno::ENOENT)),
        }
    }

    /// A name that a person can read, of a file that has one.
    pub fn name_of(&self, number: Number) -> String {
        let place = self.nodes.iter().find_map(|(&directory, node)| match node {
            Node::Directory(names) => {
                let mut all = names.present.iter();
                let found = all.find(|&(_, &known)| known == number)?;
                Some((directory, found.0.to_string_lossy().into_owned()))
            }
            Node::File(_) => None,
        });
        match place {
            Some((ROOT, name)) => name,
            Some((directory, name)) => format!("{}/{name}", self.name_of(directory)),
            None => format!("#{number}"),
        }
    }

    pub fn lookup(&mut self, directory: Number, name: &OsStr) -> Done<Number> {
        self.power.powered()?;
        let found = self.names(directory)?.present.get(name).copied();
        found.ok_or(Refusal::Fails(Errno::ENOENT))
    }

    /// The number of the file with this path below the root.
    pub fn find(&mut self, path: &str) -> Option<Number> {
        let mut names = path.split('/');
        names.try_fold(ROOT, |directory, name| {
            self.lookup(directory, OsStr::new(name)).ok()
        })
    }

    fn change(&mut self, change: Change) -> Done<()> {
        for (directory, name, number) in &change {
            let present = &mut self.names(*directory)?.present;
            match number {
                Some(number) => present.insert(name.clone(), *number),
                None => present.remove(name),
            };
        }
        self.changes.push(change);
        Ok(())
    }

    pub fn apply_durably(&mut self, change: &Change) {
        for (directory, name, number) in change {
            if let Ok(names) = self.names(*directory) {
                match number {
                    Some(number) => names.durable.insert(name.clone(), *number),
                    None => names.durable.remove(name),
                };
            }
        }
    }

    pub fn make(&mut self, directory: Number, name: &OsStr, node: Node) -> Done<Number> {
        self.power.powered()?;
        if self.names(directory)?.present.contains_key(name) {
            return Err(Refusal::Fails(Errno::EEXIST));
        }
        let place = self.name_of(directory);
        let what = format!("make {place}/{}", name.display());
        let fate = self.power.begin(Kind::Room, what)?;
        let number = self.next;
        if !matches!(fate, Fate::Fails(_)) {
            self.next += 1;
            if name.as_encoded_bytes().ends_with(b".segment") {
                self.power.counts.segments += 1;
            }
            self.nodes.insert(number, node);
            self.change(vec![(directory, name.to_owned(), Some(number))])?;
        }
        self.power.end(fate, number)
    }

    pub fn remove(&mut self, directory: Number, name: &OsStr) -> Done<()> {
        let number = self.lookup(directory, name)?;
        if let Some(Node::Directory(names)) = self.nodes.get(&number)
            && !names.present.is_empty()
        {
            return Err(Refusal::Fails(Errno::ENOTEMPTY));
        }
        let what = format!("remove {}", self.name_of(number));
        let fate = self.power.begin(Kind::Removal, what)?;
        self.change(vec![(directory, name.to_owned(), None)])?;
        self.power.end(fate, ())
    }

    /// Both names change together: a file system keeps or loses a rename as a whole.
    pub fn rename(&mut self, from: (Number, &OsStr), to: (Number, &OsStr)) -> Done<()> {
        let number = self.lookup(from.0, from.1)?;
        let place = self.name_of(to.0);
        let name = self.name_of(number);
        let what = format!("rename {name} to {place}/{}", to.1.display());
        let fate = self.power.begin(Kind::Room, what)?;
        if !matches!(fate, Fate::Fails(_)) {
            self.change(vec![
                (from.0, from.1.to_owned(), None),
                (to.0, to.1.to_owned(), Some(number)),
            ])?;
        }
        self.power.end(fate, ())
    }

    pub fn sync_names(&mut self, directory: Number) -> Done<()> {
        let what = format!("sync names of {}", self.name_of(directory));
        let fate = self.power.begin(Kind::Sync, what)?;
        if matches!(fate, Fate::Done) {
            let is_here = |change: &mut Change| change.iter().any(|(at, ..)| *at == directory);
            let mut all = std::mem::take(&mut self.changes);
            for change in all.extract_if(.., is_here) {
                self.apply_durably(&change);
            }
            self.changes = all;
        }
        self.power.end(fate, ())
    }
}
