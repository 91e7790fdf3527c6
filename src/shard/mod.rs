//! One core and all it owns: its connections, its open batch, its end of the handoff.

pub mod committer;
pub mod connection;
pub mod deadlines;
pub mod ingest;
pub mod input;
pub mod listener;
pub mod service;
pub mod state;

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::AsyncReadRent;
use monoio::time::timeout;

use self::committer::CommitPacing;
use self::deadlines::Hurry;
use self::ingest::{Ingest, Medium};
use self::listener::Stopping;
use self::state::Shard;
use crate::event::SharedNameRule;
use crate::event::ack::Ack;
use crate::handoff::Handoff;
use crate::metrics::{Recorder, SealCause, ShardCounters};
use crate::os::connection_limit::ConnectionLimit;
use crate::os::io_driver::IoDriver;
use crate::os::listen::Backlog;

/// How long idle connections are kept when a drain begins: a request may be on its way on one of them.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How often a drain looks whether the last connection has ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// How long a shard waits for its first lane before it serves without.
const LANE_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether the writer has less to do.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// How a shard ends.
#[derive(Debug, Clone, Copy)]
struct Drain {
    backlog: Backlog,
    /// How long idle connections are kept. Beside a successor nobody waits for us: a request that is on its
    /// way on one of them is answered.
    idle: Duration,
    /// How long any connection is kept.
    all: Duration,
}

/// What a shard is given.
#[derive(Debug)]
pub struct ShardParts {
    /// Bound and listening, one of several with `SO_REUSEPORT`; more than one behind a predecessor that
    /// had more shards.
    pub listeners: Vec<TcpListener>,
    /// What becomes of them when the shard drains and has no successor.
    pub backlog: Backlog,
    /// What a 200 promises.
    pub ack: Ack,
    /// Its end of the handoff.
    pub handoff: Handoff,
    /// Where events are kept until they are stored.
    pub medium: Medium,
    /// Answers that may wait while disk or database stall.
    pub waiters_max: usize,
    /// Where disk thread and writer make themselves heard.
    pub notifier: UnixStream,
    /// Its counters.
    pub counters: Recorder<ShardCounters>,
    /// What the `name` column takes.
    pub name_rule: Arc<SharedNameRule>,
    /// What its event loop waits with.
    pub driver: IoDriver,
    /// The bound on connections, of all shards together.
    pub slots: Arc<ConnectionLimit>,
    /// A batch is sealed when its oldest event is this old.
    pub linger: Duration,
    /// How long connections may go on when a drain begins.
    pub drain: Duration,
    /// The shard drains when the other end of this is closed; a byte before says that it has a
    /// successor.
    pub control: UnixStream,
}

/// Serves until the control stream ends, drains, and hands the last batch over. `accepts` is called when
/// connections are accepted.
pub async fn run(parts: ShardParts, accepts: impl FnOnce()) -> std::io::Result<()> {
    let counters = Rc::new(parts.counters);
    let ingest = Ingest::new(
        parts.ack,
        Rc::clone(&counters),
        parts.handoff,
        parts.medium,
        parts.waiters_max,
    );
    let shard = Rc::new(Shard::new(ingest, counters, parts.name_rule, parts.driver));
    let mut control = monoio::net::UnixStream::from_std(parts.control)?;
    // The ring waits on a blocking socket; epoll needs one that never blocks.
    parts
        .notifier
        .set_nonblocking(shard.driver == IoDriver::Epoll)?;
    let notifier = monoio::net::UnixStream::from_std(parts.notifier)?;
    match shard.driver {
        IoDriver::IoUring(_) => {
            let pacing = CommitPacing::new()?;
            monoio::spawn(committer::commit_on_ring(Rc::clone(&shard), pacing));
        }
        IoDriver::Epoll => {
            monoio::spawn(committer::commit_by_thread(Rc::clone(&shard)));
        }
    }
    monoio::spawn(receive_notifications(Rc::clone(&shard), notifier));
    monoio::spawn(sweep_each_second(Rc::clone(&shard)));
    monoio::spawn(seal_by_age(Rc::clone(&shard), parts.linger));

    // Without a lane, because the disk does not allow one, events are answered 503, and `/ok` is answered.
    if timeout(LANE_PATIENCE, ingest::opened(&shard.ingest))
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
    accepts();

    // The read ends when the other end is closed, by intent or by death.
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
    let stop = |accepting: listener::Accepting| accepting.stop(drain.backlog);
    let stopping: Vec<Stopping> = accepting.into_iter().map(stop).collect();
    wait_for_connections(&shard, &stopping, drain).await;
    // Said aloud: tasks that still sleep keep the shard, and with it the handoff, in memory.
    shard.ingest.borrow_mut().close();
    Ok(())
}

/// Returns when the last connection has ended, or all patience and a moment have passed.
async fn wait_for_connections(shard: &Shard, accepting: &[Stopping], drain: Drain) {
    let start = Instant::now();
    while !(accepting.iter().all(Stopping::has_ended)
        && shard.deadlines.borrow().is_empty()
        && !shard.ingest.borrow().is_committing())
    {
        let hurry = match start.elapsed() {
            age if age >= drain.all => Hurry::All,
            age if age >= drain.idle => Hurry::Idle,
            _ => Hurry::No,
        };
        if hurry != shard.hurry.replace(hurry) || hurry == Hurry::All {
            shard.deadlines.borrow_mut().sweep(hurry);
        }
        if start.elapsed() >= drain.all + DRAIN_IDLE {
            let open = shard.deadlines.borrow().len();
            log::warn!(
                event = "connections_cut", connections = open;
                "{open} connections did not end in time and are cut"
            );
            return;
        }
        monoio::time::sleep(DRAIN_POLL).await;
    }
}

/// How often it is said at most that events are shed.
const SHED_LOG_SECONDS: u64 = 10;

/// Ends late connections; says how much waits, and when events are shed.
async fn sweep_each_second(shard: Rc<Shard>) {
    let (mut said, mut quiet) = (0, SHED_LOG_SECONDS);
    loop {
        monoio::time::sleep(Duration::from_secs(1)).await;
        quiet += 1;
        shard.ingest.borrow_mut().publish_gauges();
        shard.counters.add(|counters| &counters.heartbeat, 1);
        let shed = shard.counters.shed.get();
        if shed > said && quiet >= SHED_LOG_SECONDS {
            let events = shed - said;
            log::warn!(
                event = "events_shed", events;
                "{events} events were answered 503: all that may wait for disk or database is full"
            );
            (said, quiet) = (shed, 0);
        }
        let mut deadlines = shard.deadlines.borrow_mut();
        deadlines.tick();
        deadlines.sweep(shard.hurry.get());
    }
}

/// Seals the open batch when its oldest event is `linger` old.
async fn seal_by_age(shard: Rc<Shard>, linger: Duration) {
    loop {
        // A batch that is opened during a whole `linger` of sleep cannot be older at its end.
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

/// Hears what disk thread and writer have done.
async fn receive_notifications(shard: Rc<Shard>, mut notifier: monoio::net::UnixStream) {
    let mut rings = vec![0; 64];
    loop {
        let (heard, buffer) = notifier.read(rings).await;
        rings = buffer;
        match heard {
            Ok(rung) if rung > 0 => shard.ingest.borrow_mut().on_notify(),
            // The other end is held by the disk thread and the lanes: the shard is about to end.
            Ok(_) => return log::debug!("nothing notifies the shard any more"),
            Err(fault) => {
                log::warn!(
                    event = "notifier_failed";
                    "a notification cannot be read: {fault}; the shard looks for news all the same"
                );
                monoio::time::sleep(BUSY_POLL).await;
                shard.ingest.borrow_mut().on_notify();
            }
        }
    }
}
