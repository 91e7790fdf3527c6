//! What must hold in a simulation. It looks at rows, letters, answers and counters alone, and uses no code of the
//! server for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::database::{Content, EventId, Server};
use super::process::Process;
use super::senders::{Answer, Senders, Sent, is_twin};
use super::world::World;
use crate::event::ack::Ack;
use crate::event::database_id::DatabaseId;
use crate::os::simulated;
use crate::os::simulated::disk::Removed;

/// How long the janitor may not know that the database went back.
const UNNOTICED_FOR: Duration = Duration::from_secs(120);

/// How long it may take to note which database a lane belongs to, after that has answered.
const LABELLED_WITHIN: Duration = Duration::from_secs(3);

/// How long it may take to write down where a lane ends.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// Events are missing, which may still be stored.
    Missing(String),
    /// Whatever follows cannot mend it.
    Final(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) | Self::Final(what) => out.write_str(what),
        }
    }
}

/// How often equal events are rows or letters.
#[derive(Debug, Default)]
struct Promised {
    least: usize,
    most: usize,
    must_be_letter: bool,
    /// One of them, for people.
    last: Option<Sent>,
}

/// What it has seen.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    went_back_at: Option<Duration>,
    /// Events that ended processes have said to be lost.
    lost: u64,
    is_copied: bool,
    /// Whether the database has ever lost its id.
    was_other: bool,
    had_unreadable: bool,
    /// When processes were killed.
    killed: BTreeMap<u32, Duration>,
    /// Processes that did not run all the time.
    pub(super) frozen: BTreeSet<u32>,
    /// When a disk last failed.
    pub(super) disk_failed_at: Option<Duration>,
    /// Which database each process served.
    served: BTreeMap<u32, (DatabaseId, Duration)>,
    /// Events of held lanes that nobody can decide about as a whole.
    pub(super) undecided: BTreeSet<u32>,
}

impl Oracle {
    /// The database has lost rows. What was `ever` stored is not stored again, once it is or was another one by its id.
    pub(super) fn database_went_back(
        &mut self,
        senders: &Senders,
        ever: &BTreeSet<u32>,
        is_other: bool,
    ) {
        self.went_back_at = Some(simulated::elapsed());
        self.was_other |= is_other;
        senders.each(|_, sent| {
            // Without a journal nothing can be stored again.
            let is_gone = sent.ack == Ack::Received;
            sent.is_destroyed |= is_gone || self.was_other && ever.contains(&sent.value);
        });
    }

    pub(super) fn machine_was_copied(&mut self) {
        self.is_copied = true;
    }

    pub(super) fn block_was_unreadable(&mut self) {
        self.had_unreadable = true;
    }

    /// Whatever was not `kept`, acknowledged before the snapshot, may be gone, and so are some letters.
    pub(super) fn machine_went_back(
        &mut self,
        senders: &Senders,
        kept: &BTreeSet<u32>,
        letters: &BTreeSet<u32>,
    ) {
        self.is_copied = true;
        senders.each(|number, event| {
            event.is_destroyed |= !kept.contains(&number) || letters.contains(&event.value);
        });
    }

    pub(super) fn process_ended(&mut self, process: &Process, senders: &Senders, is_killed: bool) {
        self.lost += process.metrics.totals().lost;
        let served = process.database();
        self.served
            .extend(served.map(|served| (process.number, served)));
        if is_killed {
            self.killed.insert(process.number, simulated::elapsed());
        }
        senders.each(|_, sent| {
            sent.is_destroyed |= sent.process == process.number && sent.ack == Ack::Received;
        });
    }

    /// Files that were removed have no event that the database lacks.
    pub(super) fn check_removed(
        &self,
        removed: &[Removed],
        senders: &Senders,
        server: &Server,
    ) -> Result<(), Broken> {
        let is_unnoticed = self
            .went_back_at
            .is_some_and(|at| simulated::elapsed() - at < UNNOTICED_FOR);
        if is_unnoticed {
            return Ok(());
        }
        let stored: BTreeSet<u32> = server.all_rows().map(|row| row.value).collect();
        let mut broken = Ok(());
        senders.each(|_, sent| {
            let value = sent.value;
            if sent.answer != Answer::Ok || sent.is_destroyed || stored.contains(&value) {
                return;
            }
            let name = sent.name.as_bytes();
            for file in removed {
                if is_in(&file.content, name) && !name.starts_with(b"bad") {
                    broken = Err(Broken::Final(format!(
                        "{}: was removed, and its event {value} is not stored",
                        file.path.display()
                    )));
                }
            }
        });
        broken
    }

    /// Each event is what its sender was told. Equal events are counted.
    pub(super) fn check(&self, world: &World) -> Result<(), Broken> {
        let mut rows: BTreeMap<u32, usize> = BTreeMap::new();
        let server = world.database.server();
        for row in server.all_rows() {
            *rows.entry(row.value).or_default() += 1;
        }
        self.check_databases(world, &server)?;
        drop(server);
        let letters = world.letters();
        let mut promised: BTreeMap<u32, Promised> = BTreeMap::new();
        world.senders.each(|_, sent| {
            let is_excused = self.is_excused(sent);
            let equal = promised.entry(sent.value).or_default();
            let is_refused = sent.answer == Answer::Refused;
            equal.must_be_letter |= is_refused && !is_excused;
            match sent.answer {
                Answer::Ok | Answer::Refused => {
                    equal.least += usize::from(!is_excused);
                    equal.most += 1;
                }
                Answer::None => equal.most += 1,
                Answer::Shed => equal.most += usize::from(self.may_be_row(sent)),
            }
            equal.last = Some(sent.clone());
        });
        let (mut missing, mut first) = (0, None);
        for (value, equal) in promised {
            let is_letter = letters.contains(&value);
            let stored = rows.get(&value).copied().unwrap_or(0);
            let times = stored + usize::from(is_letter);
            if times > equal.most {
                return Err(Broken::Final(format!(
                    "{times} events are stored, and {} may be: {:?}",
                    equal.most, equal.last
                )));
            }
            let is_missing = equal.must_be_letter && !is_letter;
            let lacks = equal.least.saturating_sub(times).max(is_missing.into());
            if lacks > 0 {
                missing += lacks as u64;
                first = first.or(equal.last);
            }
        }
        let lost = self.lost + lost_now(world);
        let allowed = if self.had_unreadable { lost } else { 0 };
        if missing > allowed {
            return Err(Broken::Missing(format!(
                "{missing} events are missing, the first is {first:?}; {lost} were said to be lost"
            )));
        }
        Ok(())
    }

    fn is_excused(&self, sent: &Sent) -> bool {
        sent.is_destroyed || self.undecided.contains(&sent.value)
    }

    /// Where its process died before it could write down that the event ended as a 503, or where the disk did not let
    /// it, the event may be stored.
    fn may_be_row(&self, sent: &Sent) -> bool {
        let Some(killed_at) = self.killed.get(&sent.process) else {
            return self.is_copied;
        };
        let could_from = self.disk_failed_at.map_or(sent.answered_at, |failed_at| {
            failed_at.max(sent.answered_at)
        });
        let could_for = killed_at.saturating_sub(could_from);
        self.is_copied || self.frozen.contains(&sent.process) || could_for < WRITTEN_WITHIN
    }

    /// The database that the process of an event served.
    pub(super) fn database_of(&self, senders: &Senders, event: EventId) -> Option<DatabaseId> {
        let mut found = None;
        senders.each(|_, sent| {
            if (sent.value, sent.received_at) == (event.value, event.received_at) {
                found = promised(&self.served, sent);
            }
        });
        found
    }

    /// An event is in no other database than the one that its process served.
    fn check_databases(&self, world: &World, server: &Server) -> Result<(), Broken> {
        let mut served = self.served.clone();
        let processes = world.processes.iter();
        served.extend(processes.filter_map(|process| Some((process.number, process.database()?))));
        let mut broken = Ok(());
        let mut look = |content: &Content| {
            let values: BTreeSet<u32> = content.rows.values().map(|row| row.value).collect();
            world.senders.each(|_, sent| {
                let (id, value) = (promised(&served, sent), sent.value);
                if values.contains(&value)
                    && !is_twin(value)
                    && id.is_some()
                    && content.id.is_some()
                    && id != content.id
                    && !self.was_other
                {
                    broken = Err(Broken::Final(format!(
                        "event {value} is in another database than its process served"
                    )));
                }
            });
        };
        look(&server.content);
        look(&server.other);
        broken
    }

    /// The counters of each process that has come to rest.
    pub(super) fn check_identity(
        &self,
        processes: &[Process],
        _senders: &Senders,
    ) -> Result<(), Broken> {
        for process in processes {
            let totals = process.metrics.totals();
            let ends = totals.stored + totals.dead_lettered + totals.lost + totals.pending();
            if totals.received != ends {
                return Err(Broken::Final(format!(
                    "process {}: received {} is not {ends}: {totals:?}",
                    process.number, totals.received
                )));
            }
            if totals.pending() > 0 && process.served.held().0 == 0 {
                return Err(Broken::Final(format!(
                    "process {}: {} events are pending for ever",
                    process.number,
                    totals.pending()
                )));
            }
        }
        Ok(())
    }
}

/// The database that an event was promised to. `None`: its process had not noted that yet.
fn promised(served: &BTreeMap<u32, (DatabaseId, Duration)>, sent: &Sent) -> Option<DatabaseId> {
    let (id, since) = *served.get(&sent.process)?;
    (sent.answered_at > since + LABELLED_WITHIN).then_some(id)
}

fn lost_now(world: &World) -> u64 {
    let processes = world.processes.iter();
    processes.map(|process| process.metrics.totals().lost).sum()
}

fn is_in(content: &[u8], name: &[u8]) -> bool {
    content.windows(name.len()).any(|window| window == name)
}
