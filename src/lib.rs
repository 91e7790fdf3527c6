//! hakaru collects events over HTTP and stores each one in MySQL.
//!
//! The life of an event, in the order of the modules: [`config`] says where events come in and where
//! rows go; [`check`] tries that without serving. [`server`] starts one [`shard`] a core and the writers.
//! A shard's [`listener`] accepts a [`connection`]; what it reads goes through [`http`], where the query
//! of `GET /hakaru` becomes an [`event`]. [`keeping`] appends it to the shard's open [`batch`] and, where
//! the promise asks for it, to the [`journal`]; the answer goes out when the promise holds. When the batch
//! is full or old it is sealed and takes the [`handoff`] to a [`writer`], which moves the lane's checkpoint
//! and stores the batch in a [`sink`] as one transaction, and sends its memory back. What the database
//! refuses ends in the [`sink::dead_letters`]. What all of them count in [`metrics`] is told by [`admin`].

pub mod cli;
pub mod commands;
pub mod server;

// One core: from the socket to the open batch.
pub mod shard;

// From the handoff to the row.
pub mod writer;

pub mod admin;

pub mod metrics;

pub mod handoff;

pub mod sink;

pub mod journal;

pub mod http;

// What travels.
pub mod event;

// Thin walls to the system.
pub mod os;

pub mod units;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision it was built from, as `build.rs` found it; `unknown` outside of a repository.
pub const REVISION: &str = env!("HAKARU_REVISION");
