//! The waits and log lines of a writer while nothing can be stored.

use std::time::{Duration, Instant};

use crate::os::clock;
use crate::sink::SinkError;

/// The first wait between attempts. Each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait between attempts. Each wait is shortened at random by up to half, so that many nodes do not try
/// at the same time. A cluster is back within seconds, and what is stored later is stored in larger batches.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The first wait if an operator must act.
const BACKOFF_STOP_MIN: Duration = Duration::from_secs(1);

/// The longest wait if an operator must act.
const BACKOFF_STOP_MAX: Duration = Duration::from_secs(5);

/// Errors of the same class are logged at most this often.
const OUTAGE_LOG_EVERY: Duration = Duration::from_secs(10);

/// Most lines at once, except for errors on which a person must act. Then there is one for each [`OUTAGE_LOG_EVERY`]: a
/// front that changes its server again and again would fill the log.
const LINES_MAX: u32 = 6;

/// An outage of the database: since when, what was logged, and how long to wait.
pub(super) struct Outage {
    writer: usize,
    /// When the attempt under way began.
    tried_at: Instant,
    /// When the first attempt that failed began.
    since: Option<Instant>,
    /// The last line of each class of errors in this outage.
    logged: Vec<(Instant, SinkError)>,
    lines: Lines,
    backoff: Duration,
}

impl Outage {
    pub(super) fn new(writer: usize) -> Self {
        Self {
            writer,
            tried_at: clock::now(),
            since: None,
            logged: Vec::new(),
            lines: Lines::new(),
            backoff: BACKOFF_MIN,
        }
    }

    /// Notes that an attempt begins.
    pub(super) fn tries(&mut self) {
        self.tried_at = clock::now();
    }

    /// Notes that the attempt has failed. Logs the error, unless there are such lines already.
    pub(super) fn report(&mut self, fault: &SinkError) {
        self.since.get_or_insert(self.tried_at);
        let is_known = |(at, logged): &(Instant, SinkError)| {
            is_like(logged, fault) && clock::since(*at) < OUTAGE_LOG_EVERY
        };
        if self.logged.iter().any(is_known) {
            return;
        }
        // The line that ends an outage belongs to the one that begins it. A person must act on the others.
        let count = match (fault, self.logged.is_empty()) {
            (SinkError::Stop(_), _) => 0,
            (_, true) => 2,
            (_, false) => 1,
        };
        let Some(left_out) = self.lines.take(count) else {
            return;
        };
        self.log(fault, left_out);
        self.logged
            .retain(|(_, logged)| class(logged) != class(fault));
        self.logged.push((clock::now(), fault.clone()));
    }

    fn log(&self, fault: &SinkError, left_out: u64) {
        let writer = self.writer;
        let more = match left_out {
            0 => String::new(),
            _ => format!(" ({left_out} lines about failures were left out before)"),
        };
        match fault {
            SinkError::Stop(error) => log::error!(
                event = "storing_stopped", writer, code = error.code;
                "writer {writer}: nothing can be stored until this is fixed: {error}; hakaru tries again by itself{more}"
            ),
            SinkError::OutcomeUnknown(error) => log::warn!(
                event = "commit_outcome_unknown", writer, code = error.code;
                "writer {writer}: the outcome of a COMMIT is unknown: {error}; hakaru reads the checkpoint to find out \
                 whether the batch is stored{more}"
            ),
            SinkError::Reconnect(error) => log::warn!(
                event = "database_unreachable", writer, code = error.code;
                "writer {writer}: the database cannot be used: {error}; hakaru tries again on a new connection{more}"
            ),
            SinkError::Retry(error) => log::warn!(
                event = "transaction_retried", writer, code = error.code;
                "writer {writer}: the transaction failed: {error}; hakaru tries again{more}"
            ),
        }
    }

    /// Whether there was an error after the last write that succeeded.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Ends the outage, if there is one, and logs that if its begin was logged.
    pub(super) fn end(&mut self) {
        let Some(since) = self.since.take() else {
            return;
        };
        self.backoff = BACKOFF_MIN;
        if self.logged.is_empty() {
            return;
        }
        self.logged.clear();
        let seconds = clock::since(since).as_secs_f64();
        log::info!(
            event = "storing_resumed", writer = self.writer, seconds;
            "writer {}: stores again, after {seconds:.1} s", self.writer
        );
    }

    /// The wait before the next attempt.
    pub(super) fn backoff(&mut self, fault: &SinkError) -> Duration {
        let (min, max) = match fault {
            SinkError::Stop(_) => (BACKOFF_STOP_MIN, BACKOFF_STOP_MAX),
            _ => (BACKOFF_MIN, BACKOFF_MAX),
        };
        let longest = self.backoff.clamp(min, max);
        self.backoff = longest * 2;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// The kind of an error, for the log.
fn class(fault: &SinkError) -> std::mem::Discriminant<SinkError> {
    std::mem::discriminant(fault)
}

/// Whether a line about one error says as much as one about the other. What an operator must mend is told each time that
/// it is something else.
fn is_like(logged: &SinkError, fault: &SinkError) -> bool {
    match fault {
        SinkError::Stop(_) => logged == fault,
        _ => class(logged) == class(fault),
    }
}

/// How many lines may be logged.
struct Lines {
    left: u32,
    /// When there was one more last.
    added_at: Instant,
    /// Lines that were not logged since the last one that was.
    left_out: u64,
}

impl Lines {
    fn new() -> Self {
        Self {
            left: LINES_MAX,
            added_at: clock::now(),
            left_out: 0,
        }
    }

    /// Takes lines, and returns how many were left out before them. `None`: there are too few.
    fn take(&mut self, count: u32) -> Option<u64> {
        while self.left < LINES_MAX && clock::since(self.added_at) >= OUTAGE_LOG_EVERY {
            self.left += 1;
            self.added_at += OUTAGE_LOG_EVERY;
        }
        if self.left == LINES_MAX {
            self.added_at = clock::now();
        }
        if self.left < count {
            self.left_out += 1;
            return None;
        }
        self.left -= count;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Fault;

    fn lost(text: &str) -> SinkError {
        SinkError::Reconnect(Fault::new(text))
    }

    #[test]
    fn an_outage_begins_when_the_attempt_that_failed_began() {
        let mut outage = Outage::new(0);
        outage.tries();
        let tried_at = outage.tried_at;
        outage.report(&lost("a"));
        outage.tries();
        outage.report(&lost("b"));
        assert_eq!(outage.since, Some(tried_at));
        assert_eq!(outage.logged.len(), 1);
        outage.end();
        assert!(!outage.is_on());
    }

    #[test]
    fn outages_in_a_row_leave_few_lines() {
        let mut outage = Outage::new(0);
        let mut logged = 0;
        for _ in 0..100 {
            for fault in [
                lost("a"),
                SinkError::OutcomeUnknown(Fault::new("b")),
                lost("c"),
            ] {
                outage.tries();
                outage.report(&fault);
            }
            logged += outage.logged.len();
            outage.end();
        }
        // Two outages with a line of each class and one for their end.
        assert_eq!(logged, 4);
        assert!(outage.lines.left_out >= 98);
    }

    #[test]
    fn what_a_person_must_mend_is_told_when_it_changes() {
        let mut outage = Outage::new(0);
        let stopped = |text: &str| SinkError::Stop(Fault::new(text));
        outage.lines.left = 0;
        for (fault, errors) in [
            (stopped("a"), ["a"]),
            (stopped("a"), ["a"]),
            (stopped("b"), ["b"]),
        ] {
            outage.report(&fault);
            let logged = outage.logged.iter();
            let logged = logged.map(|(_, fault)| fault.fault().text.as_str());
            assert!(logged.eq(errors), "{fault:?}");
        }
    }

    #[test]
    fn a_person_is_waited_for_longer() {
        let mut outage = Outage::new(0);
        let longest = |outage: &mut Outage, fault: &SinkError| {
            let waits = (0..20).map(|_| outage.backoff(fault));
            waits.max().unwrap()
        };
        assert!(outage.backoff(&lost("a")) <= BACKOFF_MIN);
        assert!(longest(&mut outage, &lost("a")) <= BACKOFF_MAX);
        let stopped = SinkError::Stop(Fault::new("a"));
        let waited = longest(&mut outage, &stopped);
        assert!(
            waited > BACKOFF_MAX && waited <= BACKOFF_STOP_MAX,
            "{waited:?}"
        );
    }
}
