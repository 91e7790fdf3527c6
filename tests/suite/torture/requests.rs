//! Requests that senders send: single events, and bodies with many.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::history::Id;

/// Most events of a large request: `--ack received` takes no more at once with the smallest batches.
const LARGE: u32 = 1_500;

/// How the events of a request are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Query,
    Form,
    Object,
    Array,
    Lines,
}

/// What a request is, apart from its events.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    format: Format,
    /// How many events it has.
    pub events: u32,
    is_gzip: bool,
    is_chunked: bool,
    /// Its sender ends the connection before its end.
    is_cut: bool,
}

impl Shape {
    /// Most requests are single events, so that a round has no more rows than it can compare.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        let format = match random.u8(0..40) {
            0 => Format::Form,
            1 => Format::Object,
            2..=3 => Format::Array,
            4..=5 => Format::Lines,
            _ => Format::Query,
        };
        let is_list = matches!(format, Format::Array | Format::Lines);
        let events = match random.u16(0..200) {
            _ if !is_list => 1,
            0 => random.u32(200..=LARGE),
            _ => random.u32(1..=50),
        };
        Self {
            format,
            events,
            is_gzip: format != Format::Query && random.u8(0..3) == 0,
            is_chunked: format != Format::Query && random.bool(),
            is_cut: format != Format::Query && random.u8(0..8) == 0,
        }
    }
}

/// A request with these events.
pub struct Request {
    pub ids: Vec<Id>,
    pub bytes: Vec<u8>,
    /// How many bytes are sent before the connection is ended.
    pub cut_at: Option<usize>,
    /// One of its events is none: it must be answered 400.
    pub is_wrong: bool,
}

impl Request {
    /// `with_event_ids`: each event has an id of its own, by which it may be repeated.
    pub fn new(
        shape: Shape,
        ids: Vec<Id>,
        with_event_ids: bool,
        random: &mut fastrand::Rng,
    ) -> Self {
        let (kind, body) = body(shape.format, &ids, with_event_ids);
        Self::with_body(shape, ids, kind, body.as_bytes(), random)
    }

    /// Lines of which the last one is no event.
    pub fn wrong(ids: Vec<Id>, random: &mut fastrand::Rng) -> Self {
        let (kind, mut body) = body(Format::Lines, &ids, true);
        body.push_str("{\"name\":\"sender\",\"value\":4294967296}");
        let shape = Shape {
            format: Format::Lines,
            events: ids.len() as u32,
            is_gzip: random.bool(),
            is_chunked: random.bool(),
            is_cut: false,
        };
        Self {
            is_wrong: true,
            ..Self::with_body(shape, ids, kind, body.as_bytes(), random)
        }
    }

    fn with_body(
        shape: Shape,
        ids: Vec<Id>,
        kind: &str,
        body: &[u8],
        random: &mut fastrand::Rng,
    ) -> Self {
        let (bytes, head) = if shape.format == Format::Query {
            let bytes = [b"GET /hakaru?", body, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
            let length = bytes.len();
            (bytes, length)
        } else {
            post(shape, kind, body, random)
        };
        let cut_at = shape.is_cut.then(|| random.usize(head..bytes.len()));
        Self {
            ids,
            bytes,
            cut_at,
            is_wrong: false,
        }
    }
}

/// The id of an event.
pub fn event_id(id: Id) -> String {
    format!("{}-{}", id.0, id.1)
}

/// The media type of a format, and a body of it.
fn body(format: Format, ids: &[Id], with_event_ids: bool) -> (&'static str, String) {
    let mut text = String::new();
    for &(sender, value) in ids {
        let id = event_id((sender, value));
        match format {
            Format::Query | Format::Form => {
                write!(text, "name=sender{sender}&value={value}").unwrap();
                if with_event_ids {
                    write!(text, "&id={id}").unwrap();
                }
            }
            Format::Object | Format::Array | Format::Lines => {
                let id = match with_event_ids {
                    true => format!(",\"id\":\"{id}\""),
                    false => String::new(),
                };
                let object = format!("{{\"name\":\"sender{sender}\",\"value\":{value}{id}}}");
                let after = match format {
                    Format::Array => ",",
                    Format::Lines => "\n",
                    _ => "",
                };
                text.push_str(&object);
                text.push_str(after);
            }
        }
    }
    match format {
        Format::Query => ("", text),
        Format::Form => ("application/x-www-form-urlencoded", text),
        Format::Object => ("text/plain", text),
        Format::Array => {
            let list = text.trim_end_matches(',');
            ("application/json", format!("[{list}]"))
        }
        Format::Lines => ("application/x-ndjson", text),
    }
}

/// The bytes of a request, and how many of them are its head.
fn post(shape: Shape, kind: &str, body: &[u8], random: &mut fastrand::Rng) -> (Vec<u8>, usize) {
    let mut head = format!("POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n");
    let body = if shape.is_gzip {
        head.push_str("Content-Encoding: gzip\r\n");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(body).unwrap();
        gzip.finish().unwrap()
    } else {
        body.to_vec()
    };
    if !shape.is_chunked {
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
        return ([head.as_bytes(), &body].concat(), head.len());
    }
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let mut bytes = head.clone().into_bytes();
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
        rest = after;
    }
    bytes.extend(b"0\r\n\r\n");
    (bytes, head.len())
}
