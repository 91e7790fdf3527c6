//! One core and all it owns: its connections, its open batch, its end of the handoff.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::AsyncReadRent;
use nix::time::{ClockId, clock_gettime};

use crate::batch::Batch;
use crate::deadlines::{Deadlines, Hurry};
use crate::event::{Event, NameRule, SharedNameRule, UnixMillis};
use crate::handoff::{Handoff, WriterGone};
use crate::http::conversation::{Shed, Site};
use crate::http::query::Rejection;
use crate::http::response::Answers;
use crate::listener::{self, ConnectionSlots, Stopping};
use crate::metrics::ShardCounters;

/// How long idle connections are kept when a drain begins: a request may be on its way on one of them.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How often a drain looks whether the last connection has ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// Batches under way with which a writer has enough to do: one being stored, one to follow.
const BATCHES_AHEAD: usize = 2;

/// How often it is looked whether the writer has less to do.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// What a shard is given.
#[derive(Debug)]
pub struct ShardParts {
    /// Bound and listening, one of several with `SO_REUSEPORT`.
    pub listener: TcpListener,
    /// The way to the writer.
    pub handoff: Handoff,
    /// Its counters.
    pub counters: Arc<ShardCounters>,
    /// What the `name` column takes.
    pub name_rule: Arc<SharedNameRule>,
    /// The bound on connections, of all shards together.
    pub slots: Arc<ConnectionSlots>,
    /// A batch is sealed when its oldest event is this old.
    pub linger: Duration,
    /// How long connections may go on when a drain begins.
    pub drain: Duration,
    /// The shard drains when the other end of this is closed.
    pub control: UnixStream,
}

/// What connections of a shard share. Lives on one thread.
#[derive(Debug)]
pub struct Shard {
    /// What requests are answered with.
    pub desk: RefCell<Desk>,
    /// Scratch: answers of the present turn, not yet sent.
    pub out: RefCell<Vec<u8>>,
    /// Scratch: the present name, unescaped.
    pub decoded: RefCell<Vec<u8>>,
    /// All open connections and how long they may take.
    pub deadlines: RefCell<Deadlines>,
    hurry: Cell<Hurry>,
}

impl Shard {
    /// Serves until the control stream ends, drains, and hands the last batch over.
    pub async fn run(parts: ShardParts) -> std::io::Result<()> {
        let shard = Rc::new(Self {
            desk: RefCell::new(Desk::new(parts.handoff, parts.counters, parts.name_rule)),
            out: RefCell::default(),
            decoded: RefCell::default(),
            deadlines: RefCell::default(),
            hurry: Cell::new(Hurry::No),
        });
        let mut control = monoio::net::UnixStream::from_std(parts.control)?;
        let accepting = listener::start(parts.listener, Rc::clone(&shard), parts.slots)?;
        monoio::spawn(sweep_each_second(Rc::clone(&shard)));
        monoio::spawn(seal_by_age(Rc::clone(&shard), parts.linger));

        // Nothing is ever sent: the read ends when the other end is closed, by intent or by death.
        let (ended, _) = control.read(vec![0; 1]).await;
        log::debug!("control stream ended: {ended:?}");
        shard.desk.borrow_mut().draining = true;
        shard
            .wait_for_connections(&accepting.stop(), parts.drain)
            .await;
        // Said aloud: tasks that still sleep keep the shard, and with it the handoff, in memory.
        shard.desk.borrow_mut().close();
        Ok(())
    }

    /// Returns when the last connection has ended, or `patience` and a moment have passed.
    async fn wait_for_connections(&self, accepting: &Stopping, patience: Duration) {
        let start = Instant::now();
        while !(accepting.has_ended() && self.deadlines.borrow().is_empty()) {
            let hurry = match start.elapsed() {
                age if age >= patience => Hurry::All,
                age if age >= DRAIN_IDLE.min(patience) => Hurry::Idle,
                _ => Hurry::No,
            };
            if hurry != self.hurry.replace(hurry) || hurry == Hurry::All {
                self.deadlines.borrow_mut().sweep(hurry);
            }
            if start.elapsed() >= patience + DRAIN_IDLE {
                let open = self.deadlines.borrow().len();
                log::warn!("{open} connections did not end in time and are cut");
                return;
            }
            monoio::time::sleep(DRAIN_POLL).await;
        }
    }
}

/// Ends late connections.
async fn sweep_each_second(shard: Rc<Shard>) {
    loop {
        monoio::time::sleep(Duration::from_secs(1)).await;
        let mut deadlines = shard.deadlines.borrow_mut();
        deadlines.tick();
        deadlines.sweep(shard.hurry.get());
    }
}

/// Seals the open batch when its oldest event is `linger` old.
async fn seal_by_age(shard: Rc<Shard>, linger: Duration) {
    loop {
        // A batch that is opened during a whole `linger` of sleep cannot be older at its end.
        let wait = match shard.desk.borrow().open.opened_at() {
            Some(opened_at) => linger.saturating_sub(opened_at.elapsed()),
            None => linger,
        };
        if wait.is_zero() {
            // With batches waiting, another one would not be stored sooner: let it fill instead, so
            // that an outage is held by full batches and not by many that are nearly empty.
            let is_busy = shard.desk.borrow_mut().handoff.under_way() >= BATCHES_AHEAD;
            if is_busy || !shard.desk.borrow_mut().seal() {
                monoio::time::sleep(linger.min(BUSY_POLL)).await;
            }
        } else {
            monoio::time::sleep(wait).await;
        }
    }
}

/// Where events are taken: the open batch and what decides over it.
#[derive(Debug)]
pub struct Desk {
    open: Batch,
    handoff: Handoff,
    counters: Arc<ShardCounters>,
    name_rule: Arc<SharedNameRule>,
    answers: Answers,
    now: UnixMillis,
    draining: bool,
}

impl Desk {
    fn new(
        mut handoff: Handoff,
        counters: Arc<ShardCounters>,
        name_rule: Arc<SharedNameRule>,
    ) -> Self {
        let now = UnixMillis::now();
        #[expect(clippy::expect_used, reason = "a new handoff has made no batch yet")]
        let open = handoff.empty_batch().expect("the first batch of a shard");
        Self {
            open,
            handoff,
            counters,
            name_rule,
            answers: Answers::new(now.seconds()),
            now,
            draining: false,
        }
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

    /// Hands the last batch over.
    fn close(&mut self) {
        if !self.open.is_empty() {
            // Not `seal`: that needs an empty batch in its place, and every other may be under way.
            if let Err(WriterGone(last)) = self.handoff.send(self.open.take()) {
                self.open = last;
            }
        }
        self.handoff.close();
    }

    /// Hands the open batch over and opens an empty one. `false`: every batch is under way.
    fn seal(&mut self) -> bool {
        if self.open.is_empty() {
            return true;
        }
        let Some(empty) = self.handoff.empty_batch() else {
            return false;
        };
        let full = std::mem::replace(&mut self.open, empty);
        if let Err(WriterGone(full)) = self.handoff.send(full) {
            // The process is about to end because of it; until then what was taken stays pending.
            self.open = full;
            return false;
        }
        true
    }
}

impl Site for Desk {
    fn name_rule(&self) -> NameRule {
        self.name_rule.get()
    }

    fn take(&mut self, name: &str, value: u32) -> Result<(), Shed> {
        let event = Event {
            name,
            value,
            received_at: self.now,
        };
        let taken = match self.open.push(event) {
            Ok(()) => true,
            Err(_) => self.seal() && self.open.push(event).is_ok(),
        };
        if !taken {
            self.counters.shed.add(1);
            return Err(Shed);
        }
        self.counters.received.add(1);
        if self.open.is_full() {
            // Where it fails, the next event tries again.
            self.seal();
        }
        Ok(())
    }

    fn count_rejection(&mut self, rejection: Rejection) {
        self.counters.rejected(rejection).add(1);
    }

    fn is_draining(&self) -> bool {
        self.draining
    }

    fn answers(&self) -> &Answers {
        &self.answers
    }
}
