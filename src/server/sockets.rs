//! The sockets that a server listens on: bound by it, or handed over to it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::ServerError;
use crate::os::listen::{self, Backlog};
use crate::server::config::{AdminListen, Config};
use crate::server::upgrade::{Inherited, SocketUse, share_out};

/// All of them.
pub(super) struct Sockets {
    /// The listeners of each shard.
    pub(super) http: Vec<Vec<TcpListener>>,
    /// What becomes of them at the end.
    pub(super) backlog: Backlog,
    /// The admin port.
    pub(super) admin: Option<TcpListener>,
    /// All once more, for a successor.
    pub(super) handed_over: Vec<(SocketUse, TcpListener)>,
}

impl Sockets {
    /// Takes what was inherited, and binds what was not.
    pub(super) fn open(
        config: &Config,
        shards: usize,
        inherited: &mut Inherited,
    ) -> Result<Self, ServerError> {
        let refused = |fault| ServerError::Listen {
            address: config.listen.to_string(),
            fault,
        };
        let mut handed_over = inherited.http(config.listen).map_err(refused)?;
        if handed_over.is_empty() {
            let bound = listen::bind(config.listen, shards).map_err(refused)?;
            handed_over = bound
                .into_iter()
                .map(|socket| (SocketUse::Http, socket))
                .collect();
        }
        let backlog = match handed_over.first() {
            Some((SocketUse::Unit, _)) => Backlog::Leave,
            _ => Backlog::Drain,
        };
        let sockets = handed_over.iter().map(|(_, socket)| socket.try_clone());
        let sockets: Vec<_> = sockets.collect::<Result<_, _>>().map_err(refused)?;
        let http = share_out(&sockets, shards).map_err(refused)?;
        let admin = admin_socket(config, inherited)?;
        if let Some((of, admin)) = &admin {
            handed_over.push((*of, admin.try_clone().map_err(refused)?));
        }
        Ok(Self {
            http,
            backlog,
            admin: admin.map(|(_, socket)| socket),
            handed_over,
        })
    }

    /// Where events come in.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let first = self.http.first()?.first()?;
        first.local_addr().ok()
    }
}

fn admin_socket(
    config: &Config,
    inherited: &mut Inherited,
) -> Result<Option<(SocketUse, TcpListener)>, ServerError> {
    let address = match config.admin_listen {
        AdminListen::Default(address) | AdminListen::At(address) => address,
        AdminListen::Off => return Ok(None),
    };
    if let Some(given) = inherited.admin(address) {
        return Ok(Some(given));
    }
    let bound = bind_admin(config.admin_listen).map_err(|fault| ServerError::AdminListen {
        address: config.admin_listen,
        fault,
    })?;
    Ok(bound.map(|socket| (SocketUse::Admin, socket)))
}

/// Listens. `None` if the admin port is off, or if the default address is taken, which is logged.
fn bind_admin(listen: AdminListen) -> io::Result<Option<TcpListener>> {
    match listen {
        AdminListen::Off => Ok(None),
        AdminListen::At(address) => TcpListener::bind(address).map(Some),
        AdminListen::Default(address) => match TcpListener::bind(address) {
            Ok(listener) => Ok(Some(listener)),
            Err(fault) => {
                log::warn!(
                    event = "admin_port_unavailable", address:% = address;
                    "there is no admin port: {address}: {fault}; --admin-listen (HAKARU_ADMIN_LISTEN) \
                     gives it another address"
                );
                Ok(None)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_address_that_is_taken_stops_nobody() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(bind_admin(AdminListen::Default(address)).unwrap().is_none());
        assert!(bind_admin(AdminListen::At(address)).is_err());
        assert!(bind_admin(AdminListen::Off).unwrap().is_none());
    }
}
