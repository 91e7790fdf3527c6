//! Answers: preformatted bytes for the common one, plain formatting for the rest.

use std::io::Write;
use std::time::SystemTime;

/// The status of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The event is taken, or the process lives.
    Ok,
    /// The answer to a preflight.
    NoContent,
    /// A script that the sender has already.
    NotModified,
    /// Not HTTP, or an event that cannot be stored.
    BadRequest,
    /// No such path.
    NotFound,
    /// The path takes other methods.
    MethodNotAllowed,
    /// A head or body that did not arrive in time.
    RequestTimeout,
    /// A body above its bound.
    ContentTooLarge,
    /// A target above its bound.
    UriTooLong,
    /// A body whose media type or coding is not read.
    UnsupportedMediaType,
    /// An event that the database refused.
    UnprocessableContent,
    /// A head above its bounds.
    HeaderFieldsTooLarge,
    /// A transfer coding other than `chunked`.
    NotImplemented,
    /// Shed: no more events may wait for the database, or the journal cannot be written.
    ServiceUnavailable,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
}

impl Status {
    /// All of them. The discriminant of each is its index.
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::NoContent,
        Self::NotModified,
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::ContentTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::UnprocessableContent,
        Self::HeaderFieldsTooLarge,
        Self::NotImplemented,
        Self::ServiceUnavailable,
        Self::VersionNotSupported,
    ];

    /// The code alone, three digits.
    pub fn code(self) -> &'static str {
        &self.line()[..3]
    }

    /// Code and reason phrase.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::NoContent => "204 No Content",
            Self::NotModified => "304 Not Modified",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::UriTooLong => "414 URI Too Long",
            Self::UnsupportedMediaType => "415 Unsupported Media Type",
            Self::UnprocessableContent => "422 Unprocessable Content",
            Self::HeaderFieldsTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

impl<'a> Cors<'a> {
    /// The CORS fields for a request with this `Origin`.
    pub fn to(origin: Option<&'a [u8]>) -> Self {
        origin.map_or(Self::AnyOrigin, Self::Origin)
    }
}

/// Whether the connection stays open after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, as HTTP/1.1 expects.
    Keep,
    /// It stays open, and the answer has `Connection: keep-alive`, which HTTP/1.0 needs.
    KeepExplicit,
    /// It is closed, and the answer has `Connection: close`.
    Close,
}

/// Which CORS fields an answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cors<'a> {
    /// None: the path is not for browsers.
    Absent,
    /// `*`: the request named no origin.
    AnyOrigin,
    /// The origin that the request named.
    Origin(&'a [u8]),
}

/// What a preflight asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preflight<'a> {
    /// The fields of its request, if it names some and they can be echoed.
    pub fields: Option<&'a [u8]>,
    /// Whether it comes from a network that is less private than this server's.
    pub private_network: bool,
}

/// What follows the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// Why the request was refused, as JSON and as `X-Hakaru-Reason`. ASCII, one line.
    Reason(&'a str),
    /// The same, and which event of its body is the reason, counted from 0.
    ReasonOf(&'a str, usize),
    /// A document that caches may keep.
    Lasting {
        /// Its `Content-Type`, for how long it may be kept, and further fields, as whole lines.
        fields: &'a str,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// A document.
    Document {
        /// Its `Content-Type` and further fields, as whole lines.
        fields: &'static str,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

/// One answer, before it is formatted.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: Status,
    /// Its CORS fields.
    pub cors: Cors<'a>,
    /// What it answers, if it is the answer to a preflight.
    pub preflight: Option<Preflight<'a>>,
    /// Whether the connection stays open.
    pub persistence: Persistence,
    /// A field that says what is accepted instead, without its line end; or nothing.
    pub accepted: &'static str,
    /// What follows the head.
    pub body: Body<'a>,
    /// Whether the body is left out, as for `HEAD`. `Content-Length` still gives its length.
    pub head_only: bool,
}

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long a browser may remember a preflight, in seconds. Browsers have lower limits of their own.
const PREFLIGHT_SECONDS: &str = "86400";

/// Formats answers. Formats the date, and the answer that has it prepared, once a second.
#[derive(Debug)]
pub struct Answers {
    unix_seconds: u64,
    date: String,
    event_taken: Vec<u8>,
}

impl Answers {
    /// Dates answers with `unix_seconds` since 1970.
    pub fn new(unix_seconds: u64) -> Self {
        let mut answers = Self {
            unix_seconds,
            date: String::new(),
            event_taken: Vec::new(),
        };
        answers.remake(unix_seconds);
        answers
    }

    /// Dates answers with the present second.
    pub fn set_second(&mut self, unix_seconds: u64) {
        if unix_seconds != self.unix_seconds {
            self.remake(unix_seconds);
        }
    }

    fn remake(&mut self, unix_seconds: u64) {
        self.unix_seconds = unix_seconds;
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(unix_seconds);
        self.date = httpdate::fmt_http_date(now);
        let mut bytes = std::mem::take(&mut self.event_taken);
        bytes.clear();
        self.write(
            &mut bytes,
            &Answer::event_taken(Cors::AnyOrigin, Persistence::Keep),
        );
        self.event_taken = bytes;
    }

    /// Appends the answer to an event that was taken.
    pub fn write_event_taken(&self, out: &mut Vec<u8>, cors: Cors<'_>, persistence: Persistence) {
        if cors == Cors::AnyOrigin && persistence == Persistence::Keep {
            out.extend_from_slice(&self.event_taken);
        } else {
            self.write(out, &Answer::event_taken(cors, persistence));
        }
    }

    /// Appends any answer.
    pub fn write(&self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        let mut line = |parts: &[&[u8]]| {
            for part in parts {
                out.extend_from_slice(part);
            }
            out.extend_from_slice(b"\r\n");
        };
        line(&[b"HTTP/1.1 ", answer.status.line().as_bytes()]);
        line(&[b"Date: ", self.date.as_bytes()]);
        if !answer.accepted.is_empty() {
            line(&[answer.accepted.as_bytes()]);
        }
        if answer.status == Status::ServiceUnavailable {
            line(&[b"Retry-After: 1"]);
        }
        match answer.persistence {
            Persistence::Keep => {}
            Persistence::KeepExplicit => line(&[b"Connection: keep-alive"]),
            Persistence::Close => line(&[b"Connection: close"]),
        }
        write_cors(out, answer);
        write_end(out, answer);
    }
}

/// The CORS fields, and those for caches.
fn write_cors(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let mut line = |parts: &[&[u8]]| {
        for part in parts {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b"\r\n");
    };
    match answer.cors {
        Cors::Absent => return,
        Cors::AnyOrigin => line(&[b"Access-Control-Allow-Origin: *"]),
        Cors::Origin(origin) => {
            line(&[b"Access-Control-Allow-Origin: ", origin]);
            line(&[b"Access-Control-Allow-Credentials: true"]);
        }
    }
    let asked = answer.preflight.and_then(|preflight| preflight.fields);
    line(&[
        b"Access-Control-Allow-Headers: ",
        asked.unwrap_or(b"Content-Type"),
    ]);
    line(&[b"Access-Control-Allow-Methods: GET, POST"]);
    line(&[b"Access-Control-Expose-Headers: X-Hakaru-Reason"]);
    if let Some(preflight) = answer.preflight {
        line(&[b"Access-Control-Max-Age: ", PREFLIGHT_SECONDS.as_bytes()]);
        if preflight.private_network {
            line(&[b"Access-Control-Allow-Private-Network: true"]);
        }
        line(&[
            b"Vary: Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
        ]);
    } else if answer.cors != Cors::AnyOrigin {
        line(&[b"Vary: Origin"]);
    }
    if !matches!(answer.body, Body::Lasting { .. }) {
        // Equal images, or equal requests with `force-cache`, are as many events.
        line(&[b"Cache-Control: no-store"]);
    }
}

/// The reason as a field, and the type of the body that repeats it.
fn write_reason(out: &mut Vec<u8>, reason: &str) {
    for part in [
        "X-Hakaru-Reason: ",
        reason,
        "\r\nContent-Type: application/json\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Content fields, the empty line and the body.
fn write_end(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let explained;
    let body = match answer.body {
        Body::Empty => {
            // RFC 9110 section 8.6: a 204 carries no Content-Length.
            if answer.status != Status::NoContent {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
            out.extend_from_slice(b"\r\n");
            return;
        }
        Body::Reason(reason) => {
            write_reason(out, reason);
            explained = serde_json::json!({ "error": reason }).to_string();
            explained.as_bytes()
        }
        Body::ReasonOf(reason, event) => {
            write_reason(out, reason);
            explained = serde_json::json!({ "error": reason, "event": event }).to_string();
            explained.as_bytes()
        }
        Body::Document { fields, bytes } | Body::Lasting { fields, bytes } => {
            out.extend_from_slice(fields.as_bytes());
            bytes
        }
    };
    if answer.status == Status::NotModified {
        // RFC 9110 section 15.4.5: it has no content.
        out.extend_from_slice(b"\r\n");
        return;
    }
    let written = write!(out, "Content-Length: {}\r\n\r\n", body.len());
    debug_assert!(written.is_ok(), "a vector takes every write");
    if !answer.head_only {
        out.extend_from_slice(body);
    }
}

impl<'a> Answer<'a> {
    /// The answer to an event that was taken.
    pub fn event_taken(cors: Cors<'a>, persistence: Persistence) -> Self {
        Self {
            status: Status::Ok,
            cors,
            preflight: None,
            persistence,
            accepted: "",
            body: Body::Empty,
            head_only: false,
        }
    }
}

#[cfg(test)]
mod tests;
