//! Accepts connections from a listening socket.

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::{CancelHandle, Canceller};
use monoio::time::timeout;
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use socket2::{SockRef, TcpKeepalive};

use crate::os::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::os::io_driver::IoDriver;
use crate::os::listen::Backlog;
use crate::shard::connection::{self, Origin};
use crate::shard::state::Shard;

/// How long accepting pauses when there is no file descriptor left, or no connection slot and none to be had.
const PAUSE: Duration = Duration::from_millis(20);

/// After so long without a byte the kernel asks a peer whether it is still there, and again after each interval; a
/// connection whose peer has not answered the last time is reset. An idle connection ends about as early by itself:
/// this is for answers that wait, and their senders lost the network or were cut from it.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Least time between two log lines about such a pause, and about idle connections that are closed.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A listener that accepts connections.
pub struct Accepting {
    canceller: Canceller,
    backlog: Rc<Cell<Backlog>>,
    ended: Rc<Cell<bool>>,
}

impl Accepting {
    /// Stops accepting. `backlog` decides about connections that are already in the queue.
    pub fn stop(self, backlog: Backlog) -> Stopping {
        self.backlog.set(backlog);
        self.canceller.cancel();
        Stopping { ended: self.ended }
    }
}

/// A listener that accepts only what is left in its queue.
#[derive(Debug)]
pub struct Stopping {
    ended: Rc<Cell<bool>>,
}

impl Stopping {
    /// Whether nothing more is accepted.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }
}

/// Starts to accept connections.
pub fn start(
    listener: TcpListener,
    shard: Rc<Shard>,
    slots: Arc<ConnectionLimit>,
) -> io::Result<Accepting> {
    let is_epoll = shard.driver == IoDriver::Epoll;
    // io_uring waits on a blocking socket; epoll needs a non-blocking one.
    listener.set_nonblocking(is_epoll)?;
    // Inherited by accepted sockets: no system call a connection.
    SockRef::from(&listener).set_tcp_keepalive(&KEEPALIVE)?;
    let socket = listener.try_clone()?;
    let listener = monoio::net::TcpListener::from_std(listener)?;
    let canceller = Canceller::new();
    let cancel = canceller.handle();
    let ended = Rc::new(Cell::new(false));
    let has_ended = Rc::clone(&ended);
    let backlog = Rc::new(Cell::new(Backlog::Drain));
    let rest = Rc::clone(&backlog);
    monoio::spawn(async move {
        let mut acceptor = Acceptor {
            shard,
            slots,
            pause_logged_at: None,
            closed: 0,
            closed_logged_at: None,
        };
        acceptor.accept_until_cancelled(&listener, cancel).await;
        if rest.get() == Backlog::Drain {
            acceptor.drain_queue(&socket, is_epoll).await;
        }
        has_ended.set(true);
    });
    Ok(Accepting {
        canceller,
        backlog,
        ended,
    })
}

struct Acceptor {
    shard: Rc<Shard>,
    slots: Arc<ConnectionLimit>,
    pause_logged_at: Option<Instant>,
    /// Idle connections that were closed since that was logged.
    closed: u64,
    closed_logged_at: Option<Instant>,
}

/// Whether something that was last logged at `logged_at` is to be logged again; notes that it is.
fn is_due(logged_at: &mut Option<Instant>) -> bool {
    let is_due = logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY);
    if is_due {
        *logged_at = Some(Instant::now());
    }
    is_due
}

impl Acceptor {
    async fn accept_until_cancelled(
        &mut self,
        listener: &monoio::net::TcpListener,
        cancel: CancelHandle,
    ) {
        loop {
            match listener.cancelable_accept(cancel.clone()).await {
                Ok((stream, _)) => self.serve(stream).await,
                Err(fault) => match Errno::from_raw(fault.raw_os_error().unwrap_or(0)) {
                    Errno::ECANCELED => return,
                    // Another holder of the socket has shut it down: nobody can connect any more.
                    Errno::EINVAL => {
                        return log::error!(
                            event = "listener_closed";
                            "the listening socket was shut down ({fault}); this shard accepts no more connections"
                        );
                    }
                    // The peer has already closed the connection.
                    Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO => {}
                    // Another process has made the socket non-blocking: try again.
                    Errno::EAGAIN => monoio::time::sleep(PAUSE).await,
                    // Out of descriptors or memory: connections wait in the queue until others are closed.
                    _ => self.pause(&fault).await,
                },
            }
        }
    }

    /// Serves a connection when there is a slot for it. Until then no other is accepted.
    async fn serve(&mut self, stream: monoio::net::TcpStream) {
        let slot = match self.slots.acquire() {
            Some(slot) => slot,
            None => self.wait_for_slot().await,
        };
        connection::start(stream, Rc::clone(&self.shard), slot, Origin::Accepted);
    }

    /// Closes connections, the one that is idle longest first, until a slot is free. Where this shard has no
    /// idle connection, the others are asked for one.
    async fn wait_for_slot(&mut self) -> ConnectionPermit {
        let mut sought = None;
        loop {
            let closed = self
                .shard
                .deadlines
                .borrow_mut()
                .close_longest_idle(Instant::now());
            if closed {
                self.note_closed();
            } else {
                sought.get_or_insert_with(|| self.slots.seek());
                self.note_pause(&format_args!(
                    "{} connections are open, the most allowed, and none here is idle",
                    self.slots.max()
                ));
            }
            // Another shard may free a slot as well, and tells nobody.
            if timeout(PAUSE, self.shard.connection_end()).await.is_err() {
                log::trace!("no connection of this shard has ended");
            }
            if let Some(slot) = self.slots.acquire() {
                return slot;
            }
        }
    }

    fn note_closed(&mut self) {
        self.closed += 1;
        if is_due(&mut self.closed_logged_at) {
            log::warn!(
                event = "idle_connections_closed",
                connections = self.closed, max_connections = self.slots.max();
                "{} connections are open, the most allowed: the one that is idle longest is closed for each new one",
                self.slots.max()
            );
            self.closed = 0;
        }
    }

    async fn pause(&mut self, fault: &dyn std::fmt::Display) {
        self.note_pause(fault);
        monoio::time::sleep(PAUSE).await;
    }

    fn note_pause(&mut self, fault: &dyn std::fmt::Display) {
        if is_due(&mut self.pause_logged_at) {
            log::warn!(
                event = "accepting_paused";
                "accepting pauses: {fault}; open connections are served, and accepting resumes by itself"
            );
        }
    }

    /// Serves the connections that are left in the kernel's queue, then shuts the socket down.
    async fn drain_queue(&mut self, queue: &TcpListener, is_epoll: bool) {
        let mut state = queue.set_nonblocking(true);
        while state.is_ok() {
            let accepted = queue
                .accept()
                .and_then(|(stream, _)| self.adopt(stream, is_epoll));
            match accepted {
                Ok(stream) => self.serve(stream).await,
                // The queue is empty, or another shard that shares the socket has shut it down.
                Err(fault)
                    if matches!(
                        fault.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput
                    ) =>
                {
                    state = Err(fault);
                }
                // Out of descriptors: the queue waits until a connection ends.
                Err(fault) => self.pause(&fault).await,
            }
        }
        if let Err(fault) = shutdown(queue.as_raw_fd(), Shutdown::Both) {
            log::debug!("shutdown of a listener: {fault}");
        }
    }

    fn adopt(
        &self,
        stream: std::net::TcpStream,
        is_epoll: bool,
    ) -> io::Result<monoio::net::TcpStream> {
        stream.set_nonblocking(is_epoll)?;
        monoio::net::TcpStream::from_std(stream)
    }
}
