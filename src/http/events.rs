//! The requests of the event port: which paths and methods there are, and what a request asks for.

use super::paths::{EventPaths, Route};
use super::pixel::PIXEL;
use super::query::{self, Rejection};
use super::request::{Method, Request};
use super::response::{Answer, Body, Cors, Preflight, Status};
use crate::event::rule::EventRule;

/// Most bytes of the fields that a preflight asks for, if they are echoed.
const ASKED_BYTES_MAX: usize = 1024;

/// The methods of a path.
struct Methods {
    /// As `Allow` lists them.
    listed: &'static str,
    /// The reason in the answer to another one.
    others: &'static str,
}

const EVENT_METHODS: Methods = Methods {
    listed: "GET, HEAD, OPTIONS",
    others: "method: not allowed; accepted: GET, HEAD, OPTIONS",
};

const LIVENESS_METHODS: Methods = Methods {
    listed: "GET, HEAD",
    others: "method: not allowed; accepted: GET, HEAD",
};

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
    paths: &EventPaths,
    plain: Answer<'a>,
    rule: EventRule,
    decoded: &'a mut Vec<u8>,
) -> Asked<'a> {
    let event = Answer {
        cors: Cors::to(request.origin),
        ..plain
    };
    let route = paths.route(request.path);
    match (route, request.method) {
        (Route::Events, Method::Get | Method::Head) => measurement(request, event, rule, decoded),
        (Route::Pixel, Method::Get | Method::Head) => measurement(
            request,
            Answer {
                body: PIXEL,
                ..event
            },
            rule,
            decoded,
        ),
        _ => Asked::Answer(document(request, route, event, plain)),
    }
}

/// The answer to a request that asks for no event.
#[cold]
fn document<'a>(
    request: &Request<'a>,
    route: Route,
    event: Answer<'a>,
    plain: Answer<'a>,
) -> Answer<'a> {
    let not_allowed = |methods: &Methods| Answer {
        status: Status::MethodNotAllowed,
        allow: Some(methods.listed),
        body: Body::Reason(methods.others),
        ..event
    };
    match (route, request.method) {
        (Route::Events | Route::Pixel, Method::Options) => Answer {
            status: Status::NoContent,
            allow: Some(EVENT_METHODS.listed),
            preflight: Some(preflight(request)),
            ..event
        },
        (Route::Events | Route::Pixel, _) => not_allowed(&EVENT_METHODS),
        (Route::Root, Method::Get | Method::Head) => Answer {
            body: Body::Document {
                fields: "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
                bytes: b"hakaru takes events at /hakaru?name=NAME&value=NUMBER\n",
            },
            ..plain
        },
        (Route::Root, Method::Options) => Answer {
            status: Status::NoContent,
            allow: Some(EVENT_METHODS.listed),
            ..plain
        },
        (Route::Root, _) => not_allowed(&EVENT_METHODS),
        (Route::Liveness, Method::Get | Method::Head) => plain,
        (Route::Liveness, _) => not_allowed(&LIVENESS_METHODS),
        (Route::Unknown, _) => Answer {
            status: Status::NotFound,
            body: Body::Reason("path: not found; accepted: /hakaru, /hakaru.gif and /ok"),
            ..event
        },
    }
}

/// What a preflight asks for (Fetch standard, CORS-preflight request).
fn preflight<'a>(request: &Request<'a>) -> Preflight<'a> {
    let asked = request.field("access-control-request-headers");
    Preflight {
        fields: asked.filter(|fields| is_token_list(fields)),
        private_network: request.field("access-control-request-private-network")
            == Some(&b"true"[..]),
    }
}

/// Whether a value is a list of tokens (RFC 9110 section 5.6.2) within its bound.
fn is_token_list(value: &[u8]) -> bool {
    let is_token = |token: &[u8]| {
        !token.is_empty()
            && token
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    value.len() <= ASKED_BYTES_MAX
        && value
            .split(|&byte| byte == b',')
            .all(|token| is_token(token.trim_ascii()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_of_tokens_within_the_bound_are_echoed() {
        let long = [b'a'; ASKED_BYTES_MAX + 1];
        for (value, is_list) in [
            (&b"content-type"[..], true),
            (b"baggage,sentry-trace, traceparent", true),
            (b"x-a ,\tx-b", true),
            (&long[1..], true),
            (&long, false),
            (b"", false),
            (b"a,,b", false),
            (b"a b", false),
            (b"a:b", false),
            (b"\xc3\xa9", false),
        ] {
            assert_eq!(is_token_list(value), is_list, "{value:?}");
        }
    }
}
