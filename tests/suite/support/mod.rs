//! What the tests drive: MariaDB, hakaru, and HTTP over plain sockets.

mod asked;
mod hakaru;
mod http;
mod mariadb;
mod proxy;

pub use asked::{Asked, ask, ask_with};
pub use hakaru::{Hakaru, Settings};
pub use http::{Answer, Client, exchange};
pub use mariadb::{MariaDb, free_port};
pub use proxy::{Mischief, Proxy};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine. Only a failing test ever waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks `is_so` again and again until it is, or fails at the deadline.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Ends the senders also when the test fails in their midst.
pub struct StopWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a client program to its end and gives its standard output.
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
