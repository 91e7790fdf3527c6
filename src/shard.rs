//! One core and all it owns: its connections, its open batch, its end of the handoff.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::AsyncReadRent;
use nix::time::{ClockId, clock_gettime};

use crate::deadlines::{Deadlines, Hurry};
use crate::event::Shed;
use crate::event::{Event, NameRule, SharedNameRule, UnixMillis};
use crate::groups::{self, Gathering};
use crate::http::conversation::Site;
use crate::http::events::{self, Intake};
use crate::http::query::Rejection;
use crate::http::request::Request;
use crate::http::response::{Answer, Answers, Status};
use crate::input::Inputs;
use crate::keeping::Keeping;
use crate::listener::{self, Stopping};
use crate::metrics::{SealCause, ShardCounters};
use crate::os::connection_limit::ConnectionSlots;
use crate::os::io_driver::IoDriver;
use crate::os::listen::Queue;

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
    queue: Queue,
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
    pub queue: Queue,
    /// What keeps events.
    pub keeping: Keeping,
    /// Where disk thread and writer make themselves heard.
    pub bell: UnixStream,
    /// Its counters.
    pub counters: Arc<ShardCounters>,
    /// What the `name` column takes.
    pub name_rule: Arc<SharedNameRule>,
    /// What its event loop waits with.
    pub driver: IoDriver,
    /// The bound on connections, of all shards together.
    pub slots: Arc<ConnectionSlots>,
    /// A batch is sealed when its oldest event is this old.
    pub linger: Duration,
    /// How long connections may go on when a drain begins.
    pub drain: Duration,
    /// The shard drains when the other end of this is closed; a byte before says that it has a
    /// successor.
    pub control: UnixStream,
}

/// What connections of a shard share. Lives on one thread.
#[derive(Debug)]
pub struct Shard {
    /// What requests are answered with.
    pub desk: RefCell<Desk>,
    /// What its event loop waits with.
    pub driver: IoDriver,
    /// Memory for what connections read, where its loop waits on the ring.
    pub inputs: Inputs,
    /// Scratch: answers of the present turn, not yet sent.
    pub out: RefCell<Vec<u8>>,
    /// Scratch: the present name, unescaped.
    pub decoded: RefCell<Vec<u8>>,
    /// Buffers for answers that wait for their promise to be kept.
    spare_outs: RefCell<Vec<Vec<u8>>>,
    /// All open connections and how long they may take.
    pub deadlines: RefCell<Deadlines>,
    hurry: Cell<Hurry>,
}

impl Shard {
    /// Serves until the control stream ends, drains, and hands the last batch over.
    pub async fn run(parts: ShardParts) -> std::io::Result<()> {
        let shard = Rc::new(Self {
            desk: RefCell::new(Desk::new(parts.keeping, parts.counters, parts.name_rule)),
            driver: parts.driver,
            inputs: Inputs::default(),
            out: RefCell::default(),
            decoded: RefCell::default(),
            spare_outs: RefCell::default(),
            deadlines: RefCell::default(),
            hurry: Cell::new(Hurry::No),
        });
        let mut control = monoio::net::UnixStream::from_std(parts.control)?;
        // The ring waits on a blocking socket; epoll needs one that never blocks.
        parts
            .bell
            .set_nonblocking(shard.driver == IoDriver::Epoll)?;
        let bell = monoio::net::UnixStream::from_std(parts.bell)?;
        match shard.driver {
            IoDriver::IoUring(_) => {
                let gathering = Gathering::new()?;
                monoio::spawn(groups::commit_on_ring(Rc::clone(&shard), gathering));
            }
            IoDriver::Epoll => {
                monoio::spawn(groups::commit_by_thread(Rc::clone(&shard)));
            }
        }
        monoio::spawn(hear_the_bell(Rc::clone(&shard), bell));
        monoio::spawn(sweep_each_second(Rc::clone(&shard)));
        monoio::spawn(seal_by_age(Rc::clone(&shard), parts.linger));

        shard.wait_for_lane().await;
        let mut accepting = Vec::with_capacity(parts.listeners.len());
        for listener in parts.listeners {
            let slots = Arc::clone(&parts.slots);
            accepting.push(listener::start(listener, Rc::clone(&shard), slots)?);
        }
        shard.desk.borrow().counters.accepts.set(1);

        // The read ends when the other end is closed, by intent or by death.
        let (ended, _) = control.read(vec![0; 1]).await;
        log::debug!("control stream ended: {ended:?}");
        let drain = match ended {
            Ok(1) => Drain {
                queue: Queue::Leave,
                idle: parts.drain,
                all: parts.drain,
            },
            _ => Drain {
                queue: parts.queue,
                idle: DRAIN_IDLE.min(parts.drain),
                all: parts.drain,
            },
        };
        shard.desk.borrow_mut().draining = true;
        let stop = |accepting: listener::Accepting| accepting.stop(drain.queue);
        let stopping: Vec<Stopping> = accepting.into_iter().map(stop).collect();
        shard.wait_for_connections(&stopping, drain).await;
        // Said aloud: tasks that still sleep keep the shard, and with it the handoff, in memory.
        shard.desk.borrow_mut().keeping.close();
        Ok(())
    }

    /// Waits until events can be taken, or it is clear that the disk does not let them: then they are
    /// answered 503, and `/ok` is answered.
    async fn wait_for_lane(&self) {
        let start = Instant::now();
        while !self.desk.borrow().keeping.is_open() && start.elapsed() < LANE_PATIENCE {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Takes the answers of this turn out of the scratch, to be sent later.
    pub fn take_answers(&self) -> Vec<u8> {
        let spare = self.spare_outs.borrow_mut().pop().unwrap_or_default();
        std::mem::replace(&mut self.out.borrow_mut(), spare)
    }

    /// Takes the buffer back when they were sent.
    pub fn give_back(&self, mut answers: Vec<u8>) {
        answers.clear();
        self.spare_outs.borrow_mut().push(answers);
    }

    /// Returns when the last connection has ended, or all patience and a moment have passed.
    async fn wait_for_connections(&self, accepting: &[Stopping], drain: Drain) {
        let start = Instant::now();
        while !(accepting.iter().all(Stopping::has_ended)
            && self.deadlines.borrow().is_empty()
            && !self.desk.borrow().keeping.is_committing())
        {
            let hurry = match start.elapsed() {
                age if age >= drain.all => Hurry::All,
                age if age >= drain.idle => Hurry::Idle,
                _ => Hurry::No,
            };
            if hurry != self.hurry.replace(hurry) || hurry == Hurry::All {
                self.deadlines.borrow_mut().sweep(hurry);
            }
            if start.elapsed() >= drain.all + DRAIN_IDLE {
                let open = self.deadlines.borrow().len();
                log::warn!("{open} connections did not end in time and are cut");
                return;
            }
            monoio::time::sleep(DRAIN_POLL).await;
        }
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
        shard.desk.borrow_mut().keeping.tell();
        shard.desk.borrow().counters.heartbeat.add(1);
        let shed = shard.desk.borrow().counters.shed.get();
        if shed > said && quiet >= SHED_LOG_SECONDS {
            log::warn!(
                "{} events were shed: all that may wait for disk or database is full",
                shed - said
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
        let wait = match shard.desk.borrow().keeping.opened_at() {
            Some(opened_at) => linger.saturating_sub(opened_at.elapsed()),
            None => linger,
        };
        if wait.is_zero() {
            let is_busy = {
                let keeping = &mut shard.desk.borrow_mut().keeping;
                keeping.seal_when_writer_is_free(SealCause::Age);
                keeping.opened_at().is_some()
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
async fn hear_the_bell(shard: Rc<Shard>, mut bell: monoio::net::UnixStream) {
    let mut rings = vec![0; 64];
    loop {
        let (heard, buffer) = bell.read(rings).await;
        rings = buffer;
        match heard {
            Ok(rung) if rung > 0 => shard.desk.borrow_mut().keeping.hear(),
            // The other end is held by the disk thread and the lanes: the shard is about to end.
            Ok(_) => return log::debug!("nobody rings the bell any more"),
            Err(fault) => {
                log::warn!("bell: {fault}");
                monoio::time::sleep(BUSY_POLL).await;
                shard.desk.borrow_mut().keeping.hear();
            }
        }
    }
}

/// Where events are taken: what keeps them, and what answers are made of.
#[derive(Debug)]
pub struct Desk {
    /// Batches, journal, promises.
    pub keeping: Keeping,
    counters: Arc<ShardCounters>,
    name_rule: Arc<SharedNameRule>,
    answers: Answers,
    now: UnixMillis,
    draining: bool,
}

impl Desk {
    fn new(keeping: Keeping, counters: Arc<ShardCounters>, name_rule: Arc<SharedNameRule>) -> Self {
        let now = UnixMillis::now();
        let answers = Answers::new(now.seconds());
        Self {
            keeping,
            counters,
            name_rule,
            answers,
            now,
            draining: false,
        }
    }

    /// Counts answers that go out now.
    pub fn count_answers(&self, status: Status, answers: u64) {
        self.counters.answered(status).add(answers);
    }

    /// Reads the clock, once for all requests that arrived in one read. The coarse clock, a few
    /// milliseconds behind at most, costs a load where the exact one may cost a system call.
    pub fn read_clock(&mut self) {
        self.now = match clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
            Ok(time) => {
                let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
                UnixMillis(seconds * 1000 + u64::try_from(time.tv_nsec() / 1_000_000).unwrap_or(0))
            }
            Err(_) => UnixMillis::now(),
        };
        self.answers.set_second(self.now.seconds());
    }
}

impl Site for Desk {
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) {
        events::respond(self, request, plain, out, decoded);
    }

    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        self.counters.answered(answer.status).add(1);
        self.answers.write(out, answer);
    }

    fn is_draining(&self) -> bool {
        self.draining
    }
}

impl Intake for Desk {
    fn name_rule(&self) -> NameRule {
        self.name_rule.get()
    }

    fn take(&mut self, name: &str, value: u32) -> Result<(), Shed> {
        self.keeping.take(Event {
            name,
            value,
            received_at: self.now,
        })
    }

    fn count_rejection(&mut self, rejection: Rejection) {
        self.counters.rejected(rejection).add(1);
    }

    fn answers(&self) -> &Answers {
        &self.answers
    }
}
