//! The expected events: a number, or a list as NDJSON, CSV or TSV.
//!
//! Lines with the same id are one event, which its sender has sent more than once. Only the first of them counts.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use super::tally::Tally;
use crate::commands::query::terminal::Progress;

/// Most bytes of a line of NDJSON. A name of 255 characters takes less than 4 KiB, with two escapes per character.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Most events of a list. [`Tally`] counts them in 32 bits.
const EVENTS_MAX: u32 = u32::MAX;

/// The expected events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// A number of events, of any name and value.
    Count(u64),
    /// The events of this file; `None`: of standard input.
    List(Option<PathBuf>),
}

/// A list that cannot be read. The text names the file and the line.
#[derive(Debug, thiserror::Error)]
#[error("--expected {place}: {text}")]
pub struct ListError {
    place: String,
    text: String,
}

/// One expected event.
struct Expected<'a> {
    name: &'a str,
    value: u32,
    /// When it was sent, in milliseconds since 1970, if that is known.
    at: Option<i64>,
    /// What its sender calls it.
    id: Option<&'a str>,
}

/// Reads a list into `tally`.
pub(super) fn read(list: Option<&PathBuf>, tally: &mut Tally) -> Result<(), ListError> {
    let place = list.map_or("-".to_owned(), |path| path.display().to_string());
    let error = |text: String| ListError {
        place: place.clone(),
        text,
    };
    let source: Box<dyn BufRead> = match list {
        None => Box::new(io::stdin().lock()),
        Some(path) => {
            let file = File::open(path).map_err(|fault| error(fault.to_string()))?;
            Box::new(BufReader::with_capacity(64 * 1024, file))
        }
    };
    let mut progress = Progress::new();
    let mut ids: HashSet<Box<str>> = HashSet::new();
    read_from(source, |expected| {
        progress.step("expected events read");
        if tally.expected() == u64::from(EVENTS_MAX) {
            return Err(format!("more than {EVENTS_MAX} events"));
        }
        if expected.id.is_none_or(|id| ids.insert(id.into())) {
            tally.expect(expected.name, expected.value, expected.at);
        }
        Ok(())
    })
    .map_err(error)?;
    // An empty list is probably a mistake, and would agree with anything.
    if tally.expected() == 0 {
        return Err(error("holds no event".to_owned()));
    }
    tally.seal();
    Ok(())
}

fn read_from(
    mut source: impl BufRead,
    mut each: impl FnMut(Expected<'_>) -> Result<(), String>,
) -> Result<(), String> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let start = source.fill_buf().map_err(|fault| fault.to_string())?;
    if start.starts_with(BYTE_ORDER_MARK) {
        source.consume(BYTE_ORDER_MARK.len());
    }
    let start = source.fill_buf().map_err(|fault| fault.to_string())?;
    if start.starts_with(GZIP_START) {
        return Err(GZIP.to_owned());
    }
    let mut text = start.iter().filter(|byte| !byte.is_ascii_whitespace());
    let begins = (text.next(), text.next());
    if begins.0 == Some(&b'{') {
        return read_json(source, each);
    }
    // A name in CSV may begin with a bracket too.
    let is_like_array = matches!(begins, (Some(b'['), None | Some(b'{' | b']')));
    let mut line = start.split(|&byte| byte == b'\n');
    let has_tab = line.next().is_some_and(|line| line.contains(&b'\t'));
    let read = read_columns(source, if has_tab { b'\t' } else { b',' }, &mut each);
    read.map_err(|fault| {
        if is_like_array {
            JSON_ARRAY.to_owned()
        } else {
            fault
        }
    })
}

/// The first bytes of a compressed file (RFC 1952).
const GZIP_START: &[u8] = b"\x1f\x8b";

const GZIP: &str = "compressed by gzip; accepted: a list that is not compressed, such as what zcat gives to --expected -";

const JSON_ARRAY: &str = "a JSON array; accepted: NDJSON, an object a line, such as jq -c '.[]' makes of an array; CSV; TSV";

fn read_json(
    mut source: impl BufRead,
    mut each: impl FnMut(Expected<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut bounded = source.by_ref().take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line);
        if read.map_err(|fault| fault.to_string())? == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let event: serde_json::Value = serde_json::from_slice(&line)
            .map_err(|fault| format!("line {number}: not a JSON object: {fault}"))?;
        let name = event["name"].as_str();
        let value = event["value"]
            .as_u64()
            .and_then(|value| u32::try_from(value).ok());
        let at = match &event["at"] {
            serde_json::Value::Null => Some(None),
            serde_json::Value::String(text) => millis(text).map(Some),
            number => millis(&number.to_string()).map(Some),
        };
        let id = match &event["id"] {
            serde_json::Value::Null => Some(None),
            id => id.as_str().map(Some),
        };
        let (Some(name), Some(value), Some(at), Some(id)) = (name, value, at, id) else {
            return Err(format!("line {number}: {ACCEPTED_JSON}"));
        };
        each(Expected {
            name,
            value,
            at,
            id,
        })?;
    }
    Ok(())
}

const ACCEPTED_JSON: &str = "accepted: {\"name\":TEXT,\"value\":0 to 4294967295} and \
     \"at\", RFC 3339 or seconds since 1970, and \"id\":TEXT, where they are known";

const ACCEPTED_COLUMNS: &str = "accepted: name, value (0 to 4294967295), and the time, RFC 3339 or seconds since 1970, \
     where it is known; or a first line that names the columns name, value, at, id";

/// Reads CSV or TSV, with or without a line of column names.
fn read_columns(
    source: impl BufRead,
    delimiter: u8,
    each: &mut impl FnMut(Expected<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(source);
    // The columns of name, value, time and id.
    let mut columns = [Some(0), Some(1), Some(2), None];
    let mut record = csv::StringRecord::new();
    let mut is_first = true;
    while reader
        .read_record(&mut record)
        .map_err(|fault| fault.to_string())?
    {
        if std::mem::take(&mut is_first) {
            let named = ["name", "value", "at", "id"].map(|name| {
                record
                    .iter()
                    .position(|field| field.trim().eq_ignore_ascii_case(name))
            });
            if let [Some(_), Some(_), ..] = named {
                columns = named;
                continue;
            }
        }
        let field = |index: usize| columns[index].and_then(|column| record.get(column));
        let at = match field(2) {
            None | Some("") => Some(None),
            Some(text) => millis(text).map(Some),
        };
        let digits = field(1).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let value = digits.and_then(|text| text.parse().ok());
        let (Some(name), Some(value), Some(at)) = (field(0), value, at) else {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(format!("line {line}: {ACCEPTED_COLUMNS}"));
        };
        let id = field(3).filter(|id| !id.is_empty());
        each(Expected {
            name,
            value,
            at,
            id,
        })?;
    }
    Ok(())
}

/// Milliseconds since 1970 from RFC 3339, or from seconds since 1970.
fn millis(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.as_millisecond());
    }
    let seconds: f64 = text.parse().ok()?;
    let instant = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
    i64::try_from(instant.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Result<Vec<(String, u32, Option<i64>)>, String> {
        let mut events = Vec::new();
        read_from(text.as_bytes(), |expected| {
            events.push((expected.name.to_owned(), expected.value, expected.at));
            Ok(())
        })
        .map(|()| events)
    }

    fn event(name: &str, value: u32, at: Option<i64>) -> (String, u32, Option<i64>) {
        (name.to_owned(), value, at)
    }

    #[test]
    fn every_format_gives_the_same_events() {
        let expected = Ok(vec![
            event("a,\"b", 1, None),
            event("c\nd", u32::MAX, Some(1_500)),
        ]);
        for text in [
            "{\"name\":\"a,\\\"b\",\"value\":1}\n\n{\"at\":1.5,\"value\":4294967295,\"name\":\"c\\nd\"}",
            "\u{feff} {\"name\":\"a,\\\"b\",\"value\":1}\n{\"at\":\"1970-01-01T00:00:01.5Z\",\"value\":4294967295,\"name\":\"c\\nd\"}\n",
            "\"a,\"\"b\",1\r\n\"c\nd\",4294967295,1970-01-01T00:00:01.5Z\r\n",
            "at,Value,name,more\n,1,\"a,\"\"b\"\n1.5,4294967295,\"c\nd\",x\n",
            "\"a,\"\"b\"\t1\n\"c\nd\"\t4294967295\t1.5",
        ] {
            assert_eq!(events(text), expected, "{text}");
        }
    }

    #[test]
    fn what_has_the_same_id_is_one_event() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list");
        for text in [
            "{\"name\":\"a\",\"value\":1,\"id\":\"x\"}\n{\"name\":\"a\",\"value\":1,\"id\":\"x\"}\n\
             {\"name\":\"a\",\"value\":1,\"id\":\"y\"}\n{\"name\":\"a\",\"value\":1}\n{\"name\":\"a\",\"value\":1,\"id\":null}",
            "id,name,value\nx,a,1\nx,a,1\ny,a,1\n,a,1\n,a,1\n",
        ] {
            std::fs::write(&list, text).unwrap();
            let mut tally = Tally::default();
            read(Some(&list), &mut tally).unwrap();
            assert_eq!(tally.expected(), 4, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_line() {
        for (text, words) in [
            (
                "{\"name\":\"a\",\"value\":1}\n{\"name\":\"a\"}",
                "line 2: accepted",
            ),
            ("{\"name\":\"a\",\"value\":-1}", "line 1: accepted"),
            (
                "{\"name\":\"a\",\"value\":1,\"at\":\"noon\"}",
                "line 1: accepted",
            ),
            ("{\"name\":\"a\",\"value\":1,\"id\":7}", "line 1: accepted"),
            ("{\"name\"", "line 1: not a JSON object"),
            ("a,1\nb,4294967296", "line 2: accepted"),
            ("a,+1", "line 1: accepted"),
            ("a", "line 1: accepted"),
            ("a,1,noon", "line 1: accepted"),
            (
                "[{\"name\":\"a\",\"value\":1}]",
                "a JSON array; accepted: NDJSON",
            ),
            (
                "[\n  {\n    \"name\": \"a\",\n    \"value\": 1\n  }\n]\n",
                "a JSON array; accepted: NDJSON",
            ),
            ("[]", "a JSON array; accepted: NDJSON"),
            ("[a],1\nb,x", "line 2: accepted"),
        ] {
            let error = events(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(events(""), Ok(Vec::new()));
        assert_eq!(events("[a],1"), Ok(vec![event("[a]", 1, None)]));
        let gzip = read_from(&b"\x1f\x8b\x08\x00"[..], |_| Ok(()));
        let error = gzip.unwrap_err();
        assert!(
            error.starts_with("compressed by gzip; accepted: "),
            "{error}"
        );
    }
}
