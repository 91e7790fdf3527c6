//! One core and all it owns: its connections, its open batch, its lane, its end of the handoff.

pub mod balance;
pub mod committer;
pub mod connection;
pub mod deadlines;
pub mod ingest;
pub mod input;
pub mod listener;
pub mod patience;
pub mod service;
pub mod state;

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::AsyncReadRent;
use monoio::time::timeout;

use self::balance::{MovedConnection, ShardBalance};
use self::committer::CommitPacing;
use self::connection::Origin;
use self::deadlines::EndEarly;
use self::ingest::{Ingest, Medium};
use self::listener::Stopping;
use self::state::Shard;
use crate::event::ack::Ack;
use crate::event::rule::SharedEventRule;
use crate::handoff::Handoff;
use crate::http::paths::EventPaths;
use crate::metrics::{Recorder, SealCause, ShardCounters};
use crate::os::connection_limit::ConnectionLimit;
use crate::os::io_driver::IoDriver;
use crate::os::listen::Backlog;

/// How long idle connections are kept when a drain begins: a request may be under way on one of them.
/// Also how long after the drain timeout the last connections are waited for.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How often a drain checks whether the last connection has ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// How long a shard waits for its first lane before it serves without one.
const LANE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the shard checks whether the writer is free for a batch that is due.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// How a shard drains.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// What happens to connections in the queues of its listeners.
    backlog: Backlog,
    /// How long idle connections are kept. With a successor that is as long as any other connection, since
    /// nothing waits for the end of this process, and a request may be under way on one of them.
    idle: Duration,
    /// How long any connection is kept.
    all: Duration,
}

/// What a shard is given.
#[derive(Debug)]
pub struct ShardParts {
    /// Bound with `SO_REUSEPORT`, and listening. More than one if they come from a predecessor that had more
    /// shards.
    pub listeners: Vec<TcpListener>,
    /// What happens to connections in their queues when the shard drains without a successor.
    pub backlog: Backlog,
    /// What a 200 promises.
    pub ack: Ack,
    /// Its end of the handoff.
    pub handoff: Handoff,
    /// Where events are kept until they are stored.
    pub medium: Medium,
    /// How many answers may wait while the disk or the database is stalled.
    pub waiters_max: usize,
    /// The disk thread, the writer and the other shards send a byte here when they have news for the shard.
    pub notifier: UnixStream,
    /// Its counters.
    pub counters: Recorder<ShardCounters>,
    /// The paths that take events.
    pub paths: EventPaths,
    /// What the columns take.
    pub event_rule: Arc<SharedEventRule>,
    /// Most bytes of a body with events, before and after inflating.
    pub body_limit: usize,
    /// What its event loop waits with.
    pub driver: IoDriver,
    /// Its busy connections beside those of the other shards.
    pub balance: ShardBalance,
    /// The bound on connections, of all shards together.
    pub slots: Arc<ConnectionLimit>,
    /// A batch is sealed when its oldest event is this old.
    pub linger: Duration,
    /// How long connections are kept after a drain has begun.
    pub drain: Duration,
    /// The shard drains when the other end is closed, or when a byte arrives. The byte means that a successor
    /// serves the same sockets.
    pub control: UnixStream,
}

/// Serves until [`ShardParts::control`] starts the drain, drains, and hands over the last batch. Calls `accepts`
/// when connections are accepted.
pub async fn run(parts: ShardParts, accepts: impl FnOnce()) -> std::io::Result<()> {
    let counters = Rc::new(parts.counters);
    let ingest = Ingest::new(
        parts.ack,
        Rc::clone(&counters),
        parts.handoff,
        parts.medium,
        parts.waiters_max,
    );
    let shard = Rc::new(Shard::new(
        ingest,
        counters,
        parts.paths,
        parts.event_rule,
        parts.body_limit,
        parts.driver,
        parts.balance,
    ));
    let mut control = monoio::net::UnixStream::from_std(parts.control)?;
    // io_uring waits on a blocking socket; epoll needs a non-blocking one.
    parts
        .notifier
        .set_nonblocking(shard.driver == IoDriver::Epoll)?;
    let notifier = monoio::net::UnixStream::from_std(parts.notifier)?;
    spawn_committer(&shard)?;
    monoio::spawn(receive_notifications(Rc::clone(&shard), notifier));
    let slots = Arc::clone(&parts.slots);
    monoio::spawn(sweep_each_second(Rc::clone(&shard), slots));
    monoio::spawn(seal_by_age(Rc::clone(&shard), parts.linger));

    // Where the disk does not allow a lane, events are answered 503, and `/ok` is answered 200.
    if timeout(LANE_TIMEOUT, ingest::opened(&shard.ingest))
        .await
        .is_err()
    {
        log::debug!("the shard serves without a lane");
    }
    let mut accepting = Vec::with_capacity(parts.listeners.len());
    for listener in parts.listeners {
        let slots = Arc::clone(&parts.slots);
        accepting.push(listener::start(listener, Rc::clone(&shard), slots)?);
    }
    shard.balance.open();
    accepts();

    // The read also ends when the thread that holds the other end has ended.
    let (ended, _) = control.read(vec![0; 1]).await;
    log::debug!("control stream ended: {ended:?}");
    let drain = match ended {
        Ok(1) => Drain {
            backlog: Backlog::Leave,
            idle: parts.drain,
            all: parts.drain,
        },
        _ => Drain {
            backlog: parts.backlog,
            idle: DRAIN_IDLE.min(parts.drain),
            all: parts.drain,
        },
    };
    shard.is_draining.set(true);
    serve_moved(&shard, shard.balance.close());
    let stop = |accepting: listener::Accepting| accepting.stop(drain.backlog);
    let stopping: Vec<Stopping> = accepting.into_iter().map(stop).collect();
    wait_for_connections(&shard, &stopping, drain).await;
    // Explicit, since tasks that still sleep keep the shard, and with it the handoff, in memory.
    shard.ingest.borrow_mut().close();
    Ok(())
}

/// Starts the task that writes groups to the disk.
fn spawn_committer(shard: &Rc<Shard>) -> std::io::Result<()> {
    let shard = Rc::clone(shard);
    match shard.driver {
        IoDriver::IoUring(_) => {
            monoio::spawn(committer::commit_on_ring(shard, CommitPacing::new()?));
        }
        IoDriver::Epoll => {
            monoio::spawn(async move { committer::commit_by_thread(&shard.ingest).await });
        }
    }
    Ok(())
}

/// Returns when the last connection and the last write have ended, [`DRAIN_IDLE`] after `drain.all` at the latest.
async fn wait_for_connections(shard: &Shard, accepting: &[Stopping], drain: Drain) {
    let start = Instant::now();
    while !(accepting.iter().all(Stopping::has_ended)
        && shard.deadlines.borrow().is_empty()
        && !shard.ingest.borrow().is_committing())
    {
        let end_early = match start.elapsed() {
            age if age >= drain.all => EndEarly::All,
            age if age >= drain.idle => EndEarly::Idle,
            _ => EndEarly::None,
        };
        if end_early != shard.end_early.replace(end_early) || end_early == EndEarly::All {
            sweep(shard, end_early);
        }
        if start.elapsed() >= drain.all + DRAIN_IDLE {
            let open = shard.deadlines.borrow().len();
            log::warn!(
                event = "connections_cut", connections = open;
                "{open} connections did not end within the drain timeout and are closed"
            );
            return;
        }
        monoio::time::sleep(DRAIN_POLL).await;
    }
}

/// Least seconds between two log lines about shed events.
const SHED_LOG_SECONDS: u64 = 10;

/// Once a second: ends late connections, publishes the gauges, logs shed events.
async fn sweep_each_second(shard: Rc<Shard>, slots: Arc<ConnectionLimit>) {
    let (mut logged, mut seconds_since_log) = (0, SHED_LOG_SECONDS);
    loop {
        monoio::time::sleep(Duration::from_secs(1)).await;
        seconds_since_log += 1;
        shard.ingest.borrow_mut().publish_gauges();
        shard.counters.add(|counters| &counters.heartbeat, 1);
        let shed = shard.counters.shed.get();
        if shed > logged && seconds_since_log >= SHED_LOG_SECONDS {
            let events = shed - logged;
            log::warn!(
                event = "events_shed", events;
                "{events} events were answered 503: no more events may wait for the disk or the database"
            );
            (logged, seconds_since_log) = (shed, 0);
        }
        shard.deadlines.borrow_mut().tick();
        sweep(&shard, shard.end_early.get());
        shard.compare_loads();
        let mut deadlines = shard.deadlines.borrow_mut();
        for _ in 0..slots.sought() {
            deadlines.close_longest_idle(Instant::now());
        }
    }
}

/// Ends connections that are late, or whose senders are gone.
fn sweep(shard: &Shard, end_early: EndEarly) {
    let abandoned = shard.deadlines.borrow_mut().sweep(end_early);
    shard.ingest.borrow_mut().abandon(&abandoned);
}

/// Seals the open batch when its oldest event is `linger` old.
async fn seal_by_age(shard: Rc<Shard>, linger: Duration) {
    loop {
        // A batch that is opened while this task sleeps for `linger` is not older than that when it wakes.
        let wait = match shard.ingest.borrow().opened_at() {
            Some(opened_at) => linger.saturating_sub(opened_at.elapsed()),
            None => linger,
        };
        if wait.is_zero() {
            let is_busy = {
                let ingest = &mut shard.ingest.borrow_mut();
                ingest.seal_when_writer_is_free(SealCause::Age);
                ingest.opened_at().is_some()
            };
            if is_busy {
                monoio::time::sleep(linger.min(BUSY_POLL)).await;
            }
        } else {
            monoio::time::sleep(wait).await;
        }
    }
}

/// Serves connections that have come from other shards.
fn serve_moved(shard: &Rc<Shard>, connections: Vec<MovedConnection>) {
    for MovedConnection { stream, permit } in connections {
        match monoio::net::TcpStream::from_std(stream) {
            Ok(stream) => connection::start(stream, Rc::clone(shard), permit, Origin::Moved),
            Err(fault) => {
                log::debug!("a connection cannot be moved: {fault}");
                shard.balance.subtract(1);
            }
        }
    }
}

/// Processes what the disk thread, the writer and the other shards have done.
fn on_notify(shard: &Rc<Shard>) {
    shard.ingest.borrow_mut().on_notify();
    serve_moved(shard, shard.balance.arrived());
}

/// Waits for notifications of the disk thread, the writer and the other shards.
async fn receive_notifications(shard: Rc<Shard>, mut notifier: monoio::net::UnixStream) {
    let mut bytes = vec![0; 64];
    loop {
        let (read, buffer) = notifier.read(bytes).await;
        bytes = buffer;
        match read {
            Ok(length) if length > 0 => on_notify(&shard),
            // The shards hold the other end, so that this is the end of the process.
            Ok(_) => return log::debug!("nothing notifies the shard any more"),
            Err(fault) => {
                log::warn!(
                    event = "notifier_failed";
                    "a notification cannot be read: {fault}; the shard polls for results instead"
                );
                monoio::time::sleep(BUSY_POLL).await;
                on_notify(&shard);
            }
        }
    }
}
