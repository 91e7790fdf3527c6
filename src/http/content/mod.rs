//! The events in a request body.
//!
//! Either all events of a body are taken or none is, unless its sender prefers otherwise (`Prefer: handling=lenient`, RFC 7240).

mod collector;
mod inflate;
mod json;
mod media;

use self::collector::{BodyRefused, Collector, Parts};
pub use self::collector::{LeftOut, Rejected};
use self::json::Shape;
pub use self::media::{ACCEPT_POST, Content, Media, Unsupported};
use super::query::{self, Rejection};
use super::response::Status;
use crate::event::event_id::EventId;
use crate::event::list::{EventList, LIST_EVENTS_MAX};
use crate::event::rule::EventRule;

/// Memory for the events of one body at a time.
#[derive(Debug, Default)]
pub struct ContentScratch {
    /// The events.
    pub events: EventList,
    inflated: Vec<u8>,
    decoded: Vec<u8>,
}

impl ContentScratch {
    /// Most memory for bodies of at most `body_max` bytes.
    pub fn bytes_max(body_max: usize) -> usize {
        // What is inflated is one byte more than the bound at most, and its memory up to twice that.
        EventList::bytes_max(body_max) + 3 * body_max.next_power_of_two()
    }
}

/// Why no event of a body is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentFault {
    /// An event cannot be stored.
    Event {
        /// Why.
        rejection: Rejection,
        /// Its number from 0, where the body may have several.
        event: Option<usize>,
    },
    /// The body, or a line of it, is not what its media type says.
    Malformed {
        /// What is wrong, in ASCII and one line.
        reason: String,
        /// The number of the event from 0, where the body may have several.
        event: Option<usize>,
    },
    /// More than [`LIST_EVENTS_MAX`].
    TooManyEvents,
    /// It inflates to more than its bound.
    InflatedTooLarge,
}

/// What a body holds. The events are in the scratch.
#[derive(Debug)]
pub struct Found {
    /// Whether the answer says how many were taken: the body could have several events.
    pub is_many: bool,
    /// Those that were left out, where the sender prefers that.
    pub rejected: Option<Rejected>,
}

/// Reads the events of a body into `scratch`. `bytes_max` is the bound of its inflated bytes.
pub fn read(
    content: Content,
    body: &[u8],
    bytes_max: usize,
    rule: EventRule,
    scratch: &mut ContentScratch,
) -> Result<Found, ContentFault> {
    let ContentScratch {
        events,
        inflated,
        decoded,
    } = scratch;
    let body = match content.is_gzip {
        true => inflate::gzip(body, bytes_max, inflated)?,
        false if body.starts_with(GZIP_START) => {
            return Err(ContentFault::Malformed {
                reason: UNDECLARED_GZIP.to_owned(),
                event: None,
            });
        }
        false => body,
    };
    let mut collector = Collector::new(events, rule, content.is_lenient);
    let read = match content.media {
        Media::Form => read_form(&mut collector, body, rule, decoded),
        Media::Json => read_json(&mut collector, body),
        Media::JsonLines => read_lines(&mut collector, body),
    };
    match (read, collector.fault()) {
        (Ok(is_many), None) => Ok(Found {
            is_many,
            rejected: collector.into_rejected(),
        }),
        (_, Some(fault)) => Err(fault),
        (Err(BodyRefused), None) => unreachable!("a body is refused for no reason"),
    }
}

/// A form is one event, as the query of a `GET`.
fn read_form(
    collector: &mut Collector<'_>,
    body: &[u8],
    rule: EventRule,
    decoded: &mut Vec<u8>,
) -> Result<bool, BodyRefused> {
    let event = query::measurement(body, rule, decoded).map(|event| Parts {
        name: collector.add_text(event.name),
        value: event.value,
        id: event
            .id
            .map(|id: EventId<'_>| collector.add_text(id.as_str())),
    });
    if event.is_err() && begins_as_json(body) {
        collector.add_malformed(|| JSON_AS_FORM.to_owned())?;
    } else {
        collector.add(event)?;
    }
    Ok(false)
}

/// Some programs, such as curl, call each body a form unless they are told what it is.
#[cold]
fn begins_as_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn read_json(collector: &mut Collector<'_>, body: &[u8]) -> Result<bool, BodyRefused> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(fault) => {
            let reason = format!(
                "body: not UTF-8 at byte {}; accepted: JSON in UTF-8",
                fault.valid_up_to()
            );
            return Err(collector.refuse(ContentFault::Malformed {
                reason,
                event: None,
            }));
        }
    };
    match json::read(collector, text) {
        Ok(shape) => Ok(shape == Shape::Array),
        // An event was refused, which ends the parser with an error of its own.
        Err(_) if collector.is_refused() => Err(BodyRefused),
        Err(fault) => {
            let event = collector.next();
            let reason = if text.trim_ascii().is_empty() {
                format!("body: empty; accepted: {ACCEPTED_JSON}")
            } else {
                not_json(fault.line(), &fault, ACCEPTED_JSON)
            };
            Err(collector.refuse(ContentFault::Malformed { reason, event }))
        }
    }
}

/// An object a line. Lines without anything are no events.
fn read_lines(collector: &mut Collector<'_>, body: &[u8]) -> Result<bool, BodyRefused> {
    collector.expect_many();
    let mut rest = body;
    let mut line = 0;
    while !rest.is_empty() {
        // Most bodies are UTF-8 as a whole.
        let (text, wrong) = match std::str::from_utf8(rest) {
            Ok(text) => (text, None),
            Err(fault) => {
                let valid = &rest[..fault.valid_up_to()];
                let lines = valid.iter().rposition(|&byte| byte == b'\n');
                let (whole, from) = rest.split_at(lines.map_or(0, |end| end + 1));
                let end = from.iter().position(|&byte| byte == b'\n');
                let text = std::str::from_utf8(whole).unwrap_or_default();
                (text, Some(end.map_or(from.len(), |end| end + 1)))
            }
        };
        for text in text.split_inclusive('\n') {
            line += 1;
            read_line(collector, text.trim_ascii(), line)?;
        }
        rest = &rest[text.len()..];
        if let Some(length) = wrong {
            line += 1;
            let reason = || format!("body: line {line} is not UTF-8; accepted: {ACCEPTED_LINE}");
            collector.add_malformed(reason)?;
            rest = &rest[length..];
        }
    }
    Ok(true)
}

fn read_line(collector: &mut Collector<'_>, text: &str, line: usize) -> Result<(), BodyRefused> {
    if text.is_empty() {
        return Ok(());
    }
    match json::read_event(collector, text) {
        Ok(event) => collector.add(event),
        Err(fault) => collector.add_malformed(|| not_json(line, &fault, ACCEPTED_LINE)),
    }
}

/// What a body of JSON may be.
const ACCEPTED_JSON: &str = "an object such as {\"name\":\"open\",\"value\":1}, an array of objects, or as \
     application/x-ndjson an object a line";

/// What a line may be. It is short for the answer to a lenient request, which lists several.
const ACCEPTED_LINE: &str = "an object a line";

/// The reason for a form that begins as JSON and is no event.
const JSON_AS_FORM: &str = "body: begins as JSON and was read as a form, by its Content-Type; accepted: JSON with Content-Type: \
     application/json (an object a line: application/x-ndjson), or a form such as name=open&value=1";

/// The first bytes of what is compressed by gzip (RFC 1952). No text begins so.
const GZIP_START: &[u8] = b"\x1f\x8b";

/// The reason for a body that is compressed where its request does not say so.
const UNDECLARED_GZIP: &str = "body: gzip without Content-Encoding: gzip; accepted: a body that is compressed with that field, or \
     one that is not";

/// Most characters of what a parser says. Some of it may repeat a part of the body. A hundred reasons fit into an answer.
const FAULT_CHARS_MAX: usize = 50;

/// Why a text is not JSON, in ASCII and one line.
fn not_json(line: usize, fault: &serde_json::Error, accepted: &str) -> String {
    let text = fault.to_string();
    let place = format!(" at line {} column {}", fault.line(), fault.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    // What JSON would escape again takes more room.
    let is_plain = |c: &char| (' '..='~').contains(c) && !['"', '\\'].contains(c);
    let text: String = text
        .chars()
        .filter(is_plain)
        .take(FAULT_CHARS_MAX)
        .collect();
    let column = fault.column();
    format!("body: not JSON at line {line}, column {column}: {text}; accepted: {accepted}")
}

impl ContentFault {
    /// The status of the answer.
    pub fn status(&self) -> Status {
        match self {
            Self::Event { .. } | Self::Malformed { .. } => Status::BadRequest,
            Self::TooManyEvents | Self::InflatedTooLarge => Status::ContentTooLarge,
        }
    }

    /// The counter of the event that is refused. `None`: it is not known whether there is one.
    pub fn rejection(&self) -> Option<Rejection> {
        match self {
            Self::Event { rejection, .. } => Some(*rejection),
            Self::Malformed { .. } => Some(Rejection::BodyMalformed),
            Self::TooManyEvents | Self::InflatedTooLarge => None,
        }
    }

    /// The number of the event that is the reason, from 0, where the body may have several.
    pub fn event(&self) -> Option<usize> {
        match self {
            Self::Event { event, .. } | Self::Malformed { event, .. } => *event,
            Self::TooManyEvents | Self::InflatedTooLarge => None,
        }
    }

    /// The reason in the answer, in ASCII and one line.
    pub fn reason(&self, rule: EventRule, bytes_max: usize) -> String {
        match self {
            Self::Event { rejection, .. } => rejection.reason(rule).to_string(),
            Self::Malformed { reason, .. } => reason.clone(),
            Self::TooManyEvents => {
                format!("request body: too many events; accepted: at most {LIST_EVENTS_MAX}")
            }
            Self::InflatedTooLarge => format!(
                "request body: too large when inflated; accepted: at most {bytes_max} bytes"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
