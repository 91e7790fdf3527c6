//! Listening sockets: how one is bound, and what becomes of it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, a shard; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// How long a start waits for its address to be free, and how often it looks.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
const BIND_RETRY: Duration = Duration::from_millis(20);

/// Binds one listening socket a shard to `address`. With port 0 all get the port that the first is given.
///
/// `SO_REUSEPORT` would let a second server bind beside a running one and take half of its requests;
/// a bind without it is tried first and fails where somebody listens.
pub fn bind(address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    wait_until_free(address)?;
    let mut listeners = Vec::with_capacity(shards);
    let mut address = address;
    for _ in 0..shards {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Inherited by accepted sockets: answers go out at once, without a system call a connection.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Waits a moment for an address that is taken: the kernel closes the rings of a process that was
/// killed, and with them its listeners, some time after the process is gone.
fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(fault)
                if fault.kind() == io::ErrorKind::AddrInUse && start.elapsed() < BIND_PATIENCE =>
            {
                std::thread::sleep(BIND_RETRY);
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// What becomes of a listening socket when a shard accepts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// What the kernel has accepted for us is served, then nobody listens any more.
    Drain,
    /// Others listen on, and serve what is in it.
    Leave,
}
