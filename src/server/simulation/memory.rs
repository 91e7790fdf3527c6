//! A machine of an earlier moment, with what its processes had in memory then, as a snapshot of a virtual machine has it.
//!
//! The stack of a task cannot be copied. So the seed is run once more up to that moment, which leads to an equal machine,
//! and this goes on in the present.

use std::collections::BTreeSet;
use std::time::Duration;

use super::database::Server;
use super::history::{self, note};
use super::oracle::Broken;
use super::process::Process;
use super::senders::Answer;
use super::troubles::{MACHINES_MAX, PROCESSES_MAX, go_back};
use super::world::World;
use crate::event::ack::Ack;
use crate::os::reached::{put_reached, take_reached};
use crate::os::simulated;
use crate::os::simulated::disk::Machine;

/// How long a machine takes to go back, at least.
const GOES_BACK_IN: Duration = Duration::from_millis(1);

/// What is known of the one snapshot of a seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Memory {
    #[default]
    NotTaken,
    /// Of the moment before this turn.
    Taken(u32),
    /// It was gone back to.
    Used,
}

/// A machine of an earlier moment.
struct Past {
    disk: Machine,
    /// The index of the machine.
    index: usize,
    processes: Vec<Process>,
    /// Events that were acknowledged by then.
    kept: BTreeSet<u32>,
    /// Events in the memory of its processes, which were promised to none, or not to be in a journal.
    open: BTreeSet<u32>,
}

impl Past {
    /// Picks a machine on which processes run. The others end. `None`: there is none.
    fn pick(world: World, random: &mut fastrand::Rng) -> Option<Self> {
        let serving: Vec<usize> = world
            .processes
            .iter()
            .filter(|process| process.settings.is_some())
            .map(|process| process.machine)
            .collect();
        let index = match serving.len() {
            0 => None,
            count => Some(serving[random.usize(0..count)]),
        };
        let is_on_it = |process: &Process| Some(process.machine) == index;
        let (processes, others): (Vec<_>, Vec<_>) = world.processes.into_iter().partition(is_on_it);
        others.into_iter().for_each(Process::kill);
        let mut open = BTreeSet::new();
        world.senders.each(|number, sent| {
            let is_asked = processes
                .iter()
                .any(|process| process.number == sent.process);
            // What is in no journal is told apart by nobody.
            if is_asked && (sent.answer == Answer::None || sent.ack == Ack::Received) {
                open.insert(number);
            }
        });
        let index = index?;
        Some(Self {
            disk: world.machines[index].clone(),
            index,
            processes,
            kept: world.senders.acknowledged(),
            open,
        })
    }
}

impl World {
    /// Takes a snapshot of the machines and their memory; when called again, has one of them go on from there: beside itself,
    /// or in its own place. `false`: none goes on from an earlier moment.
    pub(super) fn bring_memory_back(&mut self, is_copy: bool) -> Result<bool, Broken> {
        let turn = match self.memory {
            Memory::NotTaken => {
                self.memory = Memory::Taken(self.turn);
                note(|| "a snapshot is taken of all machines and their memory".to_owned());
                return Ok(false);
            }
            Memory::Used => return Ok(false),
            Memory::Taken(turn) => turn,
        };
        let has_room = self.machines.len() < MACHINES_MAX && self.processes.len() < PROCESSES_MAX;
        if is_copy && !has_room {
            return Ok(false);
        }
        // What has happened is looked at once.
        self.check_removed()?;
        self.memory = Memory::Used;
        let Some(past) = self.past(turn)? else {
            return Ok(false);
        };
        let index = past.index;
        let machine = if is_copy {
            self.machines.push(past.disk);
            self.oracle.machine_was_copied();
            self.machines.len() - 1
        } else {
            go_back(self, index, &past.kept, |disk| *disk = past.disk);
            // It takes a moment.
            if let Some(now) = simulated::now() {
                simulated::advance(now + GOES_BACK_IN);
            }
            index
        };
        note(|| {
            format!("machine {index}: goes on as machine {machine} with its memory of turn {turn}")
        });
        for process in past.processes {
            let (number, old) = (self.number_process(), process.number);
            note(|| format!("process {number}: has the memory of process {old}"));
            self.processes.push(process.copied(number, machine));
        }
        self.oracle.were_in_memory(past.open);
        Ok(true)
    }

    /// Runs the seed again up to a turn. All that is shared is as it was after that.
    fn past(&mut self, turn: u32) -> Result<Option<Past>, Broken> {
        let (now, random) = (simulated::now(), fastrand::get_seed());
        let (lines, reached) = (history::pause(), take_reached());
        let server = self.database.replace(Server::new(0, 0));
        let sent = self.senders.replace(Vec::new());
        simulated::rewind(self.seed);
        let world = self.before(turn);
        let past = world.map(|world| Past::pick(world, &mut self.random));
        // They were looked at before.
        drop(self.senders.take_rows_promised());
        self.database.replace(server);
        self.senders.replace(sent);
        fastrand::seed(random);
        if let Some(now) = now {
            simulated::advance(now);
        }
        history::go_on(lines);
        put_reached(reached);
        past
    }
}
