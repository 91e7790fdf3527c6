//! What the tests use: MariaDB, hakaru, a proxy between them, and HTTP over plain sockets.

mod asked;
mod hakaru;
mod http;
mod mariadb;
mod proxy;
mod small_disk;

pub use asked::{Asked, ask, ask_with};
pub use hakaru::{Hakaru, Settings};
pub use http::{Answer, Client, exchange};
pub use mariadb::{DATABASE, MariaDb, free_port};
pub use proxy::{NetworkFault, Proxy};
pub use small_disk::SmallDisk;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Most time that anything may take on a busy machine. Only a failing test waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls `is_so` until it is true. Fails at the deadline.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Stops the senders when dropped, so that a failing test ends.
pub struct StopWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
