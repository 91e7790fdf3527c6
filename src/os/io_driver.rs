//! Chooses the I/O driver of the shards: io_uring, with the best flags that the kernel supports, or epoll.

use std::fmt;
use std::future::Future;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Submission entries of a shard's ring: operations that one turn of the event loop may queue without a system call.
const RING_ENTRIES: u32 = 1024;

/// Completion entries: a burst of connections must not overflow into the kernel's slow list.
const RING_COMPLETIONS: u32 = 16 * 1024;

/// The most memory of a ring, in bytes: submissions of 64 bytes and their index, completions of 16, and the
/// ring's own head.
pub const RING_BYTES_MAX: u64 =
    RING_ENTRIES as u64 * (64 + 4) + RING_COMPLETIONS as u64 * 16 + 4096;

/// Which I/O driver a shard may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring, or epoll with a warning where the kernel refuses it.
    Auto,
    /// io_uring, or no start where the kernel refuses it.
    IoUring,
    /// epoll.
    Epoll,
}

impl IoChoice {
    /// Each choice there is.
    pub const ALL: [Self; 3] = [Self::Auto, Self::IoUring, Self::Epoll];
}

impl fmt::Display for IoChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::IoUring => out.write_str("io_uring"),
            Self::Epoll => out.write_str("epoll"),
        }
    }
}

/// The driver of every shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring.
    IoUring(RingFlags),
    /// epoll.
    Epoll,
}

/// The flags that a ring is set up with, best first. Which of them work depends on the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFlags {
    /// Completions are processed when the event loop asks for them, by its only thread (Linux 6.1).
    DeferTaskrun,
    /// Completions never interrupt the event loop (Linux 5.19).
    CoopTaskrun,
    /// No flags, as every kernel with io_uring allows.
    Plain,
}

impl RingFlags {
    const BEST_FIRST: [Self; 3] = [Self::DeferTaskrun, Self::CoopTaskrun, Self::Plain];

    fn builder(self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(RING_COMPLETIONS);
        match self {
            Self::DeferTaskrun => builder.setup_single_issuer().setup_defer_taskrun(),
            Self::CoopTaskrun => builder.setup_coop_taskrun(),
            Self::Plain => &mut builder,
        };
        builder
    }
}

impl fmt::Display for IoDriver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring(_) => out.write_str("io_uring"),
            Self::Epoll => out.write_str("epoll"),
        }
    }
}

impl fmt::Display for RingFlags {
    /// The kernel's names of the flags.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeferTaskrun => out.write_str("SINGLE_ISSUER | DEFER_TASKRUN"),
            Self::CoopTaskrun => out.write_str("COOP_TASKRUN"),
            Self::Plain => out.write_str("no flags"),
        }
    }
}

/// The driver that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--io (HAKARU_IO): io_uring cannot be used: {0}; --io epoll works without it")]
pub struct IoUringRefused(String);

/// Chooses the driver. With `auto`, epoll is used after one warning if io_uring cannot be used. Inherited sockets
/// that `must_not_block`, because a process on epoll uses them too, cannot be used with io_uring.
pub fn choose(choice: IoChoice, must_not_block: bool) -> Result<IoDriver, IoUringRefused> {
    if choice == IoChoice::Epoll {
        return Ok(IoDriver::Epoll);
    }
    let probed = if must_not_block {
        Err(
            "the previous process is on epoll and shares its sockets; restart instead of reloading"
                .to_owned(),
        )
    } else {
        probe()
    };
    match (probed, choice) {
        (Ok(flags), _) => Ok(IoDriver::IoUring(flags)),
        (Err(reason), IoChoice::Auto) => {
            log::warn!(
                event = "io_uring_unavailable";
                "io_uring cannot be used: {reason}; epoll is used instead"
            );
            Ok(IoDriver::Epoll)
        }
        (Err(reason), _) => Err(IoUringRefused(reason)),
    }
}

/// Sets up a ring as a shard does, and checks that the operations of a shard are supported. Logs nothing; the error
/// is the reason why io_uring cannot be used.
pub fn probe() -> Result<RingFlags, String> {
    let mut refused = None;
    for flags in RingFlags::BEST_FIRST {
        match flags.builder().build(RING_ENTRIES) {
            Ok(ring) => return operations(&ring).map(|()| flags),
            Err(fault) => refused = Some(fault),
        }
    }
    Err(refused.map(explain).unwrap_or_default())
}

fn operations(ring: &IoUring) -> Result<(), String> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(explain)?;
    let needed = [
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Timeout::CODE, "TIMEOUT"),
        (opcode::Write::CODE, "WRITE"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        None => Ok(()),
        Some((_, name)) => Err(format!("the kernel lacks the operation {name}")),
    }
}

fn explain(fault: io::Error) -> String {
    let hint = match fault.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => {
            " (denied by sysctl kernel.io_uring_disabled, or by a seccomp profile such as Docker's)"
        }
        Some(nix::errno::Errno::ENOSYS) => " (not in this kernel, or hidden by a seccomp profile)",
        Some(nix::errno::Errno::ENOMEM) => " (raise the locked-memory limit: ulimit -l)",
        _ => "",
    };
    format!("{fault}{hint}")
}

impl IoDriver {
    /// Runs `shard` to its end on the calling thread, which must be the thread that built it.
    pub fn block_on(self, shard: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        match self {
            Self::IoUring(flags) => RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(flags.builder())
                .with_entries(RING_ENTRIES)
                .enable_timer()
                .build()?
                .block_on(shard),
            Self::Epoll => RuntimeBuilder::<LegacyDriver>::new()
                .enable_timer()
                .build()?
                .block_on(shard),
        }
    }
}
