//! The database server that the tests run on: `HAKARU_TEST_ENGINE`, one of the engines of `tools/engine`.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The engine of a run that asks for none.
const DEFAULT: &str = "mariadb-10.11";

/// Whose server an engine is. Where they differ, a test asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    MariaDb,
    MySql,
}

/// A server that `tools/engine` has made.
pub struct Engine {
    directory: PathBuf,
    pub family: Family,
}

/// The engine of this run.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let name = std::env::var("HAKARU_TEST_ENGINE");
        Engine::of(&name.unwrap_or(DEFAULT.to_owned()))
    })
}

impl Engine {
    /// This engine, whatever the run asks for.
    pub fn of(name: &str) -> Self {
        let made = super::run(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tools/engine"),
            &[name],
        );
        Self {
            directory: made.trim_end().into(),
            family: if name.starts_with("mysql") {
                Family::MySql
            } else {
                Family::MariaDb
            },
        }
    }

    /// The path of the library that replicates, of Galera.
    pub fn provider(&self) -> String {
        let path = std::fs::read_to_string(self.directory.join("provider")).unwrap();
        path.trim().to_owned()
    }

    /// The program that starts the server.
    pub fn server(&self) -> PathBuf {
        self.directory.join("server")
    }

    /// An empty directory of data, to be copied.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its version, such as `10.11.6`.
    pub fn version(&self) -> String {
        let text = std::fs::read_to_string(self.directory.join("version")).unwrap();
        let (_, version) = text.split_once("  Ver ").expect("a version");
        version.split(['-', ' ']).next().unwrap().to_owned()
    }

    /// The number of the error by which a CHECK constraint refuses a row.
    pub fn check_violated(&self) -> u16 {
        match self.family {
            Family::MariaDb => 4025,
            Family::MySql => 3819,
        }
    }

    /// Options that make a server small, and that only this engine has.
    pub fn options(&self) -> &'static [&'static str] {
        match self.family {
            Family::MariaDb => &["--innodb-log-file-size=16M"],
            Family::MySql => &[
                "--innodb-redo-log-capacity=8M",
                "--disable-log-bin",
                "--mysqlx=OFF",
                "--secure-file-priv=NULL",
            ],
        }
    }
}
