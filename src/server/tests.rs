//! What the main thread makes of what the others tell it.

use std::time::{Duration, Instant};

use super::drain::JANITOR_PATIENCE;
use super::*;
use crate::journal::served_database::{EarlierLanes, ServedDatabase};
use crate::metrics::Metrics;

/// A server of one shard and one writer, without any thread, and what its threads would tell it by.
fn server() -> (Server, Threads) {
    let (threads, notices) = Threads::new();
    let program = Program::of_this_process().unwrap();
    let (metrics, _) = Metrics::new(1, 1);
    let served = ServedDatabase::new("here".to_owned(), false, EarlierLanes::default());
    let shared = Shared::new(metrics, 1, 0, served, threads.clone());
    let mut server = Server::new(Ack::Journaled, program, shared, notices);
    (server.shards_running, server.writers_running) = (1, 1);
    server.is_janitor_running = true;
    (server, threads)
}

fn panicked(role: Role) -> Notice {
    Notice::Ended(role, Err("it panicked".to_owned()))
}

/// Asserts that it is the fault of a thread of that role.
fn assert_is_over(outcome: Result<(), ServerError>, role: Role, how: &str) {
    let text = outcome.unwrap_err().to_string();
    assert_eq!(text, format!("{role} ended: {how}"));
}

#[test]
fn requests_are_announced_when_the_last_shard_accepts() {
    for accepting in 0..=2 {
        let (mut server, threads) = server();
        server.unannounced = Some(Announcement {
            shards_left: 2,
            line: "listening".to_owned(),
            address: ([127, 0, 0, 1], 8081).into(),
            inherited: Inherited::default(),
        });
        for _ in 0..accepting {
            threads.notify(Notice::Accepts);
        }
        threads.notify(Notice::Signal);
        assert_eq!(server.wait().unwrap(), End::Signal);
        assert_eq!(server.unannounced.is_none(), accepting == 2);
    }
}

#[test]
fn a_panic_in_any_thread_ends_the_server() {
    for role in Role::ALL {
        let (mut server, threads) = server();
        threads.notify(panicked(role));
        assert_is_over(server.wait().map(drop), role, "it panicked");
    }
}

#[test]
fn a_server_goes_on_without_an_admin_port_but_not_without_what_stores_events() {
    for role in Role::ALL {
        let (mut server, threads) = server();
        threads.notify(Notice::Ended(role, Ok(())));
        threads.notify(Notice::Signal);
        match role {
            Role::Admin | Role::Successor => assert_eq!(server.wait().unwrap(), End::Signal),
            _ => assert_is_over(server.wait().map(drop), role, "without a reason"),
        }
    }
}

#[test]
fn a_panic_during_the_drain_is_the_outcome_after_the_drain() {
    for role in Role::ALL {
        let (mut server, threads) = server();
        threads.notify(panicked(role));
        threads.notify(Notice::Ended(Role::Shard, Ok(())));
        threads.notify(Notice::Ended(Role::Writer, Ok(())));
        // Of two shards or writers the other one has panicked.
        server.shards_running += usize::from(role == Role::Shard);
        server.writers_running += usize::from(role == Role::Writer);
        let drained = server.drain(Duration::from_secs(10), 1);
        assert_is_over(drained, role, "it panicked");
        assert_eq!((server.shards_running, server.writers_running), (0, 0));
    }
}

#[test]
fn a_panic_of_the_janitor_in_its_last_look_is_not_forgotten() {
    let (mut server, threads) = server();
    threads.notify(panicked(Role::Log));
    threads.notify(panicked(Role::Janitor));
    assert_is_over(server.end_janitor(), Role::Log, "it panicked");

    let (mut server, threads) = self::server();
    threads.notify(panicked(Role::Janitor));
    assert_is_over(server.end_janitor(), Role::Janitor, "it panicked");
    // It has ended, and is not waited for again.
    let start = Instant::now();
    assert!(server.end_janitor().is_ok());
    assert!(start.elapsed() < JANITOR_PATIENCE);
}

#[test]
fn a_panic_of_the_main_thread_is_an_error_too() {
    let outcome = caught(|| -> Result<(), ServerError> { panic!("planted") });
    let text = outcome.unwrap_or_else(main_thread_panicked).unwrap_err();
    assert_eq!(text.to_string(), "the main thread: it panicked");
}
