//! Parses a request head at the front of a connection's input.

mod fields;

use std::borrow::Cow;
use std::mem::MaybeUninit;

pub use self::fields::origin_of_refused;
use super::body::Framing;
use super::response::{Persistence, Status};
use super::{HEAD_BYTES_MAX, HEADERS_MAX};

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: as `GET`, but without a body in the answer, and it makes no event.
    Head,
    /// `OPTIONS`: a browser's preflight.
    Options,
    /// `POST`: events in a body.
    Post,
    /// Any other token.
    Other,
}

/// A complete head. Borrows from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// All bytes of the head.
    pub head: &'a [u8],
    /// The method.
    pub method: Method,
    /// The path of the target, as sent: escapes are not decoded.
    pub path: &'a str,
    /// What follows the first `?` of the target; empty without one.
    pub query: &'a str,
    /// Whether the sender wants the connection to stay open after the answer.
    pub persistence: Persistence,
    /// The `Origin` field, for CORS.
    pub origin: Option<&'a [u8]>,
    /// How the body after the head is framed.
    pub body: Framing,
    /// Whether the sender waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
}

/// A request that is refused before it is fully parsed. The connection closes after the answer, since it is not
/// known where the next request starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP, with a text that names what is wrong.
    Malformed(&'static str),
    /// The request line does not end within [`HEAD_BYTES_MAX`].
    TargetTooLong,
    /// The head does not end within [`HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// More than [`HEADERS_MAX`] fields.
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A transfer coding other than `chunked`.
    Coding,
    /// A body above its bound of so many bytes.
    BodyTooLarge(u64),
    /// The memory for bodies is in use.
    BodiesTooMany,
    /// The head was not complete in time.
    HeadLate,
    /// The body was not complete in time.
    BodyLate,
}

impl Refusal {
    /// The status of the answer.
    pub fn status(self) -> Status {
        match self {
            Self::Malformed(_) => Status::BadRequest,
            Self::TargetTooLong => Status::UriTooLong,
            Self::HeadTooLarge | Self::TooManyHeaders => Status::HeaderFieldsTooLarge,
            Self::Version => Status::VersionNotSupported,
            Self::Coding => Status::NotImplemented,
            Self::BodyTooLarge(_) => Status::ContentTooLarge,
            Self::BodiesTooMany => Status::ServiceUnavailable,
            Self::HeadLate | Self::BodyLate => Status::RequestTimeout,
        }
    }

    /// The reason in the answer. ASCII, one line.
    pub fn reason(self) -> Cow<'static, str> {
        let reason = match self {
            Self::Malformed(reason) => reason,
            Self::TargetTooLong => {
                "request target: too long; accepted: a head of at most 8192 bytes"
            }
            Self::HeadTooLarge => "request head: too large; accepted: at most 8192 bytes",
            Self::TooManyHeaders => "request head: too many fields; accepted: at most 64",
            Self::Version => "HTTP version: not supported; accepted: HTTP/1.1 and HTTP/1.0",
            Self::Coding => "Transfer-Encoding: not supported; accepted: chunked",
            Self::BodyTooLarge(bytes_max) => {
                let text = format!("request body: too large; accepted: at most {bytes_max} bytes");
                return Cow::Owned(text);
            }
            Self::BodiesTooMany => {
                "overloaded: too many request bodies at once; no event of this one was taken; try again in 1 second"
            }
            Self::HeadLate => "request head: not complete in time; accepted: 10 seconds",
            Self::BodyLate => {
                "request body: not complete in time; accepted: 10 seconds, or 10 more for each 16384 bytes"
            }
        };
        Cow::Borrowed(reason)
    }
}

/// Reads the head at the front of `input`: the request and the length of its head, or `None` while
/// it is not complete.
pub fn parse(input: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    // The bound must not depend on how the input was split into reads: parse no more than it allows.
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(length)) => {
            Ok(Some((interpret(&head, &window[..length])?, length)))
        }
        Ok(httparse::Status::Partial) if window.len() < HEAD_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) if request_line(window).is_none() => {
            Err(Refusal::TargetTooLong)
        }
        Ok(httparse::Status::Partial) => Err(Refusal::HeadTooLarge),
        Err(fault) => Err(refusal(fault, window)),
    }
}

fn refusal(fault: httparse::Error, window: &[u8]) -> Refusal {
    match fault {
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        httparse::Error::Version if names_other_version(window) => Refusal::Version,
        httparse::Error::HeaderName => Refusal::Malformed("request head: malformed field name"),
        httparse::Error::HeaderValue => Refusal::Malformed("request head: malformed field value"),
        _ => Refusal::Malformed("request line: malformed; accepted: METHOD TARGET HTTP/1.1"),
    }
}

/// The first line that is not empty, without its line end. `None` if no line end has arrived.
fn request_line(window: &[u8]) -> Option<&[u8]> {
    let start = window
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let end = window[start..].iter().position(|&byte| byte == b'\n')?;
    Some(window[start..start + end].trim_ascii_end())
}

/// Whether `HTTP/` and a digit follow the target: another version rather than garbage. More of the line may follow, and may
/// not have arrived.
fn names_other_version(window: &[u8]) -> bool {
    let line = request_line(window).unwrap_or(window);
    let version = line.split(|&byte| byte == b' ').nth(2).unwrap_or_default();
    matches!(version.strip_prefix(b"HTTP/"), Some([digit, ..]) if digit.is_ascii_digit())
}

fn interpret<'a>(
    head: &httparse::Request<'_, 'a>,
    bytes: &'a [u8],
) -> Result<Request<'a>, Refusal> {
    let fields = Fields::read(head.headers)?;
    let is_1_1 = head.version == Some(1);
    match (is_1_1, fields.hosts) {
        (_, 1) | (false, 0) => {}
        // RFC 9112 section 3.2
        (_, 0) => {
            return Err(Refusal::Malformed(
                "Host: missing; HTTP/1.1 needs exactly one",
            ));
        }
        _ => {
            return Err(Refusal::Malformed(
                "Host: repeated; HTTP/1.1 needs exactly one",
            ));
        }
    }
    let target = head.path.unwrap_or_default();
    let (path, query) = split(target);
    Ok(Request {
        head: bytes,
        method: match head.method.unwrap_or_default() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        path,
        query,
        persistence: match (is_1_1, fields.close, fields.keep_alive) {
            (_, true, _) | (false, _, false) => Persistence::Close,
            (true, false, _) => Persistence::Keep,
            (false, false, true) => Persistence::KeepExplicit,
        },
        origin: fields.origin,
        body: framing(&fields, is_1_1)?,
        expects_continue: fields.expects_continue && is_1_1,
    })
}

/// Path and query of a target. Of the absolute form (RFC 9112 section 3.2.2) scheme and authority are dropped.
fn split(target: &str) -> (&str, &str) {
    let local = if target.starts_with('/') {
        target
    } else {
        without_authority(target)
    };
    local.split_once('?').unwrap_or((local, ""))
}

fn without_authority(target: &str) -> &str {
    let authority_and_rest = ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    match authority_and_rest {
        Some(rest) => rest.find(['/', '?']).map_or("/", |start| &rest[start..]),
        None => target,
    }
}

/// RFC 9112 section 6.3, read strictly: a body that two parties could frame differently is refused.
fn framing(fields: &Fields<'_>, is_1_1: bool) -> Result<Framing, Refusal> {
    match (fields.length, fields.coding) {
        (Some(_), Some(_)) => Err(Refusal::Malformed(
            "Content-Length and Transfer-Encoding: both given",
        )),
        (None, None) => Ok(Framing::Empty),
        (Some(length), None) => match decimal(length) {
            Some(0) => Ok(Framing::Empty),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Refusal::Malformed("Content-Length: not a decimal number")),
        },
        (None, Some(_)) if !is_1_1 => Err(Refusal::Malformed(
            "Transfer-Encoding: not known to HTTP/1.0",
        )),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => Err(Refusal::Coding),
    }
}

/// Reads decimal digits only. A number above `u64::MAX` becomes `u64::MAX`, which every bound refuses.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

/// The fields that are used, read in one pass.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    origin: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            // The length excludes most names before a letter is compared.
            let is = |name: &str| is_token(header.name.as_bytes(), name.as_bytes());
            match header.name.len() {
                4 if is("Host") => {
                    if !is_host(header.value) {
                        return Err(Refusal::Malformed("Host: malformed"));
                    }
                    fields.hosts += 1;
                }
                6 if is("Origin") && is_origin(header.value) => {
                    fields.origin = fields.origin.or(Some(header.value));
                }
                6 if is("Expect") => {
                    fields.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if is("Connection") => {
                    for option in header.value.split(|&byte| byte == b',') {
                        let option = option.trim_ascii();
                        fields.close |= is_token(option, b"close");
                        fields.keep_alive |= is_token(option, b"keep-alive");
                    }
                }
                14 if is("Content-Length") => {
                    if fields.length.is_some() {
                        return Err(Refusal::Malformed("Content-Length: repeated"));
                    }
                    fields.length = Some(header.value);
                }
                17 if is("Transfer-Encoding") => {
                    if fields.coding.is_some() {
                        return Err(Refusal::Malformed("Transfer-Encoding: repeated"));
                    }
                    fields.coding = Some(header.value);
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// Whether a token is `usual`, in any case of its letters. Most senders write it as usual, and equal bytes are compared
/// many at a time.
fn is_token(token: &[u8], usual: &[u8]) -> bool {
    token == usual || token.eq_ignore_ascii_case(usual)
}

/// The bytes that `host[:port]` may have.
const HOST_BYTES: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        allowed[byte as usize] = true;
        byte += 1;
    }
    let others = b"/?#@,\\<>\"{}|^`";
    let mut index = 0;
    while index < others.len() {
        allowed[others[index] as usize] = false;
        index += 1;
    }
    allowed
};

/// Whether the value could be `host[:port]`. It may be empty (RFC 9110 section 7.2).
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| HOST_BYTES[usize::from(*byte)])
}

/// Whether the value can be echoed: it is not empty and has no blank and no control character.
fn is_origin(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests;
