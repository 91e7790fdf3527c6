//! Thin wrappers of the operating system: limits, I/O drivers, listening sockets, logging, panics, the process list.

pub(crate) mod bugs;
pub mod clock;
pub mod connection_limit;
pub mod file_system;
pub mod fs;
pub mod io_driver;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod memory;
pub mod notifier;
pub mod panics;
pub mod printable;
pub mod process_list;
pub mod random;
pub(crate) mod reached;
#[cfg(test)]
pub(crate) mod simulated;
pub mod socket;
