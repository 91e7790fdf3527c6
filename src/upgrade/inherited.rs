//! The side that is given sockets.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use listenfd::ListenFd;

use super::{PREDECESSOR, SocketUse};

/// What this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketUse, TcpListener)>,
    /// Where a predecessor waits to hear that we serve.
    predecessor: Option<UnixStream>,
}

impl Inherited {
    /// Takes what systemd or a predecessor has handed over. To be called once, before any file is opened.
    pub fn take() -> io::Result<Self> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let has_predecessor = variable(PREDECESSOR) == nix::unistd::getppid().to_string();
        // Without either, the variables are left over from somebody else.
        if !has_predecessor && variable("LISTEN_PID") != std::process::id().to_string() {
            return Ok(Self::default());
        }
        let names = variable("LISTEN_FDNAMES");
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(given.len());
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default();
            if let Some(socket) = given.take_tcp_listener(index)? {
                sockets.push((use_of(name, has_predecessor), socket));
            }
        }
        let predecessor = if has_predecessor {
            Some(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
        } else {
            None
        };
        Ok(Self {
            sockets,
            predecessor,
        })
    }

    /// The sockets for events. Those of a predecessor must be where events are to come in: what waits in
    /// them would be lost. Where a unit of systemd listens is the unit's to say.
    pub fn http(&mut self, asked: SocketAddr) -> io::Result<Vec<(SocketUse, TcpListener)>> {
        let sockets = self.select(|of| of != SocketUse::Admin);
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

    /// The socket of the admin port, if it is where that is to be.
    pub fn admin(&mut self, asked: SocketAddr) -> Option<TcpListener> {
        let sockets = self.select(|of| of == SocketUse::Admin).into_iter();
        sockets
            .map(|(_, socket)| socket)
            .find(|socket| socket.local_addr().is_ok_and(|at| is_there(asked, at)))
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
            log::warn!("the predecessor cannot be told that we serve: {fault}");
        }
    }
}

fn use_of(name: &str, has_predecessor: bool) -> SocketUse {
    match name {
        "admin" => SocketUse::Admin,
        "http" if has_predecessor => SocketUse::Http,
        _ => SocketUse::Unit,
    }
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

    #[test]
    fn names_say_who_keeps_a_socket() {
        assert_eq!(use_of("hakaru.socket", false), SocketUse::Unit);
        assert_eq!(use_of("http", false), SocketUse::Unit);
        assert_eq!(use_of("http", true), SocketUse::Http);
        assert_eq!(use_of("unit", true), SocketUse::Unit);
        assert_eq!(use_of("admin", true), SocketUse::Admin);
    }
}
