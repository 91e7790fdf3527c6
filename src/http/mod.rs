//! HTTP/1.1 over bytes: no socket, no clock, no I/O in here (RFC 9110, RFC 9112).
//!
//! [`conversation`] is the whole protocol of one connection, [`events`] is whom it puts requests to; the
//! others are what these are made of.

pub mod body;
pub mod conversation;
pub mod events;
pub mod query;
pub mod request;
pub mod response;
pub mod taken_answers;

/// The path that takes events.
pub const EVENT_PATH: &str = "/hakaru";

/// The path a load balancer polls.
pub const LIVENESS_PATH: &str = "/ok";

/// Most bytes of a request head, from the request line to the empty line. Past it: 431, or 414
/// when not even the request line has ended.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Most header fields of a request. Past it: 431.
pub const HEADERS_MAX: usize = 64;

/// Most bytes of a request body. Past it: 413.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;
