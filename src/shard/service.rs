//! What requests on port 8081 are put to.

use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};

use super::ingest::Ingest;
use crate::event::{Event, NameRule, SharedNameRule, Shed, UnixMillis};
use crate::http::conversation::Service;
use crate::http::events::{self, Intake};
use crate::http::query::Rejection;
use crate::http::request::Request;
use crate::http::response::{Answer, Answers, Status};
use crate::metrics::ShardCounters;

/// Where events are taken: what keeps them, and what answers are made of.
#[derive(Debug)]
pub struct EventService {
    /// Batches, journal, promises.
    pub ingest: Ingest,
    /// The counters of the shard.
    pub counters: Arc<ShardCounters>,
    name_rule: Arc<SharedNameRule>,
    answers: Answers,
    now: UnixMillis,
    /// Whether connections end with their next answer.
    pub draining: bool,
}

impl EventService {
    /// At the present second.
    pub fn new(
        ingest: Ingest,
        counters: Arc<ShardCounters>,
        name_rule: Arc<SharedNameRule>,
    ) -> Self {
        let now = UnixMillis::now();
        let answers = Answers::new(now.seconds());
        Self {
            ingest,
            counters,
            name_rule,
            answers,
            now,
            draining: false,
        }
    }

    /// Counts answers that go out now.
    pub fn count_answers(&self, status: Status, answers: u64) {
        self.counters.answered(status).add(answers);
    }

    /// Reads the clock, once for all requests that arrived in one read. The coarse clock, a few
    /// milliseconds behind at most, costs a load where the exact one may cost a system call.
    pub fn read_clock(&mut self) {
        self.now = match clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
            Ok(time) => {
                let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
                UnixMillis(seconds * 1000 + u64::try_from(time.tv_nsec() / 1_000_000).unwrap_or(0))
            }
            Err(_) => UnixMillis::now(),
        };
        self.answers.set_second(self.now.seconds());
    }
}

impl Service for EventService {
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) {
        events::respond(self, request, plain, out, decoded);
    }

    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        self.counters.answered(answer.status).add(1);
        self.answers.write(out, answer);
    }

    fn is_draining(&self) -> bool {
        self.draining
    }
}

impl Intake for EventService {
    fn name_rule(&self) -> NameRule {
        self.name_rule.get()
    }

    fn take(&mut self, name: &str, value: u32) -> Result<(), Shed> {
        self.ingest.take(Event {
            name,
            value,
            received_at: self.now,
        })
    }

    fn count_rejection(&mut self, rejection: Rejection) {
        self.counters.rejected(rejection).add(1);
    }

    fn answers(&self) -> &Answers {
        &self.answers
    }
}
