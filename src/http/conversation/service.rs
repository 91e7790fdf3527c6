//! What answers the requests of a conversation.

use crate::http::body::KeptBody;
use crate::http::request::Request;
use crate::http::response::{Answer, Cors};

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

    /// What is done with the body of this request.
    fn body_use(&self, _request: &Request<'_>) -> BodyUse {
        BodyUse::Skip
    }

    /// Appends the answer to a request whose body was kept, and counts it.
    fn respond_to_body(
        &mut self,
        request: &Request<'_>,
        _body: &[u8],
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) -> Responded {
        self.respond(request, plain, out, decoded);
        Responded::Done
    }

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

/// What is done with the body of a request.
#[derive(Debug)]
pub enum BodyUse {
    /// It is skipped.
    Skip,
    /// It is kept until it is complete, in `memory` that is empty, if it has at most `bytes_max`.
    Keep {
        /// The bound.
        bytes_max: u64,
        /// For its bytes.
        memory: KeptBody,
    },
}

/// Whether a request with a body was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responded {
    /// It was.
    Done,
    /// Its events have no room at present, and are about to have some. It is to be passed again.
    Later,
}
