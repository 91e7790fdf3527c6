//! The admin port: metrics, readiness, the state of the sink, and a page for people. One thread that is
//! not pinned, off the hot path; it speaks HTTP as the shards do and only reads what they count.

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

/// Connections that are served at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;

/// How long a request, or the next one, may take to arrive.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may be silent between two requests: above the usual minute between two scrapes.
const IDLE_PATIENCE: Duration = Duration::from_secs(75);

/// How long an answer may take to be read.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Most bytes of a read.
const READ_BYTES: usize = 4 * 1024;

/// The pause after an accept that failed: the system does not report when a file descriptor is free again.
const PAUSE: Duration = Duration::from_millis(50);

/// The admin port, to be served by a thread of its own.
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    overview: Overview,
    control: UnixStream,
}

impl AdminPort {
    /// On a socket that listens already. A byte on `control` means that a successor has the socket from now
    /// on; the end of the stream means nothing.
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

    /// Serves as long as the process lives. An error of the socket is logged and ends it; events are taken
    /// on without an admin port.
    pub fn run(self) {
        if let Err(fault) = self.serve() {
            log::error!(
                event = "admin_port_closed";
                "the admin port is closed: {fault}; events are taken and stored as before"
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

/// Looks at everything now and then, for plots and for what is said of the last minute.
async fn sample(service: Rc<RefCell<AdminService>>) {
    loop {
        service.borrow_mut().sample();
        monoio::time::sleep(history::STEP).await;
    }
}

/// Accepts until the socket is a successor's; serves the connections that are open for ever.
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
        // Accepting may be given up at any point, which epoll allows: no connection is lost by it.
        poll_fn(|context| match handed_over.as_mut().poll(context) {
            Poll::Pending => accepting.as_mut().poll(context),
            Poll::Ready(()) => Poll::Ready(()),
        })
        .await;
    }
    drop(listener);
    pending().await
}

/// Returns when the socket is a successor's.
async fn handed_over(mut control: monoio::net::UnixStream) {
    let (told, _) = control.read(vec![0; 1]).await;
    if !matches!(told, Ok(1)) {
        pending().await
    }
}

/// Accepts for ever. Connections beyond the bound wait in the kernel's queue.
async fn accept<S: Service + 'static>(
    listener: &monoio::net::TcpListener,
    service: &Rc<RefCell<S>>,
) {
    let permits = Semaphore::new(CONNECTIONS_MAX);
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
    // Of the whole request, however many reads it takes.
    let mut deadline = Instant::now() + REQUEST_PATIENCE;
    let mut is_idle = false;
    loop {
        if input.len() > 2 * HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        input.reserve(READ_BYTES);
        let start = input.len();
        let room = std::mem::take(&mut input).slice_mut(start..);
        // A read that is given up takes its bytes with it: the connection ends then.
        let patience = deadline.saturating_duration_since(Instant::now());
        let Ok((length, room)) = timeout(patience, stream.read(room)).await else {
            return Ok(());
        };
        if std::mem::take(&mut is_idle) {
            deadline = Instant::now() + REQUEST_PATIENCE;
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
            match timeout(ANSWER_PATIENCE, stream.write_all(out)).await {
                Ok((written, _)) => written?,
                Err(_) => return Ok(()),
            };
            match next {
                Next::Write => {}
                Next::Read(RequestProgress::None) => {
                    is_idle = true;
                    deadline = Instant::now() + IDLE_PATIENCE;
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

    /// Answers every request, or panics over it.
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

    /// A port that is served, the other end of its control stream, and its thread.
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

    fn ask(stream: &mut TcpStream) {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
    }

    fn hear(stream: &mut TcpStream) {
        let mut answer = vec![0; OK.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, OK);
    }

    fn connected(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        ask(&mut stream);
        stream
    }

    #[test]
    fn a_panic_over_a_request_ends_the_thread() {
        let (address, _control, thread) = start(true);
        let _client = connected(address);
        assert!(thread.join().is_err());
    }

    #[test]
    fn a_successor_has_the_port_and_open_connections_are_kept() {
        let (address, mut control, _thread) = start(false);
        let mut kept = connected(address);
        hear(&mut kept);
        control.write_all(b"1").unwrap();
        let start = Instant::now();
        while TcpStream::connect(address).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(10), "it listens on");
        }
        ask(&mut kept);
        hear(&mut kept);
    }

    #[test]
    fn without_a_successor_the_port_is_served_to_the_end() {
        let (address, control, _thread) = start(false);
        drop(control);
        for _ in 0..3 {
            hear(&mut connected(address));
        }
    }

    #[test]
    fn a_connection_beyond_the_bound_is_served_when_another_ends() {
        let (address, _control, _thread) = start(false);
        let mut clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connected(address)).collect();
        clients.iter_mut().for_each(hear);
        let mut waiting = connected(address);
        waiting.set_nonblocking(true).unwrap();
        // Each of the others is asked once more: the loop turns, and the one that waits is not served.
        for client in &mut clients {
            ask(client);
            hear(client);
        }
        assert!(waiting.read(&mut [0]).is_err());
        waiting.set_nonblocking(false).unwrap();
        clients.pop();
        hear(&mut waiting);
    }
}
