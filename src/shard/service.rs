//! Answers the requests of the event port.

use std::cell::RefCell;
use std::rc::Rc;

use super::ingest::{Ingest, TakenAll};
use super::patience::Patience;
use crate::event::rule::SharedEventRule;
use crate::event::{Event, UnixMillis};
use crate::http::body::{BodyBudget, KeptBody, SMALL_BODY_BYTES};
use crate::http::content::{self, Content, ContentFault, ContentScratch, Found};
use crate::http::conversation::{BodyUse, Responded, Service};
use crate::http::events::{self, Asked};
use crate::http::paths::EventPaths;
use crate::http::query::{Measurement, Rejection};
use crate::http::request::{self, Request};
use crate::http::response::{Answer, Answers, Body, Cors, Status};
use crate::http::taken_answers::{Acknowledged, TakenAnswers};
use crate::metrics::{Recorder, ShardCounters};

/// Bodies of the largest size that a shard has memory for, and small ones besides. Others that do not arrive in one piece
/// are answered 503.
const BODIES_AT_ONCE: usize = 16;

/// What reads the events in bodies: bounds, and memory that the connections of a shard share.
#[derive(Debug)]
pub struct Bodies {
    /// Most bytes of a body, before and after inflating.
    limit: usize,
    budget: Rc<BodyBudget>,
    scratch: RefCell<ContentScratch>,
}

impl Bodies {
    /// For bodies of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            budget: BodyBudget::new(
                BODIES_AT_ONCE * limit.next_power_of_two(),
                BODIES_AT_ONCE * SMALL_BODY_BYTES,
            ),
            scratch: RefCell::default(),
        }
    }

    /// Most memory for bodies of a shard, in bytes.
    pub fn bytes_max(limit: usize) -> usize {
        BODIES_AT_ONCE * (limit.next_power_of_two() + SMALL_BODY_BYTES)
            + ContentScratch::bytes_max(limit)
    }
}

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
    /// What reads the events in bodies.
    pub bodies: &'a Bodies,
    /// How long a request with several events may wait for room.
    pub patience: &'a mut Patience,
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
            Asked::Event { event, taken } => self.take(event, taken, out),
            // Without any byte it holds no event that would have to wait for room.
            Asked::Body(taken) => {
                self.take_body(request, b"", taken, out);
            }
            Asked::Rejected { rejection, refused } => {
                // A `HEAD` is no event.
                if !refused.head_only {
                    self.count_rejected(rejection, 1);
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

    fn body_use(&self, request: &Request<'_>) -> BodyUse {
        if !events::has_events(request, self.paths) {
            return BodyUse::Skip;
        }
        BodyUse::Keep {
            bytes_max: self.bodies.limit as u64,
            memory: KeptBody::new(Rc::clone(&self.bodies.budget)),
        }
    }

    fn respond_to_body(
        &mut self,
        request: &Request<'_>,
        body: &[u8],
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) -> Responded {
        if !events::has_events(request, self.paths) {
            self.respond(request, plain, out, decoded);
            return Responded::Done;
        }
        let taken = Answer {
            cors: Cors::to(request.origin),
            ..plain
        };
        let responded = self.take_body(request, body, taken, out);
        if responded == Responded::Done {
            // The next request of the connection has its own, also in this turn.
            *self.patience = Patience::WHOLE;
        }
        responded
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
    fn take(&mut self, event: Measurement<'_>, taken: Answer<'_>, out: &mut Vec<u8>) {
        let event = Event {
            name: event.name,
            value: event.value,
            received_at: self.now,
            id: event.id,
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
        self.note_taken(start, Acknowledged::One, taken, out);
    }

    /// Takes the events in a body: all of them, or none.
    fn take_body(
        &mut self,
        request: &Request<'_>,
        body: &[u8],
        taken: Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Responded {
        let bodies = self.bodies;
        let scratch = &mut bodies.scratch.borrow_mut();
        let rule = self.event_rule.get();
        let found = match Content::of(request) {
            Err(unsupported) => {
                self.write(out, &events::unsupported(taken, unsupported));
                return Responded::Done;
            }
            Ok(content) => content::read(content, body, bodies.limit, rule, scratch),
        };
        let found = match found {
            Ok(found) => found,
            Err(fault) => {
                self.refuse(&fault, taken, out);
                return Responded::Done;
            }
        };
        let events = &scratch.events;
        let may_wait = self.patience.is_left();
        match self.ingest.take_all(events, self.now, may_wait) {
            TakenAll::Later(bytes) => {
                self.patience.needs(bytes);
                return Responded::Later;
            }
            TakenAll::Shed => self.write(out, &events::shed_all(taken)),
            TakenAll::TooMany(most) => {
                let reason = events::too_many_at_once(most);
                let refused = Answer {
                    status: Status::ContentTooLarge,
                    body: Body::Reason(&reason),
                    ..taken
                };
                self.write(out, &refused);
            }
            TakenAll::Taken => self.answer_taken(&found, scratch.events.len(), taken, out),
        }
        Responded::Done
    }

    /// Answers a request whose events were taken, and counts those that were left out.
    fn answer_taken(&mut self, found: &Found, events: usize, taken: Answer<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        if let Some(rejected) = &found.rejected {
            for (rejection, count) in Rejection::ALL.into_iter().zip(rejected.counts) {
                self.count_rejected(rejection, count);
            }
        }
        let rule = self.event_rule.get();
        let document = events::taken_document(found, events, rule);
        let answer = Answer {
            body: document.as_body(),
            ..taken
        };
        if events == 0 {
            return self.write(out, &answer);
        }
        self.answers.write(out, &answer);
        let rejected = found.rejected.as_ref();
        let is_whole = rejected.is_none_or(|rejected| rejected.listed.is_empty());
        let acknowledged = match (found.is_many, is_whole) {
            (false, _) => Acknowledged::One,
            (true, true) => Acknowledged::Many(events),
            (true, false) => Acknowledged::Part(events),
        };
        self.taken.count_further(events - 1);
        self.note_taken(start, acknowledged, taken, out);
    }

    /// Notes an answer that must wait for its events.
    fn note_taken(&mut self, start: usize, events: Acknowledged, taken: Answer<'_>, out: &[u8]) {
        if self.taken.is_empty() || self.ingest.awaits_rows() {
            self.taken
                .note(start..out.len(), events, taken.cors, taken.persistence);
        }
    }

    /// Answers a request of whose events none is taken.
    fn refuse(&mut self, fault: &ContentFault, taken: Answer<'_>, out: &mut Vec<u8>) {
        let rule = self.event_rule.get();
        let reason = fault.reason(rule, self.bodies.limit);
        if let Some(rejection) = fault.rejection() {
            self.count_rejected(rejection, 1);
        }
        let refused = Answer {
            status: fault.status(),
            body: match fault.event() {
                Some(event) => Body::ReasonOf(&reason, event),
                None => Body::Reason(&reason),
            },
            ..taken
        };
        self.write(out, &refused);
    }

    fn count_rejected(&self, rejection: Rejection, events: u64) {
        self.counters
            .add(|counters| counters.rejected(rejection), events);
    }
}

/// Counts answers that are sent now.
pub fn count_answers(counters: &Recorder<ShardCounters>, status: Status, answers: u64) {
    counters.add(|counters| counters.answered(status), answers);
}
