//! Checks what the process may use: cores, open files, memory, io_uring.

use std::{fs, thread};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{Finding, Observation, size};
use crate::os::io_driver::IoChoice;
use crate::os::io_driver::{self, RING_BYTES_MAX};
use crate::os::limits::{self, Core, LimitError};
use crate::os::memory;
use crate::server::bounds::{self, Excess, MemoryBound, Sizes};
use crate::server::config::Config;

/// Room for fewer connections is a warning.
const CONNECTIONS_MIN: usize = 10_000;

/// Since this kernel version, rings are not counted as locked memory.
const RINGS_UNCOUNTED: (u32, u32) = (5, 12);

/// The cores and open files that serving would have.
pub(super) struct Machine {
    cores: Result<Vec<Core>, LimitError>,
    open_files: Result<usize, LimitError>,
}

impl Machine {
    /// Reads the limits, and raises the limit of open files as serving does.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            cores: limits::cores(config.cores),
            open_files: limits::raise_open_files(),
        }
    }

    /// Number of shards that serving would start; 1 if it would not start.
    pub(super) fn shards(&self) -> usize {
        self.cores.as_ref().map_or(1, Vec::len)
    }

    /// Checks everything.
    pub(super) fn check(&self, config: &Config) -> Vec<Finding> {
        let shards = self.shards();
        let fit = match &self.open_files {
            Ok(open_files) => limits::connections_that_fit(*open_files, shards),
            Err(_) => 1,
        };
        vec![
            ("cores", self.cores()),
            ("open files", self.files(config, fit)),
            ("memory", self.memory(config)),
            ("io_uring", ring(config.io)),
            ("locked memory", locked_memory(shards)),
        ]
    }

    /// The sum of all bounds against what there is, as serving would have them.
    fn memory(&self, config: &Config) -> Observation {
        let (sizes, allowed) = (Sizes::new(config, self.shards()), memory::allowed());
        let open_files = self.open_files.as_ref().map_or(0, |&files| files);
        let connections =
            bounds::connections_max(config.max_connections, open_files, allowed, sizes);
        let bound = MemoryBound::new(sizes, connections);
        judge_memory(bound, connections, allowed)
    }

    fn cores(&self) -> Observation {
        let cores = match &self.cores {
            Ok(cores) => cores,
            Err(fault) => {
                return Observation::new(fault.to_string())
                    .error("set fewer --cores, or a wider affinity");
            }
        };
        let names: Vec<_> = cores.iter().map(|core| core.0.to_string()).collect();
        // Also limited by the quota of the cgroup.
        let usable = thread::available_parallelism().map_or(cores.len(), usize::from);
        let found = Observation::new(format!(
            "{} of {usable} that affinity and cgroup allow: {}",
            cores.len(),
            names.join(", ")
        ));
        if cores.len() > usable {
            return found.warning(format!(
                "all cores stop when the quota of the cgroup is used up: set --cores {usable}"
            ));
        }
        found
    }

    fn files(&self, config: &Config, fit: usize) -> Observation {
        let open_files = match &self.open_files {
            Ok(open_files) => open_files,
            Err(fault) => return Observation::new(fault.to_string()).error("check ulimit -n"),
        };
        let found = Observation::new(format!(
            "{open_files} allowed, room for {fit} HTTP connections"
        ));
        let raise = "raise the limit: LimitNOFILE=1048576 in the unit, or ulimit -n";
        match config.max_connections {
            Some(asked) if asked > fit => {
                found.warning(format!("--max-connections is {asked}: {raise}"))
            }
            None if fit < CONNECTIONS_MIN => found.warning(raise),
            _ => found,
        }
    }
}

fn judge_memory(bound: MemoryBound, connections: usize, allowed: Option<u64>) -> Observation {
    let sum = bound.sum() as u64;
    let Some(allowed) = allowed else {
        let found = Observation::new(format!("at most {}", size(sum)));
        return found.warning("check by other means whether the machine has it");
    };
    let found = Observation::new(format!(
        "at most {}, of which {} for {connections} connections, each in the middle of the largest request; the machine \
         or the cgroup has {}",
        size(sum),
        size(bound.connections as u64),
        size(allowed)
    ));
    match bound.excess(allowed) {
        None => found,
        Some(Excess::Connections(fit)) => found.warning(format!(
            "senders that all send long heads at once could use it up: set --max-connections {fit}, or add memory"
        )),
        Some(Excess::Others) => {
            found.error("add memory, or set a lower --batch-events, --cores or --journal-limit")
        }
    }
}

fn ring(choice: IoChoice) -> Observation {
    match (io_driver::probe(), choice) {
        (Ok(flags), IoChoice::Epoll) => Observation::new(format!(
            "not used (--io epoll); it would work, with {flags}"
        )),
        (Ok(flags), _) => Observation::new(format!("works, with {flags}")),
        (Err(reason), IoChoice::Epoll) => Observation::new(format!(
            "not used (--io epoll), and it would not work: {reason}"
        )),
        (Err(reason), IoChoice::Auto) => Observation::new(reason)
            .warning("allow io_uring; without it hakaru uses epoll, which takes more CPU"),
        (Err(reason), IoChoice::IoUring) => Observation::new(reason)
            .error("allow io_uring, or set --io epoll, which takes more CPU"),
    }
}

fn locked_memory(shards: usize) -> Observation {
    let limit = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((_, hard)) => hard,
        Err(fault) => return Observation::new(fault.to_string()).warning("check ulimit -l"),
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    judge_locked_memory(limit, release.trim(), shards)
}

fn judge_locked_memory(limit: u64, release: &str, shards: usize) -> Observation {
    let shown = match limit {
        RLIM_INFINITY => "unlimited".to_owned(),
        bytes => size(bytes),
    };
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    let version: (u32, u32) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if version >= RINGS_UNCOUNTED {
        return Observation::new(format!(
            "{shown}; Linux {release} does not count io_uring's rings"
        ));
    }
    let needed = shards as u64 * RING_BYTES_MAX;
    let found = Observation::new(format!("{shown}; io_uring's rings take {}", size(needed)));
    if limit < needed {
        return found.warning("raise the limit: LimitMEMLOCK=infinity in the unit, or ulimit -l");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;
    use crate::shard::connection::CONNECTION_BYTES_MAX;

    #[test]
    fn too_little_memory_for_all_connections_is_a_warning_with_a_number() {
        let each = CONNECTION_BYTES_MAX;
        let bound = MemoryBound {
            batches: each,
            journals: each,
            writers: each,
            bodies: 0,
            connections: 10 * each,
            others: each,
        };
        let judge = |shares: usize| judge_memory(bound, 10, Some((shares * each) as u64));
        assert_eq!(judge(14).level, Level::Ok);
        let some = judge(9);
        assert_eq!(some.level, Level::Warning);
        assert!(some.advice.unwrap().contains("--max-connections 5,"));
        assert_eq!(judge(4).level, Level::Error);
    }

    #[test]
    fn old_kernels_count_rings_as_locked_memory() {
        let level = |limit, release| judge_locked_memory(limit, release, 2).level;
        assert_eq!(level(64 * 1024, "6.18.44-fc"), Level::Ok);
        assert_eq!(level(64 * 1024, "5.10.0-26-amd64"), Level::Warning);
        assert_eq!(level(RLIM_INFINITY, "5.10.0"), Level::Ok);
    }
}
