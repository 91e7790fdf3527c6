//! What a body is, by the fields of its request.

use crate::http::request::Request;

/// The field that lists the media types that are taken (Linked Data Platform 1.0, section 7.1).
pub const ACCEPT_POST: &str = "Accept-Post: application/json, application/x-ndjson, application/jsonl, application/x-www-form-urlencoded, text/plain";

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// One event, as a query.
    Form,
    /// An object, or an array of objects.
    Json,
    /// An object a line.
    JsonLines,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// How it is read.
    pub media: Media,
    /// Whether it is compressed.
    pub is_gzip: bool,
    /// Whether events that cannot be stored are left out, instead of that none is taken.
    pub is_lenient: bool,
}

/// A body is of a kind that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// By its `Content-Type`.
    Media,
    /// By its `Content-Encoding`.
    Encoding,
}

impl Content {
    /// What the body of a request is.
    pub fn of(request: &Request<'_>) -> Result<Self, Unsupported> {
        Ok(Self {
            is_gzip: is_gzip(request)?,
            media: media(request)?,
            is_lenient: is_lenient(request),
        })
    }
}

fn media(request: &Request<'_>) -> Result<Media, Unsupported> {
    let mut types = request.fields("content-type");
    let Some(value) = types.next() else {
        return Ok(Media::Json);
    };
    if types.next().is_some() {
        return Err(Unsupported::Media);
    }
    let essence = value.split(|&byte| byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    if is("application/json") || is("text/plain") || essence.is_empty() {
        Ok(Media::Json)
    } else if is("application/x-ndjson") || is("application/jsonl") {
        Ok(Media::JsonLines)
    } else if is("application/x-www-form-urlencoded") {
        Ok(Media::Form)
    } else {
        Err(Unsupported::Media)
    }
}

fn is_gzip(request: &Request<'_>) -> Result<bool, Unsupported> {
    let mut codings = request.fields("content-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"gzip") => Ok(true),
        _ => Err(Unsupported::Encoding),
    }
}

/// RFC 7240: a list of preferences, each with parameters. The first of a repeated one counts.
fn is_lenient(request: &Request<'_>) -> bool {
    let values = request.fields("prefer");
    let mut preferences = values.flat_map(elements);
    let handling = preferences.find_map(|preference| {
        let preference = preference.split(|&byte| byte == b';').next()?;
        let equals = preference.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&preference[..equals], &preference[equals + 1..]);
        name.trim_ascii()
            .eq_ignore_ascii_case(b"handling")
            .then(|| value.trim_ascii())
    });
    handling.is_some_and(|value| {
        value.eq_ignore_ascii_case(b"lenient") || value.eq_ignore_ascii_case(b"\"lenient\"")
    })
}

/// The elements of a list (RFC 9110 section 5.6.1). A comma in a quoted text does not end one.
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |&byte| {
        if is_escaped {
            is_escaped = false;
        } else {
            is_escaped = is_quoted && byte == b'\\';
            is_quoted ^= byte == b'"';
        }
        byte == b',' && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request;

    fn content(fields: &str) -> Result<Content, Unsupported> {
        let head = format!("POST /hakaru HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let (request, _) = request::parse(head.as_bytes()).unwrap().unwrap();
        Content::of(&request)
    }

    #[test]
    fn a_body_is_read_by_its_media_type() {
        for (value, media) in [
            ("application/json", Some(Media::Json)),
            ("Application/JSON; charset=utf-8", Some(Media::Json)),
            ("text/plain;charset=UTF-8", Some(Media::Json)),
            ("", Some(Media::Json)),
            ("application/x-ndjson", Some(Media::JsonLines)),
            ("application/jsonl ; a=b", Some(Media::JsonLines)),
            ("application/x-www-form-urlencoded", Some(Media::Form)),
            ("application/json-patch", None),
            ("application/x-www-form-urlencode", None),
            ("multipart/form-data; boundary=x", None),
            ("application/xml", None),
        ] {
            let found = content(&format!("Content-Type: {value}\r\n"));
            let found = found.map(|content| content.media).ok();
            assert_eq!(found, media, "{value}");
        }
        assert_eq!(content("").unwrap().media, Media::Json);
        let twice = content("Content-Type: text/plain\r\nContent-Type: text/plain\r\n");
        assert_eq!(twice, Err(Unsupported::Media));
    }

    #[test]
    fn only_gzip_is_inflated() {
        assert!(content("Content-Encoding: GZip\r\n").unwrap().is_gzip);
        assert!(!content("").unwrap().is_gzip);
        for coding in ["br", "deflate", "gzip, gzip", "identity", ""] {
            let found = content(&format!("Content-Encoding: {coding}\r\n"));
            assert_eq!(found, Err(Unsupported::Encoding), "{coding}");
        }
    }

    #[test]
    fn a_sender_may_prefer_that_others_are_taken() {
        for (fields, is_lenient) in [
            ("", false),
            ("Prefer: handling=lenient\r\n", true),
            (
                "Prefer: respond-async, HANDLING = \"lenient\"; a=b\r\n",
                true,
            ),
            ("Prefer: wait=1\r\nPrefer: handling=lenient\r\n", true),
            ("Prefer: handling=strict, handling=lenient\r\n", false),
            ("Prefer: handling\r\n", false),
            ("Prefer: a=\"b, handling=lenient, c\"\r\n", false),
            ("Prefer: a=\"\\\", handling=lenient, c\"\r\n", false),
            ("Prefer: a=\"b, \\\\\", handling=lenient\r\n", true),
            ("Prefer: xhandling=lenient\r\n", false),
        ] {
            assert_eq!(content(fields).unwrap().is_lenient, is_lenient, "{fields}");
        }
    }
}
