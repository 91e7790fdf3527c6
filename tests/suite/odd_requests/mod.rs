//! Odd requests, each with the statuses that it is answered with and the events that are taken.
//!
//! The `.txt` files beside this one have them. A line such as
//!
//! ```text
//! >> 200 400 | 1 | what is odd about it
//! ```
//!
//! begins a conversation, with the statuses of its answers (`none`: it has no answer), how many events are taken, and a
//! title. The lines below it are what is sent, without their line ends, up to an empty line. Lines with `#` before the
//! first conversation are comments. In what is sent:
//!
//! - `\r`, `\n`, `\t`, `\0`, `\xHH` and `\\` are single bytes, and `\}` and `\x7b` are braces that are not counted,
//! - `\{3:text}` is the text three times, `\{gzip:text}` the text compressed; braces in a text are balanced or escaped,
//! - `\{post}` begins a `POST /hakaru`, with a `Content-Length` that fits what follows the head.

mod notation;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use self::notation::Conversation;
use crate::support::{Client, DEADLINE, Settings};

/// Up to so many bytes, a conversation is also cut into two at each byte.
const CUT_EVERYWHERE_BYTES: usize = 300;

/// Sends these pieces on a connection of their own, ends it, and returns everything that is received.
fn converse<'a>(address: SocketAddr, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    for piece in pieces {
        // The server may have answered already, and closed.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    stream.shutdown(Shutdown::Write).unwrap_or_default();
    let mut answers = Vec::new();
    // A reset comes after the answers, if it comes.
    stream.read_to_end(&mut answers).unwrap_or_default();
    String::from_utf8_lossy(&answers).into_owned()
}

/// The statuses of answers, without the one that asks for a body.
fn statuses(answers: &str) -> Vec<u16> {
    let starts = answers.match_indices("HTTP/1.1 ");
    let found = starts.filter_map(|(start, name)| answers.get(start + name.len()..)?.get(..4));
    let found = found.filter_map(|status| status.strip_suffix(' ')?.parse().ok());
    found.filter(|&status| status != 100).collect()
}

/// Has the conversation whole and in pieces, and counts how many times. `Err`: it is answered otherwise.
fn repeat(address: SocketAddr, conversation: &Conversation) -> Result<u64, String> {
    let Conversation { title, request, .. } = conversation;
    let expect = |how: &str, answers: String| {
        let wanted = &conversation.statuses;
        if statuses(&answers) == *wanted {
            Ok(())
        } else {
            Err(format!("{title}, {how}: {wanted:?}, but\n{answers}\n"))
        }
    };
    expect("whole", converse(address, [&request[..]].into_iter()))?;
    let step = (request.len() / 2_000).max(1);
    expect("in pieces", converse(address, request.chunks(step)))?;
    if request.len() > CUT_EVERYWHERE_BYTES {
        return Ok(2);
    }
    for cut in 1..request.len() {
        let (start, end) = request.split_at(cut);
        let how = format!("cut at byte {cut}");
        expect(&how, converse(address, [start, end].into_iter()))?;
    }
    Ok(1 + request.len() as u64)
}

#[test]
fn each_is_answered_as_expected_however_it_is_cut() {
    let conversations = notation::read_all();
    assert!(conversations.len() > 200, "{}", conversations.len());
    for io in ["--io=auto", "--io=epoll"] {
        let hakaru = Settings::sqlite().flag(io).start();
        let next = AtomicUsize::new(0);
        let taken = AtomicU64::new(0);
        let failures = Mutex::new(Vec::new());
        let take = || conversations.get(next.fetch_add(1, Ordering::Relaxed));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(conversation) = take() {
                        match repeat(hakaru.address, conversation) {
                            Ok(times) => {
                                taken.fetch_add(times * conversation.events, Ordering::Relaxed);
                            }
                            Err(failure) => failures.lock().unwrap().push(failure),
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let mut client = Client::connect(hakaru.address);
        assert_eq!(client.get("/ok").status, 200);
        assert!(hakaru.errors().is_empty(), "{}", hakaru.log());
        assert!(!hakaru.log().contains("panicked"), "{}", hakaru.log());
        // It adds up, and what is taken is stored.
        let identity = hakaru.stop();
        assert_eq!(identity.received, taken.into_inner());
        assert_eq!(identity.stored, identity.received);
    }
}
