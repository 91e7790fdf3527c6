//! Thin walls to the system: what it allows, how an event loop waits, where log lines go, what a terminal shows.

pub mod connection_limit;
pub mod io_driver;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod notifier;
pub mod panics;
pub mod printable;
pub mod process_list;
