//! The requests of the event port: which paths and methods there are, and how a request becomes an event.

use super::conversation::Service;
use super::query::{self, Rejection};
use super::request::{Method, Request};
use super::response::{Answer, Body, Cors, Persistence, Status};
use super::{EVENT_PATH, LIVENESS_PATH};
use crate::event::{NameRule, Shed};

/// Methods of the event path, as `Allow` lists them.
const EVENT_METHODS: &str = "GET, HEAD, OPTIONS";

/// Methods of the liveness path.
const LIVENESS_METHODS: &str = "GET, HEAD";

/// A service that takes events.
pub trait Intake: Service {
    /// What the `name` column takes at present.
    fn name_rule(&self) -> NameRule;

    /// Takes an event. Its answer is counted when it is sent, after the event is as safe as `--ack` says.
    fn take(&mut self, name: &str, value: u32) -> Result<(), Shed>;

    /// Counts an event that was answered 400.
    fn count_rejection(&mut self, rejection: Rejection);

    /// Appends the answer to an event that was taken.
    fn write_taken(&mut self, out: &mut Vec<u8>, cors: Cors<'_>, persistence: Persistence);
}

/// Answers a request by its path and method.
pub fn respond(
    intake: &mut impl Intake,
    request: &Request<'_>,
    plain: Answer<'_>,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
) {
    let event = Answer {
        cors: Cors::to(request.origin),
        ..plain
    };
    let answer = match (request.path, request.method) {
        (EVENT_PATH, Method::Get | Method::Head) => {
            return take_event(intake, request, &event, out, decoded);
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
    };
    intake.write(out, &answer);
}

/// Answers a `GET` or `HEAD` of the event path. A valid `GET` becomes an event.
fn take_event(
    intake: &mut impl Intake,
    request: &Request<'_>,
    taken: &Answer<'_>,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
) {
    let rule = intake.name_rule();
    let is_event = request.method == Method::Get;
    match query::measurement(request.query.as_bytes(), rule, decoded) {
        Ok(_) if !is_event => intake.write(out, taken),
        Ok((name, value)) if intake.take(name, value).is_ok() => {
            intake.write_taken(out, taken.cors, taken.persistence);
        }
        Ok(_) => {
            let shed = Answer {
                status: Status::ServiceUnavailable,
                body: Body::Reason("overloaded: the event was not taken; try again in 1 second"),
                ..*taken
            };
            intake.write(out, &shed);
        }
        Err(rejection) => {
            if is_event {
                intake.count_rejection(rejection);
            }
            let reason = rejection.reason(rule).to_string();
            let refused = Answer {
                status: Status::BadRequest,
                body: Body::Reason(&reason),
                ..*taken
            };
            intake.write(out, &refused);
        }
    }
}
