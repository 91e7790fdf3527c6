//! What the process may use: cores, open files, memory. Known at the start, logged, and kept.

use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Most HTTP connections that can be asked for.
pub const CONNECTIONS_MAX: usize = 10_000_000;

/// Open files that are no HTTP connection, whatever the number of shards: standard streams, dead
/// letters, the database, and some to spare.
const FILES_RESERVED: usize = 32;

/// Open files of a shard: ring or epoll, listener, two ends each of control, notifications and the turns of the loop,
/// its lane's lock, two segments, its database connection, a segment that is read
/// back; and some to spare.
const FILES_PER_SHARD: usize = 16;

/// A processor of this machine, by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Core(pub usize);

/// Why the limits cannot be known or kept.
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
    /// The kernel refused a question it always answers.
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
/// Where only a part of the mask is used, it starts at the core we run on: several processes that
/// each use one core must not all choose the first.
pub fn cores(asked: Option<usize>) -> Result<Vec<Core>, LimitError> {
    let mask = sched_getaffinity(Pid::from_raw(0)).map_err(kernel("sched_getaffinity"))?;
    let mut allowed: Vec<usize> = (0..CpuSet::count())
        .filter(|&core| mask.is_set(core) == Ok(true))
        .collect();
    // Knows the mask and the cgroup's quota both.
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

/// Raises the limit of open files to the most this process may have, and says how many that is.
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

/// HTTP connections that fit into `open_files`. At least one, however few files there are.
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
    fn some_files_are_kept_back() {
        assert_eq!(connections_that_fit(1024, 2), 1024 - 64 - 64);
        assert_eq!(connections_that_fit(10, 2), 1);
    }
}
