//! The directory of journal and dead letters.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use super::ServerError;
use crate::event::ack::Ack;
use crate::os::file_system::{self, FileSystemRisk, LockFault};
use crate::server::config::Config;
use crate::sink::dead_letters::replay;

/// A data directory that can be used.
pub(super) struct DataDir {
    /// Where lanes are in it.
    pub(super) journal: PathBuf,
    /// Why what is promised may not hold there, if it may not.
    pub(super) warning: Option<String>,
}

/// Why a data directory may not keep what is promised, although it can be written.
#[derive(Debug)]
pub(crate) enum DataDirFault {
    /// Locks do not keep two processes apart: each would take lanes that the other writes.
    Locks(LockFault),
    /// Its file system.
    FileSystem(FileSystemRisk),
}

impl fmt::Display for DataDirFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locks(fault) => {
                write!(out, "two processes may write one lane: {fault}")
            }
            Self::FileSystem(risk) => risk.fmt(out),
        }
    }
}

/// Opens the data directory, and logs what does not suit what is promised.
pub(super) fn open(config: &Config) -> Result<DataDir, ServerError> {
    let path = &config.data_dir;
    let journal = path.join("journal");
    make(path, &journal).map_err(|fault| ServerError::DataDir {
        path: path.display().to_string(),
        fault,
    })?;
    finish_replay(path);
    let faults = faults(&journal, config.ack);
    for fault in &faults {
        log(path, fault);
    }
    let texts: Vec<_> = faults.iter().map(DataDirFault::to_string).collect();
    let warning = (!texts.is_empty()).then(|| format!("{}: {}", path.display(), texts.join("; ")));
    Ok(DataDir { journal, warning })
}

fn log(path: &Path, fault: &DataDirFault) {
    let path = path.display();
    match fault {
        DataDirFault::Locks(_) => log::error!(
            event = "data_dir_locks_fail";
            "data directory {path}: {fault}; give no other process this directory, and put it on another file system"
        ),
        DataDirFault::FileSystem(_) => log::warn!(
            event = "data_dir_at_risk";
            "data directory {path}: {fault}; it should be on a disk of this machine"
        ),
    }
}

/// Looks at the file system of a directory, and tries its locks. The worst is first.
pub(crate) fn faults(directory: &Path, ack: Ack) -> Vec<DataDirFault> {
    let name = format!("trial-lock-{}", std::process::id());
    let locks = file_system::try_lock(directory, &name).err();
    let risk = file_system::risk(directory).unwrap_or_else(|fault| {
        log::debug!("{}: {fault}", directory.display());
        None
    });
    // What is kept in memory alone promises nothing that a power cut could break.
    let risk =
        risk.filter(|risk| ack != Ack::Received || !matches!(risk, FileSystemRisk::Memory(_)));
    let locks = locks.map(DataDirFault::Locks);
    locks
        .into_iter()
        .chain(risk.map(DataDirFault::FileSystem))
        .collect()
}

/// Finishes a replay of dead letters that was cut short. The letters are safe where they are: serving does not
/// depend on it.
fn finish_replay(path: &Path) {
    match replay::finish(path) {
        Ok(unknown) => {
            for directory in unknown {
                log::error!(
                    event = "replay_unfinished";
                    "{}: holds dead letters of a replay that are no longer in dead-letters.ndjson; give it the \
                     name of a lane, without `replay-`, to have them stored, or remove it",
                    directory.display()
                );
            }
        }
        Err(fault) => log::error!(
            event = "replay_unfinished";
            "{}: a replay of dead letters cannot be finished: {fault}; tried again by the next start and by \
             `hakaru dead-letters`",
            path.display()
        ),
    }
}

/// Makes the directories where they are missing, their names durable, and tries whether files can be
/// made in them: a dead letter must find no surprise.
fn make(path: &Path, journal: &Path) -> io::Result<()> {
    fs::create_dir_all(journal)?;
    for directory in [path.parent(), Some(path)].into_iter().flatten() {
        let directory = if directory == Path::new("") {
            Path::new(".")
        } else {
            directory
        };
        match fs::File::open(directory) {
            Ok(directory) => directory.sync_all()?,
            // Above the data directory there may be what is not for us to read; then it was there before.
            Err(fault) if directory != path => log::debug!("{}: {fault}", directory.display()),
            Err(fault) => return Err(fault),
        }
    }
    let trial = path.join(format!("trial-{}", std::process::id()));
    fs::write(&trial, b"")?;
    fs::remove_file(&trial)
}
