//! hakaru on epoll: if that is configured, and if the kernel denies io_uring.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::support::{Client, Hakaru, Settings, StopWhenDropped, free_port, wait_until};

/// Serves events, keeps a connection, refuses garbage, drains.
fn serves(hakaru: Hakaru) {
    let mut client = Client::connect(hakaru.address);
    for value in 0..200 {
        assert_eq!(
            client.get(&format!("/hakaru?name=a&value={value}")).status,
            200
        );
    }
    client.send(b"GET /ok HTTP/1.1\r\nHost: h\r\n");
    client.send(b"\r\nGET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((client.answer().status, client.answer().status), (200, 404));
    let mut many: Vec<_> = (0..100).map(|_| Client::connect(hakaru.address)).collect();
    assert!(
        many.iter_mut()
            .all(|client| client.get("/ok").status == 200)
    );
    drop((client, many));
    assert_eq!(hakaru.stop().stored, 200);
}

/// Runs `act` in a thread in which `io_uring_setup` fails with EPERM, as with Docker's seccomp profile.
fn without_io_uring<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let deny = SeccompFilter::new(
        BTreeMap::from([(nix::libc::SYS_io_uring_setup, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(nix::libc::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = deny.unwrap().try_into().unwrap();
    // A filter applies to the thread that sets it and to the processes that the thread starts.
    thread::scope(|scope| {
        let acting = scope.spawn(move || {
            apply_filter(&filter).unwrap();
            act()
        });
        acting.join().unwrap()
    })
}

fn start_without_io_uring(settings: Settings) -> Hakaru {
    without_io_uring(|| settings.outlives_its_thread().spawn())
}

/// Senders that never stop must not block timers and other senders.
fn is_fair(hakaru: Hakaru) {
    let flood = "GET /hakaru?name=flood HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n";
    let flood = format!("{flood}{}", "x".repeat(60_000));
    let stop = AtomicBool::new(false);
    let (stop, flood) = (&stop, &flood);
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut busy = Client::connect(hakaru.address);
            let mut answers = busy.try_clone();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    busy.send(flood.as_bytes());
                }
                busy.shutdown_write();
            });
            scope.spawn(move || while answers.try_answer().is_some() {});
        }
        let _stopped = StopWhenDropped(stop);
        let mut calm = Client::connect(hakaru.address);
        for value in 0..20 {
            assert_eq!(
                calm.get(&format!("/hakaru?name=a&value={value}")).status,
                200
            );
        }
        hakaru.wait_for_line("batch stored");
    });
    assert_eq!(hakaru.stop().stored, 20);
}

#[test]
fn busy_senders_do_not_block_others() {
    for driver in ["--io=epoll", "--io=io_uring"] {
        is_fair(
            Settings::sqlite()
                .flag(driver)
                .flag("--cores=1")
                .flag("--linger=100ms")
                .start(),
        );
    }
}

#[test]
fn epoll_if_it_is_configured() {
    let hakaru = Settings::sqlite().flag("--io=epoll").start();
    assert!(
        hakaru.wait_for_event("listening")["message"]
            .as_str()
            .unwrap()
            .contains("epoll")
    );
    serves(hakaru);
}

#[test]
fn io_uring_if_it_is_configured() {
    let hakaru = Settings::sqlite().flag("--io=io_uring").start();
    assert!(
        hakaru.wait_for_event("listening")["message"]
            .as_str()
            .unwrap()
            .contains("io_uring")
    );
    serves(hakaru);
}

#[test]
fn auto_falls_back_with_one_warning_that_gives_the_reason() {
    let hakaru = start_without_io_uring(Settings::sqlite()).listening();
    let warnings = hakaru.events("io_uring_unavailable");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]["message"].as_str().unwrap().contains("seccomp"),
        "{warnings:?}"
    );
    assert!(
        hakaru.wait_for_event("listening")["message"]
            .as_str()
            .unwrap()
            .contains("epoll")
    );
    serves(hakaru);
}

#[test]
fn io_uring_that_is_configured_and_denied_is_an_error() {
    let mut hakaru = start_without_io_uring(Settings::sqlite().flag("--io=io_uring"));
    assert_eq!(hakaru.wait().code(), Some(2));
    assert!(
        hakaru
            .log()
            .contains("--io (HAKARU_IO): io_uring cannot be used"),
        "{}",
        hakaru.log()
    );
}

#[test]
fn the_version_and_the_check_show_the_driver_that_works() {
    let directory = tempfile::tempdir().unwrap();
    let stdout = |words: &str| {
        let settings = Settings::sqlite().flag(words);
        let output = settings.run_in(directory.path());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(stdout("--version").ends_with(", io_uring)\n"));
    assert!(stdout("check").contains("ok       io_uring: works, with "));
    without_io_uring(|| {
        assert!(stdout("--version").ends_with(", epoll)\n"));
        let found = stdout("check");
        assert!(
            found.contains("warning  io_uring: ") && found.contains("seccomp"),
            "{found}"
        );
    });
}

#[test]
fn a_log_that_is_not_read_blocks_no_shard() {
    let port = free_port();
    // A pipe that is full from the start. hakaru itself has its other end, and never reads it.
    let hakaru = Settings::sqlite()
        .shell_before(
            "mkfifo log && exec 3<>log && dd if=/dev/zero bs=65536 count=1 2>/dev/null >&3 && exec 2>&3",
        )
        .flag(&format!("--listen=127.0.0.1:{port}"))
        .flag("--cores=1")
        .flag("--linger=1ms")
        .spawn();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("it serves", || Client::try_connect(address).is_ok());
    let mut client = Client::connect(address);
    for value in 0..2000 {
        let answer = client.get(&format!("/hakaru?name=a&value={value}"));
        assert_eq!(answer.status, 200);
    }
    let file = hakaru.path("eventlog.db");
    wait_until("all is stored", || {
        let rows = rusqlite::Connection::open(&file)
            .and_then(|file| file.query_row("SELECT COUNT(*) FROM eventlog", [], |row| row.get(0)));
        rows == Ok(2000)
    });
    let mut hakaru = hakaru;
    hakaru.signal(Signal::SIGTERM);
    assert!(hakaru.wait().success());
}
