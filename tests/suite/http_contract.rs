//! Requests, their answers, and what is counted.

use crate::support::{Client, Settings, exchange};

#[test]
fn each_path_and_method_is_answered_as_documented() {
    let hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.address);

    let taken = client.get("/hakaru?name=open&value=0");
    assert_eq!((taken.status, &taken.body[..]), (200, ""));
    assert_eq!(taken.field("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(
        taken.field("Access-Control-Allow-Headers"),
        Some("Content-Type")
    );
    assert_eq!(
        taken.field("Access-Control-Allow-Methods"),
        Some("GET, POST")
    );
    assert!(
        taken
            .field("Date")
            .is_some_and(|date| date.ends_with(" GMT"))
    );

    let alive = client.get("/ok");
    assert_eq!(
        (alive.status, alive.field("Access-Control-Allow-Origin")),
        (200, None)
    );

    client.send(b"OPTIONS /hakaru HTTP/1.1\r\nHost: h\r\nOrigin: https://shop.example\r\n\r\n");
    let preflight = client.answer();
    assert_eq!(
        (preflight.status, preflight.field("Content-Length")),
        (204, None)
    );
    assert_eq!(preflight.field("Allow"), Some("GET, HEAD, OPTIONS, POST"));
    assert_eq!(preflight.field("Access-Control-Max-Age"), Some("86400"));
    assert_eq!(
        preflight.field("Access-Control-Allow-Origin"),
        Some("https://shop.example")
    );
    assert_eq!(
        preflight.field("Access-Control-Allow-Credentials"),
        Some("true")
    );
    assert!(
        preflight
            .field("Vary")
            .is_some_and(|varies| varies.starts_with("Origin, "))
    );

    client.send(b"HEAD /hakaru?name=open&value=0 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().status, 200);

    let pixel = client.get("/hakaru.gif?name=open&value=0");
    assert_eq!(
        (pixel.status, pixel.field("Content-Type")),
        (200, Some("image/gif"))
    );
    assert_eq!(pixel.field("Cache-Control"), Some("no-store"));
    assert_eq!(client.get("/").status, 200);
    let elsewhere = client.get("/elsewhere");
    assert_eq!(
        (
            elsewhere.status,
            elsewhere.field("Access-Control-Allow-Origin")
        ),
        (404, Some("*"))
    );
    client.send(b"PUT /hakaru HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    let wrong_method = client.answer();
    assert_eq!(
        (wrong_method.status, wrong_method.field("Allow")),
        (405, Some("GET, HEAD, OPTIONS, POST"))
    );

    let identity = hakaru.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.rejected),
        (2, 2, 0)
    );
}

#[test]
fn bad_input_is_refused_with_a_reason_and_counted_by_reason() {
    let hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.address);
    let long = format!("/hakaru?name={}&value=1", "n".repeat(256));
    for (target, parameter, bound) in [
        ("/hakaru", "name", "1 to 255"),
        ("/hakaru?name=&value=1", "name", "1 to 255"),
        (&long, "name", "1 to 255"),
        ("/hakaru?name=%C3&value=1", "name", "UTF-8"),
        ("/hakaru?name=a", "value", "0 to 4294967295"),
        ("/hakaru?name=a&value=12x", "value", "0 to 4294967295"),
        (
            "/hakaru?name=a&value=4294967296",
            "value",
            "0 to 4294967295",
        ),
    ] {
        let refused = client.get(target);
        assert_eq!(refused.status, 400, "{target}");
        let body: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
        let reason = body["error"].as_str().unwrap();
        assert!(
            reason.starts_with(parameter) && reason.contains(bound),
            "{target}: {reason}"
        );
        assert_eq!(refused.field("X-Hakaru-Reason"), Some(reason));
        assert_eq!(refused.field("Content-Type"), Some("application/json"));
        assert_eq!(refused.field("Access-Control-Allow-Origin"), Some("*"));
    }
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.rejected), (0, 7));
    assert_eq!(
        identity.rejected_by_reason,
        "name_missing=1 name_empty=1 name_too_long=1 name_not_utf8=1 \
         value_missing=1 value_not_decimal=1 value_too_large=1"
    );
}

#[test]
fn connections_are_kept_or_closed_by_version_and_connection_field() {
    let hakaru = Settings::sqlite().start();
    let closing = "GET /ok HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert!(exchange(hakaru.address, closing.as_bytes()).contains("\r\nConnection: close\r\n"));
    assert!(
        exchange(hakaru.address, b"GET /ok HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n")
    );

    let mut old = Client::connect(hakaru.address);
    for _ in 0..3 {
        old.send(b"GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(old.answer().field("Connection"), Some("keep-alive"));
    }
    old.send(b"GET /ok HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().field("Connection"), Some("close"));
    assert!(old.is_closed());
}

#[test]
fn a_sender_that_expects_continue_gets_it_before_it_sends_the_body() {
    let hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.address);
    client
        .send(b"POST /ok HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send(b"hello");
    assert_eq!(client.answer().status, 405);
    assert_eq!(client.get("/ok").status, 200);
}
