//! What the log and the admin port state about a server at its start.

use std::net::SocketAddr;

use crate::admin::overview::Facts;
use crate::event::UnixMillis;
use crate::event::ack::Ack;
use crate::handoff;
use crate::os::io_driver::IoDriver;
use crate::server::config::Config;
use crate::sink::dsn::DataSource;

/// What a 200 promises, in words.
fn promise(config: &Config) -> String {
    match config.ack {
        Ack::Received => format!(
            "the event is in memory and is stored within about {:?}; a crash loses what was not",
            config.linger
        ),
        Ack::Journaled => "the event is on disk, and will be one row".to_owned(),
        Ack::Stored => "the event is a row".to_owned(),
    }
}

/// What the admin port says of us that does not change.
pub(super) fn facts(
    config: &Config,
    driver: IoDriver,
    address: SocketAddr,
    shards: usize,
    data_dir_warning: Option<String>,
) -> Facts {
    Facts {
        ack: config.ack,
        promise: promise(config),
        io: driver.to_string(),
        listen: address.to_string(),
        database_kind: match config.datasource {
            DataSource::MySql(_) => "MySQL",
            DataSource::Sqlite(_) => "SQLite",
        },
        database: config.datasource.to_string(),
        batches_max: shards * handoff::BATCHES_PER_SHARD,
        started_at: UnixMillis::now(),
        data_dir_warning,
    }
}

/// The one line of a start.
pub(super) fn start_line(
    config: &Config,
    driver: IoDriver,
    address: SocketAddr,
    shards: usize,
) -> String {
    format!(
        "listening on {address} ({shards} {}, {driver}); rows go to {}; a 200 promises `{}`: {}",
        if shards == 1 { "shard" } else { "shards" },
        config.datasource,
        config.ack,
        promise(config),
    )
}
