//! hakaru collects events over HTTP and stores each one in MySQL.
//!
//! The modules, in the order in which an event meets them:
//!
//! - [`cli`] reads the flags and variables into settings, and rejects what it cannot accept.
//! - [`commands`] runs everything except serving: it checks a machine, reads a journal, writes reports.
//! - [`server`] starts one shard per core and the writer threads, and drains them at the end.
//! - [`shard`] accepts connections on one core. It keeps the batch that is still open, and answers
//!   when an event is as safe as `--ack` says.
//! - [`http`] finds the requests in the bytes of a connection, decodes `name` and `value`, and formats
//!   the answers.
//! - [`event`] is what a request becomes. It gets a position in its shard's lane and a place in the
//!   open batch.
//! - [`journal`] is the log on disk, one lane per shard. The events that arrive during one write are
//!   written together by the next one.
//! - [`handoff`] is the bounded queue that takes a sealed batch to its writer.
//! - [`writer`] stores each batch in one transaction that also moves the checkpoint of the lane. It
//!   reads back from the journal what the database does not have.
//! - [`sink`] is the database, MySQL or SQLite. The rows that it refuses become
//!   [dead letters](sink::dead_letters).
//! - [`metrics`] counts events and measures times in each of these modules.
//! - [`admin`] serves the metrics, the readiness and the status page.
//! - [`os`] and [`units`] are used by all other modules: calls to the system, and sizes and durations as text.
//!
//! They depend on each other in layers, see `docs/ARCHITECTURE.md`.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests start threads as they like"
    )
)]

pub mod cli;

pub mod commands;

pub mod server;

pub mod shard;

pub mod http;

pub mod event;

pub mod journal;

pub mod handoff;

pub mod writer;

pub mod sink;

pub mod metrics;

pub mod admin;

pub mod os;

pub mod units;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision that it was built from, as `build.rs` found it; `unknown` outside of a repository.
pub const REVISION: &str = env!("HAKARU_REVISION");
