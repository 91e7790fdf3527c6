//! The version of hakaru.

use crate::os::io_driver::{self, IoDriver};
use crate::{REVISION, VERSION};

/// The line of `--version`: version, revision, and the driver that `--io auto` chooses on this machine
/// at this moment.
pub(super) fn version_line() -> String {
    let driver = match io_driver::probe() {
        Ok(flags) => IoDriver::IoUring(flags),
        Err(_) => IoDriver::Epoll,
    };
    format!("hakaru {VERSION} ({REVISION}, {driver})\n")
}
