//! After the last trouble: everything must come to rest, and be what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::database::{self, EventId};
use super::history::note;
use super::identity::check_identity;
use super::operator;
use super::oracle::Broken;
use super::process::Process;
use super::senders::{Answer, Kind};
use super::world::{STEPS_MAX, World};
use crate::os::simulated;
use crate::os::simulated::disk::Faults;

/// The values of events that are letters, and which letters they are.
pub(super) type Letters = BTreeMap<u32, BTreeSet<(String, Option<u64>)>>;

/// Files of letters, and what was read in them.
pub(super) type LettersRead = (Vec<Vec<u8>>, Rc<Letters>);

/// How long everything may take to be stored after the last trouble.
const HEAL_WITHIN: Duration = Duration::from_secs(30 * 60);

/// How often it is asked whether everything is stored.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The other database, if there is one, is served after this many looks.
const LOOKS_PER_DATABASE: u64 = 12;

/// How long nothing may change after that.
const QUIET_FOR: Duration = Duration::from_secs(40);

/// How long it may take then to answer an event.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);

impl World {
    /// Ends all troubles, and waits until everything is stored.
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        note(|| "all troubles end".to_owned());
        self.may_crash = false;
        let failed_at = &mut self.oracle.disk_failed_at;
        *failed_at = failed_at.map(|_| simulated::elapsed());
        for machine in 0..self.machines.len() {
            self.set_faults(machine, Faults::default());
            self.machines[machine].set_unreadable(false);
        }
        self.database.server().faults = database::Faults::default();
        for process in &mut self.processes {
            process.is_frozen = false;
        }
        self.rest()?;
        self.check_taken()?;
        self.repeat_all()?;
        check_identity(&self.processes, &self.senders)?;
        // What a new process finds in the journal is stored already.
        self.kill_all_noted();
        self.rest()?;
        check_identity(&self.processes, &self.senders)
    }

    /// Every shard takes events: nothing is wrong any more. Lanes that wait may have filled the journal.
    fn check_taken(&mut self) -> Result<(), Broken> {
        let first = self.senders.count();
        let id = self.database.server().content.id;
        for process in &self.processes {
            let waiting = process.served.held().0 + process.served.foreign().0;
            let is_served = process
                .served
                .id()
                .is_some_and(|served| database::is_same(Some(served), id));
            if let Some(settings) = &process.settings
                && waiting == 0
                && is_served
                && !process.is_draining()
            {
                for inbox in &process.inboxes {
                    let asked = (process.number, settings.ack);
                    let what = [(Kind::Single, 0)];
                    self.senders.send(inbox, asked, &what, false);
                }
            }
        }
        self.run_for(TAKEN_WITHIN)?;
        let mut broken = Ok(());
        self.senders.each(|number, sent| {
            if number as usize >= first && sent.answer != Answer::Ok {
                broken = Err(Broken::Final(format!(
                    "nothing is wrong any more, and event {number} is not taken: {sent:?}"
                )));
            }
        });
        broken
    }

    /// Senders repeat what has no answer until it has one.
    fn repeat_all(&mut self) -> Result<(), Broken> {
        if !self.has_ids {
            return Ok(());
        }
        let serves = |process: &&Process| process.settings.is_some() && !process.is_draining();
        if let Some(process) = self.processes.iter().find(serves)
            && let Some(settings) = &process.settings
        {
            let all = (0, usize::MAX);
            let asked = (process.number, settings.ack);
            self.senders.repeat(&process.inboxes[0], asked, all, false);
        }
        self.rest()
    }

    fn kill_all_noted(&mut self) {
        while !self.processes.is_empty() {
            self.kill_process(0);
        }
    }

    /// Runs until everything is stored, and until it is certain that nothing more is.
    fn rest(&mut self) -> Result<(), Broken> {
        for machine in 0..self.machines.len() {
            let is_served = self
                .processes
                .iter()
                .any(|process| process.machine == machine && !process.is_draining());
            if !is_served {
                self.start_process(machine);
            }
        }
        let begin = simulated::elapsed();
        let mut quiet_since = None;
        loop {
            self.run_for(LOOK_EVERY)?;
            self.restart_stopped();
            let (done, undecided) = operator::act(self);
            done.into_iter().for_each(|line| note(|| line));
            self.oracle.undecided = undecided;
            let now = simulated::elapsed();
            match self.oracle.check(self) {
                Ok(()) => {
                    let since = *quiet_since.get_or_insert(now);
                    if now - since > QUIET_FOR {
                        return Ok(());
                    }
                    continue;
                }
                Err(Broken::Missing(what)) if now - begin > HEAL_WITHIN => {
                    return Err(Broken::Final(format!(
                        "{HEAL_WITHIN:?} after the last trouble: {what}"
                    )));
                }
                Err(Broken::Missing(_)) => quiet_since = None,
                Err(fault @ Broken::Final(_)) => return Err(fault),
            }
            // What is missing may wait for the other database, or for a replay that was cut short.
            let looks = (now - begin).as_secs() / LOOK_EVERY.as_secs();
            if looks.is_multiple_of(LOOKS_PER_DATABASE) && self.oracle.letters_were_replayed {
                self.finish_replays();
            }
            let mut server = self.database.server();
            if looks.is_multiple_of(LOOKS_PER_DATABASE) && server.other.has_been_used() {
                server.repoint();
            }
        }
    }

    /// How many events the processes that run have said to be lost.
    pub(super) fn lost(&self) -> u64 {
        let processes = self.processes.iter();
        processes.map(|process| process.metrics.totals().lost).sum()
    }

    /// The events that are rows.
    pub(super) fn rows(&self) -> BTreeSet<EventId> {
        let server = self.database.server();
        server.all_rows().map(|row| row.event).collect()
    }

    /// The events of the letters on all machines, and for each its lanes and positions. One letter may be there twice.
    pub(super) fn letters(&self) -> Rc<Letters> {
        let machines = self.machines.iter();
        let files = machines.flat_map(|machine| machine.contents_of("dead-letters.ndjson"));
        let files: Vec<_> = files.collect();
        let (read, letters) = &mut *self.letters_read.borrow_mut();
        if files != *read {
            *letters = Rc::new(parse_letters(&files));
            *read = files;
        }
        Rc::clone(letters)
    }

    /// Restarts processes that refuse the database which answers.
    fn restart_stopped(&mut self) {
        let id = self.database.server().content.id;
        while let Some(index) = self.processes.iter().position(|process| {
            let served = process.served.id();
            served.is_some() && !database::is_same(served, id)
        }) {
            let machine = self.processes[index].machine;
            self.kill_process(index);
            self.start_process(machine);
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) -> Result<(), Broken> {
        let end = simulated::elapsed() + time;
        while simulated::elapsed() < end {
            if !self.step()
                && !self.advance_clock()
                && let Some(now) = simulated::now()
            {
                simulated::advance(now + time);
            }
        }
        self.check_removed()
    }

    /// With `--ack stored` an event that was answered 200 is a row, or was one. One that became a letter is answered 422.
    fn check_rows_promised(&self) -> Result<(), Broken> {
        for value in self.senders.take_rows_promised() {
            // One that a process on a copy has refused is a letter there, of which its own process knows nothing.
            let is_letter_of_copy = self.oracle.is_copied && self.letters().contains_key(&value);
            let is_excused = is_letter_of_copy
                || self.oracle.letters_gone.contains(&value)
                || self.oracle.may_be_lost_by_a_copy();
            if !self.database.server().ever.contains(&value) && !is_excused {
                let text = format!(
                    "the sender of event {value} was told that it is a row, and it is none"
                );
                return Err(Broken::Final(text));
            }
        }
        Ok(())
    }

    /// Whether it goes on without end, and what the janitors have removed.
    pub(super) fn check_removed(&mut self) -> Result<(), Broken> {
        if self.tally.steps > STEPS_MAX {
            return Err(Broken::Final("nothing ever comes to rest".to_owned()));
        }
        self.check_rows_promised()?;
        for machine in &self.machines {
            let removed = machine.take_removed();
            if !removed.is_empty() {
                let server = self.database.server();
                self.oracle
                    .check_removed(&removed, &self.senders, &server)?;
            }
        }
        Ok(())
    }
}

/// The letters of some files.
fn parse_letters(files: &[Vec<u8>]) -> Letters {
    let mut all = Letters::new();
    for content in files {
        for line in String::from_utf8_lossy(content).lines() {
            let letter: Value = serde_json::from_str(line).unwrap_or_default();
            let value = letter["value"].as_u64();
            let place = (letter["lane"].to_string(), letter["position"].as_u64());
            if let Some(value) = value.and_then(|value| value.try_into().ok()) {
                all.entry(value).or_default().insert(place);
            }
        }
    }
    all
}
