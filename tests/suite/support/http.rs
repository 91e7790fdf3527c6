//! A simple HTTP client: sends bytes and reads answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header field. Names are case-sensitive.
    pub fn field(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(&prefix[..]))
    }
}

/// A connection that stays open.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Waits no longer than this for an answer.
    pub fn give_up_after(&self, patience: std::time::Duration) {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// The same connection, to be used by another thread.
    pub fn try_clone(&self) -> Self {
        Self {
            stream: BufReader::new(self.stream.get_ref().try_clone().unwrap()),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Sends to a server that may have answered already, and closed.
    pub fn send_further(&mut self, bytes: &[u8]) {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.stream.get_mut().write_all(bytes) {
            Err(fault) if matches!(fault.kind(), BrokenPipe | ConnectionReset) => {}
            sent => sent.unwrap(),
        }
    }

    /// Whether all could be sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// Sends nothing more, and returns an answer that comes nevertheless.
    pub fn try_end(&mut self) -> Option<Answer> {
        let stream = self.stream.get_ref();
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        self.try_answer()
    }

    /// Sends a GET request for a target and returns the answer.
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        self.answer()
    }

    /// Sends a GET request. `None` if the connection has ended.
    pub fn try_get(&mut self, target: &str) -> Option<Answer> {
        self.try_request(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
    }

    /// Sends a request. `None` if the connection has ended.
    pub fn try_request(&mut self, request: &str) -> Option<Answer> {
        self.stream.get_mut().write_all(request.as_bytes()).ok()?;
        self.try_answer()
    }

    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    /// The next answer. `None` at the end of the connection.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let mut answer = Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::new(),
        };
        let length = answer
            .field("Content-Length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Some(answer)
    }

    /// Waits for the server. Whether it closes without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }

    /// Whether the server has closed, as far as is known now.
    pub fn has_ended(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0; 1]);
        stream.set_nonblocking(false).unwrap();
        match peeked {
            Ok(length) => length == 0,
            Err(fault) => fault.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Has the peer hear a reset when this is dropped, and no orderly end.
    pub fn reset_when_closed(&self) {
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    pub fn shutdown_write(&mut self) {
        self.stream
            .get_ref()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }
}

/// Sends bytes on a new connection and returns everything that is received until its end.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = Client::connect(address);
    client.send(bytes);
    let mut text = String::new();
    client.stream.read_to_string(&mut text).unwrap();
    text
}
