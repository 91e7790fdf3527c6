//! The threads of a server. Each reports its end to the main thread, and a panic in any of them ends the server.

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
    Admin,
    Log,
    Signals,
    Successor,
}

impl Role {
    #[cfg(test)]
    pub(super) const ALL: [Self; 8] = [
        Self::Shard,
        Self::Writer,
        Self::Disk,
        Self::Janitor,
        Self::Admin,
        Self::Log,
        Self::Signals,
        Self::Successor,
    ];

    /// Whether the server goes on when such a thread has ended without a fault.
    pub(super) fn may_end(self) -> bool {
        match self {
            // Events are taken without an admin port, and the wait for a successor is over at some time.
            Self::Admin | Self::Successor => true,
            Self::Shard | Self::Writer | Self::Disk | Self::Janitor | Self::Log | Self::Signals => {
                false
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Shard => "a shard",
            Self::Writer => "a writer",
            Self::Disk => "a disk thread",
            Self::Janitor => "the journal's janitor",
            Self::Admin => "the admin port",
            Self::Log => "the log's thread",
            Self::Signals => "the signals' thread",
            Self::Successor => "the thread that waits for a successor",
        })
    }
}

/// What the threads tell the main one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A shard accepts connections from now on.
    Accepts,
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
    /// The receiver is for the main thread.
    pub(super) fn new() -> (Self, Receiver<Notice>) {
        let (notify, notices) = channel();
        (Self(notify), notices)
    }

    /// Starts a thread that reports when it has ended, and how. No thread of a server is started otherwise.
    pub(super) fn start(
        &self,
        name: impl Into<String>,
        role: Role,
        body: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let threads = self.clone();
        let run = move || threads.notify(Notice::Ended(role, caught(body).flatten()));
        #[expect(
            clippy::disallowed_methods,
            reason = "its end is reported here, after a panic too"
        )]
        thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(())
    }

    /// Tells the main thread.
    pub(super) fn notify(&self, notice: Notice) {
        if self.0.send(notice).is_err() {
            log::debug!("the main thread receives no notices any more");
        }
    }
}

/// Runs `body`; a panic, which the panic hook has logged, becomes an error.
pub(super) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    // What a body that panicked has left half done is not used again, or only to drain.
    catch_unwind(AssertUnwindSafe(body))
        .ok()
        .ok_or_else(|| "it panicked".to_owned())
}

/// Has signals arrive as notices. SIGHUP asks for a successor; of a process that was started from a
/// terminal it says that the terminal was closed.
pub(super) fn watch_signals(threads: &Threads) -> io::Result<()> {
    let has_terminal = io::stdin().is_terminal();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let main = threads.clone();
    threads.start("signals", Role::Signals, move || {
        for signal in signals.forever() {
            main.notify(if signal == SIGHUP && !has_terminal {
                Notice::Reload
            } else {
                Notice::Signal
            });
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;
    use crate::os::io_driver::{self, IoChoice, IoDriver};

    fn next(notices: &Receiver<Notice>) -> Notice {
        notices.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn panicked(role: Role) -> Notice {
        Notice::Ended(role, Err("it panicked".to_owned()))
    }

    #[test]
    fn the_end_of_every_thread_is_reported_and_a_panic_is_an_error() {
        let (threads, notices) = Threads::new();
        for role in Role::ALL {
            threads.start("faulty", role, || panic!("planted")).unwrap();
            assert_eq!(next(&notices), panicked(role));
            threads.start("done", role, || Ok(())).unwrap();
            assert_eq!(next(&notices), Notice::Ended(role, Ok(())));
        }
    }

    #[test]
    fn a_panic_in_a_task_of_an_event_loop_ends_its_thread() {
        let (threads, notices) = Threads::new();
        // As a shard is run: on the ring too, where there is one.
        let chosen = io_driver::choose(IoChoice::Auto, false).unwrap();
        for driver in [chosen, IoDriver::Epoll] {
            let run = move || {
                let shard = async {
                    monoio::spawn(async { panic!("planted") });
                    pending().await
                };
                driver.block_on(shard).map_err(|fault| fault.to_string())
            };
            threads.start("shard-0", Role::Shard, run).unwrap();
            assert_eq!(next(&notices), panicked(Role::Shard));
        }
    }
}
