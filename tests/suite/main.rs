//! Drives the built binary with real sockets against real databases, which the tests start themselves.
//!
//! Each module covers one behaviour. All tests run in parallel. Each has its own directory, ports and processes, and
//! ends them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on fails; these are tests"
)]

mod support;

mod accounts;
mod admin;
mod backlog;
mod bodies;
mod body_bounds;
mod check;
mod checkpoint_copies;
mod checkpoint_proofs;
mod clients;
mod clusters;
mod columns;
mod configuration;
mod connection_slots;
mod connections;
mod data_dir;
mod database_identity;
mod dead_letters;
mod disk_faults;
mod documents;
mod drain;
mod even_shards;
mod forked_lanes;
mod full_disk;
mod gone_senders;
mod http_bounds;
mod http_contract;
mod identity;
mod idle_lanes;
mod ids;
mod io_drivers;
mod journal;
mod journal_listing;
mod late_clock;
mod letter_databases;
mod lying_disk;
mod managed;
mod memory_bound;
mod names;
mod odd_requests;
mod outage;
mod pages;
mod reconcile;
mod reload;
mod replay;
mod report;
mod report_faults;
mod restored_databases;
mod rows;
mod script;
mod sending;
mod sending_clients;
mod sessions;
mod sqlite;
mod sqlite_files;
mod status_page;
mod table_faults;
mod tls;
mod torture;
mod waiting_lanes;
