//! Answers the requests of the event port.

use super::ingest::Ingest;
use crate::event::{Event, NameRule, SharedNameRule, Shed, UnixMillis};
use crate::http::conversation::Service;
use crate::http::events::{self, Intake};
use crate::http::query::Rejection;
use crate::http::request::Request;
use crate::http::response::{Answer, Answers, Cors, Persistence, Status};
use crate::http::taken_answers::TakenAnswers;
use crate::metrics::{Recorder, ShardCounters};

/// Answers the requests of one turn of one connection.
#[derive(Debug)]
pub struct EventService<'a> {
    /// What takes events.
    pub ingest: &'a mut Ingest,
    /// Formats answers.
    pub answers: &'a Answers,
    /// Notes the answers that must wait for their events.
    pub taken: &'a mut TakenAnswers,
    /// The counters of the shard.
    pub counters: &'a Recorder<ShardCounters>,
    /// What the `name` column takes.
    pub name_rule: &'a SharedNameRule,
    /// When the requests were read.
    pub now: UnixMillis,
    /// Whether connections end with their next answer.
    pub is_draining: bool,
}

impl Service for EventService<'_> {
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) {
        events::respond(self, request, plain, out, decoded);
    }

    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        count_answers(self.counters, answer.status, 1);
        self.answers.write(out, answer);
    }

    fn is_draining(&self) -> bool {
        self.is_draining
    }

    fn growth(&self) -> usize {
        self.taken.growth()
    }
}

impl Intake for EventService<'_> {
    fn name_rule(&self) -> NameRule {
        self.name_rule.get()
    }

    fn take(&mut self, name: &str, value: u32) -> Result<(), Shed> {
        self.ingest.take(Event {
            name,
            value,
            received_at: self.now,
        })
    }

    fn count_rejection(&mut self, rejection: Rejection) {
        self.counters
            .add(|counters| counters.rejected(rejection), 1);
    }

    fn write_taken(&mut self, out: &mut Vec<u8>, cors: Cors<'_>, persistence: Persistence) {
        let start = out.len();
        self.answers.write_event_taken(out, cors, persistence);
        if self.taken.is_empty() || self.ingest.awaits_rows() {
            self.taken.note(start..out.len(), cors, persistence);
        }
    }
}

/// Counts answers that are sent now.
pub fn count_answers(counters: &Recorder<ShardCounters>, status: Status, answers: u64) {
    counters.add(|counters| counters.answered(status), answers);
}
