//! From a configuration to a server that runs.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::bounds::Sizes;
use super::data_dir::DataDir;
use super::shared::Shared;
use super::sockets::Sockets;
use super::threads::{Notice, Role, Threads, watch_signals};
use super::{Announcement, Server, ServerError, bounds, data_dir, facts, writers};
use crate::admin::AdminPort;
use crate::admin::overview::{Facts, Overview};
use crate::event::ack::Ack;
use crate::handoff::{Handoff, Work};
use crate::http::paths::EventPaths;
use crate::journal::disk_thread;
use crate::journal::janitor::Janitor;
use crate::journal::lane_handle::{DiskLane, MemoryLane};
use crate::journal::served_database::{EarlierLanes, ServedDatabase};
use crate::metrics::{Metrics, Recorder, ShardCounters};
use crate::os::io_driver::{self, IoDriver};
use crate::os::limits::{self, Core};
use crate::os::listen::Backlog;
use crate::os::memory;
use crate::os::notifier::ShardNotifier;
use crate::server::config::{Adopt, Config};
use crate::server::upgrade::{Inherited, Program};
use crate::shard::balance::{Balance, ShardBalance};
use crate::shard::ingest::Medium;
use crate::shard::{self, ShardParts};

/// Lanes that were found and not yet taken up by a writer; others are found again.
const LANES_FOUND_MAX: usize = 1024;

/// What every shard is started with.
struct ShardsStart<'a> {
    config: &'a Config,
    driver: IoDriver,
    inboxes: &'a [SyncSender<Work>],
    /// Most requests of a shard that wait for disk or database.
    waiters_max: usize,
    journal: PathBuf,
    /// What becomes of listening sockets at the end.
    backlog: Backlog,
    opened: Sender<Arc<DiskLane>>,
}

/// What differs from shard to shard.
struct ShardPlace {
    index: usize,
    core: Core,
    notifier: ShardNotifier,
    /// Where its notifications arrive.
    heard: UnixStream,
    balance: ShardBalance,
}

/// The database of the datasource, and what lanes of earlier processes say about it.
fn served_database(config: &Config, journal: &Path) -> Result<ServedDatabase, ServerError> {
    let earlier = EarlierLanes::read(journal).map_err(|fault| ServerError::DataDir {
        path: journal.display().to_string(),
        fault,
    })?;
    let adopts_any = config.adopt == Some(Adopt::Any);
    let address = config.datasource.to_string();
    Ok(ServedDatabase::new(address, adopts_any, earlier))
}

impl Server {
    /// Starts everything; requests are answered when every shard accepts.
    pub(super) fn start(
        config: &Config,
        program: Program,
        mut inherited: Inherited,
        threads: Threads,
        notices: Receiver<Notice>,
    ) -> Result<Self, ServerError> {
        let DataDir { journal, warning } = data_dir::open(config)?;
        let open_files = limits::raise_open_files()?;
        let cores = limits::cores(config.cores)?;
        let driver = io_driver::choose(config.io, inherited.must_not_block())?;
        let sockets = Sockets::open(config, cores.len(), &mut inherited)?;
        watch_signals(&threads).map_err(ServerError::Start)?;

        let sizes = Sizes::new(config, cores.len());
        let writers = sizes.writers;
        let connections = bound_connections(config, open_files, sizes);

        let (metrics, recorders) = Metrics::new(cores.len(), writers);
        let served = served_database(config, &journal)?;
        let shared = Shared::new(metrics, connections, config.journal_limit, served, threads);
        let mut server = Self::new(config.ack, program, shared, notices);
        let address = sockets.address().unwrap_or(config.listen);
        server.sockets = sockets.handed_over;
        server.unannounced = Some(Announcement {
            shards_left: cores.len(),
            line: facts::start_line(config, driver, address, cores.len()),
            address,
            inherited,
        });
        if let Some(admin) = sockets.admin {
            let facts = facts::facts(config, driver, address, cores.len(), warning);
            let started = server.start_admin(admin, facts);
            started.map_err(ServerError::Start)?;
        }
        let (opened, lanes) = channel();
        server.opened = Some(opened.clone());
        let (to_writers, found) = (0..writers).map(|_| sync_channel(LANES_FOUND_MAX)).unzip();
        let shards = cores.len();
        let inboxes = writers::start(config, &server.shared, shards, found, recorders.writers)?;
        server.writers_running = writers;
        // Whatever is promised now: an earlier process may have left lanes.
        let janitor = Janitor {
            journal: journal.clone(),
            keep: config.journal_keep,
            opened: lanes,
            writers: to_writers,
            retained_max: limits::lanes_kept(open_files),
            inactive_bytes: Arc::clone(&server.shared.elsewhere),
            served: Arc::clone(&server.shared.served),
            found_events: server.shared.metrics.found(),
        };
        server.start_janitor(janitor).map_err(ServerError::Start)?;
        let start = ShardsStart {
            config,
            driver,
            inboxes: &inboxes,
            // Half of the connections may wait for a disk or a database that stalls.
            waiters_max: (connections / (2 * cores.len())).max(1),
            journal,
            backlog: sockets.backlog,
            opened,
        };
        let started = server.start_shards(&cores, sockets.http, recorders.shards, &start);
        started.map_err(ServerError::Start)?;
        Ok(server)
    }

    fn start_admin(&mut self, listener: TcpListener, facts: Facts) -> io::Result<()> {
        let shared = &self.shared;
        let overview = Overview {
            event_rule: Arc::clone(&shared.event_rule),
            metrics: Arc::clone(&shared.metrics),
            slots: Arc::clone(&shared.slots),
            served: Arc::clone(&shared.served),
            journal: self.is_journaled().then(|| shared.quota.clone()),
            stage: Arc::clone(&self.stage),
            facts,
        };
        let (control, far_end) = UnixStream::pair()?;
        self.controls.push(control);
        let admin = AdminPort::new(listener, overview, far_end)?;
        let run = move || {
            // Where it ends by an error of the socket, which is logged, events are taken on.
            admin.run();
            Ok(())
        };
        shared.threads.start("admin", Role::Admin, run)
    }

    fn start_janitor(&mut self, janitor: Janitor) -> io::Result<()> {
        let run = move || {
            janitor.run();
            Ok(())
        };
        self.shared.threads.start("janitor", Role::Janitor, run)?;
        self.is_janitor_running = true;
        Ok(())
    }

    fn start_shards(
        &mut self,
        cores: &[Core],
        listeners: Vec<Vec<TcpListener>>,
        counters: Vec<Recorder<ShardCounters>>,
        start: &ShardsStart<'_>,
    ) -> io::Result<()> {
        let notifiers = cores.iter().map(|_| ShardNotifier::new());
        let (notifiers, heard): (Vec<_>, Vec<_>) = notifiers.collect::<io::Result<_>>()?;
        let balance = Balance::new(notifiers.iter().cloned());
        let ends = notifiers.into_iter().zip(heard);
        let shards = listeners.into_iter().zip(counters).zip(ends).zip(cores);
        for (index, (((listeners, counters), (notifier, heard)), &core)) in shards.enumerate() {
            let place = ShardPlace {
                index,
                core,
                notifier,
                heard,
                balance: balance.of(index),
            };
            self.start_shard(place, listeners, counters, start)?;
        }
        Ok(())
    }

    fn start_shard(
        &mut self,
        place: ShardPlace,
        listeners: Vec<TcpListener>,
        counters: Recorder<ShardCounters>,
        start: &ShardsStart<'_>,
    ) -> io::Result<()> {
        let (config, shared, driver) = (start.config, &self.shared, start.driver);
        let (index, core) = (place.index, place.core);
        let (control, far_end) = UnixStream::pair()?;
        let medium = self.medium(index, &place.notifier, start)?;
        let inbox = &start.inboxes[index % start.inboxes.len()];
        let handoff = Handoff::new(inbox.clone(), config.batch_events);
        let parts = ShardParts {
            listeners,
            backlog: start.backlog,
            ack: config.ack,
            handoff,
            medium,
            waiters_max: start.waiters_max,
            notifier: place.heard,
            counters,
            paths: EventPaths::new(config.event_paths.clone()),
            event_rule: Arc::clone(&shared.event_rule),
            body_limit: config.body_limit,
            driver,
            balance: place.balance,
            slots: Arc::clone(&shared.slots),
            linger: config.linger,
            drain: config.drain_timeout / 2,
            control: far_end,
        };
        let main = shared.threads.clone();
        let run = move || {
            limits::pin(core).map_err(|fault| format!("core {}: {fault}", core.0))?;
            let accepts = || main.notify(Notice::Accepts);
            driver
                .block_on(shard::run(parts, accepts))
                .map_err(|fault| format!("{driver}: {fault}"))
        };
        shared
            .threads
            .start(format!("shard-{index}"), Role::Shard, run)?;
        self.controls.push(control);
        self.shards_running += 1;
        Ok(())
    }

    /// Where a shard keeps its events; for a journal, with the thread that works on the disk.
    fn medium(
        &self,
        index: usize,
        notifier: &ShardNotifier,
        start: &ShardsStart<'_>,
    ) -> io::Result<Medium> {
        if self.ack == Ack::Received {
            return Ok(Medium::Memory(MemoryLane::new()?));
        }
        let (journal, opened) = (start.journal.clone(), start.opened.clone());
        let (disk, work) = disk_thread::disk_thread(
            journal,
            Arc::clone(&self.shared.served),
            notifier.clone(),
            opened,
        );
        let run = move || {
            work.run();
            Ok(())
        };
        self.shared
            .threads
            .start(format!("disk-{index}"), Role::Disk, run)?;
        Ok(Medium::Journal(disk, self.shared.quota.clone()))
    }
}

/// HTTP connections that may be open at once. Logs all bounds, and what of them is too much.
fn bound_connections(config: &Config, open_files: usize, sizes: Sizes) -> usize {
    let memory = memory::allowed();
    let connections = bounds::connections_max(config.max_connections, open_files, memory, sizes);
    warn_of_files(open_files, sizes.shards, connections);
    bounds::log(sizes, connections, memory);
    connections
}

/// Connections that were asked for and cannot be had.
fn warn_of_files(open_files: usize, shards: usize, connections: usize) {
    let fit = limits::connections_that_fit(open_files, shards);
    if connections > fit {
        log::warn!(
            event = "max_connections_too_high",
            max_connections = connections, open_files, fit;
            "--max-connections {connections}: the limit of {open_files} open files allows {fit}; beyond them \
             accepting pauses"
        );
    }
}
