//! One connection: reads bytes, passes them to the conversation, sends its answers.

mod closing;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::http::conversation::{Conversation, Next, OUTPUT_BYTES_MAX, RequestProgress};
use crate::http::response::Status;
use crate::os::connection_limit::ConnectionPermit;
use crate::os::io_driver::IoDriver;
use crate::shard::deadlines::{ConnectionId, Phase};
use crate::shard::ingest::{self, AckFailed, AckTicket};
use crate::shard::input::{INPUT_BYTES_MAX, make_room};
use crate::shard::patience::Patience;
use crate::shard::service::{EventService, count_answers};
use crate::shard::state::{Outgoing, Shard};

/// Task, table entry and socket state of a connection in this process: an upper bound.
const CONNECTION_OVERHEAD_BYTES: usize = 2 * 1024;

/// The most memory that a connection takes in this process, in bytes.
pub const CONNECTION_BYTES_MAX: usize =
    INPUT_BYTES_MAX + OUTPUT_BYTES_MAX + CONNECTION_OVERHEAD_BYTES;

/// Reads in a row that may end without waiting. On epoll a read of a socket that has more data never
/// returns to the event loop by itself. One busy peer would block timers and all other connections.
const READS_WITHOUT_WAIT_MAX: u32 = 32;

/// The pause after [`READS_WITHOUT_WAIT_MAX`] reads. It is a timer, because the event loop runs timers only
/// when it waits.
const READ_PAUSE: Duration = Duration::from_millis(1);

/// How a connection comes to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was accepted.
    Accepted,
    /// It has moved here from another shard, and counts as busy.
    Moved,
}

/// Why a shard serves a connection no more.
enum Left {
    /// It has ended.
    Ended,
    /// The shard has more busy connections than another. No byte of the next request was read.
    Moves,
}

/// Starts to serve a connection.
pub fn start(stream: TcpStream, shard: Rc<Shard>, slot: ConnectionPermit, origin: Origin) {
    let fd = stream.as_raw_fd();
    let id = match origin {
        Origin::Accepted => shard.deadlines.borrow_mut().watch(fd),
        Origin::Moved => shard.deadlines.borrow_mut().watch_busy(fd),
    };
    monoio::spawn(serve(stream, shard, slot, id));
}

/// Serves a connection until it ends, which gives its slot back, or moves to another shard.
async fn serve(
    mut stream: TcpStream,
    shard: Rc<Shard>,
    mut slot: ConnectionPermit,
    mut id: ConnectionId,
) {
    loop {
        let mut connection = Connection {
            stream: &mut stream,
            shard: &shard,
            id,
            reads_without_wait: 0,
        };
        match connection.converse().await {
            Ok(Left::Moves) => {}
            Ok(Left::Ended) => break,
            Err(fault) => {
                // Peers may close a connection at any time.
                log::trace!("connection ended: {fault}");
                break;
            }
        }
        // It stays busy, here or there.
        shard.deadlines.borrow_mut().forget(id);
        match shard.balance.hand_over(stream, slot) {
            Ok(()) => return,
            Err(kept) => (stream, slot) = kept,
        }
        let fd = stream.as_raw_fd();
        id = shard.deadlines.borrow_mut().watch_busy(fd);
    }
    shard.forget(id);
    // Closed here: dropping the stream would submit two more operations to io_uring.
    if let Err(fault) = nix::unistd::close(stream) {
        log::debug!("close of a connection: {fault}");
    }
    drop(slot);
    shard.note_connection_end();
}

/// What the answers of a turn wait for, how many they are, and how many events they acknowledge.
struct Waiting {
    ticket: AckTicket,
    answers: u64,
    events: u64,
}

struct Connection<'a> {
    stream: &'a mut TcpStream,
    shard: &'a Shard,
    id: ConnectionId,
    /// Reads since the last one that waited.
    reads_without_wait: u32,
}

impl Connection<'_> {
    async fn converse(&mut self) -> io::Result<Left> {
        let mut conversation = Conversation::new();
        let mut input = BytesMut::new();
        let mut length = 0;
        let mut patience = Patience::WHOLE;
        loop {
            length = self.read(&mut input, length).await?;
            if length == 0 {
                self.end_of_input(&mut conversation, input).await?;
                return Ok(Left::Ended);
            }
            loop {
                let (next, waiting) = self.turn(&mut conversation, &mut input, &mut patience);
                if matches!(self.shard.driver, IoDriver::IoUring(_)) {
                    self.shard.inputs.release(&mut input);
                }
                let (next, unsent) = match waiting {
                    None => (next, self.send(&self.shard.out.borrow().bytes)?),
                    Some(waiting) => self.send_when_acknowledged(waiting, next).await?,
                };
                if !unsent.is_empty() {
                    self.write(unsent, next).await?;
                }
                match next {
                    Next::AwaitRoom => patience.wait(&self.shard.ingest).await,
                    Next::Write => {}
                    Next::Read(RequestProgress::None)
                        if self.shard.should_move(self.id) && input.is_empty() =>
                    {
                        return Ok(Left::Moves);
                    }
                    Next::Read(_) => break,
                    Next::Close if input.is_empty() => return Ok(Left::Ended),
                    Next::Close | Next::CloseAfterSender => {
                        conversation.end();
                        self.close_after_sender(input).await?;
                        return Ok(Left::Ended);
                    }
                }
            }
        }
    }

    /// Appends what arrives to `input`. Returns its length, 0 at the end. `last` is the length of the
    /// previous read.
    async fn read(&mut self, input: &mut BytesMut, last: usize) -> io::Result<usize> {
        match self.shard.driver {
            IoDriver::IoUring(_) => self.read_when_ready(input).await,
            IoDriver::Epoll => self.read_as_it_arrives(input, last).await,
        }
    }

    /// Waits on io_uring until the socket is readable, and only then takes a buffer. So idle connections hold
    /// no buffer. The read is a separate system call, which is cheaper than a read that io_uring must try
    /// twice.
    async fn read_when_ready(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.stream.readable(true).await?;
            let mut arrived = self.shard.inputs.arrived.borrow_mut();
            match recv(
                self.stream.as_raw_fd(),
                &mut arrived,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(length) => {
                    self.shard.inputs.append(input, &arrived[..length]);
                    return Ok(length);
                }
                // The socket was reported readable, but a segment was dropped for its checksum.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Reads with a buffer of the connection. On epoll, waiting until the socket is readable first would cost
    /// another system call.
    async fn read_as_it_arrives(&mut self, input: &mut BytesMut, last: usize) -> io::Result<usize> {
        make_room(input, last);
        let start = input.len();
        let room = std::mem::take(input).slice_mut(start..);
        let mut waited = false;
        let (result, room) = {
            let mut read = pin!(self.stream.read(room));
            poll_fn(|context| {
                let polled = read.as_mut().poll(context);
                waited |= polled.is_pending();
                polled
            })
            .await
        };
        *input = room.into_inner();
        self.reads_without_wait = if waited {
            0
        } else {
            self.reads_without_wait + 1
        };
        if self.reads_without_wait >= READS_WITHOUT_WAIT_MAX {
            self.reads_without_wait = 0;
            monoio::time::sleep(READ_PAUSE).await;
        }
        result
    }

    /// One turn: answers everything that arrived. The answers are in the shard's scratch. They may be sent
    /// when their events are acknowledged.
    fn turn(
        &mut self,
        conversation: &mut Conversation,
        input: &mut BytesMut,
        patience: &mut Patience,
    ) -> (Next, Option<Waiting>) {
        let shard = self.shard;
        let now = shard.read_clock();
        let mut out = shard.out.borrow_mut();
        out.clear();
        let Outgoing { bytes, taken } = &mut *out;
        let mut ingest = shard.ingest.borrow_mut();
        let before = ingest.taken();
        let mut service = EventService {
            ingest: &mut ingest,
            answers: &shard.answers.borrow(),
            taken,
            counters: &shard.counters,
            paths: &shard.paths,
            event_rule: &shard.event_rule,
            now,
            bodies: &shard.bodies,
            patience,
            is_draining: shard.is_draining.get(),
        };
        let next = conversation.turn(input, bytes, &mut shard.decoded.borrow_mut(), &mut service);
        ingest.commit_soon();
        let events = ingest.taken().since(before);
        let answers = events - taken.further_events();
        let ticket = if events > 0 { ingest.ticket() } else { None };
        if ticket.is_none() {
            count_answers(&shard.counters, Status::Ok, answers);
        }
        let mut deadlines = shard.deadlines.borrow_mut();
        match phase(next) {
            // Without an answer it is still the same request, or the connection is still idle.
            phase if bytes.is_empty() && next != Next::Read(RequestProgress::MoreBody) => {
                deadlines.stay(self.id, phase);
            }
            phase => deadlines.begin(self.id, phase),
        }
        if !bytes.is_empty() && deadlines.count_turn(self.id, events) {
            shard.balance.add();
        }
        let waiting = |ticket| Waiting {
            ticket,
            answers,
            events,
        };
        (next, ticket.map(waiting))
    }

    /// Sends the answers of this turn when their events are safe. If they never will be, the first answer
    /// that acknowledges an event becomes a 503, and the connection is closed after it. If nobody can tell, the
    /// connection is closed without an answer: a 503 says that an event is no row, now or later.
    async fn send_when_acknowledged(
        &mut self,
        waiting: Waiting,
        next: Next,
    ) -> io::Result<(Next, Vec<u8>)> {
        let shard = self.shard;
        let mut answers = shard.take_answers();
        let begin = |phase| shard.deadlines.borrow_mut().begin(self.id, phase);
        begin(Phase::AwaitingAck(waiting.ticket));
        let next = match ingest::acknowledged(&shard.ingest, waiting.ticket).await {
            Ok(()) => {
                self.refuse(&waiting, &mut answers);
                next
            }
            // Nobody is there to be answered, or no answer would be true.
            Err(AckFailed::Abandoned | AckFailed::Unknown) => {
                shard.give_back(answers);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Err(AckFailed::NotKept) => {
                let Outgoing { bytes, taken } = &mut answers;
                taken.fail(bytes, &shard.answers.borrow());
                count_answers(&shard.counters, Status::ServiceUnavailable, 1);
                Next::CloseAfterSender
            }
        };
        begin(phase(next));
        let unsent = self.send(&answers.bytes);
        shard.give_back(answers);
        Ok((next, unsent?))
    }

    /// Counts the answers to events that are safe. The answers to events that the database has refused become 422.
    fn refuse(&self, waiting: &Waiting, answers: &mut Outgoing) {
        let shard = self.shard;
        let refused = shard
            .ingest
            .borrow()
            .take_refused(waiting.ticket, waiting.events);
        let mut replaced = 0;
        if !refused.is_empty() {
            let Outgoing { bytes, taken } = answers;
            replaced = taken.refuse(bytes, &refused, &shard.answers.borrow());
            count_answers(&shard.counters, Status::UnprocessableContent, replaced);
        }
        count_answers(&shard.counters, Status::Ok, waiting.answers - replaced);
    }

    /// Sends without waiting. Returns a copy of what the socket did not take.
    fn send(&self, out: &[u8]) -> io::Result<Vec<u8>> {
        let sent = send_now(self.stream.as_raw_fd(), out)?;
        if sent < out.len() {
            self.shard
                .deadlines
                .borrow_mut()
                .begin(self.id, Phase::Answer);
        }
        Ok(out[sent..].to_vec())
    }

    /// Sends, and waits until the socket has taken all of it.
    async fn write(&mut self, bytes: Vec<u8>, next: Next) -> io::Result<()> {
        let (result, _) = self.stream.write_all(bytes).await;
        result?;
        self.shard
            .deadlines
            .borrow_mut()
            .begin(self.id, phase(next));
        Ok(())
    }
}

/// What a connection does when its answers are sent.
fn phase(next: Next) -> Phase {
    match next {
        Next::Read(RequestProgress::None) => Phase::Idle,
        Next::Read(RequestProgress::Head | RequestProgress::Body | RequestProgress::MoreBody)
        | Next::AwaitRoom
        | Next::Write => Phase::Request,
        Next::Close | Next::CloseAfterSender => Phase::Closing,
    }
}

/// Sends what the socket takes at once. Returns how much that was. One system call here is cheaper than a
/// send on io_uring, which needs a completion of its own.
fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match send(fd, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(fault) => Err(fault.into()),
    }
}
