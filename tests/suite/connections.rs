//! Many connections: opened and closed, at the limit, and beyond the limit of open files.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::support::{Client, Settings, wait_until};

#[test]
fn ten_thousand_connections_leave_no_open_sockets() {
    let hakaru = Settings::sqlite().start();
    let mut witness = Client::connect(hakaru.address);
    assert_eq!(witness.get("/ok").status, 200);
    let sockets = hakaru.sockets_at_rest();
    for _ in 0..10 {
        let mut open: Vec<_> = (0..1_000)
            .map(|_| Client::connect(hakaru.address))
            .collect();
        for client in &mut open {
            client.send(b"GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        assert!(open.iter_mut().all(|client| client.answer().status == 200));
    }
    wait_until("all connections are closed", || {
        hakaru.open_sockets() <= sockets
    });
    drop(witness);
    assert_eq!(hakaru.stop().stored, 10_000);
}

#[test]
fn connections_beyond_the_limit_wait_until_others_are_closed() {
    let hakaru = Settings::sqlite().flag("--max-connections=4").start();
    let mut served: Vec<_> = (0..4).map(|_| Client::connect(hakaru.address)).collect();
    assert!(
        served
            .iter_mut()
            .all(|client| client.get("/ok").status == 200)
    );
    // None of them is idle.
    for client in &mut served {
        client.send(b"GET /ok HTTP/1.1\r\n");
    }
    let mut waiting: Vec<_> = (0..4).map(|_| Client::connect(hakaru.address)).collect();
    for client in &mut waiting {
        client.send(b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    hakaru.wait_for_line("4 connections are open, the most allowed");
    for client in &mut served {
        client.send(b"Host: h\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    drop(served);
    assert!(
        waiting
            .iter_mut()
            .all(|client| client.answer().status == 200)
    );
}

#[test]
fn out_of_file_descriptors_open_connections_are_served_and_accepting_resumes() {
    let hakaru = Settings::sqlite()
        .shell_before("ulimit -n 64")
        .flag("--cores=1")
        .flag("--max-connections=1000")
        .start();
    let line = hakaru.wait_for_event("max_connections_too_high");
    assert_eq!(line["open_files"], 64);
    let mut kept = Client::connect(hakaru.address);
    assert_eq!(kept.get("/ok").status, 200);

    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let crowd: Vec<_> = (0..200).map(|_| Client::connect(hakaru.address)).collect();
        hakaru.wait_for_event("accepting_paused");
        // The first write to a lane needs no further descriptor either.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(kept.get("/hakaru?name=a&value=1").status, 200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("open connections are served", || {
            answered.load(Ordering::Relaxed) > 500
        });
        // It pauses and does not spin, so there are few log lines.
        assert!(hakaru.lines("accepting pauses").len() <= 3);
        drop(crowd);
        stop.store(true, Ordering::Relaxed);
    });
    let mut late = Client::connect(hakaru.address);
    assert_eq!(late.get("/hakaru?name=a&value=1").status, 200);
    // The database may have had no descriptor either. A drain would leave the events in the journal then.
    let events = answered.load(Ordering::Relaxed) + 1;
    wait_until("all events are stored", || {
        hakaru.stats()["events"]["stored"] == events
    });
    assert_eq!(hakaru.stop().stored, events);
}
