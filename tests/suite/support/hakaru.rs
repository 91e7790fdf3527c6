//! The built binary: started with settings, watched through its log, ended by signal.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, DEADLINE, DatabaseServer, Identity, send, wait_until};

/// How many lines of the log a failing test shows, the last ones.
const SHOWN_LINES: usize = 50;

/// How to start hakaru.
pub struct Settings {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    shell_before: String,
    death_signal: &'static str,
    directory: Option<PathBuf>,
    program: PathBuf,
    stdin: Option<OwnedFd>,
}

/// Settings with the default data source.
impl Default for Settings {
    fn default() -> Self {
        let settings = Self {
            flags: Vec::new(),
            variables: Vec::new(),
            shell_before: String::new(),
            death_signal: "KILL",
            directory: None,
            program: env!("CARGO_BIN_EXE_hakaru").into(),
            stdin: None,
        };
        settings.variable("HAKARU_LOG", "hakaru=debug")
    }
}

impl Settings {
    pub fn mysql(database: &DatabaseServer) -> Self {
        Self::datasource(&database.dsn())
    }

    pub fn datasource(dsn: &str) -> Self {
        Self::default().variable("HAKARU_DATASOURCENAME", dsn)
    }

    /// SQLite in the test's own directory.
    pub fn sqlite() -> Self {
        Self::datasource("sqlite:eventlog.db")
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A shell command that runs before hakaru, in the same process, such as `ulimit`.
    pub fn shell_before(mut self, command: &str) -> Self {
        self.shell_before = command.to_owned();
        self
    }

    /// Lets hakaru run on when the thread that started it ends. Without this it is killed then.
    pub fn outlives_its_thread(mut self) -> Self {
        self.death_signal = "clear";
        self
    }

    /// Starts it in this directory instead of a temporary one.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Runs this program instead of the binary that was built.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = path.to_owned();
        self
    }

    /// Uses an open file as its standard input.
    pub fn stdin(mut self, file: OwnedFd) -> Self {
        self.stdin = Some(file);
        self
    }

    fn command(&self, directory: &Path) -> Command {
        let given = self.stdin.as_ref();
        let stdin = given.map_or_else(Stdio::null, |file| file.try_clone().unwrap().into());
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", self.death_signal, "sh", "-c"])
            .arg(format!("{}\nexec \"$0\" \"$@\"", self.shell_before))
            .arg(&self.program)
            .env("HAKARU_LISTEN", "127.0.0.1:0")
            .env("HAKARU_ADMIN_LISTEN", "127.0.0.1:0")
            .env("HAKARU_LOG_FORMAT", "json")
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(directory)
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command that ends by itself, in `directory`, and returns its output.
    pub fn run_in(&self, directory: &Path) -> Output {
        let mut command = self.command(directory);
        command.stdout(Stdio::piped()).output().unwrap()
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Hakaru {
        self.spawn().listening()
    }

    /// Starts it without waiting.
    pub fn spawn(self) -> Hakaru {
        let temporary = self
            .directory
            .is_none()
            .then(|| tempfile::tempdir().unwrap());
        let directory = temporary
            .as_ref()
            .map(|directory| directory.path().to_owned());
        let directory = directory.or_else(|| self.directory.clone()).unwrap();
        let mut child = self.command(&directory).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.lines() {
                lines.lock().unwrap().push(line.unwrap());
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Hakaru {
            directory,
            _temporary: temporary,
            child,
            address,
            log,
            reader: Some(reader),
        }
    }
}

/// A hakaru process.
pub struct Hakaru {
    directory: PathBuf,
    _temporary: Option<TempDir>,
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Hakaru {
    /// Waits until it listens, and stores its address.
    pub fn listening(mut self) -> Self {
        self.address = self.wait_for_address("listening");
        self
    }

    /// The address of its admin port.
    pub fn admin(&self) -> SocketAddr {
        self.wait_for_address("admin_listening")
    }

    fn wait_for_address(&self, event: &str) -> SocketAddr {
        let line = self.wait_for_event(event);
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// Sends these values under the name `a` on one connection. Each must be answered 200.
    pub fn send(&self, values: Range<u32>) {
        send(self.address, values);
    }

    /// What it answers to `/stats.json`.
    pub fn stats(&self) -> Value {
        let stats = Client::connect(self.admin()).get("/stats.json").body;
        serde_json::from_str(&stats).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path in the directory in which it runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Everything that it has written to standard error.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn lines_with(&self, is_wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        let lines = log
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(is_wanted).collect()
    }

    fn wait_for(&self, wanted: &str, found: impl Fn() -> Vec<Value>) -> Value {
        let start = Instant::now();
        loop {
            if let Some(first) = found().into_iter().next() {
                return first;
            }
            let log = self.log();
            assert!(
                start.elapsed() < DEADLINE,
                "{wanted:?} was not logged, but:\n{log}"
            );
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Log lines whose message contains `text`.
    pub fn lines(&self, text: &str) -> Vec<Value> {
        let has_text = |message: &str| message.contains(text);
        self.lines_with(|line| line["message"].as_str().is_some_and(has_text))
    }

    /// Waits for a log line whose message contains `text`, and returns the first.
    pub fn wait_for_line(&self, text: &str) -> Value {
        self.wait_for(text, || self.lines(text))
    }

    /// Log lines of the event `name`, see docs/operating.md.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.lines_with(|line| line["event"] == name)
    }

    /// Waits for a log line of the event `name`, and returns the first.
    pub fn wait_for_event(&self, name: &str) -> Value {
        self.wait_for(name, || self.events(name))
    }

    /// Log lines of level error.
    pub fn errors(&self) -> Vec<Value> {
        self.lines_with(|line| line["level"] == "error")
    }

    /// Log lines of level warn.
    pub fn warnings(&self) -> Vec<Value> {
        self.lines_with(|line| line["level"] == "warn")
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it, as a crash does.
    pub fn crash(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Peak memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim()
            .split(' ')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// Process ids of all successors that it started, in order.
    pub fn successors(&self) -> Vec<i32> {
        let lines = self.events("successor_started");
        let pid = |line: &Value| line["pid"].as_i64().and_then(|pid| pid.try_into().ok());
        lines.iter().filter_map(pid).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Waits until it has ended. All its output has been read then.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("hakaru ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.unwrap()
    }

    /// Ends it by SIGTERM, as a deployment does, and checks that it has drained.
    pub fn stop(mut self) -> Identity {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.identity()
    }

    /// The counts of its last log line. Checks that they add up.
    pub fn identity(&self) -> Identity {
        let line = self.events("ended").pop().expect("the identity line");
        Identity::of(&line)
    }

    /// The number of its sockets without connections, once every shard accepts. It opens enough connections that
    /// each shard gets one.
    pub fn sockets_at_rest(&self) -> usize {
        let mut clients: Vec<_> = (0..64).map(|_| Client::connect(self.address)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/ok").status, 200);
        }
        self.open_sockets() - clients.len()
    }

    /// The number of its open sockets.
    pub fn open_sockets(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // A file may be closed before its link is read.
        let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }
}

impl Drop for Hakaru {
    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log.lock().unwrap();
            let shown = &log[log.len().saturating_sub(SHOWN_LINES)..];
            println!("log of hakaru:\n{}", shown.join("\n"));
        }
        for successor in self.successors() {
            let of = std::fs::read_to_string(format!("/proc/{successor}/comm"));
            if of.is_ok_and(|name| name.trim() == "hakaru") {
                kill(Pid::from_raw(successor), Signal::SIGKILL).unwrap_or_default();
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
