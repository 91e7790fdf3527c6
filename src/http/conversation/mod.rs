//! The whole protocol of one connection, from the bytes that arrived to the bytes of the answers.

use bytes::{Buf, BytesMut};

use super::HEAD_BYTES_MAX;
use super::body::{BodyFault, Framing, Skip};
use super::request::{self, Method, Refusal, Request};
use super::response::{Answer, Body, CONTINUE, Cors, Persistence, Status};

/// Bytes of answers after which a turn ends, so that they are written before more requests are answered.
const OUTPUT_BYTES_TURN: usize = 16 * 1024;

/// Most bytes of an answer, without what it echoes of a head.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Most bytes of answers of a turn. The last answer may pass `OUTPUT_BYTES_TURN`, and may echo an origin and the names of
/// fields, together as large as a head.
pub const OUTPUT_BYTES_MAX: usize = OUTPUT_BYTES_TURN + HEAD_BYTES_MAX + ANSWER_BYTES_MAX;

/// What answers requests: the event service of a shard, or the admin service.
pub trait Service {
    /// Appends the answer to a complete request and counts it. `plain` is an answer 200 without a body, to build
    /// on. `decoded` is scratch.
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    );

    /// Appends any answer and counts it.
    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>);

    /// Whether connections are closed after their next answer.
    fn is_draining(&self) -> bool;

    /// The CORS fields of the answer to a head that was refused.
    fn cors_of_refused<'a>(&self, _input: &'a [u8]) -> Cors<'a> {
        Cors::Absent
    }

    /// Most bytes by which the answers of this turn may grow before they are sent.
    fn growth(&self) -> usize {
        0
    }
}

/// What the connection does when the answers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Write the answers, then take another turn: complete requests may be left in the input.
    Write,
    /// Read more.
    Read(RequestProgress),
    /// Close: the sender asked for it and sends no more.
    Close,
    /// Close after the sender has closed. It may be in the middle of a request, and a reset may make it lose the
    /// answer (RFC 9112 section 9.6).
    CloseAfterSender,
}

/// How much of the next request has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestProgress {
    /// Nothing.
    None,
    /// A part of its head.
    Head,
    /// Its head, and a part of its body or nothing of it.
    Body,
}

/// What a connection expects between two reads.
#[derive(Debug)]
enum ConversationState {
    /// A head. The part that has arrived is at the front of the input.
    Head,
    /// The body of a complete head. The head stays at the front of the input, `head` bytes long, until its body
    /// has been skipped.
    Body { head: usize, skip: Skip },
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Conversation {
    state: ConversationState,
}

impl Default for Conversation {
    fn default() -> Self {
        Self::new()
    }
}

impl Conversation {
    /// At the first request.
    pub fn new() -> Self {
        Self {
            state: ConversationState::Head,
        }
    }

    /// Answers every request that is complete in `input`, in order, and removes it from the front.
    ///
    /// `decoded` is scratch for unescaped names. `out` must be empty. Afterwards it holds at most
    /// [`OUTPUT_BYTES_MAX`], including the bytes by which its answers may grow.
    pub fn turn(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
        service: &mut impl Service,
    ) -> Next {
        loop {
            if out.len() + service.growth() >= OUTPUT_BYTES_TURN {
                return Next::Write;
            }
            let next = match &mut self.state {
                ConversationState::Head => self.at_head(input, out, decoded, service),
                ConversationState::Body { head, skip } => {
                    let head = *head;
                    match skip.advance(&input[head..]) {
                        Err(fault) => Some(refuse(fault.into(), input, out, service)),
                        Ok(used) if skip.is_done() => {
                            self.state = ConversationState::Head;
                            answer_after_body(head, used, input, out, decoded, service)
                        }
                        Ok(_) => {
                            input.truncate(head);
                            Some(Next::Read(RequestProgress::Body))
                        }
                    }
                }
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Whether no request has begun.
    pub fn is_idle(&self, input: &[u8]) -> bool {
        matches!(self.state, ConversationState::Head) && input.is_empty()
    }

    /// Appends the answer to a sender that took too long over the request it had begun.
    pub fn late(&self, input: &BytesMut, out: &mut Vec<u8>, service: &mut impl Service) {
        let refusal = match self.state {
            ConversationState::Head => Refusal::HeadLate,
            ConversationState::Body { .. } => Refusal::BodyLate,
        };
        refuse(refusal, input, out, service);
    }

    /// Handles one head, if it is complete. `None`: continue with the input after it.
    fn at_head(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
        service: &mut impl Service,
    ) -> Option<Next> {
        // RFC 9112 section 2.2: empty lines before a request line are ignored.
        let blank = input
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        input.advance(blank);
        if input.is_empty() {
            return Some(Next::Read(RequestProgress::None));
        }
        let (request, head) = match request::parse(input) {
            Ok(Some(complete)) => complete,
            Ok(None) => return Some(Next::Read(RequestProgress::Head)),
            Err(refusal) => return Some(refuse(refusal, input, out, service)),
        };
        if request.body == Framing::Empty {
            let next = answer(&request, input.len() == head, out, decoded, service);
            input.advance(head);
            return next;
        }
        match Skip::start(request.body) {
            Ok(skip) => {
                if request.expects_continue && input.len() == head {
                    out.extend_from_slice(CONTINUE);
                }
                self.state = ConversationState::Body { head, skip };
                None
            }
            Err(fault) => Some(refuse(fault.into(), input, out, service)),
        }
    }
}

/// Answers a request whose head of `head` bytes is at the front of the input. Its body of `body` bytes follows.
fn answer_after_body(
    head: usize,
    body: usize,
    input: &mut BytesMut,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
    service: &mut impl Service,
) -> Option<Next> {
    let is_last = input.len() == head + body;
    let next = match request::parse(&input[..head]) {
        Ok(Some((request, _))) => answer(&request, is_last, out, decoded, service),
        // The same bytes were parsed as a complete head before.
        Ok(None) => unreachable!("a head that was complete is not"),
        Err(refusal) => return Some(refuse(refusal, input, out, service)),
    };
    input.advance(head + body);
    next
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Self::BodyTooLarge,
            BodyFault::Malformed => Self::Malformed("request body: malformed chunk"),
        }
    }
}

/// Answers a request that is refused before it is fully parsed.
fn refuse(refusal: Refusal, input: &[u8], out: &mut Vec<u8>, service: &mut impl Service) -> Next {
    service.write(
        out,
        &Answer {
            status: refusal.status(),
            cors: service.cors_of_refused(input),
            preflight: None,
            persistence: Persistence::Close,
            allow: None,
            body: Body::Reason(refusal.reason()),
            head_only: false,
        },
    );
    Next::CloseAfterSender
}

/// Answers a complete request. Returns how the connection ends, if it does. `is_last`: nothing has arrived after
/// the request.
fn answer(
    request: &Request<'_>,
    is_last: bool,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
    service: &mut impl Service,
) -> Option<Next> {
    // While draining, pipelined requests are still answered. Only the last answer closes the connection.
    let (persistence, next) = match request.persistence {
        Persistence::Close => (Persistence::Close, Some(Next::Close)),
        _ if service.is_draining() && is_last => (Persistence::Close, Some(Next::CloseAfterSender)),
        kept => (kept, None),
    };
    let plain = Answer {
        status: Status::Ok,
        cors: Cors::Absent,
        preflight: None,
        persistence,
        allow: None,
        body: Body::Empty,
        head_only: request.method == Method::Head,
    };
    service.respond(request, plain, out, decoded);
    next
}

#[cfg(test)]
mod tests;
