//! Starts writers and shards, waits for a signal, drains in order.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::dsn::DataSource;
use crate::config::{Ack, Config};
use crate::dead_letters::DeadLetters;
use crate::event::{NameRule, SharedNameRule};
use crate::handoff::{self, Handoff, Work};
use crate::io_driver::{self, IoDriver, IoUringRefused};
use crate::journal::commit::{self, Bell, LaneHandle};
use crate::journal::janitor::Janitor;
use crate::keeping::Keeping;
use crate::limits::{self, Core, LimitError, MemoryBound};
use crate::listener::{self, ConnectionSlots};
use crate::metrics::Metrics;
use crate::shard::{Shard, ShardParts};
use crate::sink::mysql::MySqlSink;
use crate::sink::sqlite::SqliteSink;
use crate::sink::{CREATE_CHECKPOINTS, Sink, SinkError};
use crate::writer::Writer;

/// How long the start waits to hear what the database takes, before it serves on assumptions.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

/// Lanes that were found and not yet taken up by a writer; others are found again.
const LANES_FOUND_MAX: usize = 1024;

/// Why the server ended otherwise than by draining.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be made.
    #[error("--data-dir (HAKARU_DATA_DIR): {path}: {fault}")]
    DataDir {
        /// As set.
        path: String,
        /// What the system said.
        fault: io::Error,
    },
    /// The address cannot be listened on.
    #[error("--listen (HAKARU_LISTEN): {address}: {fault}")]
    Listen {
        /// As set.
        address: String,
        /// What the system said.
        fault: io::Error,
    },
    /// A limit that was set is beyond what the process may use.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// io_uring was asked for and is not to be had.
    #[error(transparent)]
    IoUring(#[from] IoUringRefused),
    /// The table that makes an event one row is missing and may not be made.
    #[error("--datasource (HAKARU_DATASOURCENAME): {0}")]
    Checkpoints(SinkError),
    /// A thread, a pipe or a signal could not be set up.
    #[error("start: {0}")]
    Start(io::Error),
    /// A thread ended that should not have.
    #[error("{0}")]
    ThreadEnded(String),
    /// The time to drain was over before everything was stored.
    #[error("not drained within {timeout:?}: {pending} events are lost")]
    NotDrained {
        /// The drain timeout.
        timeout: Duration,
        /// Events taken and not stored.
        pending: u64,
    },
    /// A second signal.
    #[error("ended at once by a second signal: {pending} events are lost")]
    Aborted {
        /// Events taken and not stored.
        pending: u64,
    },
}

impl ServerError {
    /// Whether a setting is to blame: nothing was served yet, and another value is needed.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::DataDir { .. }
                | Self::Listen { .. }
                | Self::IoUring(_)
                | Self::Checkpoints(_)
                | Self::Limit(LimitError::TooFewCores { .. })
        )
    }
}

/// What the threads tell the main one.
enum Notice {
    Signal,
    ShardEnded(Result<(), String>),
    WriterEnded(Result<(), String>),
}

/// A server that runs.
struct Server {
    metrics: Metrics,
    notices: Receiver<Notice>,
    /// Closed to make the shards drain.
    controls: Vec<UnixStream>,
    /// Kept open: a bell without another end would be heard as the end.
    bells: Vec<Bell>,
    /// Kept open: the janitor ends with the last of these.
    _opened: Sender<Arc<LaneHandle>>,
    ack: Ack,
    draining: Arc<AtomicBool>,
    shards_running: usize,
    writers_running: usize,
}

/// Serves until a signal, then drains.
pub fn run(config: &Config) -> Result<(), ServerError> {
    let mut server = Server::start(config)?;
    let ended = server.wait();
    // Where a fault began the drain, no signal has come yet.
    let signals_allowed = usize::from(ended.is_err());
    let drained = server.drain(config.drain_timeout, signals_allowed);
    server.log_identity();
    ended.and(drained)
}

impl Server {
    fn start(config: &Config) -> Result<Self, ServerError> {
        make_data_dir(&config.data_dir).map_err(|fault| ServerError::DataDir {
            path: config.data_dir.display().to_string(),
            fault,
        })?;
        let open_files = limits::raise_open_files()?;
        let cores = limits::cores(config.cores)?;
        let driver = io_driver::choose(config.io)?;
        let listeners =
            listener::bind(config.listen, cores.len()).map_err(|fault| ServerError::Listen {
                address: config.listen.to_string(),
                fault,
            })?;
        let (notify, notices) = channel();
        watch_signals(notify.clone()).map_err(ServerError::Start)?;

        let writers = writer_count(config, cores.len());
        let fit = limits::connections_that_fit(open_files, cores.len());
        let connections = config.max_connections.unwrap_or(fit);
        if connections > fit {
            log::warn!(
                "--max-connections {connections}: the limit of {open_files} open files allows {fit}"
            );
        }
        log_bounds(config, &cores, writers, connections);

        let metrics = Metrics::new(cores.len(), writers);
        let name_rule = Arc::new(SharedNameRule::new(NameRule::DEPLOYED));
        let draining = Arc::new(AtomicBool::new(false));
        let journal = config.data_dir.join("journal");
        let (opened, lanes) = channel();
        let mut recoveries = Vec::with_capacity(writers);
        let mut found = Vec::with_capacity(writers);
        for _ in 0..writers {
            let (to_writer, from_janitor) = sync_channel(LANES_FOUND_MAX);
            recoveries.push(to_writer);
            found.push(from_janitor);
        }
        let inboxes = start_writers(
            config, &cores, found, &name_rule, &metrics, &draining, &notify,
        )?;
        start_janitor(config, journal.clone(), lanes, recoveries).map_err(|fault| {
            ServerError::DataDir {
                path: journal.display().to_string(),
                fault,
            }
        })?;
        let mut server = Self {
            metrics,
            notices,
            controls: Vec::new(),
            bells: Vec::new(),
            _opened: opened.clone(),
            ack: config.ack,
            draining,
            shards_running: 0,
            writers_running: writers,
        };
        let slots = Arc::new(ConnectionSlots::new(connections));
        log_start(config, driver, &listeners, cores.len());
        for (index, (listener, &core)) in listeners.into_iter().zip(&cores).enumerate() {
            let (control, far_end) = UnixStream::pair().map_err(ServerError::Start)?;
            let (bell, heard) = Bell::new().map_err(ServerError::Start)?;
            let handoff = Handoff::new(inboxes[index % writers].clone(), config.batch_events);
            let disk = match config.ack {
                Ack::Received => None,
                Ack::Journaled | Ack::Stored => {
                    let name = format!("disk-{index}");
                    let thread = commit::start(name, journal.clone(), bell.clone(), opened.clone());
                    Some(thread.map_err(ServerError::Start)?)
                }
            };
            let bytes_max = config.journal_limit / cores.len() as u64;
            let counters = server.metrics.shard(index);
            let parts = ShardParts {
                listener,
                keeping: Keeping::new(config.ack, counters, handoff, disk, bytes_max),
                bell: heard,
                counters: server.metrics.shard(index),
                name_rule: Arc::clone(&name_rule),
                slots: Arc::clone(&slots),
                linger: config.linger,
                drain: config.drain_timeout / 2,
                control: far_end,
            };
            start_shard(index, core, driver, parts, notify.clone()).map_err(ServerError::Start)?;
            server.bells.push(bell);
            server.controls.push(control);
            server.shards_running += 1;
        }
        Ok(server)
    }

    /// Returns at the first signal, or with an error when a thread ends by itself.
    fn wait(&mut self) -> Result<(), ServerError> {
        match self.notices.recv() {
            Ok(Notice::Signal) => {
                log::info!("signal received: draining");
                Ok(())
            }
            Ok(Notice::ShardEnded(outcome)) => {
                self.shards_running -= 1;
                Err(thread_ended("a shard", outcome))
            }
            Ok(Notice::WriterEnded(outcome)) => {
                self.writers_running -= 1;
                Err(thread_ended("a writer", outcome))
            }
            Err(_) => Err(ServerError::ThreadEnded(
                "every thread has ended".to_owned(),
            )),
        }
    }

    /// Lets shards end, then writers; returns when both have, or the time is over.
    /// A signal beyond `signals_allowed` ends it at once.
    fn drain(&mut self, timeout: Duration, signals_allowed: usize) -> Result<(), ServerError> {
        let deadline = Instant::now() + timeout;
        let mut signals_left = signals_allowed;
        self.draining.store(true, Ordering::Relaxed);
        self.controls.clear();
        let mut outcome = Ok(());
        let is_journaled = self.ack != Ack::Received;
        while self.shards_running > 0 || self.writers_running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.recv_timeout(left) {
                Ok(Notice::Signal) if signals_left > 0 => signals_left -= 1,
                Ok(Notice::Signal) => {
                    return Err(ServerError::Aborted {
                        pending: self.metrics.totals().pending(),
                    });
                }
                Ok(Notice::ShardEnded(ended)) => {
                    self.shards_running -= 1;
                    outcome = outcome.and(ended.map_err(ServerError::ThreadEnded));
                }
                Ok(Notice::WriterEnded(ended)) => {
                    self.writers_running -= 1;
                    outcome = outcome.and(ended.map_err(ServerError::ThreadEnded));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let pending = self.metrics.totals().pending();
                    if pending == 0 || is_journaled {
                        return outcome;
                    }
                    return Err(ServerError::NotDrained { timeout, pending });
                }
            }
        }
        outcome
    }

    /// The identity: what became of every event.
    fn log_identity(&self) {
        let totals = self.metrics.totals();
        if self.ack != Ack::Received && totals.pending() > 0 {
            log::info!(
                "{} events stay in the journal for the next start",
                totals.pending()
            );
        }
        log::info!(
            received = totals.received,
            recovered = totals.recovered,
            stored = totals.stored,
            dead_lettered = totals.dead_lettered,
            pending = totals.pending(),
            rejected = totals.rejected.iter().sum::<u64>(),
            rejected_by_reason:% = totals.rejected_by_reason(),
            shed = totals.shed;
            "ended"
        );
    }
}

fn thread_ended(what: &str, outcome: Result<(), String>) -> ServerError {
    let how = outcome
        .err()
        .unwrap_or_else(|| "without a reason".to_owned());
    ServerError::ThreadEnded(format!("{what} ended: {how}"))
}

/// Makes the directory where it is missing, and tries whether files can be made in it: a dead letter
/// must find no surprise.
fn make_data_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let trial = path.join(format!("trial-{}", std::process::id()));
    fs::write(&trial, b"")?;
    fs::remove_file(&trial)
}

/// One writer a shard, within the bound on connections. SQLite has one writer at a time whatever is tried.
fn writer_count(config: &Config, shards: usize) -> usize {
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

/// Starts the thread that looks after the journal, whatever is promised: an earlier process may have
/// left lanes.
fn start_janitor(
    config: &Config,
    journal: PathBuf,
    opened: Receiver<Arc<LaneHandle>>,
    writers: Vec<SyncSender<Arc<LaneHandle>>>,
) -> io::Result<()> {
    fs::create_dir_all(&journal)?;
    fs::File::open(&config.data_dir)?.sync_all()?;
    let janitor = Janitor {
        journal,
        keep: config.journal_keep,
        opened,
        writers,
    };
    thread::Builder::new()
        .name("janitor".to_owned())
        .spawn(move || janitor.run())?;
    Ok(())
}

/// Starts the writers; waits a moment for each to have tried the database once.
fn start_writers(
    config: &Config,
    cores: &[Core],
    recoveries: Vec<Receiver<Arc<LaneHandle>>>,
    name_rule: &Arc<SharedNameRule>,
    metrics: &Metrics,
    draining: &Arc<AtomicBool>,
    notify: &Sender<Notice>,
) -> Result<Vec<SyncSender<Work>>, ServerError> {
    let writers = recoveries.len();
    let dead_letters = Arc::new(DeadLetters::new(&config.data_dir));
    let (ready, is_ready) = sync_channel(writers);
    let mut inboxes = Vec::with_capacity(writers);
    for (index, recoveries) in recoveries.into_iter().enumerate() {
        let (to_writer, inbox) = handoff::inbox(cores.len().div_ceil(writers));
        let writer = Writer {
            index,
            sink: new_sink(config),
            dead_letters: Arc::clone(&dead_letters),
            name_rule: Arc::clone(name_rule),
            counters: metrics.writer(index),
            batch_events: config.batch_events,
            recoveries,
            draining: Arc::clone(draining),
        };
        let ready = ready.clone();
        spawn(
            format!("writer-{index}"),
            notify.clone(),
            Notice::WriterEnded,
            move || {
                writer.run(&inbox, &ready);
                Ok(())
            },
        )
        .map_err(ServerError::Start)?;
        inboxes.push(to_writer);
    }
    let deadline = Instant::now() + DATABASE_PATIENCE;
    for _ in 0..writers {
        let left = deadline.saturating_duration_since(Instant::now());
        match is_ready.recv_timeout(left) {
            Ok(Err(fault)) if fault.fault().text.contains(CREATE_CHECKPOINTS) => {
                return Err(ServerError::Checkpoints(fault));
            }
            Ok(_) => {}
            Err(_) => {
                log::warn!("the database has not answered yet; events are taken in the meantime");
                break;
            }
        }
    }
    Ok(inboxes)
}

fn start_shard(
    index: usize,
    core: Core,
    driver: IoDriver,
    parts: ShardParts,
    notify: Sender<Notice>,
) -> io::Result<()> {
    spawn(
        format!("shard-{index}"),
        notify,
        Notice::ShardEnded,
        move || {
            limits::pin(core).map_err(|fault| format!("core {}: {fault}", core.0))?;
            driver
                .block_on(Shard::run(parts))
                .map_err(|fault| format!("{driver}: {fault}"))
        },
    )
}

/// Starts a thread that says when it has ended, and how.
fn spawn(
    name: String,
    notify: Sender<Notice>,
    notice: fn(Result<(), String>) -> Notice,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(name).spawn(move || {
        let panicked = |_| Err("it panicked".to_owned());
        let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked);
        if notify.send(notice(outcome)).is_err() {
            log::debug!("nobody waits for this thread any more");
        }
    })?;
    Ok(())
}

fn watch_signals(notify: Sender<Notice>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if notify.send(Notice::Signal).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

fn log_bounds(config: &Config, cores: &[Core], writers: usize, connections: usize) {
    let bound = MemoryBound::new(cores.len(), writers, connections, config.batch_events);
    log::info!(
        connections_max = connections,
        database_connections_max = writers,
        batches_max = cores.len() * handoff::BATCHES_PER_SHARD,
        batch_events_max = config.batch_events.get(),
        batches_bytes_max = bound.batches,
        writers_bytes_max = bound.writers,
        connections_bytes_max = bound.connections,
        memory_bytes_max = bound.sum();
        "bounds"
    );
}

/// The one line of a start.
fn log_start(config: &Config, driver: IoDriver, listeners: &[TcpListener], shards: usize) {
    let local = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok());
    let address = local.unwrap_or(config.listen);
    let promise = match config.ack {
        Ack::Received => format!(
            "the event is in memory and is stored within about {:?}; a crash loses what was not",
            config.linger
        ),
        Ack::Journaled => "the event is on disk, and will be one row".to_owned(),
        Ack::Stored => "the event is a row".to_owned(),
    };
    log::info!(
        "listening on {address} ({shards} {}, {driver}); rows go to {}; a 200 promises `{}`: {promise}",
        if shards == 1 { "shard" } else { "shards" },
        config.datasource,
        config.ack,
    );
}
