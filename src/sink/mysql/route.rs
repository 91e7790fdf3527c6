//! To which addresses of a server a connection is tried.
//!
//! The driver gives up at the first address of a name, unless it binds its own end of the connection: then it tries all
//! addresses of that family. So each family is tried in turn, in the order of the resolver. The name is looked up for each
//! connection, since it may lead to another server after a failover.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::sink::{Fault, SinkError};

/// How long an address is tried to say why it takes no connection.
const REASON_TIMEOUT: Duration = Duration::from_millis(200);

/// The addresses of one family.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// What the own end is bound to. `None`: there is one address.
    pub(super) bind: Option<SocketAddr>,
    /// Time for each address.
    pub(super) timeout: Duration,
}

/// What a name has led to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) routes: Vec<Route>,
    addresses: Vec<SocketAddr>,
}

impl Found {
    /// Why no address takes a connection. The driver reports the last one that it tried, which may be of the family that
    /// it could not try.
    pub(super) fn reasons(&self) -> String {
        let reasons = self.addresses.iter().filter_map(|address| {
            let fault = TcpStream::connect_timeout(address, REASON_TIMEOUT).err()?;
            Some(format!("{address}: {fault}"))
        });
        reasons.collect::<Vec<_>>().join(", ")
    }
}

/// Looks a name up. Its routes share `timeout`.
pub(super) fn routes(host: &str, port: u16, timeout: Duration) -> Result<Found, SinkError> {
    let found = (host, port).to_socket_addrs().map_err(|fault| {
        let text = format!("the host `{host}` cannot be looked up: {fault}");
        SinkError::Reconnect(Fault {
            code: fault.raw_os_error(),
            ..Fault::new(text)
        })
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(Found {
        routes: by_family(&addresses, timeout),
        addresses,
    })
}

fn by_family(addresses: &[SocketAddr], timeout: Duration) -> Vec<Route> {
    if let [_] | [] = addresses {
        return vec![Route {
            bind: None,
            timeout,
        }];
    }
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let route = |is_ipv4: bool| {
        let any: IpAddr = if is_ipv4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        Route {
            bind: Some(SocketAddr::new(any, 0)),
            timeout: timeout / count,
        }
    };
    let first = addresses[0].is_ipv4();
    let has_both = addresses.iter().any(|address| address.is_ipv4() != first);
    let mut routes = vec![route(first)];
    routes.extend(has_both.then(|| route(!first)));
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        let parsed = texts.iter().map(|text| text.parse::<IpAddr>().unwrap());
        parsed
            .map(|address| SocketAddr::new(address, 3306))
            .collect()
    }

    #[test]
    fn each_family_is_tried_in_the_order_of_the_resolver() {
        const TIMEOUT: Duration = Duration::from_secs(9);
        let bound = |texts: &[&str]| {
            let routes = by_family(&addresses(texts), TIMEOUT);
            let share = TIMEOUT / u32::try_from(texts.len()).unwrap();
            assert!(
                routes.iter().all(|route| route.timeout == share),
                "{routes:?}"
            );
            let bound = routes
                .into_iter()
                .map(|route| route.bind.map(|own| own.to_string()));
            bound.collect::<Vec<_>>()
        };
        assert_eq!(bound(&["10.0.0.1"]), [None]);
        let texts = |texts: &[&str]| bound(texts).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(texts(&["10.0.0.1", "10.0.0.2"]), ["0.0.0.0:0"]);
        assert_eq!(texts(&["::1", "127.0.0.1"]), ["[::]:0", "0.0.0.0:0"]);
        let three = texts(&["127.0.0.1", "::1", "127.0.0.2"]);
        assert_eq!(three, ["0.0.0.0:0", "[::]:0"]);
    }

    #[test]
    fn a_name_that_is_unknown_is_told() {
        let fault = routes("no-such-host.invalid", 1, Duration::ZERO).unwrap_err();
        assert!(matches!(&fault, SinkError::Reconnect(_)), "{fault}");
        assert!(
            fault.to_string().contains("`no-such-host.invalid`"),
            "{fault}"
        );
    }
}
