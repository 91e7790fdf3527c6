//! One connection: reads bytes, passes them to the conversation, sends its answers.

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
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use crate::http::BODY_LIMIT_MAX;
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

/// Most bytes that a peer may still send after its last answer, before the connection is closed: the rest of a body, and more.
const CLOSING_BYTES_MAX: usize = 2 * BODY_LIMIT_MAX;

/// Reads in a row that may end without waiting. On epoll a read of a socket that has more data never
/// returns to the event loop by itself. One busy peer would block timers and all other connections.
const READS_WITHOUT_WAIT_MAX: u32 = 32;

/// The pause after [`READS_WITHOUT_WAIT_MAX`] reads. It is a timer, because the event loop runs timers only
/// when it waits.
const READ_PAUSE: Duration = Duration::from_millis(1);

/// How long a peer that was too slow has to read the 408.
const LATE_READ_TIME: Duration = Duration::from_secs(1);

/// Serves a connection to its end and gives its slot back.
pub async fn serve(mut stream: TcpStream, shard: Rc<Shard>, slot: ConnectionPermit) {
    let id = shard.deadlines.borrow_mut().watch(stream.as_raw_fd());
    let mut connection = Connection {
        stream: &mut stream,
        shard: &shard,
        id,
        reads_without_wait: 0,
    };
    if let Err(fault) = connection.converse().await {
        // Peers may close a connection at any time.
        log::trace!("connection ended: {fault}");
    }
    shard.deadlines.borrow_mut().forget(id);
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
    async fn converse(&mut self) -> io::Result<()> {
        let mut conversation = Conversation::new();
        let mut input = BytesMut::new();
        let mut length = 0;
        let mut patience = Patience::WHOLE;
        loop {
            length = self.read(&mut input, length).await?;
            if length == 0 {
                return self.end_of_input(&mut conversation, input).await;
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
                    Next::Read(_) => break,
                    Next::Close if input.is_empty() => return Ok(()),
                    Next::Close | Next::CloseAfterSender => {
                        conversation.end();
                        return self.close_after_sender(input).await;
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

    /// The peer sends no more, or took too long. If it took too long over a request, it is answered 408.
    async fn end_of_input(
        &mut self,
        conversation: &mut Conversation,
        input: BytesMut,
    ) -> io::Result<()> {
        let is_late = self.shard.deadlines.borrow().is_late(self.id);
        if !is_late || conversation.is_idle(&input) {
            return Ok(());
        }
        let now = self.shard.read_clock();
        let unsent = {
            let mut out = self.shard.out.borrow_mut();
            out.clear();
            let Outgoing { bytes, taken } = &mut *out;
            let mut patience = Patience::NONE;
            let mut service = EventService {
                ingest: &mut self.shard.ingest.borrow_mut(),
                answers: &self.shard.answers.borrow(),
                taken,
                counters: &self.shard.counters,
                paths: &self.shard.paths,
                event_rule: &self.shard.event_rule,
                now,
                bodies: &self.shard.bodies,
                patience: &mut patience,
                is_draining: self.shard.is_draining.get(),
            };
            conversation.late(&input, bytes, &mut service);
            self.send(bytes)?
        };
        conversation.end();
        // A peer this slow is not waited for if its socket does not take the answer at once.
        log::trace!("{} bytes of a 408 were not sent", unsent.len());
        // The sweep has shut down the input, so the peer's own close cannot be waited for.
        monoio::time::sleep(LATE_READ_TIME).await;
        self.close_after_sender(input).await
    }

    /// Reads until the peer closes, within bounds, before the socket is closed. Closing a socket with unread
    /// input resets the connection, and the peer may lose the last answer (RFC 9112 section 9.6).
    async fn close_after_sender(&mut self, input: BytesMut) -> io::Result<()> {
        self.shard
            .deadlines
            .borrow_mut()
            .begin(self.id, Phase::Closing);
        shutdown(self.stream.as_raw_fd(), Shutdown::Write)?;
        let mut input = input;
        let mut passed = 0;
        while passed < CLOSING_BYTES_MAX {
            input.clear();
            match self.read(&mut input, 0).await? {
                0 => break,
                length => passed += length,
            }
        }
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
