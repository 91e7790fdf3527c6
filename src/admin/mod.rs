//! The admin port: metrics, readiness, the state of the sink, and a status page. It runs on one thread that is not
//! pinned. It uses the HTTP implementation of the shards, and only reads their counters.

mod exposition;
mod history;
pub mod overview;
mod process;
mod semaphore;
mod service;
mod stats;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::timeout;
use monoio::{LegacyDriver, RuntimeBuilder};

use self::overview::Overview;
use self::semaphore::{Permit, Semaphore};
use self::service::AdminService;
use crate::http::HEAD_BYTES_MAX;
use crate::http::conversation::{Conversation, Next, RequestProgress, Service};
use crate::os::limits::ADMIN_CONNECTIONS_MAX;

/// An answer that is being read, generously: `/metrics` of 128 shards.
const ANSWER_BYTES: usize = 1024 * 1024;

/// The most memory that the admin port takes, in bytes.
pub const ADMIN_BYTES_MAX: usize =
    ADMIN_CONNECTIONS_MAX * (2 * HEAD_BYTES_MAX + READ_BYTES + ANSWER_BYTES);

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle between two requests. Longer than the usual minute between two scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a peer may take to read an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Least room for a read, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// The pause after an accept that failed. The system does not report when a file descriptor is free again.
const PAUSE: Duration = Duration::from_millis(50);

/// The admin port, which needs a thread of its own.
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    overview: Overview,
    control: UnixStream,
}

impl AdminPort {
    /// Serves on a listening socket. A byte on `control` means that a successor serves the socket from now on. The
    /// end of the stream has no effect.
    pub fn new(listener: TcpListener, overview: Overview, control: UnixStream) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        control.set_nonblocking(true)?;
        log::info!(
            event = "admin_listening", address:% = address;
            "admin port on {address}: /metrics, /ready, /sink-health, and a page at http://{address}/"
        );
        Ok(Self {
            listener,
            overview,
            control,
        })
    }

    /// Serves until the process ends. An error of the socket is logged and closes the admin port. Events are still
    /// taken then.
    pub fn run(self) {
        if let Err(fault) = self.serve() {
            log::error!(
                event = "admin_port_closed";
                "the admin port is closed: {fault}; events are still taken and stored"
            );
        }
    }

    fn serve(self) -> io::Result<()> {
        let service = Rc::new(RefCell::new(AdminService::new(self.overview)));
        on_an_event_loop(async {
            monoio::spawn(sample(Rc::clone(&service)));
            serve(self.listener, self.control, service).await
        })
    }
}

fn on_an_event_loop(serve: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()?
        .block_on(serve)
}

/// Samples the counters every [`history::STEP`], for the plots and the percentiles of the last minute.
async fn sample(service: Rc<RefCell<AdminService>>) {
    loop {
        service.borrow_mut().sample();
        monoio::time::sleep(history::STEP).await;
    }
}

/// Accepts connections until a successor serves the socket. Connections that are open then are still served.
async fn serve<S: Service + 'static>(
    listener: TcpListener,
    control: UnixStream,
    service: Rc<RefCell<S>>,
) -> io::Result<()> {
    let listener = monoio::net::TcpListener::from_std(listener)?;
    let control = monoio::net::UnixStream::from_std(control)?;
    {
        let mut handed_over = pin!(handed_over(control));
        let mut accepting = pin!(accept(&listener, &service));
        // On epoll an accept can be given up at any time without losing a connection.
        poll_fn(|context| match handed_over.as_mut().poll(context) {
            Poll::Pending => accepting.as_mut().poll(context),
            Poll::Ready(()) => Poll::Ready(()),
        })
        .await;
    }
    drop(listener);
    pending().await
}

/// Returns when a successor serves the socket.
async fn handed_over(mut control: monoio::net::UnixStream) {
    let (read, _) = control.read(vec![0; 1]).await;
    if !matches!(read, Ok(1)) {
        pending().await
    }
}

/// Accepts connections forever. Those beyond [`ADMIN_CONNECTIONS_MAX`] wait in the kernel's queue.
async fn accept<S: Service + 'static>(
    listener: &monoio::net::TcpListener,
    service: &Rc<RefCell<S>>,
) {
    let permits = Semaphore::new(ADMIN_CONNECTIONS_MAX);
    loop {
        let permit = permits.acquire().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                monoio::spawn(connection(stream, Rc::clone(service), permit));
            }
            Err(fault) => {
                log::debug!("accept on the admin port: {fault}");
                monoio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection<S: Service>(stream: TcpStream, service: Rc<RefCell<S>>, permit: Permit) {
    if let Err(fault) = converse(stream, &service).await {
        log::trace!("admin connection ended: {fault}");
    }
    drop(permit);
}

async fn converse<S: Service>(mut stream: TcpStream, service: &RefCell<S>) -> io::Result<()> {
    let mut conversation = Conversation::new();
    let mut input = BytesMut::new();
    let mut decoded = Vec::new();
    // For the whole request, in any number of reads.
    let mut deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut is_idle = false;
    loop {
        if input.len() > 2 * HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        input.reserve(READ_BYTES);
        let start = input.len();
        let room = std::mem::take(&mut input).slice_mut(start..);
        // A read that is given up may lose bytes, so the connection ends then.
        let time_left = deadline.saturating_duration_since(Instant::now());
        let Ok((length, room)) = timeout(time_left, stream.read(room)).await else {
            return Ok(());
        };
        if std::mem::take(&mut is_idle) {
            deadline = Instant::now() + REQUEST_TIMEOUT;
        }
        input = room.into_inner();
        if length? == 0 {
            return Ok(());
        }
        loop {
            let mut out = Vec::new();
            let next = conversation.turn(
                &mut input,
                &mut out,
                &mut decoded,
                &mut *service.borrow_mut(),
            );
            match timeout(ANSWER_TIMEOUT, stream.write_all(out)).await {
                Ok((written, _)) => written?,
                Err(_) => return Ok(()),
            };
            match next {
                // No body is kept on this port.
                Next::Write | Next::AwaitRoom => {}
                Next::Read(RequestProgress::None) => {
                    is_idle = true;
                    deadline = Instant::now() + IDLE_TIMEOUT;
                }
                Next::Read(_) => {}
                Next::Close | Next::CloseAfterSender => return stream.shutdown().await,
            }
            if next != Next::Write {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::http::request::Request;
    use crate::http::response::Answer;

    /// Answers every request, or panics on it.
    struct Plain {
        is_faulty: bool,
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    impl Service for Plain {
        fn respond(&mut self, _: &Request<'_>, _: Answer<'_>, out: &mut Vec<u8>, _: &mut Vec<u8>) {
            assert!(!self.is_faulty, "planted");
            out.extend_from_slice(OK);
        }

        fn write(&mut self, _: &mut Vec<u8>, _: &Answer<'_>) {
            unreachable!()
        }

        fn is_draining(&self) -> bool {
            false
        }
    }

    /// Serves a port. Returns its address, the other end of its control stream, and its thread.
    fn start(is_faulty: bool) -> (SocketAddr, UnixStream, JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (control, far_end) = UnixStream::pair().unwrap();
        far_end.set_nonblocking(true).unwrap();
        let thread = thread::spawn(move || {
            let service = Rc::new(RefCell::new(Plain { is_faulty }));
            on_an_event_loop(async { serve(listener, far_end, service).await })
        });
        (address, control, thread)
    }

    fn send_request(stream: &mut TcpStream) {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
    }

    fn receive_answer(stream: &mut TcpStream) {
        let mut answer = vec![0; OK.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, OK);
    }

    fn connected(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        let timeout = Some(Duration::from_secs(10));
        stream.set_read_timeout(timeout).unwrap();
        send_request(&mut stream);
        stream
    }

    #[test]
    fn a_panic_on_a_request_ends_the_thread() {
        let (address, _control, thread) = start(true);
        let _client = connected(address);
        assert!(thread.join().is_err());
    }

    #[test]
    fn a_successor_gets_the_port_and_open_connections_are_served() {
        let (address, mut control, _thread) = start(false);
        let mut kept = connected(address);
        receive_answer(&mut kept);
        control.write_all(b"1").unwrap();
        let start = Instant::now();
        while TcpStream::connect(address).is_ok() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "it still listens"
            );
        }
        send_request(&mut kept);
        receive_answer(&mut kept);
    }

    #[test]
    fn without_a_successor_the_port_stays_open() {
        let (address, control, _thread) = start(false);
        drop(control);
        for _ in 0..3 {
            receive_answer(&mut connected(address));
        }
    }

    #[test]
    fn a_connection_beyond_the_bound_is_served_after_another_has_ended() {
        let (address, _control, _thread) = start(false);
        let mut clients: Vec<_> = (0..ADMIN_CONNECTIONS_MAX)
            .map(|_| connected(address))
            .collect();
        clients.iter_mut().for_each(receive_answer);
        let mut waiting = connected(address);
        waiting.set_nonblocking(true).unwrap();
        // Each of the others sends one more request: the event loop runs, and the one that waits is not served.
        for client in &mut clients {
            send_request(client);
            receive_answer(client);
        }
        assert!(waiting.read(&mut [0]).is_err());
        waiting.set_nonblocking(false).unwrap();
        clients.pop();
        receive_answer(&mut waiting);
    }
}
