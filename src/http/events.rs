//! The requests of the event port: which paths and methods there are, and what a request asks for.

use super::query::{self, Rejection};
use super::request::{Method, Request};
use super::response::{Answer, Body, Cors, Status};
use super::{EVENT_PATH, LIVENESS_PATH};
use crate::event::rule::EventRule;

/// Methods of the event path, as `Allow` lists them.
const EVENT_METHODS: &str = "GET, HEAD, OPTIONS";

/// Methods of the liveness path.
const LIVENESS_METHODS: &str = "GET, HEAD";

/// What a request asks for.
#[derive(Debug)]
pub enum Asked<'a> {
    /// That an event is taken.
    Event {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: u32,
        /// The answer if it is taken.
        taken: Answer<'a>,
    },
    /// That an event is taken which cannot be stored.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// The answer, without the reason in its body.
        refused: Answer<'a>,
    },
    /// Nothing but this answer.
    Answer(Answer<'a>),
}

/// What a request asks for, by its path and method. `plain` is an answer 200 without a body, to build on. `rule` is
/// what the columns take. `decoded` is scratch.
pub fn interpret<'a>(
    request: &Request<'a>,
    plain: Answer<'a>,
    rule: EventRule,
    decoded: &'a mut Vec<u8>,
) -> Asked<'a> {
    let event = Answer {
        cors: Cors::to(request.origin),
        ..plain
    };
    Asked::Answer(match (request.path, request.method) {
        (EVENT_PATH, Method::Get | Method::Head) => {
            return measurement(request, event, rule, decoded);
        }
        (EVENT_PATH, Method::Options) => Answer {
            status: Status::NoContent,
            allow: Some(EVENT_METHODS),
            ..event
        },
        (EVENT_PATH, Method::Other) => Answer {
            status: Status::MethodNotAllowed,
            allow: Some(EVENT_METHODS),
            body: Body::Reason("method: not allowed; accepted: GET, HEAD, OPTIONS"),
            ..event
        },
        (LIVENESS_PATH, Method::Get | Method::Head) => plain,
        (LIVENESS_PATH, _) => Answer {
            status: Status::MethodNotAllowed,
            allow: Some(LIVENESS_METHODS),
            body: Body::Reason("method: not allowed; accepted: GET, HEAD"),
            ..plain
        },
        _ => Answer {
            status: Status::NotFound,
            body: Body::Reason("path: not found; accepted: /hakaru and /ok"),
            ..plain
        },
    })
}

/// A `GET` of the event path asks for an event. A `HEAD` only asks whether the same `GET` would be accepted.
fn measurement<'a>(
    request: &Request<'a>,
    taken: Answer<'a>,
    rule: EventRule,
    decoded: &'a mut Vec<u8>,
) -> Asked<'a> {
    match query::measurement(request.query.as_bytes(), rule, decoded) {
        Ok(_) if request.method == Method::Head => Asked::Answer(taken),
        Ok((name, value)) => Asked::Event { name, value, taken },
        Err(rejection) => Asked::Rejected {
            rejection,
            refused: Answer {
                status: Status::BadRequest,
                ..taken
            },
        },
    }
}

/// The answer to an event that was shed. `taken` is the answer that it would have had.
pub fn shed<'a>(taken: Answer<'a>) -> Answer<'a> {
    Answer {
        status: Status::ServiceUnavailable,
        body: Body::Reason("overloaded: the event was not taken; try again in 1 second"),
        ..taken
    }
}
