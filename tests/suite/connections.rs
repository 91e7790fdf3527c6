//! Many connections: opened and closed, at the bound, and beyond the limit of open files.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::support::{Client, Settings, wait_until};

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
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
fn connections_beyond_the_bound_wait_for_their_turn() {
    let hakaru = Settings::sqlite().flag("--max-connections=4").start();
    let mut served: Vec<_> = (0..4).map(|_| Client::connect(hakaru.address)).collect();
    assert!(
        served
            .iter_mut()
            .all(|client| client.get("/ok").status == 200)
    );
    let mut waiting: Vec<_> = (0..4).map(|_| Client::connect(hakaru.address)).collect();
    for client in &mut waiting {
        client.send(b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    hakaru.wait_for_line("4 connections are open, the most allowed");
    assert!(
        served
            .iter_mut()
            .all(|client| client.get("/ok").status == 200)
    );
    drop(served);
    assert!(
        waiting
            .iter_mut()
            .all(|client| client.answer().status == 200)
    );
}

#[test]
fn out_of_file_descriptors_it_serves_on_and_recovers_by_itself() {
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
        // Also the first write to a lane needs no descriptor more.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(kept.get("/hakaru?name=a&value=1").status, 200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("open connections are served", || {
            answered.load(Ordering::Relaxed) > 500
        });
        // It waits and does not spin: hardly any processor time but for what it serves.
        assert!(hakaru.lines("accepting pauses").len() <= 3);
        drop(crowd);
        stop.store(true, Ordering::Relaxed);
    });
    let mut late = Client::connect(hakaru.address);
    assert_eq!(late.get("/hakaru?name=a&value=1").status, 200);
    let identity = hakaru.stop();
    assert_eq!(identity.stored, answered.load(Ordering::Relaxed) + 1);
}
