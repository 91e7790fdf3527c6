//! A TCP proxy between hakaru and its database that injects faults at chosen points.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A fault that the proxy injects once, into the first connection to which it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NetworkFault {
    /// Forwards everything.
    None,
    /// Forwards a COMMIT and cuts before its answer: it takes effect, but hakaru gets no answer.
    CutAfterCommit,
    /// Cuts at a COMMIT and does not forward it.
    CutBeforeCommit,
    /// Forwards a COMMIT and drops its answer and all later ones. The connection stays open.
    DropAnswer,
    /// Cuts in the middle of the rows.
    CutInRows,
    /// Cuts where it is asked for a row by its id, and does not forward it.
    CutAtQuestion,
}

impl NetworkFault {
    /// Those that come in any process that stores.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::CutAfterCommit,
        Self::CutBeforeCommit,
        Self::DropAnswer,
        Self::CutInRows,
    ];
}

/// How it is asked for a row by its id.
const QUESTION: &[u8] = b"SELECT 1 FROM eventlog WHERE id =";

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The port to which new connections are forwarded.
    to: AtomicU16,
    connections: AtomicU64,
    fault: AtomicU8,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts a proxy to a port of this machine. It ends with the process.
    pub fn start(port: u16) -> Self {
        Self::start_at("127.0.0.1:0", port)
    }

    /// Starts one that listens at `address`.
    pub fn start_at(address: &str, port: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: AtomicU16::new(port),
            connections: AtomicU64::new(0),
            fault: AtomicU8::new(0),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let port = accepting.to.load(Ordering::Relaxed);
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                    accepting.join(client, server);
                    accepting.connections.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { address, shared }
    }

    pub fn dsn(&self) -> String {
        format!(
            "root@tcp({})/hakaru?readTimeout=2s&timeout=2s",
            self.address
        )
    }

    /// Has this fault injected once.
    pub fn inject(&self, fault: NetworkFault) {
        self.shared.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Has this fault injected once, if it is met within two seconds: a few rows are not enough for a cut in the middle of
    /// them. Whether it was.
    pub fn inject_soon(&self, fault: NetworkFault) -> bool {
        self.inject(fault);
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.is_injected() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(1));
        }
        let is_injected = self.is_injected();
        self.inject(NetworkFault::None);
        is_injected
    }

    /// Whether the last fault was injected.
    pub fn is_injected(&self) -> bool {
        self.shared.fault.load(Ordering::Relaxed) == NetworkFault::None as u8
    }

    /// Forwards connections that are made from now on to another port.
    pub fn point_to(&self, port: u16) {
        self.shared.to.store(port, Ordering::Relaxed);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let mut open = self.open.lock().unwrap();
        open.push(client.try_clone().unwrap());
        open.push(server.try_clone().unwrap());
        let (shared, is_mute) = (Arc::clone(self), Arc::new(AtomicU8::new(0)));
        let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let mute = Arc::clone(&is_mute);
        thread::spawn(move || shared.pump_requests(from_client, to_server, &mute));
        thread::spawn(move || pump_answers(server, client, &is_mute));
    }

    /// Whether `wanted` is to be injected now. Each fault is injected once.
    fn takes(&self, wanted: NetworkFault) -> bool {
        let (now, none) = (wanted as u8, NetworkFault::None as u8);
        self.fault
            .compare_exchange(now, none, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn pump_requests(&self, mut from: TcpStream, mut to: TcpStream, mute: &AtomicU8) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..length];
            let is_commit = bytes.ends_with(b"COMMIT");
            let is_large = length > 200;
            if is_commit && self.takes(NetworkFault::CutBeforeCommit) {
                break;
            }
            let mut texts = bytes.windows(QUESTION.len());
            if texts.any(|text| text == QUESTION) && self.takes(NetworkFault::CutAtQuestion) {
                break;
            }
            if is_large && self.takes(NetworkFault::CutInRows) {
                drop(to.write_all(&bytes[..length / 2]));
                break;
            }
            if is_commit && self.takes(NetworkFault::DropAnswer) {
                mute.store(1, Ordering::SeqCst);
            }
            let is_cut = is_commit && self.takes(NetworkFault::CutAfterCommit);
            if is_cut {
                mute.store(1, Ordering::SeqCst);
            }
            if to.write_all(bytes).is_err() || is_cut {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Write));
    }
}

fn pump_answers(mut from: TcpStream, mut to: TcpStream, mute: &AtomicU8) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if mute.load(Ordering::SeqCst) == 0 && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
