//! Reads the files with the odd requests.

use std::fs;
use std::path::Path;

use crate::bodies::gzip;

/// What is sent on one connection, and what is expected.
pub struct Conversation {
    pub title: String,
    /// The statuses of the answers, in order.
    pub statuses: Vec<u16>,
    /// How many events are taken.
    pub events: u64,
    /// All bytes that are sent.
    pub request: Vec<u8>,
}

/// All conversations of all files.
pub fn read_all() -> Vec<Conversation> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/odd_requests");
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "txt") {
            let name = path.file_name().unwrap().to_string_lossy();
            let text = fs::read_to_string(&path).unwrap();
            all.extend(text.split("\n>> ").skip(1).map(|part| read(&name, part)));
        }
    }
    all
}

fn read(file: &str, text: &str) -> Conversation {
    let (expected, sent) = text.split_once('\n').unwrap();
    let [statuses, events, title] = expected.split(" | ").collect::<Vec<_>>()[..] else {
        panic!("{file}: {expected}");
    };
    let statuses = match statuses {
        "none" => Vec::new(),
        _ => statuses
            .split(' ')
            .map(|status| status.parse().unwrap())
            .collect(),
    };
    // Up to an empty line.
    let sent: String = sent.lines().take_while(|line| !line.is_empty()).collect();
    let mut bytes = Vec::new();
    let rest = expand(sent.as_bytes(), &mut bytes);
    assert!(rest.is_empty(), "{file}: {expected}");
    Conversation {
        title: format!("{file}: {title}"),
        statuses,
        events: events.parse().unwrap(),
        request: with_length(bytes),
    }
}

/// Stands for the length of what follows the head.
const LENGTH: &[u8] = b"{length}";

/// Puts the length of what follows the head in the place of `LENGTH`.
fn with_length(bytes: Vec<u8>) -> Vec<u8> {
    let position = |wanted: &[u8]| {
        let mut windows = bytes.windows(wanted.len());
        windows.position(|window| window == wanted)
    };
    let Some(place) = position(LENGTH) else {
        return bytes;
    };
    let length = bytes.len() - position(b"\r\n\r\n").unwrap() - 4;
    let rest = &bytes[place + LENGTH.len()..];
    [&bytes[..place], length.to_string().as_bytes(), rest].concat()
}

/// Appends the bytes that `text` stands for, up to a brace that closes more than was opened. Returns what follows it.
fn expand<'a>(mut text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let mut depth = 0;
    while let Some((&first, rest)) = text.split_first() {
        text = rest;
        match first {
            b'\\' => text = escape(rest, out),
            b'}' if depth == 0 => return text,
            byte => {
                depth += i32::from(byte == b'{') - i32::from(byte == b'}');
                out.push(byte);
            }
        }
    }
    text
}

/// Appends what an escape stands for, whose backslash is before `text`. Returns what follows it.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (&kind, rest) = text.split_first().expect("an escape");
    match kind {
        b'r' => out.push(b'\r'),
        b'n' => out.push(b'\n'),
        b't' => out.push(b'\t'),
        b'0' => out.push(0),
        b'\\' | b'}' => out.push(kind),
        b'x' => {
            let digits = std::str::from_utf8(&rest[..2]).unwrap();
            out.push(u8::from_str_radix(digits, 16).unwrap());
            return &rest[2..];
        }
        b'{' => return braces(rest, out),
        other => panic!("no escape: \\{}", char::from(other)),
    }
    rest
}

/// The same for an escape with braces, after the first one.
fn braces<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    if let Some(rest) = text.strip_prefix(b"post}") {
        out.extend(b"POST /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: ");
        out.extend(LENGTH);
        out.extend(b"\r\n");
        return rest;
    }
    let colon = text.iter().position(|&byte| byte == b':').unwrap();
    let mut inner = Vec::new();
    let rest = expand(&text[colon + 1..], &mut inner);
    match &text[..colon] {
        b"gzip" => out.extend(gzip(&inner)),
        times => {
            let times: usize = std::str::from_utf8(times).unwrap().parse().unwrap();
            out.extend(inner.repeat(times));
        }
    }
    rest
}
