//! How many writers there are, and their start.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::ServerError;
use super::shared::Shared;
use super::threads::Role;
use crate::event::ack::Ack;
use crate::handoff::{self, Work};
use crate::journal::lane_handle::DiskLane;
use crate::metrics::{Recorder, WriterCounters};
use crate::server::config::Config;
use crate::sink::dead_letters::DeadLetters;
use crate::sink::dsn::DataSource;
use crate::sink::mysql::MySqlSink;
use crate::sink::mysql::panic_guard::PanicGuard;
use crate::sink::sqlite::SqliteSink;
use crate::sink::{FaultKind, Sink, SinkError};
use crate::writer::Writer;

/// How long the start waits to hear what the database takes, before it serves on assumptions.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

/// One writer a shard, within the bound on connections. SQLite has one writer at a time whatever is tried.
pub(crate) fn count(config: &Config, shards: usize) -> usize {
    match config.datasource {
        DataSource::MySql(_) => config.db_connections.unwrap_or(shards).min(shards),
        DataSource::Sqlite(_) => 1,
    }
}

fn new_sink(config: &Config) -> Box<dyn Sink> {
    match &config.datasource {
        DataSource::MySql(target) => {
            let sink = MySqlSink::new((**target).clone(), config.batch_events);
            Box::new(PanicGuard(sink))
        }
        DataSource::Sqlite(path) => Box::new(SqliteSink::new(path.clone())),
    }
}

/// Starts a writer for each of `recoveries`; waits a moment for each to have tried the database once.
pub(super) fn start(
    config: &Config,
    shared: &Shared,
    shards: usize,
    recoveries: Vec<Receiver<Arc<DiskLane>>>,
    counters: Vec<Recorder<WriterCounters>>,
) -> Result<Vec<SyncSender<Work>>, ServerError> {
    let writers = recoveries.len();
    let dead_letters = Arc::new(DeadLetters::new(&config.data_dir, config.dead_letter_limit));
    let (ready, is_ready) = sync_channel(writers);
    let mut inboxes = Vec::with_capacity(writers);
    for (index, (recoveries, counters)) in recoveries.into_iter().zip(counters).enumerate() {
        let (to_writer, inbox) = handoff::inbox(shards.div_ceil(writers));
        let writer = Writer {
            index,
            sink: new_sink(config),
            dead_letters: Arc::clone(&dead_letters),
            event_rule: Arc::clone(&shared.event_rule),
            counters,
            batch_events: config.batch_events,
            recoveries,
            may_leave: config.ack != Ack::Stored,
            draining: Arc::clone(&shared.draining),
            served: Arc::clone(&shared.served),
        };
        let ready = ready.clone();
        let run = move || {
            writer.run(&inbox, &ready);
            Ok(())
        };
        let started = shared
            .threads
            .start(format!("writer-{index}"), Role::Writer, run);
        started.map_err(ServerError::Start)?;
        inboxes.push(to_writer);
    }
    wait_for_database(&is_ready, writers)?;
    Ok(inboxes)
}

/// Waits for the first attempt of each writer. Only a table that is missing for good keeps the server
/// from starting: anything else may end by itself.
fn wait_for_database(
    is_ready: &Receiver<Result<(), SinkError>>,
    writers: usize,
) -> Result<(), ServerError> {
    let deadline = Instant::now() + DATABASE_PATIENCE;
    for _ in 0..writers {
        let left = deadline.saturating_duration_since(Instant::now());
        match is_ready.recv_timeout(left) {
            Ok(Err(fault)) if fault.fault().kind == FaultKind::NoCheckpoints => {
                return Err(ServerError::Checkpoints(fault));
            }
            Ok(_) => {}
            Err(_) => {
                log::warn!(
                    event = "database_not_answered";
                    "the database has not answered within {DATABASE_PATIENCE:?}; events are taken, and stored \
                     when it does"
                );
                break;
            }
        }
    }
    Ok(())
}
