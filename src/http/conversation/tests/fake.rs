//! A service without a shard.

use std::rc::Rc;

use crate::event::UnixMillis;
use crate::event::rule::EventRule;
use crate::http::body::{BodyBudget, KeptBody};
use crate::http::content::{self, Content, ContentScratch};
use crate::http::conversation::{BodyUse, Responded, Service};
use crate::http::events::{self, Asked};
use crate::http::paths::EventPaths;
use crate::http::query::Rejection;
use crate::http::request::{self, Request};
use crate::http::response::{Answer, Answers, Body, Cors};

/// Most bytes of a body.
pub(super) const BODY_LIMIT: usize = 1024;

/// A service that keeps the events that it took, and takes at most `room`.
pub(super) struct Fake {
    answers: Answers,
    paths: EventPaths,
    pub(super) taken: Vec<(String, u32)>,
    pub(super) rejected: Vec<Rejection>,
    pub(super) room: usize,
    pub(super) draining: bool,
    pub(super) budget: Rc<BodyBudget>,
    pub(super) limit: usize,
    /// How often a request with a body is to come later.
    pub(super) later: usize,
}

impl Fake {
    pub(super) fn new() -> Self {
        Self {
            answers: Answers::new(784_111_777),
            paths: EventPaths::new(vec!["/track".parse().unwrap()]),
            taken: Vec::new(),
            rejected: Vec::new(),
            room: usize::MAX,
            draining: false,
            budget: BodyBudget::new(64 * 1024, 0),
            limit: BODY_LIMIT,
            later: 0,
        }
    }
}

impl Service for Fake {
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) {
        match events::interpret(request, &self.paths, plain, EventRule::DEPLOYED, decoded) {
            Asked::Event { taken, .. } if self.taken.len() >= self.room => {
                self.write(out, &events::shed(taken));
            }
            Asked::Event { event, taken } => {
                self.taken.push((event.name.to_owned(), event.value));
                self.answers.write(out, &taken);
            }
            Asked::Body(_) => {
                self.respond_to_body(request, b"", plain, out, decoded);
            }
            Asked::Rejected { rejection, refused } => {
                if !refused.head_only {
                    self.rejected.push(rejection);
                }
                let reason = rejection.reason(EventRule::DEPLOYED).to_string();
                let body = Body::Reason(&reason);
                self.write(out, &Answer { body, ..refused });
            }
            Asked::Answer(answer) => self.write(out, &answer),
        }
    }

    fn body_use(&self, request: &Request<'_>) -> BodyUse {
        if !events::has_events(request, &self.paths) {
            return BodyUse::Skip;
        }
        BodyUse::Keep {
            bytes_max: self.limit as u64,
            memory: KeptBody::new(Rc::clone(&self.budget)),
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
        if !events::has_events(request, &self.paths) {
            self.respond(request, plain, out, decoded);
            return Responded::Done;
        }
        if let Some(left) = self.later.checked_sub(1) {
            self.later = left;
            return Responded::Later;
        }
        let plain = Answer {
            cors: Cors::to(request.origin),
            ..plain
        };
        let rule = EventRule::DEPLOYED;
        let mut scratch = ContentScratch::default();
        let content = match Content::of(request) {
            Ok(content) => content,
            Err(unsupported) => {
                self.write(out, &events::unsupported(plain, unsupported));
                return Responded::Done;
            }
        };
        match content::read(content, body, self.limit, rule, &mut scratch) {
            Ok(found) => {
                let events = scratch.events.events(UnixMillis(0));
                let count = events.len();
                self.taken
                    .extend(events.map(|event| (event.name.to_owned(), event.value)));
                let document = events::taken_document(&found, count, rule);
                let body = document.as_body();
                self.write(out, &Answer { body, ..plain });
            }
            Err(fault) => {
                self.rejected.extend(fault.rejection());
                let reason = fault.reason(rule, self.limit);
                let refused = Answer {
                    status: fault.status(),
                    body: Body::Reason(&reason),
                    ..plain
                };
                self.write(out, &refused);
            }
        }
        Responded::Done
    }

    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        self.answers.write(out, answer);
    }

    fn is_draining(&self) -> bool {
        self.draining
    }

    fn cors_of_refused<'a>(&self, input: &'a [u8]) -> Cors<'a> {
        Cors::to(request::origin_of_refused(input))
    }
}
