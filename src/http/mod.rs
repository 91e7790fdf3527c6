//! HTTP/1.1 over bytes, without sockets, clocks or I/O (RFC 9110, RFC 9112).
//!
//! [`conversation`] is the whole protocol of one connection. It passes complete requests to a service; [`events`]
//! answers those of the event port. The other modules are parts of these.

pub mod body;
pub mod content;
pub mod conversation;
pub mod events;
pub mod paths;
pub mod pixel;
pub mod query;
pub mod request;
pub mod response;
pub mod script;
pub mod taken_answers;

/// Most bytes of a request head, from the request line to the empty line. A larger one is answered 431, or 414
/// if not even the request line has ended.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Most header fields of a request. More are answered 431.
pub const HEADERS_MAX: usize = 64;

/// Most bytes of a request body that is not used. A larger one is answered 413.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;

/// The least bound that may be set for a body with events, in bytes.
pub const BODY_LIMIT_MIN: usize = 1024;

/// The greatest such bound: the events of a request fit into one group of the journal.
pub const BODY_LIMIT_MAX: usize = 2 * 1024 * 1024;
