//! Which kind of server answers.

/// The engine of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// MariaDB.
    MariaDb,
    /// MySQL, and other servers with its protocol.
    MySql,
}

impl Engine {
    /// The engine of a server with this `VERSION()`.
    pub(crate) fn of(version: &str) -> Self {
        if version.contains("MariaDB") {
            Self::MariaDb
        } else {
            Self::MySql
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_its_version() {
        for (version, engine) in [
            ("10.11.14-MariaDB-0+deb12u2", Engine::MariaDb),
            ("5.5.5-10.11.14-MariaDB", Engine::MariaDb),
            ("9.7.1", Engine::MySql),
            ("8.0.11-TiDB-v8.5.0", Engine::MySql),
        ] {
            assert_eq!(Engine::of(version), engine, "{version}");
        }
    }
}
