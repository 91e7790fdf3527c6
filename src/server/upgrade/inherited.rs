//! The side that is given sockets.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use socket2::SockRef;

use super::{FIRST_FD, PREDECESSOR, SocketUse};

/// What this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketUse, TcpListener)>,
    /// Where a predecessor waits to hear that we serve.
    predecessor: Option<UnixStream>,
}

impl Inherited {
    /// Takes what systemd or a predecessor has handed over. To be called once, before anything is opened.
    pub fn take() -> io::Result<Self> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let has_predecessor = has_predecessor(&variable(PREDECESSOR));
        // Without either, the variables are left over from somebody else.
        if !has_predecessor && variable("LISTEN_PID") != std::process::id().to_string() {
            return Ok(Self::default());
        }
        let names = variable("LISTEN_FDNAMES");
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let predecessor = if has_predecessor {
            close_from(FIRST_FD + given.len())?;
            Some(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
        } else {
            None
        };
        let mut sockets = Vec::with_capacity(given.len());
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default();
            match given.take_tcp_listener(index) {
                Ok(Some(socket)) => {
                    // Inherited by accepted sockets, as of those that we bind.
                    SockRef::from(&socket).set_tcp_nodelay(true)?;
                    sockets.push((SocketUse::of(name, has_predecessor), socket));
                }
                Ok(None) => {}
                Err(fault) => log::warn!(
                    event = "inherited_socket_unused", socket = name;
                    "LISTEN_FDS: the socket {name:?} is not used: {fault}"
                ),
            }
        }
        Ok(Self {
            sockets,
            predecessor,
        })
    }

    /// Whether a predecessor is on epoll and uses these sockets at the same time: they must not be made to
    /// block, or its event loops would.
    pub fn must_not_block(&self) -> bool {
        let is_nonblocking = |socket: &TcpListener| {
            let flags = fcntl(socket, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
            flags.is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK))
        };
        let mut http = self.sockets.iter().filter(|(of, _)| !of.is_admin());
        self.predecessor.is_some() && http.any(|(_, socket)| is_nonblocking(socket))
    }

    /// The sockets for events. Those of a predecessor must be where events are to come in: what waits in
    /// them would be lost. Where a unit of systemd listens is the unit's to say.
    pub fn http(&mut self, asked: SocketAddr) -> io::Result<Vec<(SocketUse, TcpListener)>> {
        let sockets = self.select(|of| !of.is_admin());
        for (of, socket) in &sockets {
            let address = socket.local_addr()?;
            if *of == SocketUse::Http && !is_there(asked, address) {
                return Err(io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    format!(
                        "the process before listens on {address}; restart it, to listen elsewhere"
                    ),
                ));
            }
        }
        Ok(sockets)
    }

    /// The socket of the admin port: a unit's, or a predecessor's if it is where that is to be.
    pub fn admin(&mut self, asked: SocketAddr) -> Option<(SocketUse, TcpListener)> {
        self.select(SocketUse::is_admin)
            .into_iter()
            .find(|(of, socket)| {
                let address = socket.local_addr();
                *of == SocketUse::UnitAdmin || address.is_ok_and(|at| is_there(asked, at))
            })
    }

    fn select(&mut self, wanted: impl Fn(SocketUse) -> bool) -> Vec<(SocketUse, TcpListener)> {
        let sockets = std::mem::take(&mut self.sockets).into_iter();
        let (selected, others) = sockets.partition(|(of, _)| wanted(*of));
        self.sockets = others;
        selected
    }

    /// Tells a predecessor, if there is one, that we serve.
    pub fn serves(self) {
        if let Some(mut predecessor) = self.predecessor
            && let Err(fault) = predecessor.write_all(b"1")
        {
            log::warn!(
                event = "predecessor_not_told";
                "the process before this one cannot be told that this one serves: {fault}"
            );
        }
    }
}

/// Whether the process `pid` started us to serve in its place: then our standard input is a socket that
/// it made. Whether it lives is not asked: it may end at any moment.
fn has_predecessor(pid: &str) -> bool {
    let peer = getsockopt(&io::stdin(), PeerCredentials);
    peer.is_ok_and(|peer| peer.pid().to_string() == pid)
}

/// Closes every file from `first` on, of which none is ours yet: connections of the predecessor, which the ring accepts without
/// `O_CLOEXEC`. Held by us, they would stay open when it closes them.
fn close_from(first: usize) -> io::Result<()> {
    let mut open: Vec<RawFd> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse().ok();
        let is_ours = |fd: &RawFd| usize::try_from(*fd).is_ok_and(|fd| fd < first);
        open.extend(number.filter(|fd| !is_ours(fd)));
    }
    for fd in open {
        match nix::unistd::close(fd) {
            // The directory itself, which was read.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(())
}

/// Whether a socket at `address` is one that was `asked` for. Port 0 stands for any.
fn is_there(asked: SocketAddr, address: SocketAddr) -> bool {
    asked.ip() == address.ip() && (asked.port() == 0 || asked.port() == address.port())
}

/// Gives each of `shards` its listeners: no socket without a shard, for connections wait in each; no
/// shard without a socket, if need be one that is shared.
pub fn share_out(sockets: &[TcpListener], shards: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut shares: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    for index in 0..shards.max(sockets.len()) {
        let socket = sockets[index % sockets.len()].try_clone()?;
        shares[index % shards].push(socket);
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_is_without_a_shard_and_no_shard_without_a_socket() {
        for (sockets, shards) in [(1, 1), (1, 4), (2, 2), (5, 2), (2, 3)] {
            let bound: Vec<_> = (0..sockets)
                .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
                .collect();
            let shares = share_out(&bound, shards).unwrap();
            assert_eq!(shares.len(), shards);
            assert!(shares.iter().all(|share| !share.is_empty()));
            let address = |socket: &TcpListener| socket.local_addr().unwrap().port();
            let mut shared: Vec<u16> = shares.iter().flatten().map(address).collect();
            shared.sort_unstable();
            shared.dedup();
            assert_eq!(shared.len(), sockets);
        }
    }
}
