//! What the process may use: cores and open files.

use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Most HTTP connections that can be configured.
pub const CONNECTIONS_MAX: usize = 10_000_000;

/// Connections of the admin port that are served at once. Others wait in the kernel's queue.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Open files that are no HTTP connection, for any number of shards: the connections of the admin port; standard
/// streams, the listening socket of the admin port, the dead letters, the three files of SQLite, and some to spare.
const FILES_RESERVED: usize = ADMIN_CONNECTIONS_MAX + 32;

/// Open files per shard, 15 and one to spare: the io_uring or epoll descriptor; three copies of the listening socket
/// (for accepting, for the drain, for a successor); both ends of the sockets for control, for notifications and for
/// turns of the event loop; the lock of the lane; two segments, and one that is read back; a database connection.
const FILES_PER_SHARD: usize = 16;

/// A processor of this machine, by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Core(pub usize);

/// Why the limits cannot be determined or applied.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// More shards than cores.
    #[error("--cores (HAKARU_CORES): {asked} is not accepted; this process may use {allowed}")]
    TooFewCores {
        /// As set.
        asked: usize,
        /// In the affinity mask.
        allowed: usize,
    },
    /// A system call failed that never should.
    #[error("{call}: {fault}")]
    Kernel {
        /// The system call.
        call: &'static str,
        /// Its error.
        fault: nix::Error,
    },
}

fn kernel(call: &'static str) -> impl Fn(nix::Error) -> LimitError {
    move |fault| LimitError::Kernel { call, fault }
}

/// The cores to pin shards to: `asked` of them, or as many as affinity mask and cgroup allow.
///
/// If only a part of the mask is used, it starts at the core that this thread runs on. So several processes with one
/// core each do not all choose the first one.
pub fn cores(asked: Option<usize>) -> Result<Vec<Core>, LimitError> {
    let mask = sched_getaffinity(Pid::from_raw(0)).map_err(kernel("sched_getaffinity"))?;
    let mut allowed: Vec<usize> = (0..CpuSet::count())
        .filter(|&core| mask.is_set(core) == Ok(true))
        .collect();
    // Limited by the mask and by the quota of the cgroup.
    let usable = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(allowed.len());
    let count = asked.unwrap_or(usable);
    if count > allowed.len() {
        return Err(LimitError::TooFewCores {
            asked: count,
            allowed: allowed.len(),
        });
    }
    if count < allowed.len() {
        let present = sched_getcpu().map_err(kernel("sched_getcpu"))?;
        let start = allowed
            .iter()
            .position(|&core| core == present)
            .unwrap_or(0);
        allowed.rotate_left(start);
    }
    Ok(allowed.into_iter().take(count).map(Core).collect())
}

/// Binds the calling thread to one core.
pub fn pin(core: Core) -> Result<(), LimitError> {
    let mut mask = CpuSet::new();
    mask.set(core.0).map_err(kernel("CPU_SET"))?;
    sched_setaffinity(Pid::from_raw(0), &mask).map_err(kernel("sched_setaffinity"))
}

/// Raises the limit of open files to the most that this process may have. Returns that number.
pub fn raise_open_files() -> Result<usize, LimitError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(kernel("getrlimit"))?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(kernel("setrlimit"))?;
    }
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
}

/// Lanes of earlier processes that may be kept at once, each with a file open for its lock.
pub fn lanes_kept(open_files: usize) -> usize {
    (open_files / 8).clamp(4, 64)
}

/// HTTP connections that fit into `open_files`. At least 1, even if there are too few files.
pub fn connections_that_fit(open_files: usize, shards: usize) -> usize {
    let reserved = FILES_RESERVED + lanes_kept(open_files) + FILES_PER_SHARD * shards;
    open_files
        .saturating_sub(reserved)
        .clamp(1, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_shards_than_cores() {
        let all = cores(None).unwrap();
        assert!(!all.is_empty());
        assert_eq!(cores(Some(1)).unwrap().len(), 1);
        let error = cores(Some(100_000)).unwrap_err().to_string();
        assert!(
            error.contains("HAKARU_CORES") && error.contains("100000"),
            "{error}"
        );
    }

    #[test]
    fn some_files_are_reserved() {
        let admin = ADMIN_CONNECTIONS_MAX;
        assert_eq!(connections_that_fit(1024, 2), 1024 - 64 - 64 - admin);
        assert_eq!(connections_that_fit(10, 2), 1);
    }
}
