//! Finds lanes without an owner, and removes what is stored and old.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, SystemTime};

use super::commit::LaneHandle;
use super::lane::{segment_name, segments};
use super::reader::segment_start;
use super::record::LaneId;
use super::storage::Disk;

/// How often it looks.
const ROUND: Duration = Duration::from_secs(1);

/// A thread that looks after the journal of a process.
#[derive(Debug)]
pub struct Janitor {
    /// The directory of lanes.
    pub journal: PathBuf,
    /// How long segments are kept after their events were stored.
    pub keep: Duration,
    /// Lanes of this process's shards, as they are opened.
    pub opened: Receiver<Arc<LaneHandle>>,
    /// Where lanes are recovered, one channel a writer.
    pub writers: Vec<SyncSender<Arc<LaneHandle>>>,
}

/// The names of all lanes in a journal.
pub fn lanes(journal: &Path) -> io::Result<Vec<LaneId>> {
    let names = fs::read_dir(journal)?.map(|entry| entry.map(|entry| entry.file_name()));
    let parsed = names.filter_map(|name| match name {
        Ok(name) => name.to_str().and_then(|name| name.parse().ok()).map(Ok),
        Err(fault) => Some(Err(fault)),
    });
    parsed.collect()
}

impl Janitor {
    /// Works until no shard can open a lane any more.
    pub fn run(self) {
        let mut known: Vec<Arc<LaneHandle>> = Vec::new();
        let mut adopted: Vec<Arc<LaneHandle>> = Vec::new();
        loop {
            match self.opened.recv_timeout(ROUND) {
                Ok(lane) => {
                    known.push(lane);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.adopt(&known, &mut adopted);
            for lane in known.iter().chain(&adopted) {
                if let Err(fault) = self.clear(lane) {
                    log::debug!("lane {}: {fault}", lane.id);
                }
            }
            known.retain(|lane| !self.is_over(lane));
            adopted.retain(|lane| !self.is_over(lane));
        }
    }

    /// Locks lanes that nobody owns and gives them to the writers in turn.
    fn adopt(&self, known: &[Arc<LaneHandle>], adopted: &mut Vec<Arc<LaneHandle>>) {
        let found = match lanes(&self.journal) {
            Ok(found) => found,
            Err(fault) => return log::warn!("{}: {fault}", self.journal.display()),
        };
        for id in found {
            if known.iter().chain(adopted.iter()).any(|lane| lane.id == id) {
                continue;
            }
            match LaneHandle::lock(id, self.journal.join(id.to_string())) {
                // A shard may have opened it in this moment: it then has the lock.
                Ok(None) => {}
                Err(fault) => log::warn!("lane {id} cannot be recovered: {fault}"),
                Ok(Some(lane)) => {
                    let lane = Arc::new(lane);
                    let writer = &self.writers[adopted.len() % self.writers.len()];
                    // A full channel: found again in the next round.
                    if writer.try_send(Arc::clone(&lane)).is_ok() {
                        log::info!("lane {id}: its owner is gone; recovering it");
                        adopted.push(lane);
                    }
                }
            }
        }
    }

    /// Removes segments whose events were stored long enough ago; never the last one.
    fn clear(&self, lane: &LaneHandle) -> io::Result<()> {
        let Some(directory) = &lane.directory else {
            return Ok(());
        };
        let numbers = segments(&Disk, directory)?;
        for pair in numbers.windows(2) {
            let [number, next] = pair else {
                continue;
            };
            let path = directory.join(segment_name(*number));
            let end = segment_start(&Disk, directory, lane.id, *next)?.or(lane.closed());
            let is_stored = end.is_some_and(|end| end <= lane.stored());
            if !is_stored || !self.is_old(&path)? {
                return Ok(());
            }
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Removes a lane that was done with long enough ago; says whether it is gone.
    fn is_over(&self, lane: &LaneHandle) -> bool {
        let Some(directory) = lane.directory.as_ref().filter(|_| lane.is_done()) else {
            return false;
        };
        let remove = || -> io::Result<bool> {
            if let Some(last) = segments(&Disk, directory)?.pop()
                && !self.is_old(&directory.join(segment_name(last)))?
            {
                return Ok(false);
            }
            // The checkpoint stays: without it a lane that is half removed would be stored again.
            fs::remove_dir_all(directory)?;
            Ok(true)
        };
        remove().unwrap_or_else(|fault| {
            log::warn!("{}: {fault}", directory.display());
            false
        })
    }

    fn is_old(&self, path: &Path) -> io::Result<bool> {
        let modified = fs::metadata(path)?.modified()?;
        Ok(SystemTime::now()
            .duration_since(modified)
            .unwrap_or_default()
            >= self.keep)
    }
}
