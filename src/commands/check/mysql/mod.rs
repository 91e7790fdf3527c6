//! A MySQL server: reached and used as the sink does, and left as it was.

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

/// The first MySQL that hakaru is meant for; every MariaDB of its time has a higher number.
const OLDEST: (u32, u32) = (5, 7);

/// A server that let us in.
struct Server<'a> {
    connection: Conn,
    target: &'a MySqlTarget,
    /// Connections that hakaru would open.
    writers: usize,
    /// As the server knows us, to be used in a GRANT.
    user: String,
}

/// Looks at one thing.
type Look = fn(&mut Server<'_>) -> Result<Observation, SinkError>;

/// Everything of a server, in the order in which it is used.
const THINGS: [(&str, Look); 10] = [
    ("encryption", encryption),
    ("server version", version),
    ("database connections", connections),
    ("sql_mode", sql_mode),
    ("autocommit", transactions),
    ("innodb_flush_log_at_trx_commit", flush),
    ("table eventlog", tables::eventlog),
    ("insert into eventlog", tables::insert),
    ("table hakaru_checkpoint", tables::checkpoints),
    ("rights on hakaru_checkpoint", tables::step),
];

/// Connects once and looks at everything, for a hakaru with so many writers.
pub(super) fn look(target: &MySqlTarget, writers: usize) -> Vec<Finding> {
    let start = Instant::now();
    let connected = connect::connect(target).and_then(|mut connection| {
        let query = "SELECT CURRENT_USER()";
        let user: Option<String> = connection.query_first(query).map_err(sink_error)?;
        Ok((connection, user.unwrap_or_default()))
    });
    let (connection, user) = match connected {
        Ok(connected) => connected,
        Err(fault) => {
            let text = format!("{fault}; nothing else of the database could be looked at");
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
    let looks = THINGS.into_iter().map(|(thing, look)| {
        let looked = panics::catch(|| look(&mut server))
            .unwrap_or_else(|said| Err(SinkError::Stop(panic_fault(&said))));
        let found = looked.unwrap_or_else(|fault| {
            let advice = server.advice(fault.fault());
            Observation::new(fault.to_string()).error(advice)
        });
        (thing, found)
    });
    [("connection", found)].into_iter().chain(looks).collect()
}

/// What to do about a login that failed. Error numbers are of the MySQL and MariaDB references.
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
        Some(1049) => format!("CREATE DATABASE `{database}`, or name another one"),
        Some(1040 | 1203 | 1226) => {
            "wait until others have gone, or raise the number of connections that is allowed".to_owned()
        }
        _ => match fault.kind {
            FaultKind::NoAnswer => {
                "see whether the server is stopped or overloaded, and whether it is a MySQL server at all"
            }
            FaultKind::Tls => {
                "see `tls` in the datasource; SSL_CERT_FILE names the authority that signed the server's certificate"
            }
            FaultKind::Login | FaultKind::Driver => OTHER_PLUGIN,
            FaultKind::Other | FaultKind::NoCheckpoints | FaultKind::NoTransactions => {
                "see whether the server runs, whether host and port are right, and what a firewall in between says"
            }
        }
        .to_owned(),
    }
}

/// The account in `Access denied for user 'app'@'%' to database …`, quoted as the server has it. Nothing else
/// says it: without a login CURRENT_USER() cannot be asked. Where the words are others, such as those of another
/// language, the advice names the user of the datasource.
fn account_in(text: &str) -> Option<&str> {
    let (_, named) = text.split_once("for user ")?;
    named.split_once(" to database").map(|(account, _)| account)
}

/// An account such as `app@%`, quoted as a GRANT wants it.
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
            Some(1290 | 1792 | 1836) => "name the server that takes writes".to_owned(),
            _ => "put right what the database says".to_owned(),
        }
    }

    /// The rights that hakaru needs, to be run by somebody who may.
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
    let is_verified = matches!(server.target.tls, Tls::Verified | Tls::VerifiedIfOffered);
    let found = match (version.is_empty(), is_verified) {
        (true, _) => Observation::new("none"),
        (false, true) => {
            Observation::new(format!("{version}, {cipher}; the certificate is verified"))
        }
        (false, false) => Observation::new(format!("{version}, {cipher}; any certificate will do")),
    };
    Ok(match (version.is_empty(), is_verified) {
        // Nobody else is on the way.
        _ if server.is_local() => found,
        (true, _) => found.warning(
            "everybody on the way can read events and change them: tls=true in the datasource",
        ),
        (false, false) => found
            .warning("somebody on the way could pass for the server: tls=true in the datasource"),
        (false, true) => found,
    })
}

fn version(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let named: Option<(String, String)> = server.first("SELECT VERSION(), @@version_comment")?;
    let (version, comment) = named.unwrap_or_default();
    let found = Observation::new(format!("{version}, {comment}"));
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
        return Ok(found.warning("older than what hakaru is meant for, MySQL 5.7: upgrade it"));
    }
    Ok(found)
}

fn connections(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let bounds: Option<(usize, usize)> =
        server.first("SELECT @@GLOBAL.max_connections, @@SESSION.max_user_connections")?;
    let open: Option<(String, usize)> =
        server.first("SHOW GLOBAL STATUS LIKE 'Threads_connected'")?;
    let (server_max, user_max) = bounds.unwrap_or_default();
    // Without this one.
    let others = open.map_or(0, |(_, open)| open.saturating_sub(1));
    let writers = server.writers;
    let text = format!(
        "{writers} needed, {server_max} allowed, {others} in use by others; {} hakaru such as this one \
         would fill the server",
        server_max / writers.max(1)
    );
    let found = Observation::new(text);
    Ok(if user_max > 0 && writers > user_max {
        found.error(format!(
            "this user may have {user_max}: --db-connections {user_max}"
        ))
    } else if writers > server_max {
        found.error(format!(
            "--db-connections {server_max}, or raise max_connections"
        ))
    } else if others + writers > server_max {
        found.warning("there is no room beside the others now: lower --db-connections, or raise max_connections")
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
    let advice = "the session was asked to be strict and is not: a row could be altered to fit. Look for a \
                  proxy that drops SET SESSION";
    Ok(found.error(advice))
}

/// Reads back how transactions begin and end in our session.
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
        "the session was asked for autocommit=1 and completion_type=NO_CHAIN and has others: locks would be \
         held, or sessions lost. Look for a proxy that drops SET SESSION",
    )
}

fn flush(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let setting: Option<u8> = server.first("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")?;
    let found =
        Observation::new(setting.map_or("unknown".to_owned(), |setting| setting.to_string()));
    Ok(match setting {
        Some(1) => found,
        _ => found.warning(
            "SET GLOBAL innodb_flush_log_at_trx_commit=1: else a crash of the database's machine takes about a \
             second of rows back, which hakaru stores again only from what --journal-keep still holds",
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
            (Fault::of(FaultKind::Tls, "words"), "SSL_CERT_FILE"),
            (Fault::new("no answer in time"), "firewall"),
            (Fault::new("TLS"), "firewall"),
            (Fault::numbered(1045, "TLS"), "set the password of app"),
        ] {
            let advice = login_advice(&fault, &target);
            assert!(advice.contains(words), "{fault:?}: {advice}");
        }
    }
}
