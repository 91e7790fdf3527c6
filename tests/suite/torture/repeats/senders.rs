//! Senders that give their events ids, and repeat a request at any server until there is an answer that ends it.

use std::thread;
use std::time::Duration;

use crate::torture::history::Outcome;
use crate::torture::requests::{Request, Shape};
use crate::torture::senders::Load;

/// How many milliseconds a sender waits for an answer. Impatient ones repeat what is taken.
const PATIENCE: [u64; 4] = [3, 50, 2_000, 2_000];

/// Longest pause before a request is repeated.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Sends until it is stopped.
pub fn send(load: &Load<'_>, sender: u32, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(sender));
    let (mut value, mut unfinished) = (0, None);
    let mut pause = Duration::ZERO;
    while !load.is_stopped() {
        if load.rests() {
            continue;
        }
        let Some((target, mut client)) = load.connect(&mut random) else {
            thread::park_timeout(Duration::from_millis(1));
            continue;
        };
        let patience = *random.choice(&PATIENCE).unwrap();
        client.give_up_after(Duration::from_millis(patience));
        for _ in 0..random.u8(1..50) {
            let mut request = unfinished
                .take()
                .unwrap_or_else(|| next(sender, &mut value, &mut random));
            let (outcome, may_go_on) = load.attempt(&mut client, &request, target);
            let is_repeated = match outcome {
                Outcome::Rejected | Outcome::Refused => false,
                // As if the answer was lost behind the server.
                Outcome::Ok => random.u8(0..20) == 0,
                Outcome::Sent | Outcome::Shed | Outcome::Cut | Outcome::NoAnswer => true,
            };
            if is_repeated {
                // To any server, after a growing pause.
                request.cut_at = None;
                unfinished = Some(request);
                thread::park_timeout(pause);
                pause = (2 * pause).clamp(Duration::from_millis(1), LONGEST_PAUSE);
                break;
            }
            pause = Duration::ZERO;
            if !may_go_on {
                break;
            }
            thread::park_timeout(Duration::from_micros(load.pace));
        }
    }
}

/// A new request. Few have an event that is none, and are answered 400.
fn next(sender: u32, value: &mut u32, random: &mut fastrand::Rng) -> Request {
    let shape = Shape::draw(random);
    let first = *value + 1;
    *value += shape.events;
    let ids = (first..=*value).map(|value| (sender, value)).collect();
    match random.u8(0..200) {
        0 => Request::wrong(ids, random),
        _ => Request::new(shape, ids, true, random),
    }
}
