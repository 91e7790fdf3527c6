//! Troubles of several steps, which rarely come in this order by chance.

use std::time::Duration;

use super::database;
use super::history::note;
use super::operator;
use super::oracle::Broken;
use super::process::Process;
use super::world::World;
use crate::os::simulated;
use crate::os::simulated::disk::Faults;

/// How long everything may take to be stored before a quiet restore.
const STORED_WITHIN: Duration = Duration::from_secs(16);

/// How long the server may take to note where a lane ends.
const NOTED_WITHIN: Duration = Duration::from_secs(12);

/// Steps in which requests may reach the disk.
const STEPS: u32 = 60;

impl World {
    /// While the database cannot be reached, one write fails under waiting senders. The machine ends before the events are
    /// stored. `false`: no process is there.
    pub(super) fn fail_one_write(&mut self) -> Result<bool, Broken> {
        let Some(process) = self.processes.first() else {
            return Ok(false);
        };
        let index = process.machine;
        let mut server = self.database.server();
        server.faults.is_down = true;
        server.kill();
        drop(server);
        note(|| format!("database: cannot be reached; machine {index}: one write fails"));
        let faults = Faults {
            one_write: true,
            ..Faults::default()
        };
        self.set_faults(index, faults);
        for _ in 0..4 {
            self.send();
            self.run_steps(STEPS);
        }
        self.set_faults(index, Faults::default());
        // Long enough to write down where the lane ends, or not.
        if self.random.bool() {
            self.run_for(NOTED_WITHIN)?;
        }
        if self.random.bool() {
            self.cut_power(index);
        } else if !self.processes.is_empty() {
            self.kill_process(0);
        }
        Ok(true)
    }

    /// A backup; events that are stored; a restore; and then nothing, or an event in one lane. `false`: the database could
    /// not do so.
    pub(super) fn restore_in_quiet(&mut self) -> Result<bool, Broken> {
        self.in_quiet(Self::restore_and_send)
    }

    /// Ends the faults of the database, makes a backup, has events stored, and interrupts no process meanwhile. `false`:
    /// there were enough of these already.
    fn in_quiet(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<bool, Broken>,
    ) -> Result<bool, Broken> {
        if self.quiet_left == 0 {
            return Ok(false);
        }
        self.quiet_left -= 1;
        self.database.server().faults = database::Faults::default();
        let serves = |process: &Process| !process.is_draining() && !process.is_frozen;
        if !self.processes.iter().any(serves) {
            self.start_process(0);
        }
        let may_crash = std::mem::replace(&mut self.may_crash, false);
        let done = self.back_up_and_store().and_then(|()| run(self));
        self.may_crash = may_crash;
        done
    }

    fn back_up_and_store(&mut self) -> Result<(), Broken> {
        self.database.server().back_up();
        note(|| "database: a backup".to_owned());
        for _ in 0..6 {
            self.send();
            self.run_steps(STEPS);
        }
        self.run_for(STORED_WITHIN)
    }

    fn restore_and_send(&mut self) -> Result<bool, Broken> {
        let is_restored = self.restore_last();
        if self.random.bool() {
            self.send();
        }
        let seconds = self.random.u64(1..40);
        self.run_for(Duration::from_secs(seconds))?;
        Ok(is_restored)
    }

    /// A backup; events that are stored; all checkpoints are altered, so that lanes are held; a person decides about them; and
    /// the database goes back before that is done. `false`: the database could not do so.
    pub(super) fn outdate_decisions(&mut self) -> Result<bool, Broken> {
        self.in_quiet(Self::settle_and_restore)
    }

    fn settle_and_restore(&mut self) -> Result<bool, Broken> {
        let altered = self.database.server().alter_all_checkpoints();
        let Some(altered) = altered else {
            return Ok(false);
        };
        note(|| format!("database: checkpoints are altered: {altered}"));
        self.run_for(STORED_WITHIN)?;
        let (done, _) = operator::settle_all(self);
        let is_decided = !done.is_empty();
        done.into_iter().for_each(|line| note(|| line));
        let is_restored = self.restore_last();
        Ok(is_restored && is_decided)
    }

    /// Goes back to the last backup.
    fn restore_last(&mut self) -> bool {
        let database = self.database.clone();
        let mut server = database.server();
        let id = server.content.id;
        if !server.restore_last() {
            return false;
        }
        note(|| "database: goes back to its last backup".to_owned());
        let is_other = server.content.id != id || id.is_none();
        self.oracle
            .database_went_back((&self.senders, &self.processes), &server, is_other);
        true
    }

    /// While the database cannot be reached, more events come than fit into memory, and may grow old. `false`: there is no
    /// process.
    pub(super) fn send_much(&mut self) -> Result<bool, Broken> {
        let mut server = self.database.server();
        server.faults.is_down = true;
        server.kill();
        drop(server);
        note(|| "database: cannot be reached; many events are sent".to_owned());
        let mut is_sent = false;
        for _ in 0..40 {
            is_sent |= self.send();
            self.run_steps(STEPS / 8);
        }
        if self.random.bool() {
            let seconds = self.random.u64(1..60);
            self.run_for(Duration::from_secs(seconds))?;
        }
        self.database.server().faults.is_down = self.random.u32(0..4) == 0;
        Ok(is_sent)
    }

    fn run_steps(&mut self, steps: u32) {
        for _ in 0..steps {
            if !self.step() && !self.advance_clock() {
                return;
            }
        }
    }

    /// Has letters stored again by `hakaru dead-letters replay`, all or those of even events. The table may take all of
    /// them now, those of even events, or none.
    pub(super) fn replay_letters(&mut self) {
        let takes = self.random.u32(0..3);
        self.database.server().faults.takes_refused = takes;
        let machine = self.random.usize(0..self.machines.len());
        let is_part = self.random.u32(0..3) == 0;
        self.oracle.letters_were_replayed = true;
        note(|| format!("letters are replayed, a part: {is_part}; the table takes: {takes}"));
        self.start_replay(machine, move |value| !is_part || value % 2 == 0);
    }

    /// On each machine, does what a replay that was cut short has left undone.
    pub(super) fn finish_replays(&mut self) {
        for machine in 0..self.machines.len() {
            self.start_replay(machine, |_| false);
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        note(|| format!("{time:?} pass"));
        let end = simulated::elapsed() + time;
        for _ in 0..2000 {
            if simulated::elapsed() >= end || !self.step() && !self.advance_clock() {
                break;
            }
        }
    }
}
