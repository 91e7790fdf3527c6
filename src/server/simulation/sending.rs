//! What senders do next.

use super::senders::Kind;
use super::world::World;

impl World {
    /// Sends events to one shard of one process. `false`: there is none.
    pub(super) fn send(&mut self) -> bool {
        let ready: Vec<usize> = self
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| !process.is_draining())
            .map(|(index, _)| index)
            .collect();
        if ready.is_empty() {
            return false;
        }
        let process = &self.processes[ready[self.random.usize(0..ready.len())]];
        let inbox = &process.inboxes[self.random.usize(0..process.inboxes.len())];
        if self.has_ids && self.random.u32(0..3) == 0 {
            let which = (self.random.usize(0..1000), self.random.usize(1..6));
            let settings = process.settings.as_ref();
            let Some(settings) = settings else {
                return false;
            };
            self.senders
                .repeat(inbox, process.number, settings.ack, which);
            return true;
        }
        let count = self.random.u32(1..6);
        let length = self.random.usize(0..200);
        let kind = match self.random.u32(0..12) {
            0 => Kind::Refused,
            1..=3 if self.has_twins => Kind::Twin(self.random.u32(0..3)),
            4..=9 if self.has_ids => Kind::WithId,
            _ => Kind::Single,
        };
        let Some(settings) = &process.settings else {
            return false;
        };
        let (number, ack) = (process.number, settings.ack);
        self.senders.send(inbox, number, ack, count, (kind, length));
        true
    }
}
