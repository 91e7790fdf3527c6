//! The whole protocol of one connection, from the bytes that arrived to the bytes of the answers.

mod service;

use bytes::{Buf, BytesMut};

pub use self::service::{BodyUse, Responded, Service};
use super::body::{BodyFault, BodyReader, BudgetSpent, Framing, KeptBody, Part};
use super::request::{self, Method, Refusal, Request};
use super::response::{Answer, Body, CONTINUE, Cors, Persistence};
use super::{BODY_BYTES_MAX, HEAD_BYTES_MAX};

/// Bytes of answers after which a turn ends, so that they are written before more requests are answered.
const OUTPUT_BYTES_TURN: usize = 16 * 1024;

/// Most bytes of an answer, without what it echoes of a head and a list of events.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Most bytes of answers of a turn. The last answer may pass `OUTPUT_BYTES_TURN`, and may echo an origin and the names of
/// fields, together as large as a head.
pub const OUTPUT_BYTES_MAX: usize = OUTPUT_BYTES_TURN + HEAD_BYTES_MAX + ANSWER_BYTES_MAX;

/// Bytes of answers before which a request with events in its body is answered: its answer may list some of them.
const OUTPUT_BYTES_BEFORE_LIST: usize = 1024;

/// Most bytes of the list of events in an answer.
pub const LIST_BYTES_MAX: usize = OUTPUT_BYTES_TURN - OUTPUT_BYTES_BEFORE_LIST;

/// After each part of a kept body of this many bytes its sender has the time for a body anew.
const BODY_BYTES_IN_TIME: usize = 16 * 1024;

/// What the connection does when the answers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Write the answers, then take another turn: complete requests may be left in the input.
    Write,
    /// Read more.
    Read(RequestProgress),
    /// Wait until there is room for the events of a request, then take another turn. There are no answers.
    AwaitRoom,
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
    /// The same, and enough more of it that its time begins anew.
    MoreBody,
}

/// What a connection expects between two reads.
#[derive(Debug)]
enum ConversationState {
    /// A head. The part that has arrived is at the front of the input.
    Head,
    /// The body of a complete head. The head stays at the front of the input, `head` bytes long, until its body
    /// has been read.
    Body {
        head: usize,
        reader: BodyReader,
        /// `None`: it is skipped.
        kept: Option<KeptBody>,
    },
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
                ConversationState::Body { .. } => self.at_body(input, out, decoded, service),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Gives the memory of a body back: nothing more is read, and the connection may stay open until its sender has
    /// closed it.
    pub fn end(&mut self) {
        self.state = ConversationState::Head;
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
        let (bytes_max, mut kept) = match service.body_use(&request) {
            BodyUse::Skip => (BODY_BYTES_MAX, None),
            BodyUse::Keep { bytes_max, memory } => (bytes_max, Some(memory)),
        };
        let reader = match BodyReader::start(request.body, bytes_max) {
            Ok(reader) => reader,
            Err(fault) => return Some(refuse(fault.refusal(bytes_max), input, out, service)),
        };
        if kept.is_some()
            && let Some(body) = request.body.whole_in(&input[head..])
        {
            let used = body.len();
            let is_last = input.len() == head + used;
            let (next, responded) =
                answer_with_body(&request, body, is_last, out, decoded, service);
            if responded == Responded::Done {
                input.advance(head + used);
            }
            return next;
        }
        if kept.is_some() && !out.is_empty() {
            // While answers wait for their events, nothing bounds how long a body takes.
            return Some(Next::Write);
        }
        if let (Some(kept), Framing::Length(length)) = (&mut kept, request.body) {
            // A length that is not refused fits into memory.
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if kept.reserve(length).is_err() {
                return Some(refuse(Refusal::BodiesTooMany, input, out, service));
            }
        }
        if request.expects_continue && input.len() == head {
            out.extend_from_slice(CONTINUE);
        }
        self.state = ConversationState::Body { head, reader, kept };
        None
    }

    /// Reads the part of a body that has arrived, and answers its request if it is complete.
    fn at_body(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
        service: &mut impl Service,
    ) -> Option<Next> {
        let ConversationState::Body { head, reader, kept } = &mut self.state else {
            return None;
        };
        let head = *head;
        let before = kept.as_ref().map_or(0, |kept| kept.bytes().len());
        let used = match read_body(reader, kept.as_mut(), &input[head..]) {
            Ok(used) => used,
            Err(refusal) => return Some(refuse(refusal, input, out, service)),
        };
        if !reader.is_done() {
            input.truncate(head);
            let after = kept.as_ref().map_or(0, |kept| kept.bytes().len());
            let progress = if before / BODY_BYTES_IN_TIME < after / BODY_BYTES_IN_TIME {
                RequestProgress::MoreBody
            } else {
                RequestProgress::Body
            };
            return Some(Next::Read(progress));
        }
        let Ok(Some((request, _))) = request::parse(&input[..head]) else {
            unreachable!("a head that was complete is not");
        };
        let body = kept.as_ref().map_or(&[][..], KeptBody::bytes);
        let is_last = input.len() == head + used;
        let (next, responded) = answer_with_body(&request, body, is_last, out, decoded, service);
        match responded {
            Responded::Done => {
                self.state = ConversationState::Head;
                input.advance(head + used);
            }
            // The body is kept. What follows it stays after the head.
            Responded::Later => {
                let rest = input.split_off(head + used);
                input.truncate(head);
                input.unsplit(rest);
            }
        }
        next
    }
}

/// Reads the part of a body at the front of `input`. Returns its bytes.
fn read_body(
    reader: &mut BodyReader,
    mut kept: Option<&mut KeptBody>,
    input: &[u8],
) -> Result<usize, Refusal> {
    let too_large = reader.payload_max();
    let mut used = 0;
    while used < input.len() && !reader.is_done() {
        let rest = &input[used..];
        let (bytes, part) = reader
            .step(rest)
            .map_err(|fault| fault.refusal(too_large))?;
        if let (Part::Payload, Some(kept)) = (part, &mut kept) {
            kept.append(&rest[..bytes])
                .map_err(|BudgetSpent| Refusal::BodiesTooMany)?;
        }
        used += bytes;
    }
    Ok(used)
}

/// Answers a complete request with a body, unless that must wait. A body that was skipped is empty here.
fn answer_with_body(
    request: &Request<'_>,
    body: &[u8],
    is_last: bool,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
    service: &mut impl Service,
) -> (Option<Next>, Responded) {
    let (plain, next) = plain_answer(request, is_last, service);
    if out.len() + service.growth() > OUTPUT_BYTES_BEFORE_LIST {
        return (Some(Next::Write), Responded::Later);
    }
    match service.respond_to_body(request, body, plain, out, decoded) {
        Responded::Done => (next, Responded::Done),
        Responded::Later if out.is_empty() => (Some(Next::AwaitRoom), Responded::Later),
        Responded::Later => (Some(Next::Write), Responded::Later),
    }
}

impl BodyFault {
    /// The answer to a body that is bounded by `bytes_max`.
    fn refusal(self, bytes_max: u64) -> Refusal {
        match self {
            Self::TooLarge => Refusal::BodyTooLarge(bytes_max),
            Self::Malformed => Refusal::Malformed("request body: malformed chunk"),
        }
    }
}

/// Answers a request that is refused before it is fully parsed.
fn refuse(refusal: Refusal, input: &[u8], out: &mut Vec<u8>, service: &mut impl Service) -> Next {
    service.write(
        out,
        &Answer {
            status: refusal.status(),
            body: Body::Reason(&refusal.reason()),
            ..Answer::event_taken(service.cors_of_refused(input), Persistence::Close)
        },
    );
    Next::CloseAfterSender
}

/// Answers a complete request without a body. Returns how the connection ends, if it does. `is_last`: nothing has arrived
/// after the request.
fn answer(
    request: &Request<'_>,
    is_last: bool,
    out: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
    service: &mut impl Service,
) -> Option<Next> {
    let (plain, next) = plain_answer(request, is_last, service);
    service.respond(request, plain, out, decoded);
    next
}

/// An answer 200 without a body, to build on, and how the connection ends after it.
fn plain_answer(
    request: &Request<'_>,
    is_last: bool,
    service: &impl Service,
) -> (Answer<'static>, Option<Next>) {
    // While draining, pipelined requests are still answered. Only the last answer closes the connection.
    let (persistence, next) = match request.persistence {
        Persistence::Close => (Persistence::Close, Some(Next::Close)),
        _ if service.is_draining() && is_last => (Persistence::Close, Some(Next::CloseAfterSender)),
        kept => (kept, None),
    };
    let plain = Answer {
        head_only: request.method == Method::Head,
        ..Answer::event_taken(Cors::Absent, persistence)
    };
    (plain, next)
}

#[cfg(test)]
mod tests;
