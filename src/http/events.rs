//! The requests of the event port: which paths and methods there are, and what a request asks for.

use super::content::{ACCEPT_POST, Found, Unsupported};
use super::conversation::LIST_BYTES_MAX;
use super::paths::{EventPaths, Route};
use super::pixel::PIXEL;
use super::query::{self, Measurement, Rejection};
use super::request::{Method, Request};
use super::response::{Answer, Body, Cors, Preflight, Status};
use super::script;
use crate::event::rule::EventRule;

/// Most bytes of the fields that a preflight asks for, if they are echoed.
const ASKED_BYTES_MAX: usize = 1024;

/// The methods of a path.
struct Methods {
    /// The field that lists them.
    allow: &'static str,
    /// The reason in the answer to another one.
    others: &'static str,
}

const EVENT_METHODS: Methods = Methods {
    allow: "Allow: GET, HEAD, OPTIONS, POST",
    others: "method: not allowed; accepted: GET, HEAD, OPTIONS, POST",
};

const READ_METHODS: Methods = Methods {
    allow: "Allow: GET, HEAD, OPTIONS",
    others: "method: not allowed; accepted: GET, HEAD, OPTIONS",
};

const LIVENESS_METHODS: Methods = Methods {
    allow: "Allow: GET, HEAD",
    others: "method: not allowed; accepted: GET, HEAD",
};

/// What a request asks for.
#[derive(Debug)]
pub enum Asked<'a> {
    /// That an event is taken.
    Event {
        /// The event.
        event: Measurement<'a>,
        /// The answer if it is taken.
        taken: Answer<'a>,
    },
    /// That the events in its body are taken. Holds the answer to one of them.
    Body(Answer<'a>),
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
        (Route::Events, Method::Post) => Asked::Body(event),
        _ => Asked::Answer(document(request, route, event, plain)),
    }
}

/// Whether a request asks for the events in its body.
pub fn has_events(request: &Request<'_>, paths: &EventPaths) -> bool {
    request.method == Method::Post && paths.route(request.path) == Route::Events
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
        accepted: methods.allow,
        body: Body::Reason(methods.others),
        ..event
    };
    match (route, request.method) {
        (Route::Events | Route::Pixel | Route::Script, Method::Options) => Answer {
            status: Status::NoContent,
            accepted: if route == Route::Events {
                EVENT_METHODS.allow
            } else {
                READ_METHODS.allow
            },
            preflight: Some(preflight(request)),
            ..event
        },
        (Route::Events, _) => not_allowed(&EVENT_METHODS),
        (Route::Script, Method::Get | Method::Head) => script::answer(request, event),
        (Route::Pixel | Route::Script, _) => not_allowed(&READ_METHODS),
        (Route::Root, Method::Get | Method::Head) => Answer {
            body: Body::Document {
                fields: "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
                bytes: b"hakaru takes events at /hakaru?name=NAME&value=NUMBER\n",
            },
            ..plain
        },
        (Route::Root, Method::Options) => Answer {
            status: Status::NoContent,
            accepted: READ_METHODS.allow,
            ..plain
        },
        (Route::Root, _) => not_allowed(&READ_METHODS),
        (Route::Liveness, Method::Get | Method::Head) => plain,
        (Route::Liveness, _) => not_allowed(&LIVENESS_METHODS),
        (Route::Unknown, _) => Answer {
            status: Status::NotFound,
            body: Body::Reason(
                "path: not found; accepted: /hakaru, /hakaru.gif, /hakaru.js and /ok",
            ),
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
        Ok(event) => Asked::Event { event, taken },
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

/// The answer to a request whose events were shed, all of them.
pub fn shed_all<'a>(taken: Answer<'a>) -> Answer<'a> {
    Answer {
        body: Body::Reason("overloaded: no event of the request was taken; try again in 1 second"),
        ..shed(taken)
    }
}

/// Why a request was refused that has more events than memory takes at once.
pub fn too_many_at_once(most: usize) -> String {
    format!(
        "request body: too many events for memory without a journal; accepted: at most {most} with this --batch-events"
    )
}

/// The answer to a body of a kind that is not read.
pub fn unsupported<'a>(taken: Answer<'a>, unsupported: Unsupported) -> Answer<'a> {
    let (accepted, reason) = match unsupported {
        Unsupported::Media => (
            ACCEPT_POST,
            "Content-Type: not supported; accepted: application/json, application/x-ndjson, application/jsonl, \
             application/x-www-form-urlencoded, text/plain",
        ),
        Unsupported::Encoding => (
            "Accept-Encoding: gzip",
            "Content-Encoding: not supported; accepted: gzip, or none",
        ),
    };
    Answer {
        status: Status::UnsupportedMediaType,
        accepted,
        body: Body::Reason(reason),
        ..taken
    }
}

/// The body of the answer to events that were taken.
#[derive(Debug)]
pub enum TakenDocument {
    /// Nothing: the body could have only one.
    Empty,
    /// How many they were.
    Count(String),
    /// The same, and which were left out.
    Lenient(String),
}

impl TakenDocument {
    /// As the body of an answer.
    pub fn as_body(&self) -> Body<'_> {
        match self {
            Self::Empty => Body::Empty,
            Self::Count(text) => Body::Document {
                fields: "Content-Type: application/json\r\n",
                bytes: text.as_bytes(),
            },
            Self::Lenient(text) => Body::Document {
                fields: "Content-Type: application/json\r\nPreference-Applied: handling=lenient\r\n",
                bytes: text.as_bytes(),
            },
        }
    }
}

/// What the answer to a body says, of which `events` events were taken.
pub fn taken_document(found: &Found, events: usize, rule: EventRule) -> TakenDocument {
    let Some(rejected) = &found.rejected else {
        return if found.is_many {
            TakenDocument::Count(format!("{{\"taken\":{events}}}"))
        } else {
            TakenDocument::Empty
        };
    };
    let mut document = format!("{{\"taken\":{events},\"rejected\":[");
    for (at, (event, left_out)) in rejected.listed.iter().enumerate() {
        let error = left_out.reason(rule);
        let item = serde_json::json!({ "event": event, "error": error }).to_string();
        if document.len() + item.len() + ",]}".len() > LIST_BYTES_MAX {
            break;
        }
        if at > 0 {
            document.push(',');
        }
        document.push_str(&item);
    }
    document.push_str("]}");
    TakenDocument::Lenient(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::repertoire::{CharacterSet, Repertoire};
    use crate::http::content::{LeftOut, Rejected};

    #[test]
    fn the_list_of_events_that_were_left_out_is_bounded_and_is_json() {
        let listed = (0..100).map(|at| (10_000 - at, LeftOut::Event(Rejection::NameTooLong)));
        let rejected = Rejected {
            listed: listed.collect(),
            ..Rejected::default()
        };
        let found = Found {
            is_many: true,
            rejected: Some(rejected),
        };
        let set = "a_name_of_a_character_set_that_is_so_long_that_the_list_comes_to_its_bound";
        let set = CharacterSet::known(set, "a".chars()).unwrap();
        let rule = EventRule {
            bytes_max: 700,
            repertoire: Repertoire::Listed(set),
            ..EventRule::DEPLOYED
        };
        let TakenDocument::Lenient(text) = taken_document(&found, 10_000, rule) else {
            panic!("a list");
        };
        assert!(text.len() <= LIST_BYTES_MAX, "{}", text.len());
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["taken"], 10_000);
        let listed = document["rejected"].as_array().unwrap();
        assert_eq!(listed[0]["event"], 10_000);
        assert!((50..100).contains(&listed.len()), "{}", listed.len());
    }

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
