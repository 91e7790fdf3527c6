//! One server of a cluster.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, OptsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{freeze, wait_until};

/// A server does not answer while it is frozen.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Member {
    directory: PathBuf,
    server: Option<Child>,
}

impl Member {
    /// A member without data in a new directory.
    pub fn new(directory: PathBuf) -> Self {
        std::fs::create_dir(&directory).unwrap();
        Self {
            directory,
            server: None,
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("sql.sock")
    }

    /// What its server has logged so far.
    pub fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// The options for its own files.
    pub fn files(&self) -> Vec<String> {
        vec![
            format!("--datadir={}", self.data().display()),
            format!("--socket={}", self.socket().display()),
            // Servers that share a directory for temporary files delete each other's temporary tables.
            format!("--tmpdir={}", self.directory.display()),
        ]
    }

    /// Starts the server. Whether it answers; it may end instead.
    pub fn start(&mut self, mut command: Command) -> bool {
        assert!(self.server.is_none());
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.unwrap();
        let mut server = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nsenter, of Debian's util-linux");
        let mut has_ended = false;
        wait_until("the server of a cluster answers", || {
            has_ended = server.try_wait().unwrap().is_some();
            has_ended || self.connect().is_some()
        });
        self.server = (!has_ended).then_some(server);
        !has_ended
    }

    /// Whether its process runs, or is frozen.
    pub fn is_running(&mut self) -> bool {
        let has_ended = |server: &mut Child| server.try_wait().unwrap().is_some();
        if self.server.as_mut().is_some_and(has_ended) {
            self.server = None;
        }
        self.server.is_some()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.server.as_ref().expect("it runs").id() as i32)
    }

    pub fn freeze(&self) {
        freeze(self.pid());
    }

    pub fn revive(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    /// Sends a signal that ends it, and waits until it has ended.
    pub fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            kill(Pid::from_raw(server.id() as i32), signal).unwrap();
            server.wait().unwrap();
        }
    }

    pub fn connect(&self) -> Option<Conn> {
        connect(&self.socket())
    }

    /// Runs a statement. It must succeed.
    pub fn run(&self, sql: &str) {
        let mut connection = self.connect().expect("it answers");
        connection.query_drop(sql).unwrap();
    }

    /// Runs a statement, and waits for it as long as for anything.
    pub fn try_run(&self, sql: &str) -> Option<()> {
        let options = options(&self.socket()).read_timeout(Some(crate::support::DEADLINE));
        Conn::new(options).ok()?.query_drop(sql).ok()
    }

    pub fn query<T: FromRow>(&self, sql: &str) -> Option<Vec<T>> {
        let options = options(&self.socket()).read_timeout(Some(crate::support::DEADLINE));
        Conn::new(options).ok()?.query(sql).ok()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

fn options(socket: &Path) -> OptsBuilder {
    OptsBuilder::new()
        .ip_or_hostname(None::<String>)
        .socket(Some(socket.to_str().unwrap()))
        .user(Some("root"))
        .read_timeout(Some(PATIENCE))
        .write_timeout(Some(PATIENCE))
}

/// Connects to the server behind a socket. `None`: it does not answer.
pub fn connect(socket: &Path) -> Option<Conn> {
    Conn::new(options(socket)).ok()
}
