//! The answers of a turn that acknowledge events. Before they are sent, they can become a 503 or a 422.

use std::ops::Range;

use super::response::{Answer, Answers, Body, Cors, Persistence, Status};

/// Most bytes by which an answer grows when it becomes a 422.
const REFUSED_BYTES: usize = 256;

/// The same, for one that acknowledges several events.
const MANY_REFUSED_BYTES: usize = 512;

/// Where these answers are, and their origins and persistence.
#[derive(Debug, Default)]
pub struct TakenAnswers {
    taken: Vec<TakenAnswer>,
    /// Events of the turn beside the first one of each answer.
    further_events: u64,
    /// Most bytes by which the noted answers may grow.
    growth: usize,
    /// The origins that they name, one after the other. Its memory and that of the list are reused, so that a note
    /// allocates nothing.
    origins: Vec<u8>,
}

/// What an answer acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// One event, as that of a `GET`.
    One,
    /// So many events of a body that could have several.
    Many(usize),
    /// So many of them, and others were left out: the number of one is not its number in the request.
    Part(usize),
}

impl Acknowledged {
    fn events(self) -> usize {
        match self {
            Self::One => 1,
            Self::Many(events) | Self::Part(events) => events,
        }
    }
}

#[derive(Debug)]
struct TakenAnswer {
    bytes: Range<usize>,
    events: Acknowledged,
    /// Empty if the request named none.
    origin: Range<usize>,
    persistence: Persistence,
}

impl TakenAnswers {
    /// Begins a turn that has no event yet.
    pub fn clear(&mut self) {
        self.taken.clear();
        self.origins.clear();
        self.further_events = 0;
        self.growth = 0;
    }

    /// Counts the events that an answer acknowledges beside a first one.
    pub fn count_further(&mut self, events: usize) {
        self.further_events += events as u64;
    }

    /// Events of the turn beside the first one of each answer.
    pub fn further_events(&self) -> u64 {
        self.further_events
    }

    /// Whether no answer of this turn is noted.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Most bytes by which the noted answers may grow.
    pub fn growth(&self) -> usize {
        self.growth
    }

    /// Notes that the answer to events is at `bytes`. The first one of a turn must be noted. If events may be
    /// refused, all must be noted, in order.
    pub fn note(
        &mut self,
        bytes: Range<usize>,
        events: Acknowledged,
        cors: Cors<'_>,
        persistence: Persistence,
    ) {
        self.growth += match events {
            Acknowledged::One => REFUSED_BYTES,
            Acknowledged::Many(_) | Acknowledged::Part(_) => MANY_REFUSED_BYTES,
        };
        let start = self.origins.len();
        if let Cors::Origin(origin) = cors {
            self.origins.extend_from_slice(origin);
        }
        self.taken.push(TakenAnswer {
            bytes,
            events,
            origin: start..self.origins.len(),
            persistence,
        });
    }

    /// Replaces the first answer, and all that follow it, by a 503 that closes the connection. Keeps the answers before
    /// it.
    pub fn fail(&self, out: &mut Vec<u8>, answers: &Answers) {
        let Some(first) = self.taken.first() else {
            return;
        };
        out.truncate(first.bytes.start);
        let answer = Answer {
            status: Status::ServiceUnavailable,
            body: Body::Reason("journal: the event could not be kept; try again in 1 second"),
            ..Answer::event_taken(self.cors(first), Persistence::Close)
        };
        answers.write(out, &answer);
    }

    /// Replaces each answer to a refused event by a 422. `refused` has the numbers of these events in ascending order,
    /// counted from the first event of the turn. Returns how many answers it replaces.
    pub fn refuse(&self, out: &mut Vec<u8>, refused: &[usize], answers: &Answers) -> u64 {
        let mut bytes = Vec::new();
        let mut replaced = 0;
        let mut end = self.taken.iter().map(|taken| taken.events.events()).sum();
        // From the last one, so that the ranges of the others stay right.
        for taken in self.taken.iter().rev() {
            let start = end - taken.events.events();
            let before = |bound: usize| refused.partition_point(|&event| event < bound);
            let of_this = &refused[before(start)..before(end)];
            end = start;
            let Some(first) = of_this.first() else {
                continue;
            };
            let reason;
            // Without the error of the database, which may contain data of other senders.
            let body = match taken.events {
                Acknowledged::One => {
                    Body::Reason("database: the event was refused and is kept as a dead letter")
                }
                Acknowledged::Many(events) => {
                    let count = of_this.len();
                    reason = format!(
                        "database: {count} of {events} events were refused and are kept as dead letters; the others are stored"
                    );
                    Body::ReasonOf(&reason, first - start)
                }
                Acknowledged::Part(events) => {
                    let count = of_this.len();
                    reason = format!(
                        "database: {count} of the {events} events that were taken were refused and are kept as dead letters"
                    );
                    Body::Reason(&reason)
                }
            };
            let answer = Answer {
                status: Status::UnprocessableContent,
                body,
                ..Answer::event_taken(self.cors(taken), taken.persistence)
            };
            bytes.clear();
            answers.write(&mut bytes, &answer);
            out.splice(taken.bytes.clone(), bytes.drain(..));
            replaced += 1;
        }
        replaced
    }

    fn cors(&self, taken: &TakenAnswer) -> Cors<'_> {
        let origin = self.origins.get(taken.origin.clone());
        Cors::to(origin.filter(|origin| !origin.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(
        taken: &mut TakenAnswers,
        out: &mut Vec<u8>,
        answers: &Answers,
        (cors, persistence): (Cors<'_>, Persistence),
    ) {
        let start = out.len();
        answers.write_event_taken(out, cors, persistence);
        taken.note(start..out.len(), Acknowledged::One, cors, persistence);
    }

    #[test]
    fn the_first_event_that_was_taken_becomes_a_503_and_the_last_answer() {
        let answers = Answers::new(784_111_777);
        for (cors, line) in [
            (Cors::AnyOrigin, "Access-Control-Allow-Origin: *"),
            (
                Cors::Origin(b"https://o"),
                "Access-Control-Allow-Origin: https://o",
            ),
        ] {
            let (mut out, mut taken) = (Vec::new(), TakenAnswers::default());
            // The answer to `HEAD /hakaru` looks the same and acknowledges no event.
            answers.write_event_taken(&mut out, cors, Persistence::Keep);
            let before = out.clone();
            for _ in 0..2 {
                take(&mut taken, &mut out, &answers, (cors, Persistence::Keep));
            }
            taken.fail(&mut out, &answers);
            let replaced = String::from_utf8(out[before.len()..].to_vec()).unwrap();
            assert!(
                out.starts_with(&before) && replaced.starts_with("HTTP/1.1 503 "),
                "{replaced}"
            );
            assert_eq!(replaced.matches("HTTP/1.1").count(), 1);
            for line in [line, "Retry-After: 1", "Connection: close"] {
                assert!(
                    replaced.contains(&format!("\r\n{line}\r\n")),
                    "{line}: {replaced}"
                );
            }
        }
    }

    #[test]
    fn a_turn_without_an_event_stays_as_it_is() {
        let answers = Answers::new(784_111_777);
        let (mut out, mut taken) = (b"an answer".to_vec(), TakenAnswers::default());
        taken.note(0..2, Acknowledged::One, Cors::AnyOrigin, Persistence::Keep);
        taken.clear();
        taken.fail(&mut out, &answers);
        taken.refuse(&mut out, &[0], &answers);
        assert_eq!(out, b"an answer");
    }

    #[test]
    fn only_the_answers_to_refused_events_become_422() {
        let answers = Answers::new(784_111_777);
        let kinds = [
            (Cors::AnyOrigin, Persistence::Keep),
            (Cors::Origin(b"https://one"), Persistence::Keep),
            (Cors::Origin(b"https://two"), Persistence::KeepExplicit),
            (Cors::AnyOrigin, Persistence::Close),
        ];
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let head =
            written(&|out| answers.write_event_taken(out, Cors::AnyOrigin, Persistence::Keep));
        let (mut out, mut taken) = (head.clone().into_bytes(), TakenAnswers::default());
        for kind in kinds {
            take(&mut taken, &mut out, &answers, kind);
        }
        let (mut all, most) = (out.clone(), out.len() + taken.growth());
        taken.refuse(&mut all, &[0, 1, 2, 3], &answers);
        assert!(all.len() <= most, "{} of {most}", all.len());
        assert_eq!(taken.refuse(&mut out, &[1, 3], &answers), 2);
        let out = String::from_utf8(out).unwrap();
        let all: Vec<_> = out.split_inclusive("\r\n\r\n").collect();
        let stored = |at: usize| {
            let (cors, persistence) = kinds[at];
            written(&|out| answers.write_event_taken(out, cors, persistence))
        };
        // The body of a 422 is before the next answer.
        let body = r#"{"error":"database: the event was refused and is kept as a dead letter"}"#;
        assert_eq!(all[..2], [head, stored(0)]);
        assert!(
            all[2].starts_with("HTTP/1.1 422 Unprocessable Content\r\n"),
            "{out}"
        );
        assert!(
            all[2].contains("\r\nAccess-Control-Allow-Origin: https://one\r\n"),
            "{out}"
        );
        assert!(!all[2].contains("\r\nConnection:"), "{out}");
        assert_eq!(all[3], format!("{body}{}", stored(2)));
        assert!(all[4].starts_with("HTTP/1.1 422 "), "{out}");
        assert!(all[4].contains("\r\nConnection: close\r\n"), "{out}");
        assert_eq!(all[5..], [body]);
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        let reason = "\r\nX-Hakaru-Reason: database: the event was refused";
        for refused in [all[2], all[4]] {
            assert!(
                refused.contains(&length) && refused.contains(reason),
                "{refused}"
            );
        }
    }
    #[test]
    fn one_refused_event_of_many_makes_their_answer_a_422_that_names_it() {
        let answers = Answers::new(784_111_777);
        let (mut out, mut taken) = (Vec::new(), TakenAnswers::default());
        for events in [
            Acknowledged::One,
            Acknowledged::Many(3),
            Acknowledged::Many(2),
            Acknowledged::Part(2),
        ] {
            let start = out.len();
            answers.write_event_taken(&mut out, Cors::AnyOrigin, Persistence::Keep);
            taken.note(start..out.len(), events, Cors::AnyOrigin, Persistence::Keep);
        }
        let most = out.len() + taken.growth();
        assert_eq!(taken.refuse(&mut out, &[2, 3, 7], &answers), 2);
        assert!(out.len() <= most, "{} of {most}", out.len());
        let out = String::from_utf8(out).unwrap();
        let statuses: Vec<_> = out.split("HTTP/1.1 ").skip(1).map(|a| &a[..3]).collect();
        assert_eq!(statuses, ["200", "422", "200", "422"]);
        let body = r#"{"error":"database: 2 of 3 events were refused and are kept as dead letters; the others are stored","event":1}"#;
        assert!(out.contains(body), "{out}");
        // Its number in the request is not known.
        let words =
            "1 of the 2 events that were taken were refused and are kept as dead letters\"}";
        assert!(out.ends_with(words), "{out}");
    }
}
