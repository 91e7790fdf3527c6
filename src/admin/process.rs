//! The resources that the process uses.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};

/// Resources of the process. A figure that cannot be read is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Process {
    /// User and system time of all threads.
    pub(super) cpu: Duration,
    /// Resident memory.
    pub(super) memory_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

impl Process {
    /// User and system time of all threads.
    pub(super) fn cpu() -> Duration {
        let time = |time: TimeVal| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
            Duration::from_secs(seconds) + Duration::from_micros(micros)
        };
        let usage = getrusage(UsageWho::RUSAGE_SELF);
        let cpu = usage.map(|usage| time(usage.user_time()) + time(usage.system_time()));
        cpu.unwrap_or_default()
    }

    pub(super) fn measure() -> Self {
        Self {
            cpu: Self::cpu(),
            memory_bytes: resident_bytes().unwrap_or(0),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        }
    }
}

/// Since Linux 6.2 the size of the directory is the number of open files. Before, the entries are counted.
fn open_fds() -> u64 {
    let directory = "/proc/self/fd";
    match fs::metadata(directory).map(|found| found.len()) {
        Ok(number) if number > 0 => number,
        _ => fs::read_dir(directory).map_or(0, |files| files.count() as u64),
    }
}

/// The second number of `/proc/self/statm`, in pages.
fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

/// The host name of this machine.
pub(super) fn node() -> String {
    let name = nix::unistd::gethostname();
    name.map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_process_can_be_read() {
        let process = Process::measure();
        assert!(
            process.cpu > Duration::ZERO && process.memory_bytes > 100_000,
            "{process:?}"
        );
        assert!(
            (1..process.max_fds).contains(&process.open_fds),
            "{process:?}"
        );
        assert!(!node().is_empty());
    }
}
