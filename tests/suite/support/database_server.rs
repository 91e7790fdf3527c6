//! A database server for one test: with its own data directory, on a free port, ended by its pid.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, OptsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use super::engine::{Family, engine};
use super::wait_until;

/// The database that tests use.
pub const DATABASE: &str = "hakaru";

pub struct DatabaseServer {
    directory: TempDir,
    port: u16,
    server: Option<Child>,
    options: Vec<String>,
}

impl DatabaseServer {
    /// Starts a server with an empty database.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that offers no TLS, with an empty database. Since MariaDB 11.4 and MySQL 8 servers make a
    /// certificate for themselves.
    pub fn start_without_tls() -> Self {
        let option = match engine().family {
            Family::MariaDb => "--skip-ssl",
            Family::MySql => "--tls-version=",
        };
        Self::start_with(&[option.to_owned()])
    }

    /// Starts a server with further options and an empty database.
    pub fn start_with(options: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_directory(&engine().data(), &directory.path().join("data"));
        let mut server = Self {
            directory,
            port: 0,
            server: None,
            options: options.to_vec(),
        };
        while server.server.is_none() {
            server.port = free_port();
            server.resume();
        }
        server.query_drop_in("", &format!("CREATE DATABASE {DATABASE}"));
        server
    }

    /// Starts the server again on the same data and port. It stays down if the port is in use.
    pub fn resume(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("server.log"))
            .unwrap();
        let directory = self.directory.path().display();
        // The server ends with the test, also if the test is killed.
        let mut server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(engine().server())
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args(["--max-connections=66", "--innodb-buffer-pool-size=64M"])
            .arg("--performance-schema=off")
            .args(engine().options())
            .arg(format!("--user={}", user()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--datadir={directory}/data"))
            // Servers that share a directory for temporary files delete each other's temporary tables.
            .arg(format!("--tmpdir={directory}"))
            .arg(format!("--socket={directory}/server.sock"))
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("setpriv, from Debian's util-linux");
        let mut ended = false;
        wait_until("the database server answers", || {
            ended = server.try_wait().unwrap().is_some();
            ended || self.connect("").is_some()
        });
        self.server = (!ended).then_some(server);
    }

    /// Shuts the server down, as an operator does, and waits until it has ended.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    /// Kills the server, as a crash does, and waits until it has ended.
    pub fn crash(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Stops all of its threads: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        super::freeze(self.pid());
    }

    /// Lets a frozen server go on.
    pub fn revive(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.server.as_ref().expect("it runs").id() as i32)
    }

    /// Copies the directory of the running server, as a snapshot of its disk does: all files at one moment.
    pub fn copy_files(&self, to: &Path) {
        self.freeze();
        copy_directory(&self.directory.path().join("data"), to);
        self.revive();
    }

    /// Replaces the directory of the server, which must be down, by a copy.
    pub fn replace_files(&mut self, from: &Path) {
        assert!(self.server.is_none());
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy_directory(from, &data);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            kill(Pid::from_raw(server.id() as i32), signal).unwrap();
            server.wait().unwrap();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data source for hakaru.
    pub fn dsn(&self) -> String {
        format!("root@tcp(127.0.0.1:{})/{DATABASE}", self.port)
    }

    pub fn query<T: FromRow>(&self, sql: &str) -> Vec<T> {
        self.connect(DATABASE)
            .expect("the database server answers")
            .query(sql)
            .unwrap()
    }

    pub fn query_one<T: FromRow>(&self, sql: &str) -> T {
        self.query(sql).pop().expect("a row")
    }

    pub fn run(&self, sql: &str) {
        self.query_drop_in(DATABASE, sql);
    }

    /// The values of all rows, in order.
    pub fn values(&self) -> Vec<u32> {
        self.query("SELECT value FROM eventlog ORDER BY value")
    }

    /// Rows in `eventlog`. 0 while there is no such table.
    pub fn count(&self) -> u64 {
        let connection = self.connect(DATABASE);
        let count = connection.and_then(|mut connection| {
            connection
                .query_first("SELECT COUNT(*) FROM eventlog")
                .ok()
                .flatten()
        });
        count.unwrap_or(0)
    }

    fn query_drop_in(&self, database: &str, sql: &str) {
        self.connect(database)
            .expect("the database server answers")
            .query_drop(sql)
            .unwrap();
    }

    pub fn connect(&self, database: &str) -> Option<Conn> {
        let options = OptsBuilder::new()
            .ip_or_hostname(Some("127.0.0.1"))
            .tcp_port(self.port)
            .user(Some("root"))
            .db_name(Some(database).filter(|name| !name.is_empty()))
            .prefer_socket(false);
        Conn::new(options).ok()
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        self.crash();
    }
}

fn copy_directory(from: &Path, to: &Path) {
    super::run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
}

fn user() -> String {
    User::from_uid(geteuid()).unwrap().unwrap().name
}

/// A port on which nothing listens, and that no other test is given. It is below the range from which the kernel takes
/// the ports of clients, so that it is still free when a server is started again.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(20_000..32_000);
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
