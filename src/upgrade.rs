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

/// What a listening socket is for, and who keeps it when we end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketUse {
    /// Events, on a socket that was bound by us or by a predecessor: it ends with us.
    Http,
    /// Events, on a socket of a systemd unit: it listens on when we end.
    Unit,
    /// The admin port.
    Admin,
}

impl SocketUse {
    /// As `LISTEN_FDNAMES` has it.
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Unit => "unit",
            Self::Admin => "admin",
        }
    }
}
