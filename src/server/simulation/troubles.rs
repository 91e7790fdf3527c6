//! What happens to a simulated world.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::note;
use super::operator;
use super::oracle::Broken;
use super::rest::Letters;
use super::world::World;
use crate::event::ack::Ack;
use crate::journal::record::RECORD_MAGIC;
use crate::os::simulated::disk::{Faults, Machine};

/// Most processes at once.
pub(super) const PROCESSES_MAX: usize = 3;

/// Most machines.
pub(super) const MACHINES_MAX: usize = 3;

/// One event of the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Senders,
    Kill,
    CutPower,
    Start,
    Drain,
    Upgrade,
    Freeze,
    DatabaseDown,
    DatabaseKilled,
    DatabaseReadOnly,
    ConnectionsLost,
    Backup,
    Restore,
    RowsDeleted,
    CheckpointSetBack,
    CheckpointSetForward,
    Repointed,
    TableRefusesAll,
    DiskFails,
    DiskFull,
    Unreadable,
    MachineCopied,
    MachineReverted,
    MemoryCopied,
    MemoryReverted,
    TimePasses,
    OtherSettings,
    OneWriteFails,
    BlockDamaged,
    RestoredInQuiet,
    AllCheckpointsAltered,
    LettersReplayed,
    LanesSettled,
    DecisionsOutdated,
    MuchIsSent,
}

impl Trouble {
    pub(super) const ALL: [Self; 35] = [
        Self::Senders,
        Self::Kill,
        Self::CutPower,
        Self::Start,
        Self::Drain,
        Self::Upgrade,
        Self::Freeze,
        Self::DatabaseDown,
        Self::DatabaseKilled,
        Self::DatabaseReadOnly,
        Self::ConnectionsLost,
        Self::Backup,
        Self::Restore,
        Self::RowsDeleted,
        Self::CheckpointSetBack,
        Self::CheckpointSetForward,
        Self::Repointed,
        Self::TableRefusesAll,
        Self::DiskFails,
        Self::DiskFull,
        Self::Unreadable,
        Self::MachineCopied,
        Self::MachineReverted,
        Self::MemoryCopied,
        Self::MemoryReverted,
        Self::TimePasses,
        Self::OtherSettings,
        Self::OneWriteFails,
        Self::BlockDamaged,
        Self::RestoredInQuiet,
        Self::AllCheckpointsAltered,
        Self::LettersReplayed,
        Self::LanesSettled,
        Self::DecisionsOutdated,
        Self::MuchIsSent,
    ];

    pub(super) fn name(self) -> String {
        format!("{self:?}")
    }
}

impl Trouble {
    /// Makes it happen, where it can. Whether it did.
    pub(super) fn happen(self, world: &mut World) -> Result<bool, Broken> {
        Ok(match self {
            Self::Senders => world.send(),
            Self::MuchIsSent => return world.send_much(),
            Self::Kill
            | Self::CutPower
            | Self::Start
            | Self::Drain
            | Self::Upgrade
            | Self::Freeze
            | Self::OtherSettings => self.happen_to_processes(world),
            Self::DatabaseDown
            | Self::DatabaseKilled
            | Self::DatabaseReadOnly
            | Self::ConnectionsLost
            | Self::Backup
            | Self::Restore
            | Self::RowsDeleted
            | Self::CheckpointSetBack
            | Self::CheckpointSetForward
            | Self::Repointed
            | Self::AllCheckpointsAltered
            | Self::TableRefusesAll => self.happen_to_database(world),
            Self::DiskFails
            | Self::DiskFull
            | Self::Unreadable
            | Self::BlockDamaged
            | Self::MachineCopied
            | Self::MachineReverted => self.happen_to_machines(world),
            Self::MemoryCopied => return world.bring_memory_back(true),
            Self::MemoryReverted => return world.bring_memory_back(false),
            Self::TimePasses => {
                let time = Duration::from_millis(world.random.u64(1..90_000));
                world.pass(time);
                true
            }
            Self::OneWriteFails => return world.fail_one_write(),
            Self::RestoredInQuiet => return world.restore_in_quiet(),
            Self::DecisionsOutdated => return world.outdate_decisions(),
            // A person decides by the state that the servers know.
            Self::LanesSettled if world.oracle.is_unnoticed() => false,
            Self::LanesSettled => {
                let (done, _) = operator::settle_all(world);
                let is_done = !done.is_empty();
                done.into_iter().for_each(|line| note(|| line));
                is_done
            }
            Self::LettersReplayed => {
                world.replay_letters();
                true
            }
        })
    }

    fn happen_to_processes(self, world: &mut World) -> bool {
        let index = match world.processes.len() {
            0 => None,
            count => Some(world.random.usize(0..count)),
        };
        let machine = world.random.usize(0..world.machines.len());
        match (self, index) {
            (Self::CutPower, _) => world.cut_power(machine),
            (Self::Start, _) if world.processes.len() < PROCESSES_MAX => {
                world.start_process(machine);
            }
            (Self::Kill, Some(index)) => world.kill_process(index),
            (Self::Drain, Some(index)) => drain(world, index),
            (Self::Upgrade, Some(index)) if world.processes.len() < PROCESSES_MAX => {
                let machine = world.processes[index].machine;
                world.settings.shards = world.random.usize(1..=3);
                world.start_process(machine);
                drain(world, index);
            }
            (Self::Freeze, Some(index)) => {
                let process = &mut world.processes[index];
                process.is_frozen = !process.is_frozen;
                let (number, is_frozen) = (process.number, process.is_frozen);
                world.oracle.frozen.insert(number);
                note(|| format!("process {number}: is frozen: {is_frozen}"));
            }
            (Self::OtherSettings, _) => {
                if world.settings.ack != Ack::Received {
                    world.settings.ack = if world.random.bool() {
                        Ack::Journaled
                    } else {
                        Ack::Stored
                    };
                }
                world.settings.batch_events = world.random.u32(1..12);
            }
            _ => return false,
        }
        true
    }

    fn happen_to_database(self, world: &mut World) -> bool {
        let database = world.database.clone();
        let mut server = database.server();
        let mut line = None;
        match self {
            Self::DatabaseDown => {
                server.faults.is_down = !server.faults.is_down;
                if server.faults.is_down {
                    server.kill();
                }
            }
            Self::DatabaseKilled => server.kill(),
            Self::DatabaseReadOnly => server.faults.is_read_only = !server.faults.is_read_only,
            Self::ConnectionsLost => {
                server.faults.loses = match server.faults.loses {
                    0 => server.random.u32(3..40),
                    _ => 0,
                };
            }
            Self::TableRefusesAll => server.faults.refuses_all = !server.faults.refuses_all,
            Self::Backup => server.back_up(),
            Self::Restore | Self::RowsDeleted => {
                let id = server.content.id;
                let has_gone_back = match self {
                    Self::Restore => server.restore(),
                    _ => server.empty(),
                };
                if !has_gone_back {
                    return false;
                }
                let is_other = server.content.id != id || id.is_none();
                let world_before = (&world.senders, &world.processes[..]);
                let oracle = &mut world.oracle;
                oracle.database_went_back(world_before, &server, is_other);
            }
            Self::Repointed => server.repoint(),
            Self::AllCheckpointsAltered => line = server.alter_all_checkpoints(),
            Self::CheckpointSetBack => {
                line = server.alter_checkpoint(|position, random| random.u64(0..=position));
            }
            Self::CheckpointSetForward => {
                line = server.alter_checkpoint(|position, random| position + random.u64(1..40));
            }
            _ => {}
        }
        if self.alters_checkpoint() && line.is_none() {
            return false;
        }
        let faults = server.faults;
        drop(server);
        note(|| format!("database: {self:?} {} {faults:?}", line.unwrap_or_default()));
        true
    }

    const fn alters_checkpoint(self) -> bool {
        matches!(
            self,
            Self::CheckpointSetBack | Self::CheckpointSetForward | Self::AllCheckpointsAltered
        )
    }

    fn happen_to_machines(self, world: &mut World) -> bool {
        if matches!(self, Self::DiskFails | Self::DiskFull) {
            world.oracle.disk_failed_at = Some(Duration::MAX);
        }
        let index = world.random.usize(0..world.machines.len());
        let machine = world.machines[index].clone();
        match self {
            Self::DiskFails => {
                let rate = |random: &mut fastrand::Rng| match random.u32(0..3) {
                    0 => random.u32(2..40),
                    _ => 0,
                };
                let faults = if world.random.bool() {
                    Faults::default()
                } else if world.random.bool() {
                    // What a failed write has left is all that may be wrong.
                    Faults {
                        writes: world.random.u32(2..20),
                        ..Faults::default()
                    }
                } else {
                    Faults {
                        writes: rate(&mut world.random),
                        syncs: rate(&mut world.random),
                        names: rate(&mut world.random),
                        reads: rate(&mut world.random),
                        ..Faults::default()
                    }
                };
                world.set_faults(index, faults);
                note(|| format!("machine {index}: {faults:?}"));
            }
            Self::DiskFull => {
                let is_full = world.random.bool();
                let faults = Faults {
                    is_full,
                    ..Faults::default()
                };
                world.set_faults(index, faults);
                note(|| format!("machine {index}: its disk is full: {is_full}"));
            }
            Self::Unreadable => {
                let is_unreadable = world.random.bool();
                if machine.set_unreadable(is_unreadable) && is_unreadable {
                    world.oracle.block_was_unreadable();
                }
                note(|| format!("machine {index}: a block is unreadable: {is_unreadable}"));
            }
            Self::BlockDamaged => {
                let Some(line) = machine.damage(|bytes| bytes.starts_with(&RECORD_MAGIC)) else {
                    return false;
                };
                world.oracle.block_was_unreadable();
                note(|| format!("machine {index}: {line}"));
            }
            Self::MachineCopied if world.machines.len() < world.troubles.machines_max() => {
                let copy = machine.copy(world.random.u64(..));
                world.machines.push(copy);
                world.oracle.machine_was_copied();
                let new = world.machines.len() - 1;
                note(|| format!("machine {index}: is copied to machine {new}"));
                world.start_process(new);
            }
            Self::MachineReverted => revert(world, index),
            _ => return false,
        }
        true
    }
}

/// Takes a snapshot of a machine, or goes back to one.
fn revert(world: &mut World, index: usize) {
    let known = world
        .snapshots
        .iter()
        .position(|(machine, _, _)| *machine == index);
    let Some(known) = known else {
        let copy = world.machines[index].copy(world.random.u64(..));
        let kept = world.senders.acknowledged();
        world.snapshots.push((index, copy, kept));
        return note(|| format!("machine {index}: a snapshot is taken"));
    };
    let (_, snapshot, kept) = world.snapshots.remove(known);
    note(|| format!("machine {index}: goes back to its snapshot"));
    go_back(world, index, &kept, |disk| disk.revert(&snapshot));
}

/// Kills all processes of a machine, and gives it the disk of an earlier moment, until which what is `kept` was
/// acknowledged.
pub(super) fn go_back(
    world: &mut World,
    index: usize,
    kept: &BTreeSet<u32>,
    revert: impl FnOnce(&mut Machine),
) {
    while let Some(process) = world
        .processes
        .iter()
        .position(|process| process.machine == index)
    {
        world.kill_process(process);
    }
    let before = world.letters();
    revert(&mut world.machines[index]);
    let after = world.letters();
    let values = |letters: &Letters| letters.keys().copied().collect::<BTreeSet<u32>>();
    let destroyed = &values(&before) - &values(&after);
    let oracle = &mut world.oracle;
    oracle.machine_went_back(&world.senders, kept, &destroyed);
}

fn drain(world: &mut World, index: usize) {
    let process = &mut world.processes[index];
    process.drain();
    let number = process.number;
    note(|| format!("process {number}: drains"));
}
