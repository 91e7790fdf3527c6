//! Answers the requests of the event port.

use super::ingest::Ingest;
use crate::event::rule::SharedEventRule;
use crate::event::{Event, UnixMillis};
use crate::http::conversation::Service;
use crate::http::events::{self, Asked};
use crate::http::paths::EventPaths;
use crate::http::request::{self, Request};
use crate::http::response::{Answer, Answers, Body, Cors, Status};
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
    /// The paths that take events.
    pub paths: &'a EventPaths,
    /// What the columns take.
    pub event_rule: &'a SharedEventRule,
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
        let rule = self.event_rule.get();
        match events::interpret(request, self.paths, plain, rule, decoded) {
            Asked::Event { name, value, taken } => self.take(name, value, taken, out),
            Asked::Rejected { rejection, refused } => {
                // A `HEAD` is no event.
                if !refused.head_only {
                    self.counters
                        .add(|counters| counters.rejected(rejection), 1);
                }
                let reason = rejection.reason(rule).to_string();
                let refused = Answer {
                    body: Body::Reason(&reason),
                    ..refused
                };
                self.write(out, &refused);
            }
            Asked::Answer(answer) => self.write(out, &answer),
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        count_answers(self.counters, answer.status, 1);
        self.answers.write(out, answer);
    }

    fn is_draining(&self) -> bool {
        self.is_draining
    }

    fn cors_of_refused<'b>(&self, input: &'b [u8]) -> Cors<'b> {
        Cors::to(request::origin_of_refused(input))
    }

    fn growth(&self) -> usize {
        self.taken.growth()
    }
}

impl EventService<'_> {
    /// Takes an event. Its answer is counted when it is sent, after the event is as safe as `--ack` says.
    fn take(&mut self, name: &str, value: u32, taken: Answer<'_>, out: &mut Vec<u8>) {
        let event = Event {
            name,
            value,
            received_at: self.now,
            id: None,
        };
        if self.ingest.take(event).is_err() {
            return self.write(out, &events::shed(taken));
        }
        let start = out.len();
        if taken.body == Body::Empty {
            self.answers
                .write_event_taken(out, taken.cors, taken.persistence);
        } else {
            self.answers.write(out, &taken);
        }
        if self.taken.is_empty() || self.ingest.awaits_rows() {
            self.taken
                .note(start..out.len(), taken.cors, taken.persistence);
        }
    }
}

/// Counts answers that are sent now.
pub fn count_answers(counters: &Recorder<ShardCounters>, status: Status, answers: u64) {
    counters.add(|counters| counters.answered(status), answers);
}
