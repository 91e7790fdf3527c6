//! Binds listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, per shard. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// How long a start waits for its address to be free, and how often it tries.
const BIND_TIMEOUT: Duration = Duration::from_secs(2);
const BIND_RETRY: Duration = Duration::from_millis(20);

/// Binds one listening socket per shard to `address`. With port 0 all get the port that the first one gets.
///
/// With `SO_REUSEPORT` alone, a second server could bind beside a running one and get half of its requests. So a
/// bind without it is tried first, which fails if another process listens.
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
        // Accepted sockets inherit this: answers are sent at once, without a system call per connection.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Waits for an address that is in use, at most [`BIND_TIMEOUT`]. The kernel closes the rings of a killed process,
/// and with them its listeners, some time after the process has ended.
fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(fault)
                if fault.kind() == io::ErrorKind::AddrInUse && start.elapsed() < BIND_TIMEOUT =>
            {
                std::thread::sleep(BIND_RETRY);
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// What happens to the queue of a listening socket when a shard stops accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Its connections are served, then the socket is shut down.
    Drain,
    /// The socket stays open, and its other holders serve the queue.
    Leave,
}
