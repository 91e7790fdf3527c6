//! A process of the server: its shards, disk threads, writers and janitor as tasks.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use super::database::Database;
use super::senders::{Inbox, Senders};
use super::shard::SimulatedShard;
use super::sink::SimulatedSink;
use crate::event::ack::Ack;
use crate::event::batch::BatchEvents;
use crate::event::database_id::DatabaseId;
use crate::event::rule::{EventRule, SharedEventRule};
use crate::handoff::{self, Handoff, Work};
use crate::journal::disk_thread::disk_thread;
use crate::journal::janitor::Janitor;
use crate::journal::lane_handle::{DiskLane, MemoryLane};
use crate::journal::quota::JournalBound;
use crate::journal::served_database::{EarlierLanes, ServedDatabase};
use crate::metrics::{Metrics, Recorder, Recorders, ShardCounters, WriterCounters};
use crate::os::notifier::ShardNotifier;
use crate::os::simulated::disk::Machine;
use crate::os::simulated::{self, Pause, Task};
use crate::shard::ingest::{Ingest, Medium};
use crate::sink::dead_letters::DeadLetters;
use crate::writer::Writer;

/// Where lanes are on the disk of a machine.
pub(super) const JOURNAL: &str = "data/journal";

/// Lanes that were found and not yet taken up by a writer.
const LANES_FOUND_MAX: usize = 64;

/// How a process is started.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) ack: Ack,
    pub(super) shards: usize,
    pub(super) writers: usize,
    pub(super) batch_events: u32,
    pub(super) linger: Duration,
    pub(super) keep: Duration,
    pub(super) journal_limit: u64,
    pub(super) letters_limit: u64,
    pub(super) address: String,
    pub(super) adopts_any: bool,
}

/// Whether a process drains.
#[derive(Debug, Clone, Default)]
pub(super) struct Control(Rc<Cell<bool>>);

impl Control {
    pub(super) fn is_draining(&self) -> bool {
        self.0.get()
    }
}

/// What a task is waiting for, as the schedule sees it.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) name: String,
    task: Option<Task>,
    waits: Pause,
    /// It looked in vain since the last time that another thread did something.
    pub(super) is_idle: bool,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Task")
    }
}

impl Thread {
    fn new(name: String, machine: &Machine, code: impl FnOnce() + 'static) -> Self {
        Self {
            name,
            task: Some(Task::new(machine.clone(), code)),
            waits: Pause::Step,
            is_idle: false,
        }
    }

    /// Whether it can go on now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.task.is_some()
            && match self.waits {
                Pause::Step | Pause::Crash => true,
                Pause::Until(at) => at <= now,
                Pause::Wait(at) => !self.is_idle || at.is_some_and(|at| at <= now),
            }
    }

    /// When it goes on by itself.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.task.as_ref()?;
        match self.waits {
            Pause::Until(at) | Pause::Wait(Some(at)) => Some(at),
            Pause::Step | Pause::Crash | Pause::Wait(None) => None,
        }
    }

    /// Runs it until it pauses. Returns whether it did something.
    pub(super) fn step(&mut self) -> bool {
        let Some(task) = &mut self.task else {
            return false;
        };
        let stopped = task.resume();
        match stopped.pause {
            Some(pause) => self.waits = pause,
            None => self.task = None,
        }
        self.is_idle = !stopped.is_busy;
        stopped.is_busy
    }

    /// Whether no other thread may run before it goes on.
    pub(super) fn is_alone(&self) -> bool {
        self.task.is_some() && self.waits == Pause::Crash
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_none()
    }
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) number: u32,
    /// The index of its machine.
    pub(super) machine: usize,
    pub(super) settings: Settings,
    pub(super) threads: Vec<Thread>,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) metrics: Metrics,
    pub(super) served: Arc<ServedDatabase>,
    pub(super) is_frozen: bool,
    /// When its database had answered.
    pub(super) answered_at: Option<Duration>,
    control: Control,
    draining: Arc<AtomicBool>,
    opened: Option<Sender<Arc<DiskLane>>>,
    disk: Machine,
}

/// What the parts of a process share while it is put together.
struct Parts<'a> {
    settings: &'a Settings,
    disk: &'a Machine,
    served: &'a Arc<ServedDatabase>,
    senders: &'a Senders,
    control: &'a Control,
    quota: JournalBound,
    opened: Sender<Arc<DiskLane>>,
}

impl Process {
    /// Starts it. `None`: its disk does not let it.
    pub(super) fn start(
        number: u32,
        machine: (usize, &Machine),
        settings: Settings,
        database: &Database,
        senders: &Senders,
    ) -> Option<Self> {
        let (machine, disk) = (machine.0, machine.1.process(number));
        simulated::set_machine(Some(disk.clone()));
        let earlier = EarlierLanes::read(Path::new(JOURNAL)).ok()?;
        let served = Arc::new(ServedDatabase::new(
            settings.address.clone(),
            settings.adopts_any,
            earlier,
        ));
        // One writer a shard at most, as `server/writers.rs` has it.
        let writers = settings.writers.min(settings.shards);
        let (metrics, recorders) = Metrics::new(settings.shards, writers);
        let Recorders {
            shards: shard_counters,
            writers: writer_counters,
        } = recorders;
        let draining: Arc<AtomicBool> = Arc::default();
        let mut threads = Vec::new();
        let writers = Writers {
            settings: &settings,
            served: &served,
            draining: &draining,
            database,
        };
        let (inboxes, to_writers) = writers.start(writer_counters, &disk, &mut threads);
        let (opened, lanes) = channel();
        let inactive_bytes = Arc::default();
        let janitor = Janitor {
            journal: JOURNAL.into(),
            keep: settings.keep,
            retained_max: 64,
            opened: lanes,
            writers: to_writers,
            inactive_bytes: Arc::clone(&inactive_bytes),
            served: Arc::clone(&served),
            found_events: metrics.found(),
        };
        threads.push(Thread::new("janitor".to_owned(), &disk, || janitor.run()));
        let control = Control::default();
        let parts = Parts {
            settings: &settings,
            disk: &disk,
            served: &served,
            senders,
            control: &control,
            quota: JournalBound::new(settings.journal_limit, inactive_bytes),
            opened: opened.clone(),
        };
        let mut requests = Vec::new();
        for (index, counters) in shard_counters.into_iter().enumerate() {
            let to_writer = inboxes[index % inboxes.len()].clone();
            let events = BatchEvents::new(settings.batch_events).unwrap();
            let handoff = Handoff::new(to_writer, events);
            requests.push(parts.start_shard(index, handoff, counters, &mut threads));
        }
        drop(parts);
        Some(Self {
            number,
            machine,
            settings,
            threads,
            inboxes: requests,
            metrics,
            served,
            is_frozen: false,
            answered_at: None,
            control,
            draining,
            opened: Some(opened),
            disk,
        })
    }

    /// Begins to drain.
    pub(super) fn drain(&mut self) {
        self.control.0.set(true);
        self.draining.store(true, Ordering::Relaxed);
        self.opened = None;
    }

    /// The database that it serves, and since when that is known.
    pub(super) fn database(&self) -> Option<(DatabaseId, Duration)> {
        self.served.id().zip(self.answered_at)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.control.is_draining()
    }

    /// Ends it at once, as `kill -9` does.
    pub(super) fn kill(self) {
        self.disk.kill(self.number);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.threads.iter().all(Thread::has_ended)
    }
}

/// What the writers of a process share while they are started.
struct Writers<'a> {
    settings: &'a Settings,
    served: &'a Arc<ServedDatabase>,
    draining: &'a Arc<AtomicBool>,
    database: &'a Database,
}

impl Writers<'_> {
    /// Starts one for each of `counters`. Returns where batches, and lanes to be recovered, are sent to.
    fn start(
        &self,
        counters: Vec<Recorder<WriterCounters>>,
        disk: &Machine,
        threads: &mut Vec<Thread>,
    ) -> (Vec<SyncSender<Work>>, Vec<SyncSender<Arc<DiskLane>>>) {
        let (settings, writers) = (self.settings, counters.len());
        let event_rule = Arc::new(SharedEventRule::new(EventRule::DEPLOYED));
        let start = |(index, counters)| {
            let (to_writer, inbox) = handoff::inbox(settings.shards.div_ceil(writers));
            let (found, recoveries) = sync_channel(LANES_FOUND_MAX);
            let writer = Writer {
                index,
                sink: Box::new(SimulatedSink::new(self.database.clone())),
                // In the server writers share it, by a mutex, for which a task would wait for ever. The lock of the
                // file keeps them apart here.
                dead_letters: Arc::new(DeadLetters::new(Path::new("data"), settings.letters_limit)),
                event_rule: Arc::clone(&event_rule),
                counters,
                batch_events: BatchEvents::new(settings.batch_events).unwrap(),
                recoveries,
                may_leave: settings.ack != Ack::Stored,
                draining: Arc::clone(self.draining),
                served: Arc::clone(self.served),
            };
            let (ready, _is_ready) = sync_channel(1);
            let run = move || writer.run(&inbox, &ready);
            threads.push(Thread::new(format!("writer-{index}"), disk, run));
            (to_writer, found)
        };
        counters.into_iter().enumerate().map(start).unzip()
    }
}

impl Parts<'_> {
    /// Starts a shard, and its disk thread.
    fn start_shard(
        &self,
        index: usize,
        handoff: Handoff,
        counters: Recorder<ShardCounters>,
        threads: &mut Vec<Thread>,
    ) -> Inbox {
        let (notifier, heard) = ShardNotifier::new().unwrap();
        let medium = if self.settings.ack == Ack::Received {
            Medium::Memory(MemoryLane::new().unwrap())
        } else {
            let (disk, work) = disk_thread(
                JOURNAL.into(),
                Arc::clone(self.served),
                notifier,
                self.opened.clone(),
            );
            threads.push(Thread::new(format!("disk-{index}"), self.disk, || {
                work.run()
            }));
            Medium::Journal(disk, self.quota.clone())
        };
        let ack = self.settings.ack;
        let inbox = Inbox::default();
        let (own, senders) = (Rc::clone(&inbox), self.senders.clone());
        let (control, linger) = (self.control.clone(), self.settings.linger);
        // The ingest is made by its own thread, which keeps it.
        let run = move || {
            let ingest = Ingest::new(ack, Rc::new(counters), handoff, medium, 64);
            let shard = SimulatedShard {
                ingest,
                heard,
                inbox: own,
                senders,
                control,
                linger,
            };
            shard.run();
        };
        threads.push(Thread::new(format!("shard-{index}"), self.disk, run));
        inbox
    }
}
