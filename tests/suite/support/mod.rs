//! What the tests use: a database server, hakaru, a proxy between them, and HTTP over plain sockets.

mod asked;
pub mod browser;
mod database_server;
mod engine;
mod hakaru;
mod http;
mod identity;
mod nginx;
mod proxy;
mod small_disk;

pub use asked::{Asked, ask, ask_with};
pub use database_server::{DATABASE, DatabaseServer, free_port};
pub use engine::{Engine, Family, engine};
pub use hakaru::{Hakaru, Settings};
pub use http::{Answer, Client, exchange};
pub use identity::Identity;
pub use nginx::Nginx;
pub use proxy::{NetworkFault, Proxy};
pub use small_disk::SmallDisk;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Most time that anything may take on a busy machine: hakaru itself waits for a minute before it tries some things
/// again. Only a failing test waits this long.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// The first and the longest pause between two polls. Most polls open a connection to the database, which costs more
/// than what the test waits for.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// Polls `is_so` until it is true, at growing intervals. Fails at the deadline.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    let [mut pause, longest] = PAUSES;
    while !is_so() {
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::park_timeout(pause);
        pause = (pause * 3 / 2).min(longest);
    }
}

/// Sends these values under the name `a` on one connection. Each must be answered 200.
pub fn send(address: SocketAddr, values: Range<u32>) {
    let mut client = Client::connect(address);
    for value in values {
        let answer = client.get(&format!("/hakaru?name=a&value={value}"));
        assert_eq!(answer.status, 200, "{value}");
    }
}

/// Stops the senders when dropped, so that a failing test ends.
pub struct StopWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stops a process by SIGSTOP, and waits until none of its threads runs.
pub fn freeze(pid: nix::unistd::Pid) {
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    wait_until("all threads are stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut stats = threads
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        stats.all(|stat| {
            // "7 (shard-0) T …". Threads of the kernel that serve a ring do not stop.
            let (name, rest) = stat.rsplit_once(") ").unwrap();
            rest.starts_with('T') || name.contains("(iou-")
        })
    });
}

/// Runs a program to its end and returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|fault| panic!("{program}: {fault}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
