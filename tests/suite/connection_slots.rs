//! All connections that may be open are: who is silent gives way, who waits for an answer does not.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Hakaru, Settings};

/// Less than the 75 seconds after which a silent connection ends by itself, whatever the machine does.
const SOON: Duration = Duration::from_secs(30);

const OK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n";

fn connect(hakaru: &Hakaru, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| Client::connect(hakaru.address))
        .collect()
}

#[test]
fn with_every_slot_taken_by_silent_connections_a_new_one_is_answered() {
    for io in ["io_uring", "epoll"] {
        let hakaru = Settings::sqlite()
            .flag("--max-connections=100")
            .flag(&format!("--io={io}"))
            .start();
        let mut silent = connect(&hakaru, 100);
        for client in &mut silent {
            assert_eq!(client.get("/ok").status, 200);
        }
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(Client::connect(hakaru.address).get("/ok").status, 200);
        }
        // All at once, and kept: each takes the place of another.
        let mut many = connect(&hakaru, 50);
        for client in &mut many {
            client.send(OK);
        }
        assert!(many.iter_mut().all(|client| client.answer().status == 200));
        assert!(start.elapsed() < SOON, "{io}: {:?}", start.elapsed());
        hakaru.wait_for_event("idle_connections_closed");
        hakaru.stop();
    }
}

#[test]
fn the_connection_that_is_silent_longest_gives_way() {
    let hakaru = Settings::sqlite()
        .flag("--cores=1")
        .flag("--max-connections=3")
        .start();
    let mut clients = connect(&hakaru, 3);
    for index in [0, 1, 2, 0] {
        assert_eq!(clients[index].get("/ok").status, 200);
    }
    assert_eq!(Client::connect(hakaru.address).get("/ok").status, 200);
    assert!(clients[1].is_closed());
    assert_eq!(clients[0].get("/ok").status, 200);
    assert_eq!(clients[2].get("/ok").status, 200);
}

#[test]
fn a_shard_without_a_silent_connection_asks_the_others() {
    // The kernel chooses a shard for each connection: in time the new one comes to each of them.
    let hakaru = Settings::sqlite()
        .flag("--cores=2")
        .flag("--max-connections=1")
        .start();
    let start = Instant::now();
    let mut last = Client::connect(hakaru.address);
    for _ in 0..12 {
        assert_eq!(last.get("/ok").status, 200);
        let mut next = Client::connect(hakaru.address);
        assert_eq!(next.get("/ok").status, 200);
        last = next;
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn whoever_is_in_the_middle_of_a_request_or_waits_for_its_answer_keeps_its_slot() {
    // Nobody answers there, so that answers wait.
    let hakaru = Settings::datasource("root@tcp(127.0.0.1:1)/hakaru")
        .flag("--ack=stored")
        .flag("--cores=1")
        .flag("--max-connections=4")
        .start();
    let mut waiting = connect(&hakaru, 2);
    for client in &mut waiting {
        client.send(b"GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    let mut begun = connect(&hakaru, 2);
    for client in &mut begun {
        client.send(b"GET /ok HTTP/1.1\r\n");
    }
    let address = hakaru.address;
    let new = thread::spawn(move || Client::connect(address).get("/ok").status);
    hakaru.wait_for_event("accepting_paused");
    for client in &mut begun {
        client.send(b"Host: h\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    // Now they are silent.
    assert_eq!(new.join().unwrap(), 200);
    assert!(begun[0].is_closed());
    assert_eq!(begun[1].get("/ok").status, 200);
    assert!(waiting.iter().all(|client| !client.has_ended()));
}
