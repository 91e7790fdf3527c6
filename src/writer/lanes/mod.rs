//! What a writer knows about the lanes from which it stores.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::event::UnixMillis;
use crate::event::fingerprint::Fingerprint;
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::Settlement;
use crate::journal::lane_handle::{DiskLane, LaneHandle, Origin};
use crate::journal::lane_keys::LaneKeys;
use crate::metrics::Settled;
use crate::os::bugs::{Bug, planted};
use crate::sink::{Checkpoint, Fault, Refused, Step};

/// All lanes of a writer.
#[derive(Default)]
pub(super) struct Lanes(BTreeMap<LaneId, LaneState>);

/// What is known about a lane.
pub(super) struct LaneState {
    pub(super) lane: LaneHandle,
    /// Its checkpoint in the database. `None`: it must be read.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The keys of its checkpoint.
    pub(super) keys: LaneKeys,
    /// Position of the checkpoint that was read or moved last. `None` before the first one was read.
    known: Option<Position>,
    /// Where the checkpoint can be at most, as far as this process has moved it: what was read last, or what was sent
    /// to COMMIT since. The outcome of that may be unknown.
    sent: Position,
    /// Its checkpoint was further on under its own epoch: a process that shares this one's memory, as after a snapshot of
    /// a virtual machine, goes on with the lane and stores other events; or somebody has altered it.
    pub(super) has_twin: bool,
    /// The last events before a position: up to which this process has sent a COMMIT last, or that it has compared.
    last: Option<(Position, Fingerprint)>,
    /// The position up to which this process has sent a COMMIT last, and how many of its events were duplicates.
    duplicates: Option<(Position, u64)>,
    /// The checkpoint as this process took it over last. It may have been lost to it before it was judged.
    taken: Option<Checkpoint>,
    /// Whether it waits for a person.
    is_held: bool,
    /// The database did not say which of its rows are there, when it was asked last.
    pub(super) has_no_proof: bool,
    /// A decision about an earlier hold.
    refused_settlement: Option<Settlement>,
    /// Events before it are counted as stored or as dead-lettered. `None` before the checkpoint was first read.
    counted: Option<Position>,
    /// Events in the dead-letter file that are not counted yet. They are kept so that none is written twice.
    dead_letters: BTreeMap<Position, Fault>,
    /// Events that the disk has lost. The checkpoint may skip them.
    unreadable: Vec<Range<Position>>,
}

impl Lanes {
    /// What is known about `lane`.
    pub(super) fn of(&mut self, lane: &LaneHandle) -> &mut LaneState {
        self.0.entry(lane.id()).or_insert_with(|| LaneState {
            lane: lane.clone(),
            checkpoint: None,
            keys: LaneKeys::new(lane.id()),
            // A lane that this process has made is not stored yet.
            known: (!lane.is_found()).then_some(Position::START),
            sent: Position::START,
            has_twin: false,
            last: None,
            duplicates: None,
            taken: None,
            is_held: false,
            has_no_proof: false,
            refused_settlement: None,
            counted: None,
            dead_letters: BTreeMap::new(),
            unreadable: Vec::new(),
        })
    }

    /// The checkpoint of `lane`, where it is known.
    pub(super) fn checkpoint(&self, lane: &LaneHandle) -> Option<Checkpoint> {
        self.0.get(&lane.id())?.checkpoint
    }

    /// The checkpoints that are known: their keys and positions.
    pub(super) fn checkpoints(&self) -> Vec<(LaneId, Position)> {
        let known = self.0.values();
        known
            .filter_map(|state| Some((state.keys.current(), state.checkpoint?.position)))
            .collect()
    }

    /// The events of a lane in a range that are known to be dead-lettered.
    pub(super) fn refused(&self, lane: LaneId, range: Range<Position>) -> BTreeSet<Position> {
        let letters = self.0.get(&lane).into_iter();
        let letters = letters.flat_map(|state| state.dead_letters.range(range.clone()));
        letters.map(|(position, _)| *position).collect()
    }

    /// Forgets all checkpoints, so that they are read again.
    pub(super) fn forget_checkpoints(&mut self) {
        for state in self.0.values_mut() {
            state.checkpoint = None;
        }
    }

    /// Confirms all lanes whose checkpoint was read on this connection: the database takes writes.
    pub(super) fn confirm(&self) {
        let now = UnixMillis::now();
        let asked = self.0.values().filter(|state| state.checkpoint.is_some());
        for lane in asked.filter_map(|state| state.lane.on_disk()) {
            lane.confirm(now);
        }
    }

    /// Forgets lanes whose files were removed.
    pub(super) fn forget_removed(&mut self) {
        self.0.retain(|_, state| {
            let on_disk = state.lane.on_disk();
            !on_disk.is_some_and(|lane| lane.is_removed())
        });
    }

    /// Lanes in the journal, and how far each was ever stored.
    pub(super) fn highest_stored(&self) -> impl Iterator<Item = (&Arc<DiskLane>, Position)> {
        self.0.values().filter_map(|state| {
            let counted = state.counted?;
            state.lane.on_disk().map(|lane| (lane, counted))
        })
    }
}

impl LaneState {
    /// Sets the checkpoint that was read or moved.
    pub(super) fn set_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = Some(checkpoint);
        self.begin_at(checkpoint.position);
        self.sent = checkpoint.position;
        self.has_twin = false;
        self.known = Some(checkpoint.position);
    }

    /// The database has lost the events from `from` on, and may have lost earlier ones.
    pub(super) fn go_back(&mut self, from: Position) {
        self.known = None;
        self.sent = self.sent.min(from);
    }

    /// The lane goes on under another key, which is noted, and is stored up to `from`.
    pub(super) fn go_on_under(&mut self, keys: LaneKeys, from: Position) {
        self.set_keys(keys);
        self.sent = from;
        self.has_twin = false;
        self.known = Some(from);
    }

    /// Notes that the lane was taken over, which has raised the epoch of its checkpoint by one.
    pub(super) fn adopted(&mut self, found: Checkpoint) {
        let is_moved = |taken: Checkpoint| {
            let was_own = taken.epoch.0.wrapping_add(1) == found.epoch.0;
            was_own && found.position > self.sent.max(taken.position)
        };
        self.has_twin |= self.taken.is_some_and(is_moved);
        self.taken = Some(found);
    }

    /// Counts from `position` on, unless it counts already. Of a lane that this process has made, all are counted, also
    /// those that another one has stored.
    fn begin_at(&mut self, position: Position) -> Position {
        if let Some(counted) = self.counted {
            return counted;
        }
        let position = if self.lane.is_found() {
            position
        } else {
            Position::START
        };
        self.counted = Some(position);
        if let Some(lane) = self.lane.on_disk() {
            lane.set_start(position);
        }
        position
    }

    /// How far the lane is known to be stored: by this process, or by the note of an earlier one.
    pub(super) fn stored(&self) -> Position {
        let noted = || self.lane.on_disk().map(|lane| lane.stored());
        self.known.or_else(noted).unwrap_or_default()
    }

    /// Whether this process knows from the database how far the lane is stored.
    pub(super) fn was_asked(&self) -> bool {
        self.known.is_some()
    }

    /// The position beyond which this process has not moved the checkpoint.
    pub(super) fn sent(&self) -> Position {
        self.sent
    }

    /// Notes that a COMMIT is sent that moves the checkpoint of these events.
    pub(super) fn will_commit(&mut self, step: &Step, duplicates: u64) {
        self.sent = step.new;
        self.last = step.last.map(|last| (step.new, last));
        // Those of an earlier COMMIT that has taken effect, and whose events are not counted yet.
        let earlier = self.duplicates.filter(|(at, _)| *at == step.old);
        let earlier = earlier.map_or(0, |(_, duplicates)| duplicates);
        self.duplicates = Some((step.new, earlier + duplicates));
    }

    /// How many of the `stored` events before a checkpoint were duplicates. If another process has moved it, that is not
    /// known, and they count as stored.
    fn duplicates_before(&mut self, position: Position, stored: u64) -> u64 {
        let known = self.duplicates.take_if(|(at, _)| *at <= position);
        let known = known.filter(|(at, _)| *at == position);
        known.map_or(0, |(_, duplicates)| duplicates.min(stored))
    }

    /// The last events before a position, if this process has sent a COMMIT up to there last.
    pub(super) fn last_before(&self, position: Position) -> Option<Fingerprint> {
        let (at, last) = self.last?;
        (at == position).then_some(last)
    }

    /// Notes the last events before a position that the database has.
    pub(super) fn remember_last(&mut self, position: Position, last: Fingerprint) {
        self.last = Some((position, last));
    }

    /// Notes that the lane waits for a person. Returns whether that is new.
    pub(super) fn set_held(&mut self) -> bool {
        self.checkpoint = None;
        !std::mem::replace(&mut self.is_held, true)
    }

    /// Stores under the last of `keys`, which are noted.
    pub(super) fn set_keys(&mut self, keys: LaneKeys) {
        // The epochs of another key say nothing.
        self.taken = self.taken.filter(|_| keys.current() == self.keys.current());
        self.keys = keys;
    }

    /// Notes a decision that is about other events. Returns whether that is new.
    pub(super) fn refuse_settlement(&mut self, settled: Settlement) -> bool {
        self.refused_settlement.replace(settled) != Some(settled)
    }

    /// Notes that a person has decided.
    pub(super) fn end_hold(&mut self) {
        self.is_held = false;
    }

    /// Counts the events of a run. Returns what became of those that were not counted before. Where answers wait
    /// for rows, dead letters are noted for the lane's shard.
    pub(super) fn count(&mut self, first: Position, end: Position, is_awaited: bool) -> Settled {
        let counted = self.begin_at(first);
        let from = counted.max(first);
        let is_new = from < end;
        if is_awaited && is_new {
            self.tell_refused(from, end);
        }
        // What was counted as lost stays so, also where it can be read after all.
        let new = self.not_lost(from, end);
        let dead = if is_new {
            let letters = self.dead_letters.range(from..end);
            letters.filter(|(at, _)| !self.is_lost(**at)).count() as u64
        } else {
            0
        };
        self.dead_letters = self.dead_letters.split_off(&end);
        // Events before the run that were not counted are missing, and known to be lost.
        let passed = self.not_lost(counted, end);
        self.counted = Some(counted.max(end));
        let duplicates = self.duplicates_before(end, new - dead);
        Settled {
            stored: new - dead - duplicates * u64::from(!planted(Bug::DuplicateStored)),
            duplicates,
            dead_lettered: dead * u64::from(!planted(Bug::LettersNotCounted)),
            lost: 0,
            passed,
        }
    }

    /// Counts the events before a checkpoint that was accepted: another process has stored those that this one has not.
    /// A reader starts at the checkpoint, so no run has them.
    pub(super) fn count_before(&mut self, position: Position, is_awaited: bool) -> Settled {
        // No checkpoint was accepted yet where the lane was held.
        if !self.lane.is_found() {
            self.begin_at(Position::START);
        }
        let Some(counted) = self.counted.filter(|counted| *counted < position) else {
            return Settled::default();
        };
        if is_awaited {
            self.tell_refused(counted, position);
        }
        let passed = self.not_lost(counted, position);
        let letters = self.dead_letters.range(counted..position);
        let dead = letters.filter(|(at, _)| !self.is_lost(**at)).count() as u64;
        self.dead_letters = self.dead_letters.split_off(&position);
        self.counted = Some(position);
        let stored = passed.saturating_sub(dead);
        let duplicates = self.duplicates_before(position, stored);
        Settled {
            stored: stored - duplicates,
            duplicates,
            dead_lettered: dead,
            lost: 0,
            passed,
        }
    }

    /// Notes the dead letters among these events for the shard whose answers wait for them.
    fn tell_refused(&self, from: Position, to: Position) {
        let own = self.lane.on_disk();
        if let Some(lane) = own.filter(|lane| lane.origin == Origin::Opened) {
            let letters = self.dead_letters.range(from..to);
            lane.add_refused(letters.map(|(position, _)| *position));
        }
    }

    /// The events of a run that are dead-lettered already.
    pub(super) fn refused(&self, first: Position, end: Position) -> Refused {
        self.dead_letters
            .range(first..end)
            .filter_map(|(position, fault)| {
                let index = usize::try_from(position.since(first)).ok()?;
                Some((index, fault.clone()))
            })
            .collect()
    }

    /// Whether events from `now` on may have been refused before, by another process or by the database before
    /// it went back.
    pub(super) fn may_have_letters(&self, now: Position) -> bool {
        match self.counted {
            None => self.lane.is_found(),
            Some(counted) => now < counted,
        }
    }

    /// Notes that an event is in the dead-letter file.
    pub(super) fn add_dead_letter(&mut self, position: Position, fault: Fault) {
        self.dead_letters.insert(position, fault);
    }

    /// Notes that the disk has lost these events. Returns those that were neither counted nor known to be lost.
    pub(super) fn add_unreadable(&mut self, from: Position, to: Position) -> Settled {
        if let Some(lane) = self.lane.on_disk() {
            lane.set_damaged();
        }
        let lost = self.not_lost(self.counted.unwrap_or(from).max(from), to);
        if from < to {
            self.unreadable.push(from..to);
        }
        Settled {
            lost,
            passed: lost,
            ..Settled::default()
        }
    }

    fn is_lost(&self, position: Position) -> bool {
        self.unreadable.iter().any(|lost| lost.contains(&position))
    }

    /// How many events from `from` to `to` are not known to be lost.
    fn not_lost(&self, from: Position, to: Position) -> u64 {
        let (mut at, mut count) = (from, 0);
        while at < to {
            if let Some(lost) = self.unreadable.iter().find(|lost| lost.contains(&at)) {
                at = lost.end;
                continue;
            }
            let starts = self.unreadable.iter().map(|lost| lost.start);
            let next = starts.filter(|start| *start > at).min();
            let next = next.map_or(to, |next| next.min(to));
            count += next.since(at);
            at = next;
        }
        count
    }

    /// Whether the checkpoint may move over the events from `from` to `to` without storing them: there are none, or
    /// the disk has lost all of them.
    pub(super) fn can_skip(&self, from: Position, to: Position) -> bool {
        let mut at = from;
        while at < to {
            let lost = self.unreadable.iter().find(|lost| lost.contains(&at));
            match lost {
                Some(lost) => at = lost.end,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
