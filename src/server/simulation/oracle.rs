//! What must hold in a simulation. It looks at rows, letters, answers, counters and removed files, and uses no code of the
//! server for that. It takes three things from the server: how many events the log says are unreadable, which database a
//! process served, and, by the server's reader, the events of lanes that are held.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use memchr::memmem;

use super::bodies::check_requests;
use super::database::{Content, EventId, Server, is_same};
use super::history;
use super::operator::Undecided;
use super::process::Process;
use super::rows::check_content;
use super::senders::{Answer, Promised, Senders, Sent, is_twin};
use super::sink::REFUSED_PREFIX;
use super::world::World;
use crate::event::ack::Ack;
use crate::event::database_id::DatabaseId;
use crate::os::simulated;
use crate::os::simulated::disk::Removed;

/// How long the janitor may not know that the database went back.
const UNNOTICED_FOR: Duration = Duration::from_secs(120);

/// How long it may take to note which database a lane belongs to, after that has answered, if the process runs all the time.
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

/// What it has seen.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    went_back_at: Option<Duration>,
    /// Events that ended processes have said to be lost.
    lost: u64,
    pub(super) is_copied: bool,
    /// Whether the database has ever lost its id.
    was_other: bool,
    had_unreadable: bool,
    /// Letters that were gone when a machine went back.
    pub(super) letters_gone: BTreeSet<u32>,
    /// When processes were killed, or ended beside a failing disk.
    killed: BTreeMap<u32, Duration>,
    /// Processes that did not run all the time.
    pub(super) frozen: BTreeSet<u32>,
    /// When a disk last failed.
    pub(super) disk_failed_at: Option<Duration>,
    /// Which database each process served.
    served: BTreeMap<u32, (DatabaseId, Duration)>,
    /// Whether letters may have become rows.
    pub(super) letters_were_replayed: bool,
    /// Events of held lanes that nobody can decide about as a whole.
    pub(super) undecided: Undecided,
    /// Events that are not stored again once their rows are gone, as of another database.
    unprotected: BTreeSet<u32>,
    /// Events that were stored while a disk was full, where nothing that is stored is kept.
    not_kept: BTreeSet<u32>,
    is_full: bool,
    /// Events that two processes may have received, the second one by a copy of the memory of the first one.
    in_memory: BTreeSet<u32>,
}

impl Oracle {
    /// The database has lost rows. What was stored before it became another one by its id is not stored again, nor what was
    /// stored while it had none.
    pub(super) fn database_went_back(
        &mut self,
        (senders, processes): (&Senders, &[Process]),
        server: &Server,
        is_other: bool,
    ) {
        let served = self.served_by(processes);
        let ever = &server.ever;
        if is_other {
            self.unprotected.extend(ever);
        }
        self.unprotected.extend(&server.ever_unnamed);
        self.went_back_at = Some(simulated::elapsed());
        self.was_other |= is_other;
        self.disks_are_full(self.is_full, server, senders);
        senders.each(|_, sent| {
            // Without a journal nothing can be stored again.
            let is_gone = sent.ack == Ack::Received;
            sent.is_destroyed |= is_gone || self.unprotected.contains(&sent.value);
            // Its process went on with a database that had become another one.
            let own = served.get(&sent.process).map(|(id, _)| *id);
            sent.is_destroyed |= !is_same(own, server.content.id);
            sent.is_destroyed |= self.not_kept.contains(&sent.value);
        });
    }

    /// A disk is full from now on, or none is any more. Nothing that is stored is kept on it, and nobody may know yet that
    /// rows are gone.
    pub(super) fn disks_are_full(&mut self, is_full: bool, server: &Server, senders: &Senders) {
        if std::mem::replace(&mut self.is_full, is_full) {
            self.not_kept.extend(&server.ever);
        }
        if is_full && self.is_unnoticed() {
            senders.each(|_, sent| sent.is_destroyed |= server.ever.contains(&sent.value));
        }
    }

    /// Whether the server may not know that the database went back.
    pub(super) fn is_unnoticed(&self) -> bool {
        let since = self.went_back_at.map(|at| simulated::elapsed() - at);
        since.is_some_and(|since| since < UNNOTICED_FOR)
    }

    /// What cannot be read in one copy of a machine is lost, and so said, though another copy has it.
    pub(super) fn may_be_lost_by_a_copy(&self) -> bool {
        self.had_unreadable && self.is_copied
    }

    pub(super) fn machine_was_copied(&mut self) {
        self.is_copied = true;
    }

    pub(super) fn block_was_unreadable(&mut self) {
        self.had_unreadable = true;
    }

    /// These events were in the memory of a machine that was copied before they were answered. Each copy may store them.
    pub(super) fn were_in_memory(&mut self, events: BTreeSet<u32>) {
        self.in_memory.extend(events);
    }

    /// Whatever was not `kept`, acknowledged before the snapshot, may be gone, and so are some letters.
    pub(super) fn machine_went_back(
        &mut self,
        senders: &Senders,
        kept: &BTreeSet<u32>,
        letters: &BTreeSet<u32>,
    ) {
        self.is_copied = true;
        self.letters_gone.extend(letters);
        senders.each(|number, event| {
            event.is_destroyed |= !kept.contains(&number) || letters.contains(&event.value);
        });
    }

    pub(super) fn process_ended(&mut self, process: &Process, senders: &Senders, is_killed: bool) {
        self.lost += process.metrics.totals().lost;
        let served = process.database();
        self.served
            .extend(served.map(|served| (process.number, served)));
        // One that drains beside a failing disk gives up writing down where a lane ends, and says so.
        if is_killed || self.disk_failed_at.is_some() {
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
        if self.is_unnoticed() || self.may_be_lost_by_a_copy() {
            return Ok(());
        }
        let stored: BTreeSet<u32> = server.all_rows().map(|row| row.value).collect();
        let repeated = senders.repeated();
        let mut broken = Ok(());
        senders.each(|_, sent| {
            let value = sent.value;
            // A file may have one of several equal events that was answered 503, or one that was repeated.
            let is_promised = sent.answer == Answer::Ok && !sent.is_destroyed && !is_twin(value);
            let is_promised = is_promised && !repeated.contains(&value);
            let name = sent.name.as_bytes();
            if !is_promised || stored.contains(&value) || name.starts_with(b"bad") {
                return;
            }
            for file in removed {
                if memmem::find(&file.content, name).is_some() {
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
        let server = world.database.server();
        let mut rows: Vec<u32> = server.all_rows().map(|row| row.value).collect();
        rows.sort_unstable();
        check_content(&world.senders, &server).map_err(Broken::Final)?;
        let has_two = server.other.has_been_used();
        let served = self.served_by(&world.processes);
        self.check_databases(world, &server)?;
        drop(server);
        let letters = world.letters();
        let all = world.senders.all();
        let mut numbers: Vec<u32> = (0..).zip(&*all).map(|(number, _)| number).collect();
        numbers.sort_by_key(|number| all[*number as usize].value);
        let (mut missing, mut first) = (0, None);
        for numbers in numbers.chunk_by(|one, other| {
            let value = |number: &u32| all[*number as usize].value;
            value(one) == value(other)
        }) {
            let equal = self.promised(&all, numbers, (&served, has_two));
            let value = equal.last.map_or(0, |sent| sent.value);
            let refused = letters.get(&value).map_or(0, BTreeSet::len);
            let begin = rows.partition_point(|row| *row < value);
            let equal_rows = rows[begin..].iter().take_while(|row| **row == value);
            let times = equal_rows.count() + refused;
            let is_refusable = |sent: &Sent| sent.name.starts_with(REFUSED_PREFIX);
            if refused > 0 && !equal.last.is_some_and(is_refusable) {
                return Err(Broken::Final(format!(
                    "event {value} is a letter, and the table takes it: {:?}",
                    equal.last
                )));
            }
            // The table took it, and refused it after the database had lost it. A restore brings the row back then, and no
            // letter goes away by that.
            let is_back = refused == 1 && self.letters_were_replayed && self.went_back_at.is_some();
            if times > equal.most + usize::from(is_back) {
                return Err(Broken::Final(format!(
                    "{times} events are stored, and {} may be: {:?}; letters: {:?}",
                    equal.most,
                    equal.last,
                    letters.get(&value)
                )));
            }
            let must_be_letter = equal.must_be_letter && !self.letters_were_replayed;
            let is_missing = must_be_letter && refused == 0;
            let lacks = equal.least.saturating_sub(times).max(is_missing.into());
            if lacks > 0 {
                missing += lacks as u64;
                first = first.or(equal.last);
            }
        }
        let lost = self.lost + world.lost();
        let allowed = match self.had_unreadable {
            // What was stored once is not counted as lost where a restore has taken its row.
            true => lost.max(history::unreadable()) + self.undecided.unreadable,
            false => 0,
        };
        if missing > allowed {
            return Err(Broken::Missing(format!(
                "{missing} events are missing, the first is {first:?}; {lost} were said to be lost"
            )));
        }
        if self.had_unreadable || lost > 0 {
            return Ok(());
        }
        let is_stored = |sent: &Sent| {
            rows.binary_search(&sent.value).is_ok() || letters.contains_key(&sent.value)
        };
        let repeated = world.senders.repeated();
        let is_excused = |sent: &Sent| self.is_excused(sent);
        check_requests(&all, &repeated, is_stored, is_excused).map_err(Broken::Missing)
    }

    /// What holds of some equal events, by their numbers.
    fn promised<'a>(
        &self,
        all: &'a [Sent],
        numbers: &[u32],
        (served, has_two): (&BTreeMap<u32, (DatabaseId, Duration)>, bool),
    ) -> Promised<'a> {
        let mut equal = Promised::default();
        for number in numbers {
            let sent = &all[*number as usize];
            let is_excused = self.is_excused(sent);
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
            // Each copy of a lane that was not labelled yet goes into the database that it finds.
            let is_free = self.is_copied && promised_to(served, sent, self.is_copied).is_none()
                || self.disk_failed_at.is_some();
            equal.most += usize::from(is_free && has_two);
            equal.most += usize::from(self.in_memory.contains(number));
            equal.is_one |= sent.id.is_some();
            equal.last = Some(sent);
        }
        if equal.is_one {
            (equal.least, equal.most) = (equal.least.min(1), 1);
        }
        equal
    }

    fn is_excused(&self, sent: &Sent) -> bool {
        sent.is_destroyed || self.undecided.values.contains(&sent.value)
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
                found = promised_to(&self.served, sent, self.is_copied);
            }
        });
        found
    }

    /// Which database each process has served, also those that run.
    fn served_by(&self, processes: &[Process]) -> BTreeMap<u32, (DatabaseId, Duration)> {
        let mut served = self.served.clone();
        let processes = processes.iter();
        served.extend(processes.filter_map(|process| Some((process.number, process.database()?))));
        served
    }

    /// An event is in no other database than the one that its process served.
    fn check_databases(&self, world: &World, server: &Server) -> Result<(), Broken> {
        if self.was_other || self.disk_failed_at.is_some() {
            return Ok(());
        }
        let served = self.served_by(&world.processes);
        let mut broken = Ok(());
        let mut look = |content: &Content| {
            let values: BTreeSet<u32> = content.rows.values().map(|row| row.value).collect();
            world.senders.each(|_, sent| {
                let (id, value) = (promised_to(&served, sent, self.is_copied), sent.value);
                if values.contains(&value)
                    && !is_twin(value)
                    && id.is_some()
                    && content.id.is_some()
                    && !is_same(id, content.id)
                    && !self.frozen.contains(&sent.process)
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
}

/// The database that an event was promised to. `None`: its process had not noted that yet.
fn promised_to(
    served: &BTreeMap<u32, (DatabaseId, Duration)>,
    sent: &Sent,
    is_copied: bool,
) -> Option<DatabaseId> {
    let (id, since) = *served.get(&sent.process)?;
    // It may have been copied as soon as it was received.
    let promised_at = if is_copied || matches!(sent.answer, Answer::None) {
        Duration::from_millis(sent.received_at.0).saturating_sub(simulated::EPOCH)
    } else {
        sent.answered_at
    };
    (promised_at > since + LABELLED_WITHIN).then_some(id)
}
