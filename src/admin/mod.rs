//! The admin port: metrics, readiness, the state of the sink, and a page for people. One thread that is
//! not pinned, off the hot path; it speaks HTTP as the shards do and only reads what they count.

mod exposition;
mod history;
pub mod overview;
mod process;
mod service;
mod stats;

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::timeout;
use monoio::{LegacyDriver, RuntimeBuilder};

use self::overview::Overview;
use self::service::AdminService;
use crate::http::HEAD_BYTES_MAX;
use crate::http::conversation::{Awaited, Conversation, Next};

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

/// The pause behind an accept that failed, and how often it is looked for a free place.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether a successor has the port.
const STAGE_POLL: Duration = Duration::from_millis(200);

/// The admin port, to be served by a thread of its own.
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    overview: Overview,
}

impl AdminPort {
    /// On a socket that listens already.
    pub fn new(listener: TcpListener, overview: Overview) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        log::info!(
            event = "admin_listening", address:% = address;
            "admin port on {address}: /metrics, /ready, /sink-health, and a page at http://{address}/"
        );
        Ok(Self { listener, overview })
    }

    /// Serves as long as the process lives. An error of the socket is logged and ends it; events are taken
    /// on without an admin port.
    pub fn run(self) {
        if let Err(fault) = serve(self.listener, self.overview) {
            log::error!(
                event = "admin_port_closed";
                "the admin port is closed: {fault}; events are taken and stored as before"
            );
        }
    }
}

/// What the connections share.
struct Port {
    service: RefCell<AdminService>,
    open: std::cell::Cell<usize>,
}

fn serve(listener: TcpListener, overview: Overview) -> io::Result<()> {
    RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()?
        .block_on(async move {
            let listener = monoio::net::TcpListener::from_std(listener)?;
            let port = Rc::new(Port {
                service: RefCell::new(AdminService::new(overview)),
                open: std::cell::Cell::new(0),
            });
            monoio::spawn(sample(Rc::clone(&port)));
            loop {
                if port.service.borrow().is_handed_over() {
                    drop(listener);
                    // For the connections that are open.
                    return std::future::pending().await;
                }
                // Given up and begun again, which epoll allows: nothing is lost.
                let Ok(accepted) = timeout(STAGE_POLL, listener.accept()).await else {
                    continue;
                };
                while port.open.get() >= CONNECTIONS_MAX {
                    monoio::time::sleep(PAUSE).await;
                }
                match accepted {
                    Ok((stream, _)) => {
                        port.open.set(port.open.get() + 1);
                        monoio::spawn(connection(stream, Rc::clone(&port)));
                    }
                    Err(fault) => {
                        log::debug!("accept on the admin port: {fault}");
                        monoio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
}

/// Looks at everything now and then, for plots and for what is said of the last minute.
async fn sample(port: Rc<Port>) {
    loop {
        port.service.borrow_mut().sample();
        monoio::time::sleep(history::STEP).await;
    }
}

async fn connection(stream: TcpStream, port: Rc<Port>) {
    if let Err(fault) = converse(stream, &port).await {
        log::trace!("admin connection ended: {fault}");
    }
    port.open.set(port.open.get() - 1);
}

async fn converse(mut stream: TcpStream, port: &Port) -> io::Result<()> {
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
                &mut *port.service.borrow_mut(),
            );
            match timeout(ANSWER_PATIENCE, stream.write_all(out)).await {
                Ok((written, _)) => written?,
                Err(_) => return Ok(()),
            };
            match next {
                Next::Write => {}
                Next::Read(Awaited::Request) => {
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
