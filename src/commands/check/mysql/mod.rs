//! Checks a MySQL server. It is used as the sink does, and everything is rolled back.

mod columns;
mod event_id;
mod id;
mod role;
mod tables;

use std::net::IpAddr;
use std::time::Instant;

use mysql::Conn;
use mysql::prelude::{FromRow, Queryable};

use super::{Finding, Observation};
use crate::os::panics;
use crate::sink::dsn::{Address, MySqlTarget, Tls};
use crate::sink::mysql::classify::{OTHER_PLUGIN, panic_fault, sink_error};
use crate::sink::mysql::connect;
use crate::sink::{Fault, FaultKind, SinkError};

/// A server after a login.
struct Server<'a> {
    connection: Conn,
    target: &'a MySqlTarget,
    /// Connections that hakaru would open.
    writers: usize,
    /// The user's account on the server, quoted for a GRANT.
    user: String,
}

/// Checks one thing.
type Check = fn(&mut Server<'_>) -> Result<Observation, SinkError>;

/// All checks of a server, in the order in which hakaru needs the things.
const CHECKS: [(&str, Check); 14] = [
    ("encryption", encryption),
    ("server version", role::version),
    ("role", role::role),
    ("database connections", connections),
    ("sql_mode", sql_mode),
    ("autocommit", transactions),
    ("innodb_flush_log_at_trx_commit", flush),
    ("table eventlog", tables::eventlog),
    ("column id", id::id),
    ("column event_id", event_id::event_id),
    ("time zone", id::time_zone),
    ("insert into eventlog", tables::insert),
    ("table hakaru_checkpoint", tables::checkpoints),
    ("rights on hakaru_checkpoint", tables::step),
];

/// Connects once and runs all checks, for a hakaru with `writers` writers.
pub(super) fn check(target: &MySqlTarget, writers: usize) -> Vec<Finding> {
    let start = Instant::now();
    let connected = connect::connect(target).and_then(|mut connection| {
        let query = "SELECT CURRENT_USER()";
        let user: Option<String> = connection.query_first(query).map_err(sink_error)?;
        Ok((connection, user.unwrap_or_default()))
    });
    let (connection, user) = match connected {
        Ok(connected) => connected,
        Err(fault) => {
            let text = format!("{fault}; nothing else of the database was checked");
            let found = Observation::new(text).error(login_advice(fault.fault(), target));
            return vec![("connection", found)];
        }
    };
    let found = Observation::new(format!("as {user}, in {:.1?}", start.elapsed()));
    let mut server = Server {
        connection,
        target,
        writers,
        user: quoted(&user),
    };
    let findings = CHECKS.into_iter().map(|(thing, check)| {
        let found = panics::catch(|| check(&mut server))
            .unwrap_or_else(|message| Err(SinkError::Stop(panic_fault(&message))));
        let found = found.unwrap_or_else(|fault| {
            let advice = server.advice(fault.fault());
            Observation::new(fault.to_string()).error(advice)
        });
        (thing, found)
    });
    [("connection", found)]
        .into_iter()
        .chain(findings)
        .collect()
}

/// What to do about a login that failed. The error numbers are from the MySQL and MariaDB references.
fn login_advice(fault: &Fault, target: &MySqlTarget) -> String {
    let (user, database) = (&target.user, &target.database);
    match fault.code {
        Some(1251) => OTHER_PLUGIN.to_owned(),
        Some(1045 | 1698) => format!(
            "set the password of {user} in HAKARU_DATASOURCENAME, or let the user log in from this machine"
        ),
        Some(1044) => {
            let account = account_in(&fault.text).unwrap_or(user);
            format!(
                "GRANT SELECT, INSERT, UPDATE, CREATE ON `{database}`.* TO {account}; and CREATE DATABASE \
                 `{database}`, if it is missing"
            )
        }
        Some(1049) => format!("CREATE DATABASE `{database}`, or set another one"),
        Some(1040 | 1203 | 1226) => {
            "close other connections, or raise the number of allowed connections".to_owned()
        }
        _ => match fault.kind {
            FaultKind::NoAnswer => {
                "check whether the server is stopped or overloaded, and whether it is a MySQL server"
            }
            FaultKind::Tls => {
                "check `tls` in the datasource, and --db-tls-ca: it names the authority that signed the server's certificate"
            }
            FaultKind::Login | FaultKind::Driver => OTHER_PLUGIN,
            FaultKind::File => "put the file there, readable for the user that hakaru runs as",
            FaultKind::Other | FaultKind::NoCheckpoints | FaultKind::NoTransactions => {
                "check whether the server runs, whether host and port are right, and whether a firewall blocks connections"
            }
        }
        .to_owned(),
    }
}

/// The account in `Access denied for user 'app'@'%' to database …`, with the quotes of the server. There is no other
/// source: without a login CURRENT_USER() cannot be queried. If the text differs, such as in another language, the
/// advice names the user of the datasource.
fn account_in(text: &str) -> Option<&str> {
    let (_, named) = text.split_once("for user ")?;
    named.split_once(" to database").map(|(account, _)| account)
}

/// An account such as `app@%`, quoted for a GRANT.
fn quoted(account: &str) -> String {
    let (name, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    format!("'{name}'@'{host}'")
}

impl Server<'_> {
    fn first<T: FromRow>(&mut self, query: &str) -> Result<Option<T>, SinkError> {
        self.connection.query_first(query).map_err(sink_error)
    }

    /// What to do about an error of a statement.
    fn advice(&self, fault: &Fault) -> String {
        match fault.code {
            Some(1142 | 1143) => self.grants(),
            Some(1290 | 1792 | 1836) => {
                "set a server that takes writes in the datasource".to_owned()
            }
            _ => "fix what the error describes".to_owned(),
        }
    }

    /// The statements that grant the rights which hakaru needs.
    fn grants(&self) -> String {
        let (database, user) = (&self.target.database, &self.user);
        format!(
            "GRANT SELECT, INSERT ON `{database}`.eventlog TO {user}; \
             GRANT SELECT, INSERT, UPDATE ON `{database}`.hakaru_checkpoint TO {user}"
        )
    }

    fn is_local(&self) -> bool {
        match &self.target.address {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                let address = host.parse::<IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

fn encryption(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let value = |row: Option<(String, String)>| row.map(|(_, value)| value).unwrap_or_default();
    let version = value(server.first("SHOW SESSION STATUS LIKE 'Ssl_version'")?);
    let cipher = value(server.first("SHOW SESSION STATUS LIKE 'Ssl_cipher'")?);
    let is_verified = matches!(
        server.target.tls,
        Tls::Verified | Tls::VerifiedAuthority | Tls::VerifiedIfOffered
    );
    let found = match (version.is_empty(), is_verified) {
        (true, _) => Observation::new("none"),
        (false, true) => {
            Observation::new(format!("{version}, {cipher}; the certificate is verified"))
        }
        (false, false) => {
            Observation::new(format!("{version}, {cipher}; any certificate is accepted"))
        }
    };
    Ok(match (version.is_empty(), is_verified) {
        // The connection stays on this machine.
        _ if server.is_local() => found,
        (true, _) => found.warning(
            "events can be read and changed on the network: set tls=true in the datasource",
        ),
        (false, false) => found.warning(
            "another machine could impersonate the server: set tls=true in the datasource",
        ),
        (false, true) => found,
    })
}

fn connections(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let bounds: Option<(usize, usize)> =
        server.first("SELECT @@GLOBAL.max_connections, @@SESSION.max_user_connections")?;
    let open: Option<(String, usize)> =
        server.first("SHOW GLOBAL STATUS LIKE 'Threads_connected'")?;
    let (server_max, user_max) = bounds.unwrap_or_default();
    // Without the connection of this check.
    let others = open.map_or(0, |(_, open)| open.saturating_sub(1));
    let writers = server.writers;
    let text = format!(
        "{writers} needed, {server_max} allowed, {others} in use by others; the server has room for {} \
         processes with these settings",
        server_max / writers.max(1)
    );
    let found = Observation::new(text);
    Ok(if user_max > 0 && writers > user_max {
        found.error(format!(
            "set --db-connections {user_max}, the most that this user may have"
        ))
    } else if writers > server_max {
        found.error(format!(
            "set --db-connections {server_max}, or raise max_connections"
        ))
    } else if others + writers > server_max {
        found.warning("there is not enough room beside the others now: lower --db-connections, or raise max_connections")
    } else {
        found
    })
}

fn sql_mode(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let mode: String = server
        .first("SELECT @@SESSION.sql_mode")?
        .unwrap_or_default();
    let is_strict = mode.split(',').any(|part| part == "STRICT_ALL_TABLES");
    let found = Observation::new(mode);
    if is_strict {
        return Ok(found);
    }
    let advice = "hakaru has set a strict mode, and it is not in effect, so that the server may change values to fit: \
                  check for a proxy that drops SET SESSION";
    Ok(found.error(advice))
}

/// Reads the settings of the session for the begin and end of transactions.
fn transactions(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let set: Option<(u8, String)> =
        server.first("SELECT @@SESSION.autocommit, @@SESSION.completion_type")?;
    let (autocommit, completion_type) = set.unwrap_or_default();
    Ok(judge_transactions(autocommit, &completion_type))
}

fn judge_transactions(autocommit: u8, completion_type: &str) -> Observation {
    let found = Observation::new(format!("{autocommit}, completion_type={completion_type}"));
    if autocommit == 1 && matches!(completion_type, "NO_CHAIN" | "0") {
        return found;
    }
    found.error(
        "hakaru has set autocommit=1 and completion_type=NO_CHAIN, and they are not in effect, so that locks may be held \
         or sessions lost: check for a proxy that drops SET SESSION",
    )
}

fn flush(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let setting: Option<u8> = server.first("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")?;
    let found =
        Observation::new(setting.map_or("unknown".to_owned(), |setting| setting.to_string()));
    Ok(match setting {
        Some(1) => found,
        _ => found.warning(
            "SET GLOBAL innodb_flush_log_at_trx_commit=1: otherwise a crash of the database's machine loses about a \
             second of rows, and hakaru stores again only those that --journal-keep still keeps",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;
    use crate::sink::dsn::DataSource;

    #[test]
    fn accounts_are_quoted_for_a_grant() {
        let denied = "Access denied for user 'my-app'@'localhost' to database 'x'";
        assert_eq!(account_in(denied), Some("'my-app'@'localhost'"));
        assert_eq!(account_in("Access denied"), None);
        assert_eq!(quoted("app@%"), "'app'@'%'");
        assert_eq!(quoted("a@b@10.0.0.1"), "'a@b'@'10.0.0.1'");
    }

    #[test]
    fn a_session_that_was_not_set_is_an_error() {
        for (autocommit, completion_type, level) in [
            (1, "NO_CHAIN", Level::Ok),
            (1, "0", Level::Ok),
            (0, "NO_CHAIN", Level::Error),
            (1, "RELEASE", Level::Error),
        ] {
            let found = judge_transactions(autocommit, completion_type);
            assert_eq!(found.level, level, "{found:?}");
        }
    }

    #[test]
    fn advice_depends_on_the_kind_of_a_fault_and_not_on_its_words() {
        let DataSource::MySql(target) = "app@tcp(127.0.0.1:3306)/hakaru".parse().unwrap() else {
            panic!()
        };
        for (fault, words) in [
            (Fault::of(FaultKind::NoAnswer, "words"), "overloaded"),
            (Fault::of(FaultKind::Tls, "words"), "--db-tls-ca"),
            (Fault::new("no answer in time"), "firewall"),
            (Fault::new("TLS"), "firewall"),
            (Fault::numbered(1045, "TLS"), "set the password of app"),
        ] {
            let advice = login_advice(&fault, &target);
            assert!(advice.contains(words), "{fault:?}: {advice}");
        }
    }
}
