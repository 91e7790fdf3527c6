//! What happens to the database of a simulation.

use std::collections::BTreeSet;

use super::{Row, Server, SessionId};
use crate::event::database_id::DatabaseId;
use crate::event::position::LaneId;
use crate::os::simulated;

impl Server {
    /// All sessions end, and what they did not commit.
    pub(in super::super) fn kill(&mut self) {
        self.sessions.clear();
    }

    /// The address leads to another database from now on, or back. Sessions end.
    pub(in super::super) fn repoint(&mut self) {
        std::mem::swap(&mut self.content, &mut self.other);
        std::mem::swap(&mut self.snapshots, &mut self.other_snapshots);
        self.kill();
    }

    /// The rows of both databases.
    pub(in super::super) fn all_rows(&self) -> impl Iterator<Item = &Row> {
        self.content.rows.values().chain(self.other.rows.values())
    }

    /// Keeps a copy of the content, as a backup does.
    pub(in super::super) fn back_up(&mut self) {
        let now = simulated::elapsed();
        self.snapshots.push((now, self.content.clone()));
    }

    /// Goes back to a backup. Sessions end. `false`: there is none.
    pub(in super::super) fn restore(&mut self) -> bool {
        if self.snapshots.is_empty() {
            return false;
        }
        let index = self.random.usize(0..self.snapshots.len());
        self.content = self.snapshots[index].1.clone();
        self.kill();
        true
    }

    /// Goes back to the last backup. Sessions end, or stay open where none has a transaction, as when a dump is read in.
    /// `false`: there is no backup.
    pub(in super::super) fn restore_last(&mut self) -> bool {
        let Some((_, content)) = self.snapshots.last() else {
            return false;
        };
        self.content = content.clone();
        if self.is_in_use() || self.random.bool() {
            self.kill();
        }
        true
    }

    fn is_in_use(&self) -> bool {
        let mut sessions = self.sessions.values();
        sessions.any(|session| session.transaction.is_some())
    }

    /// Whether the table takes the event with this value, which it refused before.
    pub(in super::super) fn takes_refused(&self, value: u32) -> bool {
        match self.faults.takes_refused {
            0 => false,
            1 => true,
            _ => value.is_multiple_of(2),
        }
    }

    /// Removes all rows and checkpoints under open connections; with or without the id of the database. `false`: it
    /// would have to wait for a lock.
    pub(in super::super) fn empty(&mut self) -> bool {
        if self.is_in_use() {
            return false;
        }
        self.content.rows.clear();
        self.content.ids.clear();
        self.content.checkpoints.clear();
        if self.random.bool() {
            self.content.id = None;
        }
        true
    }

    /// Gives all rows of the table of checkpoints the same position, as an `UPDATE` without `WHERE` does. Each lane is
    /// altered so once: what came of it is decided by a person, who needs to know what happened.
    pub(in super::super) fn alter_all_checkpoints(&mut self) -> Option<String> {
        let lanes: BTreeSet<LaneId> = self.content.checkpoints.keys().copied().collect();
        let is_first = lanes.iter().all(|lane| !self.altered.contains(lane));
        if lanes.is_empty() || self.is_in_use() || !is_first {
            return None;
        }
        self.altered.extend(lanes);
        // Near to what some process has noted, or anywhere.
        let index = self.random.usize(0..self.content.checkpoints.len());
        let near = self.content.checkpoints.values().nth(index)?.position.0;
        let position = match self.random.u32(0..3) > 0 {
            true => near.saturating_sub(self.random.u64(0..4)),
            false => self.random.u64(0..30),
        };
        for checkpoint in self.content.checkpoints.values_mut() {
            checkpoint.position.0 = position;
        }
        if let Some(id) = &mut self.content.id {
            *id = DatabaseId::from_halves(id.halves().0, position);
        }
        Some(format!("all of them are {position}"))
    }

    /// Alters a row of the table of checkpoints.
    pub(in super::super) fn alter_checkpoint(
        &mut self,
        alter: impl Fn(u64, &mut fastrand::Rng) -> u64,
    ) -> Option<String> {
        let lanes: Vec<LaneId> = self.content.checkpoints.keys().copied().collect();
        if lanes.is_empty() {
            return None;
        }
        let lane = lanes[self.random.usize(0..lanes.len())];
        // Where both rows of a lane are altered, a person decides, who needs to know what happened.
        if self.is_locked(lane, SessionId(0)) || !self.altered.insert(lane.min(lane.complement())) {
            return None;
        }
        let checkpoint = self.content.checkpoints.get_mut(&lane)?;
        let old = checkpoint.position.0;
        checkpoint.position.0 = alter(old, &mut self.random);
        Some(format!("{lane}: {old} -> {}", checkpoint.position.0))
    }
}
