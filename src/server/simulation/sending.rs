//! What senders do next.

use super::senders::Kind;
use super::world::World;

/// Most events of a simulated request. The largest fit into an empty group of a simulation.
const BODY_EVENTS_MAX: u32 = 20;

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
        let index = ready[self.random.usize(0..ready.len())];
        let shard = self.random.usize(0..self.processes[index].inboxes.len());
        let is_body = self.has_bodies && self.random.u32(0..3) == 0;
        let (is_repeated, which, events) = if self.has_ids && self.random.u32(0..3) == 0 {
            let which = (self.random.usize(0..1000), self.random.usize(1..6));
            (true, which, Vec::new())
        } else if is_body {
            (false, (0, 0), self.draw_body())
        } else {
            let count = self.random.u32(1..6);
            let length = self.random.usize(0..200);
            let event = (self.draw_kind(), length);
            (false, (0, 0), vec![event; count as usize])
        };
        let process = &self.processes[index];
        let Some(settings) = &process.settings else {
            return false;
        };
        let (inbox, asked) = (&process.inboxes[shard], (process.number, settings.ack));
        if is_repeated {
            self.senders.repeat(inbox, asked, which, is_body);
        } else {
            self.senders.send(inbox, asked, &events, is_body);
        }
        true
    }

    /// The events of one request, each of a kind of its own. Large requests are rare.
    fn draw_body(&mut self) -> Vec<(Kind, usize)> {
        let most = match self.random.u32(0..4) {
            0 => BODY_EVENTS_MAX,
            _ => 5,
        };
        let count = self.random.u32(2..=most);
        let events = (0..count).map(|_| {
            let length = self.random.usize(0..200);
            (self.draw_kind(), length)
        });
        events.collect()
    }

    fn draw_kind(&mut self) -> Kind {
        match self.random.u32(0..12) {
            0 => Kind::Refused,
            1..=3 if self.has_twins => Kind::Twin(self.random.u32(0..3)),
            4..=9 if self.has_ids => Kind::WithId,
            _ => Kind::Single,
        }
    }
}
