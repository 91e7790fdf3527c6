//! The script for pages: `hakaru(name, value)` sends an event.

use std::sync::LazyLock;

use super::request::Request;
use super::response::{Answer, Body, Status};

/// The script.
const SCRIPT: &[u8] = include_bytes!("hakaru.js");

/// Most bytes of the script: it is loaded by every page.
const SCRIPT_BYTES_MAX: usize = 2048;

const _: () = assert!(SCRIPT.len() <= SCRIPT_BYTES_MAX);

/// The validator of the script (RFC 9110 section 8.8.3): its checksum.
static ETAG: LazyLock<String> = LazyLock::new(|| format!("\"{:08x}\"", crc32c::crc32c(SCRIPT)));

/// Its fields.
static FIELDS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "Content-Type: text/javascript; charset=utf-8\r\nCache-Control: public, max-age=3600\r\nETag: {}\r\n",
        *ETAG
    )
});

/// The answer to a request for the script. `plain` is an answer to build on.
pub fn answer<'a>(request: &Request<'_>, plain: Answer<'a>) -> Answer<'a> {
    let mut known = request
        .fields("if-none-match")
        .flat_map(|list| list.split(|&byte| byte == b','));
    let is_known = known.any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == ETAG.as_bytes()
    });
    let (status, bytes) = if is_known {
        (Status::NotModified, &[][..])
    } else {
        (Status::Ok, SCRIPT)
    };
    Answer {
        status,
        body: Body::Lasting {
            fields: &FIELDS,
            bytes,
        },
        ..plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request;
    use crate::http::response::{Answers, Cors, Persistence};

    fn ask(fields: &str) -> String {
        let head = format!("GET /hakaru.js HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let (request, _) = request::parse(head.as_bytes()).unwrap().unwrap();
        let plain = Answer::event_taken(Cors::AnyOrigin, Persistence::Keep);
        let mut out = Vec::new();
        Answers::new(0).write(&mut out, &answer(&request, plain));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_script_may_be_kept_and_asked_for_again() {
        let whole = ask("");
        assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
        assert!(whole.ends_with(std::str::from_utf8(SCRIPT).unwrap()));
        assert_eq!(whole.matches("Cache-Control:").count(), 1);
        let etag = whole
            .lines()
            .find(|line| line.starts_with("ETag: "))
            .unwrap();
        let etag = &etag["ETag: ".len()..];
        for (list, is_known) in [
            (etag.to_owned(), true),
            (format!("\"x\", W/{etag}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
        ] {
            let answer = ask(&format!("If-None-Match: {list}\r\n"));
            assert_eq!(answer.starts_with("HTTP/1.1 304 "), is_known, "{list}");
            assert!(answer.contains(&format!("\r\nETag: {etag}\r\n")));
            // RFC 9110 section 15.4.5: no content.
            assert_eq!(answer.ends_with("\r\n\r\n"), is_known);
            assert_eq!(answer.contains("Content-Length: "), !is_known);
        }
    }
}
