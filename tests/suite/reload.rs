//! SIGHUP replaces the running process by a new one: no request fails, and no event is lost or doubled.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Client, DEADLINE, DatabaseServer, Hakaru, Settings, wait_until};

/// Clients that send one event after another, each with a value of its own.
struct Load {
    address: SocketAddr,
    stop: AtomicBool,
    next: AtomicU64,
}

impl Load {
    fn new(hakaru: &Hakaru) -> Self {
        Self {
            address: hakaru.address,
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
        }
    }

    /// Sends until `stop` is set, and fails on any status other than 200.
    fn send(&self, keeps_alive: bool) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            let connected = client
                .take()
                .unwrap_or_else(|| Client::connect(self.address));
            let mut connected: Client = connected;
            let value = self.next.fetch_add(1, Ordering::Relaxed);
            let answer = connected.get(&format!("/hakaru?name=open&value={value}"));
            assert_eq!(answer.status, 200);
            if keeps_alive && answer.field("Connection") != Some("close") {
                client = Some(connected);
            }
        }
    }

    fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Waits until the clients have sent some more events.
    fn wait_for_more(&self) {
        let before = self.sent();
        wait_until("requests are answered", || self.sent() > before + 40);
    }
}

/// Replaces the newest process, and waits until its successor serves.
fn reload(hakaru: &Hakaru) {
    let before = hakaru.successors();
    let newest = before.last().map_or(hakaru.pid() as i32, |&pid| pid);
    kill(Pid::from_raw(newest), Signal::SIGHUP).unwrap();
    wait_until("a successor serves", || {
        hakaru.events("successor_serves").len() == before.len() + 1
    });
}

/// How many processes have ended.
fn drained(hakaru: &Hakaru) -> usize {
    hakaru.events("ended").len()
}

/// Ends the newest process, and waits until all have drained.
fn stop_all(hakaru: &mut Hakaru) {
    let successors = hakaru.successors();
    kill(Pid::from_raw(*successors.last().unwrap()), Signal::SIGTERM).unwrap();
    wait_until("all have drained", || {
        drained(hakaru) == successors.len() + 1
    });
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
}

/// Reloads several times under load. Afterwards each event must be one row.
#[expect(clippy::print_stdout, reason = "shows how much was tested")]
fn reload_under_load(settings: Settings, database: &DatabaseServer, reloads: usize) {
    let mut hakaru = settings.start();
    let load = Load::new(&hakaru);
    thread::scope(|scope| {
        for keeps_alive in [true, true, false, false] {
            let load = &load;
            scope.spawn(move || load.send(keeps_alive));
        }
        for _ in 0..reloads {
            load.wait_for_more();
            reload(&hakaru);
        }
        load.wait_for_more();
        load.stop.store(true, Ordering::Relaxed);
    });
    stop_all(&mut hakaru);
    let values: Vec<u64> = database.query("SELECT value FROM eventlog");
    let different: HashSet<u64> = values.iter().copied().collect();
    assert_eq!(values.len(), different.len(), "an event is two rows");
    assert_eq!(different.len() as u64, load.sent(), "an event is missing");
    assert!((0..load.sent()).all(|value| different.contains(&value)));
    let log = hakaru.log();
    println!("{} events in {reloads} reloads, none failed", load.sent());
    for line in log.lines() {
        assert!(!line.contains("connections_cut"), "{line}");
    }
}

#[test]
fn thirty_reloads_under_load_fail_no_request() {
    let database = DatabaseServer::start();
    let settings = Settings::mysql(&database).flag("--linger=20ms");
    reload_under_load(settings, &database, 30);
}

#[test]
fn reloads_without_a_ring_and_without_a_journal_fail_no_request() {
    let database = DatabaseServer::start();
    let settings = Settings::mysql(&database)
        .flag("--linger=20ms")
        .flag("--io=epoll")
        .flag("--ack=received");
    reload_under_load(settings, &database, 5);
}

/// A copy of the binary that can be replaced.
fn copy_of_hakaru(directory: &Path) -> PathBuf {
    let copy = directory.join("hakaru");
    std::fs::copy(env!("CARGO_BIN_EXE_hakaru"), &copy).unwrap();
    copy
}

/// Replaces a file that may be running.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

#[test]
fn the_old_process_serves_on_if_its_successor_fails() {
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_hakaru(directory.path());
    let mut hakaru = Settings::sqlite()
        .directory(directory.path())
        .program(&program)
        .start();
    let mut client = Client::connect(hakaru.address);
    let fails = |text: &str, why: &str, client: &mut Client, number: usize| {
        match text {
            "" => std::fs::remove_file(&program).unwrap(),
            text => replace(&program, text),
        }
        hakaru.signal(Signal::SIGHUP);
        wait_until("it is logged", || {
            hakaru.events("reload_failed").len() == number
        });
        let line = &hakaru.events("reload_failed")[number - 1];
        assert!(line["message"].as_str().unwrap().contains(why), "{line}");
        assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
    };
    fails("#!/bin/sh\nexit 2\n", "exit status: 2", &mut client, 1);
    fails("", "No such file", &mut client, 2);
    fails("#!/bin/sh\nkill -9 $$\n", "signal: 9", &mut client, 3);
    // One that hangs: another signal does not start another one, and it ends with the old process.
    replace(&program, "#!/bin/sh\nexec sleep 1000\n");
    hakaru.signal(Signal::SIGHUP);
    wait_until("it is started", || hakaru.successors().len() == 3);
    hakaru.signal(Signal::SIGHUP);
    hakaru.wait_for_event("reload_ignored");
    assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
    hakaru.signal(Signal::SIGTERM);
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
    assert_eq!(hakaru.identity().stored, 4);
}

#[test]
fn a_successor_may_have_another_number_of_shards() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_hakaru(directory.path());
    // With the name of the script, so that the next successor is started by it too.
    let with_cores = |cores: u32| {
        let binary = env!("CARGO_BIN_EXE_hakaru");
        let script = format!("#!/bin/bash\nexec -a \"$0\" {binary} \"$@\" --cores {cores}\n");
        replace(&program, &script);
    };
    let mut hakaru = Settings::mysql(&database)
        .directory(directory.path())
        .program(&program)
        .flag("--cores=2")
        .start();
    let load = Load::new(&hakaru);
    thread::scope(|scope| {
        for keeps_alive in [true, false, false] {
            let load = &load;
            scope.spawn(move || load.send(keeps_alive));
        }
        for cores in [1, 2, 1] {
            load.wait_for_more();
            with_cores(cores);
            reload(&hakaru);
        }
        load.wait_for_more();
        load.stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(hakaru.lines("(1 shard,").len(), 2);
    stop_all(&mut hakaru);
    assert_eq!(database.count(), load.sent());
}

#[test]
fn a_socket_of_systemd_is_served_and_stays_open_afterwards() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::sqlite()
            .directory(directory.path())
            .flag("--cores=2")
            .stdin(OwnedFd::from(socket.try_clone().unwrap()))
            .shell_before(
                "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID",
            )
            .start()
    };
    let mut hakaru = start();
    assert_eq!(hakaru.address, address);
    let send = || {
        Client::connect(address)
            .get("/hakaru?name=a&value=1")
            .status
    };
    assert!((0..20).all(|_| send() == 200));
    // The successor gets the socket too.
    reload(&hakaru);
    assert!((0..20).all(|_| send() == 200));
    stop_all(&mut hakaru);
    // No process serves. The socket still takes a connection, and the next server answers.
    let waiting = TcpStream::connect(address).unwrap();
    let next = start();
    drop(waiting);
    assert_eq!(send(), 200);
    assert_eq!(next.stop().received, 1);
}

#[test]
fn systemd_is_notified() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let receive = |wanted: &str| loop {
        let mut message = [0; 512];
        let length = socket.recv(&mut message).unwrap();
        let message = String::from_utf8(message[..length].to_vec()).unwrap();
        if message.lines().any(|line| line.starts_with(wanted)) {
            return message;
        }
    };
    let mut hakaru = Settings::sqlite()
        .directory(directory.path())
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .variable("WATCHDOG_USEC", "6000000")
        .start();
    let ready = receive("READY=1");
    assert!(
        ready.contains(&format!("MAINPID={}\n", hakaru.pid())),
        "{ready}"
    );
    receive("WATCHDOG=1");
    reload(&hakaru);
    receive("RELOADING=1");
    let successor = hakaru.successors()[0];
    let ready = receive("READY=1");
    assert!(ready.contains(&format!("MAINPID={successor}\n")), "{ready}");
    // The first process has ended, so the successor sends this.
    wait_until("it has drained", || drained(&hakaru) == 1);
    receive("WATCHDOG=1");
    stop_all(&mut hakaru);
    receive("STOPPING=1");
}

#[test]
fn connections_that_the_old_process_closes_are_closed() {
    let mut hakaru = Settings::sqlite().flag("--drain-timeout=2s").start();
    let mut idle = Client::connect(hakaru.address);
    assert_eq!(idle.get("/ok").status, 200);
    reload(&hakaru);
    wait_until("the old one has drained", || drained(&hakaru) == 1);
    // If the successor had inherited the connection, it would stay open without answers.
    assert!(idle.is_closed());
    stop_all(&mut hakaru);
}

#[test]
fn a_process_on_epoll_is_not_made_to_block_by_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_hakaru(directory.path());
    let mut hakaru = Settings::sqlite()
        .directory(directory.path())
        .program(&program)
        .flag("--io=epoll")
        .start();
    let on = |driver: &str| {
        let binary = env!("CARGO_BIN_EXE_hakaru");
        let script = format!("#!/bin/bash\nexec -a \"$0\" {binary} \"$@\" --io={driver}\n");
        replace(&program, &script);
    };
    on("auto");
    reload(&hakaru);
    hakaru.wait_for_line("the previous process is on epoll");
    let newest = Pid::from_raw(hakaru.successors()[0]);
    on("io_uring");
    kill(newest, Signal::SIGHUP).unwrap();
    hakaru.wait_for_event("reload_failed");
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    kill(newest, Signal::SIGTERM).unwrap();
    wait_until("both have drained", || drained(&hakaru) == 2);
    assert_eq!(hakaru.wait().code(), Some(0));
}
