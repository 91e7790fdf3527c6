//! A TCP proxy between hakaru and its database that cuts and swallows at chosen points.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the proxy does to the next connection that gives occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mischief {
    /// Hands everything on.
    None,
    /// Hands a COMMIT on and cuts before its answer: it happens, and hakaru does not hear of it.
    CutBehindCommit,
    /// Cuts at a COMMIT and does not hand it on.
    CutBeforeCommit,
    /// Hands a COMMIT on and swallows the answer without closing anything.
    SwallowAnswer,
    /// Cuts in the middle of the rows.
    CutInRows,
}

impl Mischief {
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::CutBehindCommit,
        Self::CutBeforeCommit,
        Self::SwallowAnswer,
        Self::CutInRows,
    ];
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mischief: AtomicU8,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy to a port of this machine. It ends with the process.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mischief: AtomicU8::new(0),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)) {
                    accepting.join(near, far);
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

    pub fn make(&self, mischief: Mischief) {
        self.shared
            .mischief
            .store(mischief as u8, Ordering::Relaxed);
    }

    /// Whether the last mischief was done.
    pub fn is_done(&self) -> bool {
        self.shared.mischief.load(Ordering::Relaxed) == Mischief::None as u8
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let mut open = self.open.lock().unwrap();
        open.push(near.try_clone().unwrap());
        open.push(far.try_clone().unwrap());
        let (shared, is_mute) = (Arc::clone(self), Arc::new(AtomicU8::new(0)));
        let (from_near, to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let mute = Arc::clone(&is_mute);
        thread::spawn(move || shared.pump_requests(from_near, to_far, &mute));
        thread::spawn(move || pump_answers(far, near, &is_mute));
    }

    /// Takes a mischief on, if it is `wanted`: each is done once.
    fn takes(&self, wanted: Mischief) -> bool {
        let (now, none) = (wanted as u8, Mischief::None as u8);
        self.mischief
            .compare_exchange(now, none, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn pump_requests(&self, mut from: TcpStream, mut to: TcpStream, mute: &AtomicU8) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..length];
            let is_commit = bytes.ends_with(b"COMMIT");
            let is_large = length > 200;
            if is_commit && self.takes(Mischief::CutBeforeCommit) {
                break;
            }
            if is_large && self.takes(Mischief::CutInRows) {
                drop(to.write_all(&bytes[..length / 2]));
                break;
            }
            if is_commit && self.takes(Mischief::SwallowAnswer) {
                mute.store(1, Ordering::SeqCst);
            }
            let is_cut = is_commit && self.takes(Mischief::CutBehindCommit);
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
