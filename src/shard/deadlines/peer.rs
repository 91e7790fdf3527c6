//! Whether the other end of a connection is still there.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv};

/// What is known of the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// As far as is known, it is there.
    There,
    /// It sends no more. Not noticed while something it sent is not read yet.
    HalfClosed,
    /// It has reset the connection, or does not answer the kernel any more.
    Gone,
}

impl Peer {
    /// Asks the kernel, and takes nothing from the connection.
    pub(super) fn look(fd: RawFd) -> Self {
        let unread = match recv(fd, &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(unread) => unread,
            Err(Errno::EAGAIN | Errno::EINTR) => return Self::There,
            Err(_) => return Self::Gone,
        };
        // What was sent before a reset can still be read; a name there is no more.
        match getpeername::<SockaddrStorage>(fd) {
            Err(Errno::ENOTCONN) => Self::Gone,
            _ if unread == 0 => Self::HalfClosed,
            _ => Self::There,
        }
    }
}
