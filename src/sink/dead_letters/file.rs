//! The whole file of dead letters: read, locked, and replaced.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::FILE_NAME;
use super::letter::{Letter, Line, replayed_line};
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};
use crate::os::clock;
use crate::os::fs::{self, About, File, TryLockError, Use};

/// Wait before a lock is asked for again.
const POLL: Duration = Duration::from_millis(10);

/// What the file holds.
#[derive(Debug, Default)]
pub struct Letters {
    /// The letters, each once, in the order of the file.
    pub letters: Vec<Letter>,
    /// Lanes from which earlier letters are stored.
    pub(super) replayed: Vec<LaneId>,
    /// Lines that are none, as they stand there.
    pub(super) unreadable: Vec<Vec<u8>>,
}

impl Letters {
    /// Reads the file in `data_dir`; nothing where there is none.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        match fs::read(&data_dir.join(FILE_NAME)) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(fault) => Err(fault),
        }
    }

    /// Passes on each letter of the file in `data_dir`, one that is there twice both times, without keeping any.
    /// Gives how many lines are no letters.
    pub fn scan(data_dir: &Path, mut each: impl FnMut(Letter)) -> io::Result<u64> {
        let mut unreadable = 0;
        each_line(&data_dir.join(FILE_NAME), |line| match Line::parse(line) {
            Line::Letter(letter) => each(letter),
            Line::Unreadable if !line.is_empty() => unreadable += 1,
            Line::Replayed(_) | Line::Unreadable => {}
        })?;
        Ok(unreadable)
    }

    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut all = Self::default();
        let mut seen = HashSet::new();
        for line in bytes.split(|&byte| byte == b'\n') {
            match Line::parse(line) {
                _ if line.is_empty() => {}
                Line::Letter(letter) if seen.insert(letter.place()) => all.letters.push(letter),
                Line::Letter(_) => {}
                Line::Replayed(lane) => all.replayed.push(lane),
                Line::Unreadable => all.unreadable.push(line.to_vec()),
            }
        }
        all
    }

    /// Lines that are no letters.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Takes out the letters that `is_wanted`.
    pub(super) fn take(&mut self, is_wanted: impl Fn(&Letter) -> bool) -> Vec<Letter> {
        let all = std::mem::take(&mut self.letters);
        let (taken, left) = all.into_iter().partition(is_wanted);
        self.letters = left;
        taken
    }

    pub(super) fn places(&self) -> HashSet<(LaneId, Position)> {
        self.letters.iter().map(Letter::place).collect()
    }
}

/// Passes on each line of the file, which need not be there.
pub(super) fn each_line(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut lines = match File::open(path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => BufReader::new(opened?),
    };
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        each(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    Ok(())
}

/// The file, locked against all who write to it.
#[derive(Debug)]
pub(super) struct LockedLetters {
    path: PathBuf,
    file: File,
}

impl LockedLetters {
    /// Waits for the lock, at most for `patience` where there is one. `None`: there is no file.
    pub(super) fn lock(data_dir: &Path, patience: Option<Duration>) -> io::Result<Option<Self>> {
        let path = data_dir.join(FILE_NAME);
        // The path may be a symbolic link: the file that it leads to is replaced, on its own disk.
        let path = match fs::canonicalize(&path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            canonical => canonical?,
        };
        let until = patience.map(|patience| clock::now() + patience);
        loop {
            let file = match File::open(&path) {
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            wait_for_lock(&file, until)?;
            if is_at(&path, &file)? {
                return Ok(Some(Self { path, file }));
            }
        }
    }

    pub(super) fn read(&self) -> io::Result<Letters> {
        let mut bytes = Vec::new();
        (&self.file).read_to_end(&mut bytes)?;
        Ok(Letters::parse(&bytes))
    }

    /// Replaces the file by one that holds `left`, and the mark of each lane that its other letters are stored
    /// from. The rename is the moment at which these are no letters any more. The new file is locked too.
    pub(super) fn replace(
        self,
        left: &Letters,
        replayed: impl Iterator<Item = LaneId>,
    ) -> io::Result<Self> {
        let mut text = Vec::new();
        for letter in &left.letters {
            writeln!(text, "{letter}")?;
        }
        for line in &left.unreadable {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        for lane in replayed {
            text.extend_from_slice(replayed_line(lane).as_bytes());
        }
        let new = self.path.with_extension("ndjson.new");
        let written = self.write(&new, &text).and_then(|file| {
            // Whoever moved the file away has not asked for the lock. A server may have begun another one.
            if is_at(&self.path, &self.file)? {
                Ok(file)
            } else {
                Err(io::Error::other("the file was moved or replaced meanwhile"))
            }
        });
        let file = written.inspect_err(|_| drop(fs::remove_file(&new)))?;
        fs::rename(&new, &self.path)?;
        sync_parent(&self.path)?;
        Ok(Self { file, ..self })
    }

    fn write(&self, new: &Path, text: &[u8]) -> io::Result<File> {
        // One that a crash has left may belong to another user.
        match fs::remove_file(new) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
            _ => {}
        }
        let mut file = File::with(new, Use::New)?;
        file.lock()?;
        file.set_permissions_of(&self.file)?;
        own_as(new, &self.file.about()?)?;
        file.write_all(text)?;
        file.sync_all()?;
        Ok(file)
    }

    /// Makes what was read durable. The process that wrote it may have been killed before it did so.
    pub(super) fn sync(&self) -> io::Result<()> {
        if planted(Bug::LettersNotSynced) {
            return Ok(());
        }
        self.file.sync_all()?;
        self.sync_name()
    }

    /// Makes the name of the file durable: what replaced it may have been killed before it could.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        sync_parent(&self.path)
    }
}

/// Locks a file, and fails with [`io::ErrorKind::WouldBlock`] where that takes longer than `until`.
fn wait_for_lock(file: &File, until: Option<Instant>) -> io::Result<()> {
    let Some(until) = until else {
        return file.lock();
    };
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(fault)) => return Err(fault),
            Err(TryLockError::WouldBlock) if clock::now() < until => clock::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let text = "another process has it locked";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
        }
    }
}

/// Whether `file` is the one that has the name `path` now.
pub(super) fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let open = file.about()?;
    match fs::about(path) {
        Ok(named) => Ok(named.identity == open.identity),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Gives `path` the owner of `model`: the server must be able to write what root has made.
pub(super) fn own_as(path: &Path, model: &About) -> io::Result<()> {
    if fs::about(path)?.owner == model.owner {
        return Ok(());
    }
    fs::set_owner(path, model.owner)
}

/// Makes the name of a file durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| {
        let directory = if directory == Path::new("") {
            Path::new(".")
        } else {
            directory
        };
        fs::sync_dir(directory)
    })
}
