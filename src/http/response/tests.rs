//! Answers as the bytes that are sent.

use super::*;

fn text(answer: &Answer<'_>) -> String {
    let mut out = Vec::new();
    Answers::new(784_111_777).write(&mut out, answer);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_prepared_answer_is_the_formatted_one_and_follows_the_clock() {
    let mut answers = Answers::new(784_111_776);
    answers.set_second(784_111_777);
    let mut prepared = Vec::new();
    answers.write_event_taken(&mut prepared, Cors::AnyOrigin, Persistence::Keep);
    let formatted = text(&Answer::event_taken(Cors::AnyOrigin, Persistence::Keep));
    assert_eq!(String::from_utf8(prepared).unwrap(), formatted);
    assert_eq!(
        formatted,
        "HTTP/1.1 200 OK\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Access-Control-Allow-Origin: *\r\n\
         Access-Control-Allow-Headers: Content-Type\r\n\
         Access-Control-Allow-Methods: GET, POST\r\n\
         Access-Control-Expose-Headers: X-Hakaru-Reason\r\n\
         Cache-Control: no-store\r\n\
         Content-Length: 0\r\n\r\n"
    );
}

#[test]
fn an_origin_is_echoed_with_credentials() {
    let cors = Cors::Origin(b"https://shop.example");
    let answer = text(&Answer::event_taken(cors, Persistence::KeepExplicit));
    assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://shop.example\r\n"));
    assert!(answer.contains("\r\nAccess-Control-Allow-Credentials: true\r\n"));
    assert!(answer.contains("\r\nVary: Origin\r\n"));
    assert!(answer.contains("\r\nConnection: keep-alive\r\n"));
}

#[test]
fn head_names_the_length_of_the_body_it_leaves_out() {
    let answer = Answer {
        status: Status::BadRequest,
        body: Body::Reason("name: missing"),
        head_only: true,
        ..Answer::event_taken(Cors::Absent, Persistence::Close)
    };
    let head = text(&answer);
    let whole = text(&Answer {
        head_only: false,
        ..answer
    });
    assert_eq!(whole, format!("{head}{{\"error\":\"name: missing\"}}"));
    assert!(head.ends_with("Content-Length: 25\r\n\r\n"));
}

/// The answer to a preflight that asks for this.
fn preflight(fields: Option<&[u8]>, private_network: bool) -> String {
    text(&Answer {
        status: Status::NoContent,
        preflight: Some(Preflight {
            fields,
            private_network,
        }),
        ..Answer::event_taken(Cors::Origin(b"https://o"), Persistence::Keep)
    })
}

#[test]
fn a_preflight_is_granted_what_it_asks_for() {
    let plain = preflight(None, false);
    assert!(plain.contains("\r\nAccess-Control-Max-Age: 86400\r\n"));
    assert!(plain.contains("\r\nAccess-Control-Allow-Headers: Content-Type\r\n"));
    assert!(!plain.contains("Private-Network: true"));
    let asked = preflight(Some(b"baggage,traceparent"), true);
    assert!(asked.contains("\r\nAccess-Control-Allow-Headers: baggage,traceparent\r\n"));
    assert!(asked.contains("\r\nAccess-Control-Allow-Private-Network: true\r\n"));
    for answer in [&plain, &asked] {
        let varies = "\r\nVary: Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network\r\n";
        assert!(answer.contains(varies), "{answer}");
        assert!(answer.contains("\r\nCache-Control: no-store\r\n"));
        assert!(!answer.contains("Content-Length"));
    }
}
