//! Threads that say when they end, and signals as values.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{fmt, io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Shard,
    Writer,
    Disk,
    Janitor,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Shard => "a shard",
            Self::Writer => "a writer",
            Self::Disk => "a disk thread",
            Self::Janitor => "the journal's janitor",
        })
    }
}

/// What the threads tell the main one.
#[derive(Debug)]
pub(super) enum Notice {
    Signal,
    /// A successor is wanted.
    Reload,
    /// The successor serves, or does not, and why.
    Successor(Result<(), String>),
    /// A thread has ended, and how.
    Ended(Role, Result<(), String>),
}

/// Starts threads, and carries what they tell the main one.
#[derive(Debug, Clone)]
pub(super) struct Threads(Sender<Notice>);

impl Threads {
    /// The main thread's end is the receiver.
    pub(super) fn new() -> (Self, Receiver<Notice>) {
        let (notify, notices) = channel();
        (Self(notify), notices)
    }

    /// Starts a thread that says when it has ended, and how.
    pub(super) fn start(
        &self,
        name: String,
        role: Role,
        body: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let threads = self.clone();
        thread::Builder::new().name(name).spawn(move || {
            let panicked = |_| Err("it panicked".to_owned());
            let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked);
            threads.notify(Notice::Ended(role, outcome));
        })?;
        Ok(())
    }

    /// Tells the main thread.
    pub(super) fn notify(&self, notice: Notice) {
        if self.0.send(notice).is_err() {
            log::debug!("the main thread hears nothing any more");
        }
    }
}

/// Has signals arrive as notices. SIGHUP asks for a successor; of a process that was started from a
/// terminal it says that the terminal was closed.
pub(super) fn watch_signals(threads: &Threads) -> io::Result<()> {
    let has_terminal = io::stdin().is_terminal();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let threads = threads.clone();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let notice = if signal == SIGHUP && !has_terminal {
                    Notice::Reload
                } else {
                    Notice::Signal
                };
                threads.notify(notice);
            }
        })?;
    Ok(())
}
