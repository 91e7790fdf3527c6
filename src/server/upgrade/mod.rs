//! An upgrade without a lost request: a successor is given the listening sockets and serves before we drain.
//!
//! Sockets travel as systemd hands them over, by `LISTEN_FDS` and `LISTEN_FDNAMES`, so that socket
//! activation and upgrade are one mechanism. They stay the same sockets: what waits in their queues is
//! accepted by whoever comes first.

mod inherited;
mod successor;

pub use self::inherited::{Inherited, share_out};
pub use self::successor::{Program, Successor};

/// Names the process that handed the sockets over, by its id.
const PREDECESSOR: &str = "HAKARU_PREDECESSOR";

/// The first file descriptor that is handed over, as systemd has it.
const FIRST_FD: usize = 3;

/// What a listening socket is for, and who keeps it when we end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketUse {
    /// Events, on a socket that was bound by us or by a predecessor: it ends with us.
    Http,
    /// Events, on a socket of a systemd unit: it listens on when we end.
    Unit,
    /// The admin port, on a socket of ours.
    Admin,
    /// The admin port, on a socket of a systemd unit.
    UnitAdmin,
}

impl SocketUse {
    /// As we name it in `LISTEN_FDNAMES`.
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Unit => "unit",
            Self::Admin => "admin",
            Self::UnitAdmin => "unit-admin",
        }
    }

    /// By its name. A unit calls its sockets as it likes, but for `admin`.
    fn of(name: &str, has_predecessor: bool) -> Self {
        match name {
            "http" if has_predecessor => Self::Http,
            "admin" if has_predecessor => Self::Admin,
            "admin" | "unit-admin" => Self::UnitAdmin,
            _ => Self::Unit,
        }
    }

    /// Whether it is the admin port.
    pub fn is_admin(self) -> bool {
        matches!(self, Self::Admin | Self::UnitAdmin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_keeps_a_socket() {
        assert_eq!(SocketUse::of("hakaru.socket", false), SocketUse::Unit);
        assert_eq!(SocketUse::of("http", false), SocketUse::Unit);
        assert_eq!(SocketUse::of("admin", false), SocketUse::UnitAdmin);
        let all = [
            SocketUse::Http,
            SocketUse::Unit,
            SocketUse::Admin,
            SocketUse::UnitAdmin,
        ];
        for one in all {
            assert_eq!(SocketUse::of(one.name(), true), one);
        }
    }
}
