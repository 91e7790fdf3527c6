//! The whole protocol of one connection: bytes that arrived go in, answers come out.

use bytes::{Buf, BytesMut};

use super::HEAD_BYTES_MAX;
use super::body::{BodyFault, Framing, Skip};
use super::request::{self, Method, Refusal, Request};
use super::response::{Answer, Body, CONTINUE, Cors, Persistence, Status};

/// Answers of one turn after which no other request is begun before they are written.
const OUTPUT_BYTES_TURN: usize = 16 * 1024;

/// Most bytes of answers that a turn leaves: one more than the turn's worth, which may echo an
/// origin as large as a head.
pub const OUTPUT_BYTES_MAX: usize = OUTPUT_BYTES_TURN + HEAD_BYTES_MAX + 1024;

/// What answers requests: the events' service of a shard, or the admin port's.
pub trait Service {
    /// Appends the answer to a complete request and counts it. `plain` is the shortest there is: 200,
    /// without a body. `decoded` is scratch.
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    );

    /// Appends any answer and counts it.
    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>);

    /// Whether connections are to end with their next answer.
    fn is_draining(&self) -> bool;

    /// By how many bytes the answers of this turn may grow before they are sent.
    fn growth(&self) -> usize {
        0
    }
}

/// What the connection does when the answers are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Write what there is, then take another turn: complete requests are left in the input.
    Write,
    /// Read on.
    Read(Awaited),
    /// Close: the sender asked for it and sends no more.
    Close,
    /// Close, but let the sender finish first: it may be in the middle of a request, and a reset
    /// would take the answer from it (RFC 9112 section 9.6).
    CloseAfterSender,
}

/// What the next bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// A request of which nothing has arrived.
    Request,
    /// A head that has begun.
    Head,
    /// A body that has begun, or is to.
    Body,
}

/// Where a connection stands between two reads.
#[derive(Debug)]
enum ConversationState {
    /// At a head. What has arrived of it is at the front of the input.
    Head,
    /// Behind a complete head that stays at the front of the input, `head` bytes long, until its
    /// body has been passed over.
    Body { head: usize, skip: Skip },
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Conversation {
    place: ConversationState,
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
            place: ConversationState::Head,
        }
    }

    /// Answers every request that is complete in `input`, in order, and takes those off its front.
    ///
    /// `decoded` is scratch for unescaped names. `out` comes empty and holds at most
    /// [`OUTPUT_BYTES_MAX`] afterwards, with what its answers may grow by.
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
            let next = match &mut self.place {
                ConversationState::Head => self.at_head(input, out, decoded, service),
                ConversationState::Body { head, skip } => {
                    let head = *head;
                    match skip.advance(&input[head..]) {
                        Err(fault) => Some(refuse(fault.into(), input, out, service)),
                        Ok(used) if skip.is_done() => {
                            self.place = ConversationState::Head;
                            behind_body(head, used, input, out, decoded, service)
                        }
                        Ok(_) => {
                            input.truncate(head);
                            Some(Next::Read(Awaited::Body))
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
        matches!(self.place, ConversationState::Head) && input.is_empty()
    }

    /// The answer to a sender that took too long over the request it had begun.
    pub fn late(&self, input: &BytesMut, out: &mut Vec<u8>, service: &mut impl Service) {
        let refusal = match self.place {
            ConversationState::Head => Refusal::HeadLate,
            ConversationState::Body { .. } => Refusal::BodyLate,
        };
        refuse(refusal, input, out, service);
    }

    /// Handles one head, if it is complete. `None`: go on with what is behind it.
    fn at_head(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
        service: &mut impl Service,
    ) -> Option<Next> {
        // RFC 9112 section 2.2: empty lines before a request line are passed over.
        let blank = input
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        input.advance(blank);
        if input.is_empty() {
            return Some(Next::Read(Awaited::Request));
        }
        let (request, head) = match request::parse(input) {
            Ok(Some(complete)) => complete,
            Ok(None) => return Some(Next::Read(Awaited::Head)),
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
                self.place = ConversationState::Body { head, skip };
                None
            }
            Err(fault) => Some(refuse(fault.into(), input, out, service)),
        }
    }
}

/// Answers the request whose `head` is at the front of the input and whose body of `body` bytes
/// follows it.
fn behind_body(
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
        // The same bytes were a complete head before: they cannot have become another thing.
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

/// Answers a request that is refused before it is understood.
fn refuse(refusal: Refusal, input: &[u8], out: &mut Vec<u8>, service: &mut impl Service) -> Next {
    let (is_event, origin) = request::sniff(input);
    service.write(
        out,
        &Answer {
            status: refusal.status(),
            cors: if is_event {
                Cors::to(origin)
            } else {
                Cors::Absent
            },
            persistence: Persistence::Close,
            allow: None,
            body: Body::Reason(refusal.reason()),
            head_only: false,
        },
    );
    Next::CloseAfterSender
}

/// Answers a complete request; says how the connection ends, if it does. `is_last`: nothing has
/// arrived behind it.
fn answer(
    request: &Request<'_>,
    is_last: bool,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
    service: &mut impl Service,
) -> Option<Next> {
    // While draining, what was pipelined before is still answered; the last answer says close.
    let (persistence, next) = match request.persistence {
        Persistence::Close => (Persistence::Close, Some(Next::Close)),
        _ if service.is_draining() && is_last => (Persistence::Close, Some(Next::CloseAfterSender)),
        kept => (kept, None),
    };
    let plain = Answer {
        status: Status::Ok,
        cors: Cors::Absent,
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
