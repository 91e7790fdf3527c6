//! Lanes that are held: nothing of them is stored before a person has decided.

use super::Storing;
use super::adopted::{Adopted, Wait};
use crate::journal::durable_note;
use crate::journal::held_lane::{Hold, Settlement};
use crate::journal::lane_handle::{DiskLane, LaneHandle};

impl Storing {
    /// Reads why a lane is held, if it is.
    pub(super) fn read_hold(
        &mut self,
        lane: &LaneHandle,
        disk: &DiskLane,
    ) -> Result<Option<Hold>, Wait> {
        let hold = Hold::read(&disk.directory).map_err(Wait::Unreadable)?;
        if hold.is_some() != disk.held().is_some() {
            durable_note::confirm(&disk.directory).map_err(Wait::Unwritable)?;
        }
        if hold.is_none() && disk.held().is_some() {
            disk.set_held(None);
            self.lanes.of(lane).end_hold();
        }
        Ok(hold)
    }

    /// Logs once that a decision is about an earlier hold: the lane was held again meanwhile.
    pub(super) fn refuse_settlement(
        &mut self,
        lane: &LaneHandle,
        hold: &Hold,
        settled: Settlement,
    ) {
        if self.lanes.of(lane).refuse_settlement(settled) {
            log::error!(
                event = "lane_settlement_refused", lane:% = lane.id();
                "lane {}: the decision about the events from {} to {} was made before the lane was held as it is now, \
                 for those from {} to {}, because {}: it is not applied, and the lane waits for `hakaru journal settle`",
                lane.id(), settled.from.0, settled.to.0, hold.from.0, hold.to.0, hold.reason
            );
        }
    }

    /// Holds a lane: nothing of it is stored any more before a person has decided.
    pub(super) fn hold(&mut self, lane: &LaneHandle, hold: &Hold) -> Adopted {
        if let Some(disk) = lane.on_disk()
            && let Err(fault) = hold.write(&disk.directory)
        {
            return Adopted::Waits(Wait::Unwritable(fault));
        }
        self.announce_hold(lane, hold);
        Adopted::Held
    }

    /// Logs a hold once per process.
    pub(super) fn announce_hold(&mut self, lane: &LaneHandle, hold: &Hold) {
        if !self.lanes.of(lane).set_held() {
            return;
        }
        if let Some(disk) = lane.on_disk() {
            disk.retire();
            disk.set_held(Some(hold.events()));
            // Nothing that is in question may be removed.
            disk.set_stored(disk.stored().min(hold.from));
        }
        let events = hold.events();
        log::error!(
            event = "lane_held", lane:% = lane.id(), events;
            "lane {}: nobody can tell whether {events} of its events are stored: {}; it waits, and every byte of it \
             is kept, until `hakaru journal settle {} --stored` or `--refill` says what is true",
            lane.id(), hold.reason, lane.id()
        );
    }
}
