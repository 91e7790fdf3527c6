//! Which hakaru this is.

use crate::io_driver::{self, IoDriver};

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision it was built from, as `build.rs` found it; `unknown` outside of a repository.
pub const REVISION: &str = env!("HAKARU_REVISION");

/// The line of `--version`: version, revision, and the driver that `--io auto` chooses on this machine
/// at this moment.
pub fn line() -> String {
    let driver = match io_driver::probe() {
        Ok(flags) => IoDriver::IoUring(flags),
        Err(_) => IoDriver::Epoll,
    };
    format!("hakaru {VERSION} ({REVISION}, {driver})\n")
}
