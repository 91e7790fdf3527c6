//! The first answer of a turn that takes an event: it becomes a 503 where the event turns out not to be safe.

use super::response::{Answer, Answers, Body, Cors, Persistence, Status};

/// Where that answer begins, and the origin that it names.
#[derive(Debug, Default)]
pub struct FirstTaken {
    start: Option<usize>,
    /// Empty where the request named none. Its memory is used again, so that a note allocates nothing.
    origin: Vec<u8>,
}

impl FirstTaken {
    /// Begins a turn without any event.
    pub fn clear(&mut self) {
        self.start = None;
    }

    /// Notes that the answer to an event begins at `start`, if it is the first of the turn.
    pub fn note(&mut self, start: usize, cors: Cors<'_>) {
        if self.start.is_some() {
            return;
        }
        self.start = Some(start);
        self.origin.clear();
        if let Cors::Origin(origin) = cors {
            self.origin.extend_from_slice(origin);
        }
    }

    /// Replaces the answer, and all that follow it, by a 503 that closes the connection. What precedes it
    /// stays.
    pub fn replace(&self, out: &mut Vec<u8>, answers: &Answers) {
        let Some(start) = self.start else {
            return;
        };
        out.truncate(start);
        let origin = Some(&self.origin[..]).filter(|origin| !origin.is_empty());
        let answer = Answer {
            status: Status::ServiceUnavailable,
            body: Body::Reason("journal: the event could not be kept; try again in 1 second"),
            ..Answer::event_taken(Cors::to(origin), Persistence::Close)
        };
        answers.write(out, &answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let (mut out, mut first) = (Vec::new(), FirstTaken::default());
            // As the answer to `HEAD /hakaru`, which looks the same and takes no event.
            answers.write_event_taken(&mut out, cors, Persistence::Keep);
            let before = out.clone();
            for _ in 0..2 {
                first.note(out.len(), cors);
                answers.write_event_taken(&mut out, cors, Persistence::Keep);
            }
            first.replace(&mut out, &answers);
            let broken = String::from_utf8(out[before.len()..].to_vec()).unwrap();
            assert!(
                out.starts_with(&before) && broken.starts_with("HTTP/1.1 503 "),
                "{broken}"
            );
            assert_eq!(broken.matches("HTTP/1.1").count(), 1);
            for line in [line, "Retry-After: 1", "Connection: close"] {
                assert!(
                    broken.contains(&format!("\r\n{line}\r\n")),
                    "{line}: {broken}"
                );
            }
        }
    }

    #[test]
    fn a_turn_without_an_event_stays_as_it_is() {
        let answers = Answers::new(784_111_777);
        let (mut out, mut first) = (b"an answer".to_vec(), FirstTaken::default());
        first.note(0, Cors::AnyOrigin);
        first.clear();
        first.replace(&mut out, &answers);
        assert_eq!(out, b"an answer");
    }
}
