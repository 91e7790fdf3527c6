//! Packets of the MySQL protocol, as far as a fake must read and write them.

use std::io::{self, Read, Write};

/// One packet. A command begins with the sequence number 0, and everything until the next command goes on counting.
pub struct Packet {
    pub sequence: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 4];
        from.read_exact(&mut head)?;
        let [low, middle, high, sequence] = head;
        let length = u32::from_le_bytes([low, middle, high, 0]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload)?;
        Ok(Self { sequence, payload })
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.payload.len()).unwrap().to_le_bytes();
        assert_eq!(length[3], 0, "a payload of less than 16 MiB");
        let mut bytes = vec![length[0], length[1], length[2], self.sequence];
        bytes.extend(&self.payload);
        to.write_all(&bytes)
    }

    /// A command with SQL.
    pub fn query(sql: &str) -> Self {
        let mut payload = vec![COM_QUERY];
        payload.extend(sql.as_bytes());
        Self {
            sequence: 0,
            payload,
        }
    }

    /// The answer that a statement without rows has succeeded.
    pub fn ok(sequence: u8) -> Self {
        // No rows, no id, autocommit, no warnings.
        let payload = vec![0, 0, 0, 2, 0, 0, 0];
        Self { sequence, payload }
    }
}

const COM_QUERY: u8 = 3;
const COM_STMT_PREPARE: u8 = 22;
const COM_STMT_EXECUTE: u8 = 23;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Query(String),
    Prepare(String),
    /// The number of a prepared statement.
    Execute(u32),
    /// Such as a ping, or that a statement is closed.
    Other,
}

impl Command {
    pub fn of(payload: &[u8]) -> Self {
        let text = || String::from_utf8_lossy(&payload[1..]).into_owned();
        match payload.first() {
            Some(&COM_QUERY) => Self::Query(text()),
            Some(&COM_STMT_PREPARE) => Self::Prepare(text()),
            Some(&COM_STMT_EXECUTE) => Self::Execute(number(&payload[1..])),
            _ => Self::Other,
        }
    }

    /// Whether it is a statement in text that begins with these words.
    pub fn begins(&self, words: &str) -> bool {
        matches!(self, Self::Query(sql) if sql.starts_with(words))
    }
}

/// A number of four bytes.
fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// The number that a server has given to a prepared statement. `None`: it has not prepared it.
pub fn prepared(answer: &[u8]) -> Option<u32> {
    (answer[0] == 0).then(|| number(&answer[1..]))
}

/// Gives the greeting of a server another number of the session, as that of a proxy has.
pub fn renumber(greeting: &mut [u8]) {
    // The version of the protocol, that of the server as a text that ends with 0, and the number.
    let version = greeting.iter().position(|byte| *byte == 0).unwrap();
    greeting[version + 1] ^= 0x80;
}

/// An error of a server.
#[derive(Debug, Clone)]
pub struct ServerError {
    pub code: u16,
    state: &'static str,
    message: String,
}

impl ServerError {
    /// With the SQLSTATE of errors that have none of their own.
    pub fn new(code: u16, message: &str) -> Self {
        Self::with_state(code, "HY000", message)
    }

    pub fn with_state(code: u16, state: &'static str, message: &str) -> Self {
        Self {
            code,
            state,
            message: message.to_owned(),
        }
    }

    pub fn packet(&self, sequence: u8) -> Packet {
        let mut payload = vec![0xff];
        payload.extend(self.code.to_le_bytes());
        payload.push(b'#');
        payload.extend(self.state.as_bytes());
        payload.extend(self.message.as_bytes());
        Packet { sequence, payload }
    }
}
