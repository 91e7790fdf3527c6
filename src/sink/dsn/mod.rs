//! The data source: a DSN of the Go driver, a `mysql://` address, or `sqlite:PATH`.
//!
//! Errors never quote the DSN: it contains a password.

pub mod files;
mod params;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use self::files::TargetFiles;

/// A text that no log line, error or process title may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the connection that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// The database in which rows are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// MySQL, MariaDB, or another server with their protocol.
    MySql(Box<MySqlTarget>),
    /// A SQLite file.
    Sqlite(PathBuf),
}

/// The address of a MySQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp {
        /// Name or address, an IPv6 address without brackets.
        host: String,
        /// 3306 when the DSN leaves it out.
        port: u16,
    },
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// Whether a connection is encrypted, and which certificates it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Never encrypted.
    Off,
    /// Encrypted, and the server's certificate is verified.
    Verified,
    /// Encrypted; the certificate must be signed by an authority that is trusted, for whatever name.
    VerifiedAuthority,
    /// Encrypted; any certificate is accepted.
    Unverified,
    /// Encrypted if the server offers it, with any certificate; else plain.
    Preferred,
    /// Encrypted and verified if the server offers it; else plain.
    VerifiedIfOffered,
}

/// A MySQL server, the database in it, and the settings of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MySqlTarget {
    /// Login name; empty is the server's anonymous user.
    pub user: String,
    /// Password; empty for none, or where it is in a file.
    pub password: Secret,
    /// Files with what is not in the DSN.
    pub files: TargetFiles,
    /// The server's address.
    pub address: Address,
    /// The database that holds `eventlog`.
    pub database: String,
    /// Encryption.
    pub tls: Tls,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    pub read_timeout: Duration,
    /// Longest wait for the server to take what is sent.
    pub write_timeout: Duration,
    /// System variables to set in each session, name and SQL value.
    pub session: Vec<(&'static str, String)>,
    /// Attributes that the server shows for the connection.
    pub attributes: Vec<(String, String)>,
    /// Whether packets are compressed.
    pub compress: bool,
    /// Whether the password may be sent in clear text, as PAM authentication needs.
    pub cleartext_password: bool,
    /// Largest packet to send, in bytes; `None` asks the server.
    pub packet_bytes_max: Option<u32>,
}

/// What is wrong with a DSN. Shows no part of it that may be the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// The text has none of the three forms.
    #[error(
        "{0}; accepted: user:pass@tcp(host:port)/db?params, mysql://user:pass@host:port/db?params, sqlite:PATH"
    )]
    Form(&'static str),
    /// A parameter that hakaru does not know.
    #[error("unknown parameter `{name}`; accepted: {accepted}")]
    UnknownParameter {
        /// As written.
        name: String,
        /// All that are known.
        accepted: String,
    },
    /// A known parameter with a value that it does not take.
    #[error("parameter `{name}`: `{value}` is not accepted; {accepted}")]
    ParameterValue {
        /// The parameter.
        name: &'static str,
        /// As written.
        value: String,
        /// What it takes, or why not.
        accepted: &'static str,
    },
}

impl MySqlTarget {
    /// Plain TCP to the default address, with a timeout for every wait.
    fn new(database: String) -> Self {
        Self {
            user: String::new(),
            password: Secret(String::new()),
            files: TargetFiles::default(),
            address: Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 3306,
            },
            database,
            tls: Tls::Off,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            session: Vec::new(),
            attributes: Vec::new(),
            compress: false,
            cleartext_password: false,
            packet_bytes_max: None,
        }
    }
}

impl fmt::Display for DataSource {
    /// Without the password and the parameters.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(out, "sqlite:{}", path.display()),
            Self::MySql(target) => {
                let (user, database) = (&target.user, &target.database);
                match &target.address {
                    Address::Tcp { host, port } if host.contains(':') => {
                        write!(out, "mysql://{user}@[{host}]:{port}/{database}")
                    }
                    Address::Tcp { host, port } => {
                        write!(out, "mysql://{user}@{host}:{port}/{database}")
                    }
                    Address::Unix(path) => {
                        write!(out, "mysql://{user}@unix({})/{database}", path.display())
                    }
                }
            }
        }
    }
}

impl std::str::FromStr for DataSource {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            if path.is_empty() {
                return Err(DsnError::Form("sqlite: without a path"));
            }
            if path == ":memory:" {
                return Err(DsnError::Form("rows in memory would be lost"));
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        let target = if text.starts_with("mysql://") {
            url_form(text)?
        } else {
            go_form(text)?
        };
        Ok(Self::MySql(Box::new(target)))
    }
}

/// `mysql://user:pass@host:port/db?params`, each part percent-encoded.
fn url_form(text: &str) -> Result<MySqlTarget, DsnError> {
    let Ok(url) = url::Url::parse(text) else {
        return Err(DsnError::Form("not a mysql:// address"));
    };
    let mut target = MySqlTarget::new(database(url.path().trim_start_matches('/'))?);
    target.user = unescaped(url.username(), "the user is not UTF-8 when decoded")?;
    let password = url.password().unwrap_or_default();
    target.password = Secret(unescaped(
        password,
        "the password is not UTF-8 when decoded",
    )?);
    let host = match url.host() {
        Some(url::Host::Domain(name)) => name.to_owned(),
        Some(url::Host::Ipv4(address)) => address.to_string(),
        Some(url::Host::Ipv6(address)) => address.to_string(),
        None => "127.0.0.1".to_owned(),
    };
    target.address = Address::Tcp {
        host,
        port: url.port().unwrap_or(3306),
    };
    params::apply(url.query().unwrap_or_default(), &mut target)?;
    Ok(target)
}

/// `[user[:pass]@][net[(address)]]/db[?params]`. Parsed from the right, as the Go driver does, so that a password
/// may contain any character.
fn go_form(text: &str) -> Result<MySqlTarget, DsnError> {
    let Some((left, right)) = text.rsplit_once('/') else {
        return Err(DsnError::Form("no slash before the database name"));
    };
    let (name, params) = right.split_once('?').unwrap_or((right, ""));
    let mut target = MySqlTarget::new(database(name)?);
    let (login, place) = match left.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, left),
    };
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        target.user = user.to_owned();
        target.password = Secret(password.to_owned());
    }
    target.address = address(place)?;
    params::apply(params, &mut target)?;
    Ok(target)
}

/// `tcp(host:port)`, `unix(/path)`, either without its brackets, or nothing.
fn address(place: &str) -> Result<Address, DsnError> {
    let (net, inside) = match place.split_once('(') {
        Some((net, rest)) => match rest.strip_suffix(')') {
            Some(inside) => (net, inside),
            None => return Err(DsnError::Form("the address is not closed by a bracket")),
        },
        None => (place, ""),
    };
    match net {
        "unix" if inside.is_empty() => Ok(Address::Unix("/tmp/mysql.sock".into())),
        "unix" => Ok(Address::Unix(inside.into())),
        "" | "tcp" | "tcp4" | "tcp6" => tcp(inside),
        // The network is not quoted: it may be a part of a password with a slash.
        _ => Err(DsnError::Form("the network is neither tcp nor unix")),
    }
}

fn tcp(inside: &str) -> Result<Address, DsnError> {
    let (host, port) = match inside.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, port))) => (host, port.strip_prefix(':')),
        Some(None) => {
            return Err(DsnError::Form(
                "the IPv6 address is not closed by a bracket",
            ));
        }
        None => match inside.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => (inside, None),
            Some((host, port)) => (host, Some(port)),
            None => (inside, None),
        },
    };
    let port = match port {
        None => 3306,
        Some(digits) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(DsnError::Form("the port is not a number from 1 to 65535")),
        },
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn database(escaped: &str) -> Result<String, DsnError> {
    match unescaped(escaped, "the database name is not UTF-8 when decoded")? {
        name if name.is_empty() => Err(DsnError::Form("no database is named")),
        name => Ok(name),
    }
}

/// Percent-decodes. As in the path of a URL, a plus sign stays a plus sign.
fn unescaped(text: &str, fault: &'static str) -> Result<String, DsnError> {
    match percent_encoding::percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(DsnError::Form(fault)),
    }
}

#[cfg(test)]
mod tests;
