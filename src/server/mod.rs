//! Starts writers and shards, waits for a signal, drains in order.

pub(crate) mod bounds;
pub mod config;
pub(crate) mod data_dir;
mod drain;
mod error;
mod facts;
mod shared;
mod sockets;
mod start;
mod systemd;
mod threads;
mod unanswered;
pub mod upgrade;
mod watchdog;
pub(crate) mod writers;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use self::config::Config;
pub use self::error::ServerError;
use self::shared::Shared;
use self::threads::{Notice, Role, Threads, caught};
use self::unanswered::Unanswered;
use self::upgrade::{Inherited, Program, SocketUse, Successor};
use self::watchdog::Watchdog;
use crate::admin::overview::Stage;
use crate::event::ack::Ack;
use crate::journal::lane_handle::DiskLane;
use crate::os::logging::{self, LastLines};
use crate::os::process_list;

/// A server that runs.
struct Server {
    shared: Shared,
    /// How far we are, for whoever asks.
    stage: Arc<Stage>,
    notices: Receiver<Notice>,
    /// To each shard and to the admin port. A byte means that there is a successor; the end of the stream
    /// makes a shard drain.
    controls: Vec<UnixStream>,
    /// The janitor ends with the last of these.
    opened: Option<Sender<Arc<DiskLane>>>,
    ack: Ack,
    shards_running: usize,
    writers_running: usize,
    is_janitor_running: bool,
    /// How to start a successor, and what it is given.
    program: Program,
    sockets: Vec<(SocketUse, TcpListener)>,
    /// It is being started.
    successor: Option<Successor>,
    /// `None` when it was said that requests are answered.
    unannounced: Option<Announcement>,
}

/// The line that is logged when every shard accepts, and who is notified.
struct Announcement {
    /// Shards that do not accept yet.
    shards_left: usize,
    line: String,
    address: SocketAddr,
    inherited: Inherited,
}

/// Why a server that runs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was told to.
    Signal,
    /// Another serves in its place.
    Succeeded,
}

/// Serves until a signal or until a successor serves, then drains. To be called once: it logs.
pub fn run(config: &Config, program: Program) -> Result<(), ServerError> {
    let (threads, notices) = Threads::new();
    // Dropped after the server, whose end is logged.
    let _last_lines = start_log(config, &threads).map_err(ServerError::Start)?;
    if let Err(fault) = process_list::hide_passwords() {
        log::warn!(
            event = "password_visible";
            "a password given as a flag can be seen in the process list: {fault}"
        );
    }
    let inherited = Inherited::take().map_err(ServerError::Start)?;
    let mut server = Server::start(config, program, inherited, threads, notices)?;
    let ended = caught(|| server.wait()).unwrap_or_else(main_thread_panicked);
    // Where a fault began the drain, no signal has come yet.
    let signals_allowed = usize::from(!matches!(ended, Ok(End::Signal)));
    // With a fault, one that is still being started is the better choice: its sockets must stay open.
    let has_successor = match &ended {
        Ok(end) => *end == End::Succeeded,
        Err(_) => server.successor.is_some(),
    };
    if !has_successor {
        systemd::stopping();
    }
    server.stop_accepting(has_successor);
    let drain = || {
        server.drain(config.drain_timeout, signals_allowed)?;
        server.end_janitor()
    };
    let drained = caught(drain).unwrap_or_else(main_thread_panicked);
    let outcome = ended.and(drained);
    // Whoever reads the log by a program must see that events are lost.
    match &outcome {
        Ok(()) => {}
        Err(fault @ ServerError::NotDrained { pending, .. }) => {
            log::error!(event = "drain_timed_out", events = pending; "{fault}");
        }
        Err(fault @ ServerError::Aborted { pending, .. }) => {
            log::error!(event = "drain_aborted", events = pending; "{fault}");
        }
        Err(fault) => log::error!(event = "thread_ended"; "{fault}"),
    }
    server.log_identity();
    outcome
}

/// Starts the log. The end of its thread is reported as that of any other.
fn start_log(config: &Config, threads: &Threads) -> io::Result<LastLines> {
    logging::start(config.log_format, &config.log_filter, |writer| {
        let run = move || {
            writer.run();
            Ok(())
        };
        threads.start("log", Role::Log, run)
    })
}

fn thread_ended(role: Role, how: String) -> ServerError {
    ServerError::ThreadEnded(format!("{role} ended: {how}"))
}

fn main_thread_panicked<T>(how: String) -> Result<T, ServerError> {
    Err(ServerError::ThreadEnded(format!("the main thread: {how}")))
}

impl Server {
    /// Without any thread yet.
    fn new(ack: Ack, program: Program, shared: Shared, notices: Receiver<Notice>) -> Self {
        Self {
            shared,
            stage: Arc::default(),
            notices,
            controls: Vec::new(),
            opened: None,
            ack,
            shards_running: 0,
            writers_running: 0,
            is_janitor_running: false,
            program,
            sockets: Vec::new(),
            successor: None,
            unannounced: None,
        }
    }

    /// Returns at the first signal, when a successor serves, or with an error when a thread ends by itself.
    fn wait(&mut self) -> Result<End, ServerError> {
        let mut watchdog = Watchdog::new();
        let mut unanswered = Unanswered::default();
        loop {
            unanswered.look(&self.shared.metrics);
            let patience = match &self.unannounced {
                Some(_) => watchdog::UNWATCHED,
                None => watchdog.feed(&self.shared.metrics),
            };
            match self.notices.recv_timeout(patience.min(unanswered::EVERY)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Notice::Accepts) => self.count_accepting(),
                Ok(Notice::Signal) => {
                    log::info!(event = "signal_received"; "signal received: draining");
                    if let Some(successor) = &self.successor {
                        successor.end();
                    }
                    return Ok(End::Signal);
                }
                Ok(Notice::Reload) if self.successor.is_some() => {
                    log::warn!(
                        event = "reload_ignored";
                        "a successor is being started already: this SIGHUP starts no other"
                    );
                }
                Ok(Notice::Reload) if self.unannounced.is_some() => {
                    log::warn!(
                        event = "reload_ignored";
                        "this process does not serve yet: this SIGHUP starts no successor"
                    );
                }
                Ok(Notice::Reload) => self.successor = self.start_successor(),
                Ok(Notice::Successor(Ok(()))) => {
                    if let Some(successor) = &self.successor {
                        log::info!(
                            event = "successor_serves", pid = successor.pid().as_raw();
                            "process {} serves in place of this one: draining", successor.pid()
                        );
                    }
                    return Ok(End::Succeeded);
                }
                Ok(Notice::Successor(Err(why))) => {
                    log::error!(event = "reload_failed"; "there is no successor, and this process serves on: {why}");
                    systemd::ready("takes events; the last reload failed");
                    self.successor = None;
                }
                Ok(Notice::Ended(role, Ok(()))) if role.may_end() => {}
                Ok(Notice::Ended(role, outcome)) => {
                    self.count_ended(role);
                    let how = outcome.err();
                    let how = how.unwrap_or_else(|| "without a reason".to_owned());
                    return Err(thread_ended(role, how));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ServerError::ThreadEnded(
                        "every thread has ended".to_owned(),
                    ));
                }
            }
        }
    }

    /// Says that requests are answered, once every shard accepts.
    fn count_accepting(&mut self) {
        let was_last = |announcement: &mut Announcement| {
            announcement.shards_left -= 1;
            announcement.shards_left == 0
        };
        if let Some(announcement) = self.unannounced.take_if(was_last) {
            self.stage.serve();
            let ids = self.shared.event_rule.get().ids;
            log::info!(
                event = "listening", address:% = announcement.address;
                "{}; {ids}", announcement.line
            );
            systemd::ready(&format!("takes events on {}", announcement.address));
            announcement.inherited.serves();
        }
    }

    fn start_successor(&self) -> Option<Successor> {
        systemd::reloading();
        match Successor::start(&self.program, &self.sockets, &self.shared.threads) {
            Ok(successor) => {
                log::info!(
                    event = "successor_started", pid = successor.pid().as_raw();
                    "SIGHUP: process {} is to serve in place of this one", successor.pid()
                );
                Some(successor)
            }
            Err(fault) => {
                log::error!(event = "reload_failed"; "there is no successor, and this process serves on: {fault}");
                systemd::ready("takes events; the last reload failed");
                None
            }
        }
    }

    /// Tells the shards to drain, and everybody who listens whether another listens on.
    fn stop_accepting(&mut self, has_successor: bool) {
        if has_successor {
            self.stage.hand_over();
            for control in &mut self.controls {
                if let Err(fault) = control.write_all(b"1") {
                    log::debug!(
                        "a shard or the admin port does not learn of the successor: {fault}"
                    );
                }
            }
        } else {
            self.stage.drain();
        }
        self.shared.draining.store(true, Ordering::Relaxed);
        self.controls.clear();
        self.sockets.clear();
    }

    fn count_ended(&mut self, role: Role) {
        match role {
            Role::Shard => self.shards_running -= 1,
            Role::Writer => self.writers_running -= 1,
            Role::Janitor => self.is_janitor_running = false,
            // A disk thread ends with its shard; the drain does not wait for the others.
            Role::Disk | Role::Admin | Role::Log | Role::Signals | Role::Successor => {}
        }
    }

    fn is_journaled(&self) -> bool {
        self.ack != Ack::Received
    }

    /// The identity: what became of every event.
    fn log_identity(&self) {
        let totals = self.shared.metrics.totals();
        if self.is_journaled() && totals.pending() > 0 {
            log::info!(
                event = "events_left_in_journal", events = totals.pending();
                "{} events stay in the journal for the next start", totals.pending()
            );
        }
        log::info!(
            event = "ended",
            received = totals.received,
            recovered = totals.recovered,
            stored = totals.stored,
            duplicate = totals.duplicates,
            dead_lettered = totals.dead_lettered,
            lost = totals.lost,
            pending = totals.pending(),
            rejected = totals.rejected.iter().sum::<u64>(),
            rejected_by_reason:% = totals.rejected_by_reason(),
            shed = totals.shed;
            "ended"
        );
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
