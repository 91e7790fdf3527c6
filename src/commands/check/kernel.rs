//! Checks kernel settings that matter for many short connections, and the addresses to listen on.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Finding, Observation};
use crate::server::config::AdminListen;
use crate::server::config::Config;

/// A numeric setting of which more is better.
struct Setting {
    name: &'static str,
    /// Its file in `/proc/sys`.
    path: &'static str,
    advised: u64,
    why: &'static str,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        name: "net.core.somaxconn",
        path: "/proc/sys/net/core/somaxconn",
        advised: 65_535,
        why: "connections of a burst wait in this queue to be accepted; if it is full, they are dropped and tried again \
            after a second",
    },
    Setting {
        name: "net.ipv4.tcp_max_syn_backlog",
        path: "/proc/sys/net/ipv4/tcp_max_syn_backlog",
        advised: 65_535,
        why: "connections that are being opened wait in this queue; if it is full, they are dropped and tried again \
            after a second",
    },
    Setting {
        name: "net.ipv4.tcp_migrate_req",
        path: "/proc/sys/net/ipv4/tcp_migrate_req",
        advised: 1,
        why: "when a listener is closed, as in a reload, connections in its queue move to another listener; otherwise \
            they are reset",
    },
];

const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";

/// Fewer ports are a warning. The kernel's default, 32768 to 60999, has somewhat more.
const PORTS_MIN: u32 = 28_000;

/// Checks the settings and the addresses.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let settings = SETTINGS
        .iter()
        .map(|setting| (setting.name, setting.judge(&read(setting.path))));
    let range = read("/proc/sys/net/ipv4/ip_local_port_range");
    let listen = config.listen;
    let admin = match config.admin_listen {
        AdminListen::Off => Observation::new("off"),
        AdminListen::Default(listen) | AdminListen::At(listen) => {
            address(listen, "--admin-listen", bind(listen))
        }
    };
    let mut findings: Vec<Finding> = settings.collect();
    findings.push((PORT_RANGE, port_range(&range, listen.port())));
    findings.push(("listen address", address(listen, "--listen", bind(listen))));
    findings.push(("admin address", admin));
    findings
}

fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path)
}

impl Setting {
    fn judge(&self, text: &io::Result<String>) -> Observation {
        let Self {
            name, advised, why, ..
        } = self;
        let advice = format!("sysctl -w {name}={advised}, and in /etc/sysctl.d: {why}");
        match text {
            Ok(text) => match text.trim().parse::<u64>() {
                Ok(value) if value >= *advised => Observation::new(value.to_string()),
                _ => Observation::new(text.trim()).warning(advice),
            },
            Err(fault) => Observation::new(format!("not in this kernel or container: {fault}"))
                .warning(format!("if the kernel has it: {advice}")),
        }
    }
}

/// Judges the range of ports for outgoing connections.
fn port_range(text: &io::Result<String>, listen: u16) -> Observation {
    let text = match text {
        Ok(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Err(fault) => {
            return Observation::new(fault.to_string())
                .warning("check by other means whether it contains the listen port");
        }
    };
    let ends: Vec<u32> = text.split(' ').filter_map(|end| end.parse().ok()).collect();
    let &[low, high] = &ends[..] else {
        return Observation::new(text)
            .warning("check by other means whether it contains the listen port");
    };
    let found = Observation::new(&text[..]);
    if (low..=high).contains(&u32::from(listen)) {
        return found.warning(format!(
            "an outgoing connection of another program may have the listen port when hakaru starts: \
             sysctl -w net.ipv4.ip_local_reserved_ports={listen}, and in /etc/sysctl.d"
        ));
    }
    if high.saturating_sub(low) < PORTS_MIN {
        return found.warning(format!(
            "sysctl -w {PORT_RANGE}=\"10240 65535\", and in /etc/sysctl.d: a proxy on this machine takes a port for \
             each connection to hakaru"
        ));
    }
    found
}

/// Binds the address for a moment. Does not listen, since a connection would be lost.
fn bind(listen: SocketAddr) -> io::Result<()> {
    let domain = Domain::for_address(listen);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // As serving does, so that connections that have just ended do not block the address.
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())
}

/// Judges the attempt to bind an address. `flag` is the setting of the address.
fn address(listen: SocketAddr, flag: &str, bound: io::Result<()>) -> Observation {
    let Err(fault) = bound else {
        return Observation::new(format!("{listen} is free"));
    };
    let found = Observation::new(format!("{listen}: {fault}"));
    match fault.kind() {
        ErrorKind::AddrInUse => found.warning(format!(
            "nothing to do if hakaru runs there already; otherwise end the other program, or set another address with {flag}"
        )),
        ErrorKind::PermissionDenied => found.error(format!(
            "ports below 1024 need CAP_NET_BIND_SERVICE: set another one with {flag}"
        )),
        _ => found.error(format!("set an address of this machine with {flag}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    fn content(text: &str) -> io::Result<String> {
        Ok(text.to_owned())
    }

    #[test]
    fn a_setting_below_the_advised_value_is_a_warning_with_the_command() {
        let found = SETTINGS[0].judge(&content("128\n"));
        assert_eq!(found.level, Level::Warning);
        assert!(
            found
                .advice
                .unwrap()
                .starts_with("sysctl -w net.core.somaxconn=65535")
        );
        assert_eq!(
            SETTINGS[0].judge(&content("65535\n")),
            Observation::new("65535")
        );
        let absent = SETTINGS[2].judge(&Err(ErrorKind::NotFound.into()));
        assert_eq!(absent.level, Level::Warning);
    }

    #[test]
    fn outgoing_ports_should_not_contain_the_listen_port() {
        let range = |text, port| port_range(&content(text), port);
        assert_eq!(
            range("32768\t60999\n", 8081),
            Observation::new("32768 60999")
        );
        let taken = range("1024\t65535\n", 8081).advice.unwrap();
        assert!(taken.contains("ip_local_reserved_ports=8081"), "{taken}");
        let few = range("50000\t60000\n", 8081).advice.unwrap();
        assert!(few.contains("10240 65535"), "{few}");
        assert_eq!(range("?", 8081).level, Level::Warning);
    }

    #[test]
    fn an_address_is_free_or_in_use_or_of_another_machine() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let level = |listen: SocketAddr| address(listen, "--listen", bind(listen)).level;
        assert_eq!(level(taken.local_addr().unwrap()), Level::Warning);
        assert_eq!(level(([127, 0, 0, 1], 0).into()), Level::Ok);
        // No machine has an address of TEST-NET-1.
        assert_eq!(level(([192, 0, 2, 1], 0).into()), Level::Error);
    }
}
