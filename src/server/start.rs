//! From a configuration to a server that runs.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::bounds::MemoryBound;
use super::sockets::Sockets;
use super::threads::{Notice, Role, spawn, watch_signals};
use super::{Announcement, Server, ServerError};
use crate::admin;
use crate::admin::overview::{Facts, Overview, Stage};
use crate::event::ack::Ack;
use crate::event::{NameRule, SharedNameRule, UnixMillis};
use crate::handoff::{self, Handoff, Work};
use crate::journal::disk_thread;
use crate::journal::janitor::Janitor;
use crate::journal::lane_handle::{DiskLane, MemoryLane};
use crate::journal::quota::JournalBound;
use crate::metrics::{Metrics, Recorder, ShardCounters, WriterCounters};
use crate::os::connection_limit::ConnectionLimit;
use crate::os::io_driver::{self, IoDriver};
use crate::os::limits::{self, Core};
use crate::os::listen::Backlog;
use crate::os::notifier::ShardNotifier;
use crate::server::config::Config;
use crate::server::upgrade::{Inherited, Program};
use crate::shard::ingest::Medium;
use crate::shard::{self, ShardParts};
use crate::sink::dead_letters::DeadLetters;
use crate::sink::dsn::DataSource;
use crate::sink::mysql::MySqlSink;
use crate::sink::sqlite::SqliteSink;
use crate::sink::{FaultKind, Sink};
use crate::writer::Writer;

/// How long the start waits to hear what the database takes, before it serves on assumptions.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

/// Lanes that were found and not yet taken up by a writer; others are found again.
const LANES_FOUND_MAX: usize = 1024;

/// What every shard is started with.
struct ShardsStart<'a> {
    config: &'a Config,
    driver: IoDriver,
    inboxes: &'a [SyncSender<Work>],
    name_rule: Arc<SharedNameRule>,
    slots: Arc<ConnectionLimit>,
    /// Most connections, of all shards together.
    connections: usize,
    shards: usize,
    bound: JournalBound,
    journal: PathBuf,
    /// What becomes of listening sockets at the end.
    backlog: Backlog,
    notify: Sender<Notice>,
    opened: Sender<Arc<DiskLane>>,
}

impl Server {
    /// Starts everything; requests are answered when every shard accepts.
    pub(super) fn start(
        config: &Config,
        program: Program,
        mut inherited: Inherited,
    ) -> Result<Self, ServerError> {
        let data_dir = |fault| ServerError::DataDir {
            path: config.data_dir.display().to_string(),
            fault,
        };
        let journal = config.data_dir.join("journal");
        make_data_dir(&config.data_dir, &journal).map_err(data_dir)?;
        let open_files = limits::raise_open_files()?;
        let cores = limits::cores(config.cores)?;
        let driver = io_driver::choose(config.io, inherited.must_not_block())?;
        let sockets = Sockets::open(config, cores.len(), &mut inherited)?;
        let (notify, notices) = channel();
        watch_signals(notify.clone()).map_err(ServerError::Start)?;

        let writers = writer_count(config, cores.len());
        let connections = connections_max(config, open_files, cores.len());
        log_bounds(config, &cores, writers, connections);

        let (metrics, recorders) = Metrics::new(cores.len(), writers);
        let metrics = Arc::new(metrics);
        let stage = Arc::new(Stage::default());
        let name_rule = Arc::new(SharedNameRule::new(NameRule::DEPLOYED));
        let draining = Arc::new(AtomicBool::new(false));
        let elsewhere = Arc::default();
        let bound = JournalBound::new(config.journal_limit, Arc::clone(&elsewhere));
        let slots = Arc::new(ConnectionLimit::new(connections));
        let address = sockets.address().unwrap_or(config.listen);
        let overview = Overview {
            metrics: Arc::clone(&metrics),
            slots: Arc::clone(&slots),
            journal: (config.ack != Ack::Received).then(|| bound.clone()),
            stage: Arc::clone(&stage),
            facts: facts(config, driver, address, cores.len()),
        };
        if let Some(admin) = sockets.admin {
            admin::start(admin, overview).map_err(ServerError::Start)?;
        }
        let (opened, lanes) = channel();
        let (to_writers, found) = (0..writers)
            .map(|_| sync_channel(LANES_FOUND_MAX))
            .collect::<(Vec<_>, Vec<_>)>();
        let inboxes = start_writers(
            config,
            &cores,
            found,
            &name_rule,
            recorders.writers,
            &draining,
            &notify,
        )?;
        let janitor = Janitor {
            journal: journal.clone(),
            keep: config.journal_keep,
            opened: lanes,
            writers: to_writers,
            kept_max: limits::lanes_kept(open_files),
            elsewhere,
            found_events: metrics.found(),
        };
        // Whatever is promised now: an earlier process may have left lanes.
        start_janitor(janitor, &notify).map_err(ServerError::Start)?;

        let mut server = Self {
            metrics,
            stage,
            notices,
            controls: Vec::new(),
            notifiers: Vec::new(),
            opened: Some(opened.clone()),
            ack: config.ack,
            draining,
            shards_running: 0,
            writers_running: writers,
            program,
            sockets: sockets.handed_over,
            notify: notify.clone(),
            successor: None,
            unannounced: Some(Announcement {
                line: start_line(config, driver, address, cores.len()),
                address,
                inherited,
            }),
        };
        let start = ShardsStart {
            config,
            driver,
            inboxes: &inboxes,
            name_rule,
            slots,
            connections,
            shards: cores.len(),
            bound,
            journal,
            backlog: sockets.backlog,
            notify,
            opened,
        };
        let shards = sockets.http.into_iter().zip(recorders.shards).zip(&cores);
        for (index, ((listeners, counters), &core)) in shards.enumerate() {
            server
                .start_shard(index, core, listeners, counters, &start)
                .map_err(ServerError::Start)?;
        }
        Ok(server)
    }

    fn start_shard(
        &mut self,
        index: usize,
        core: Core,
        listeners: Vec<TcpListener>,
        counters: Recorder<ShardCounters>,
        start: &ShardsStart<'_>,
    ) -> io::Result<()> {
        let config = start.config;
        let (control, far_end) = UnixStream::pair()?;
        let (notifier, heard) = ShardNotifier::new()?;
        let medium = match config.ack {
            Ack::Received => Medium::Memory(MemoryLane::new()?),
            Ack::Journaled | Ack::Stored => {
                let (journal, opened) = (start.journal.clone(), start.opened.clone());
                let (disk, work) = disk_thread::disk_thread(journal, notifier.clone(), opened);
                let run = move || {
                    work.run();
                    Ok(())
                };
                spawn(format!("disk-{index}"), &start.notify, Role::Disk, run)?;
                Medium::Journal(disk, start.bound.clone())
            }
        };
        let inbox = &start.inboxes[index % start.inboxes.len()];
        let handoff = Handoff::new(inbox.clone(), config.batch_events);
        // Half of the connections may wait for a disk or a database that stalls.
        let waiters_max = (start.connections / (2 * start.shards)).max(1);
        let parts = ShardParts {
            listeners,
            backlog: start.backlog,
            ack: config.ack,
            handoff,
            medium,
            waiters_max,
            notifier: heard,
            counters,
            name_rule: Arc::clone(&start.name_rule),
            driver: start.driver,
            slots: Arc::clone(&start.slots),
            linger: config.linger,
            drain: config.drain_timeout / 2,
            control: far_end,
        };
        let driver = start.driver;
        spawn(
            format!("shard-{index}"),
            &start.notify,
            Role::Shard,
            move || {
                limits::pin(core).map_err(|fault| format!("core {}: {fault}", core.0))?;
                driver
                    .block_on(shard::run(parts))
                    .map_err(|fault| format!("{driver}: {fault}"))
            },
        )?;
        self.notifiers.push(notifier);
        self.controls.push(control);
        self.shards_running += 1;
        Ok(())
    }
}

fn start_janitor(janitor: Janitor, notify: &Sender<Notice>) -> io::Result<()> {
    let run = move || {
        janitor.run();
        Ok(())
    };
    spawn("janitor".to_owned(), notify, Role::Janitor, run)
}

/// Makes the directories where they are missing, their names durable, and tries whether files can be
/// made in them: a dead letter must find no surprise.
fn make_data_dir(path: &Path, journal: &Path) -> io::Result<()> {
    fs::create_dir_all(journal)?;
    for directory in [path.parent(), Some(path)].into_iter().flatten() {
        let directory = if directory == Path::new("") {
            Path::new(".")
        } else {
            directory
        };
        match fs::File::open(directory) {
            Ok(directory) => directory.sync_all()?,
            // Above the data directory there may be what is not for us to read; then it was there before.
            Err(fault) if directory != path => log::debug!("{}: {fault}", directory.display()),
            Err(fault) => return Err(fault),
        }
    }
    let trial = path.join(format!("trial-{}", std::process::id()));
    fs::write(&trial, b"")?;
    fs::remove_file(&trial)
}

fn connections_max(config: &Config, open_files: usize, shards: usize) -> usize {
    let fit = limits::connections_that_fit(open_files, shards);
    let connections = config.max_connections.unwrap_or(fit);
    if connections > fit {
        log::warn!(
            event = "max_connections_too_high",
            max_connections = connections, open_files, fit;
            "--max-connections {connections}: the limit of {open_files} open files allows {fit}; beyond them \
             accepting pauses"
        );
    }
    connections
}

/// One writer a shard, within the bound on connections. SQLite has one writer at a time whatever is tried.
pub(crate) fn writer_count(config: &Config, shards: usize) -> usize {
    match config.datasource {
        DataSource::MySql(_) => config.db_connections.unwrap_or(shards).min(shards),
        DataSource::Sqlite(_) => 1,
    }
}

fn new_sink(config: &Config) -> Box<dyn Sink> {
    match &config.datasource {
        DataSource::MySql(target) => {
            Box::new(MySqlSink::new((**target).clone(), config.batch_events))
        }
        DataSource::Sqlite(path) => Box::new(SqliteSink::new(path.clone())),
    }
}

/// Starts the writers; waits a moment for each to have tried the database once.
fn start_writers(
    config: &Config,
    cores: &[Core],
    recoveries: Vec<Receiver<Arc<DiskLane>>>,
    name_rule: &Arc<SharedNameRule>,
    recorders: Vec<Recorder<WriterCounters>>,
    draining: &Arc<AtomicBool>,
    notify: &Sender<Notice>,
) -> Result<Vec<SyncSender<Work>>, ServerError> {
    let writers = recoveries.len();
    let dead_letters = Arc::new(DeadLetters::new(&config.data_dir));
    let restores = Arc::default();
    let (ready, is_ready) = sync_channel(writers);
    let mut inboxes = Vec::with_capacity(writers);
    for (index, (recoveries, counters)) in recoveries.into_iter().zip(recorders).enumerate() {
        let (to_writer, inbox) = handoff::inbox(cores.len().div_ceil(writers));
        let writer = Writer {
            index,
            sink: new_sink(config),
            dead_letters: Arc::clone(&dead_letters),
            name_rule: Arc::clone(name_rule),
            counters,
            batch_events: config.batch_events,
            recoveries,
            may_leave: config.ack != Ack::Stored,
            draining: Arc::clone(draining),
            restores: Arc::clone(&restores),
        };
        let ready = ready.clone();
        let run = move || {
            writer.run(&inbox, &ready);
            Ok(())
        };
        spawn(format!("writer-{index}"), notify, Role::Writer, run).map_err(ServerError::Start)?;
        inboxes.push(to_writer);
    }
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
    Ok(inboxes)
}

fn log_bounds(config: &Config, cores: &[Core], writers: usize, connections: usize) {
    let bound = MemoryBound::new(cores.len(), writers, connections, config.batch_events);
    log::info!(
        event = "bounds",
        connections_max = connections,
        database_connections_max = writers,
        batches_max = cores.len() * handoff::BATCHES_PER_SHARD,
        batch_events_max = config.batch_events.get(),
        batches_bytes_max = bound.batches,
        journals_bytes_max = bound.journals,
        writers_bytes_max = bound.writers,
        connections_bytes_max = bound.connections,
        memory_bytes_max = bound.sum();
        "bounds"
    );
}

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
fn facts(config: &Config, driver: IoDriver, address: SocketAddr, shards: usize) -> Facts {
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
    }
}

/// The one line of a start.
fn start_line(config: &Config, driver: IoDriver, address: SocketAddr, shards: usize) -> String {
    format!(
        "listening on {address} ({shards} {}, {driver}); rows go to {}; a 200 promises `{}`: {}",
        if shards == 1 { "shard" } else { "shards" },
        config.datasource,
        config.ack,
        promise(config),
    )
}
