//! A process of the server: its shards, disk threads, writers and janitor as tasks.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::database::Database;
use super::history::note;
use super::senders::{Inbox, Senders};
use super::shard::SimulatedShard;
use super::sink::SimulatedSink;
use super::thread::Thread;
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
use crate::os::reached::reached;
use crate::os::simulated;
use crate::os::simulated::disk::Machine;
use crate::shard::ingest::{Ingest, Medium};
use crate::sink::dead_letters::DeadLetters;
use crate::sink::dead_letters::letter::Letter;
use crate::sink::dead_letters::replay::{self, WithoutDatabase};
use crate::writer::Writer;

/// The data directory.
pub(super) const DATA: &str = "data";

/// Where lanes are on the disk of a machine.
pub(super) const JOURNAL: &str = "data/journal";

/// How a process is started.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) ack: Ack,
    pub(super) shards: usize,
    pub(super) writers: usize,
    /// Most lanes that were found and not yet taken up by a writer.
    pub(super) found_max: usize,
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

/// A process that runs.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) number: u32,
    /// The index of its machine.
    pub(super) machine: usize,
    /// `None`: it is a command.
    pub(super) settings: Option<Settings>,
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
    senders: Senders,
    /// It has the memory of another one.
    pub(super) is_copy: bool,
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
        let senders = &senders.of_process();
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
        // The server does the first before it starts threads, and could not be interrupted here then.
        let run = || {
            finish_replay();
            janitor.run();
        };
        threads.push(Thread::new("janitor".to_owned(), &disk, run));
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
            settings: Some(settings),
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
            senders: senders.clone(),
            is_copy: false,
        })
    }

    /// `hakaru dead-letters replay`, of the letters whose events have these values.
    pub(super) fn replay(
        number: u32,
        machine: (usize, &Machine),
        is_wanted: impl Fn(u32) -> bool + 'static,
    ) -> Self {
        let (machine, disk) = (machine.0, machine.1.process(number));
        let run = move || {
            let is_wanted = |letter: &Letter| is_wanted(letter.value);
            let moved = replay::replay(Path::new(DATA), WithoutDatabase::Leave, is_wanted);
            match moved {
                Ok(moved) if moved.letters > 0 => {
                    reached("replay of letters: done");
                    note(|| format!("{} letters are replayed", moved.letters));
                }
                Ok(_) => reached("replay of letters: there is none"),
                Err(fault) => {
                    reached("replay of letters: failed");
                    note(|| format!("letters are not replayed: {fault}"));
                }
            }
        };
        let threads = vec![Thread::new("replay".to_owned(), &disk, run)];
        let earlier = EarlierLanes::default();
        let served = ServedDatabase::new(String::new(), false, earlier);
        let control = Control::default();
        // No sender asks it.
        control.0.set(true);
        Self {
            number,
            machine,
            settings: None,
            threads,
            inboxes: Vec::new(),
            metrics: Metrics::new(1, 1).0,
            served: Arc::new(served),
            is_frozen: false,
            answered_at: None,
            control,
            draining: Arc::default(),
            opened: None,
            disk,
            senders: Senders::default(),
            is_copy: false,
        }
    }

    /// Makes it a copy of the process that it was: on this machine, and without its connections.
    pub(super) fn copied(self, number: u32, machine: usize) -> Self {
        for inbox in &self.inboxes {
            inbox.borrow_mut().clear();
        }
        self.senders.cut();
        Self {
            number,
            machine,
            is_copy: true,
            ..self
        }
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
        self.disk.kill_own();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.threads.iter().all(Thread::has_ended)
    }
}

/// Does what a replay of letters that was cut short has left undone, as each start of the server does.
fn finish_replay() {
    match replay::is_unfinished(Path::new(DATA)) {
        Ok(true) => reached("replay of letters: was cut short"),
        Ok(false) | Err(_) => return,
    }
    match replay::finish(Path::new(DATA)) {
        Ok(unknown) if unknown.is_empty() => reached("replay of letters: finished by a start"),
        Ok(unknown) => note(|| format!("nobody knows about {unknown:?}")),
        Err(fault) => note(|| format!("the replay of letters is not finished: {fault}")),
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
            let (found, recoveries) = sync_channel(settings.found_max);
            let writer = Writer {
                index,
                sink: Box::new(SimulatedSink::new(self.database.clone())),
                // In the server writers share it, by a mutex, for which a task would wait for ever. The lock of the
                // file keeps them apart here.
                dead_letters: Arc::new(DeadLetters::new(Path::new(DATA), settings.letters_limit)),
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
