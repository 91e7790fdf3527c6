//! Connects with a timeout for every wait and a strict session, and finds or creates the tables.

use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{ClientIdentity, Compression, Conn, OptsBuilder, SslOpts};

use super::classify::{OTHER_PLUGIN, panic_fault, refusal, sink_error};
use super::columns::event_rule;
use super::engine::Engine;
use super::route::routes;
use super::session_settings::{SessionSettings, first_statements};
use crate::event::rule::EventRule;
use crate::os::panics;
use crate::sink::dsn::{Address, MySqlTarget, Secret, Tls};
use crate::sink::{CREATE_CHECKPOINTS, Fault, FaultKind, SinkError};

/// The deployed table. It is created if it is missing, and never altered.
pub(crate) const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS eventlog (
  id    bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  at    datetime DEFAULT NULL,
  name  varchar(255) NOT NULL,
  value int unsigned
) ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci";

/// Finds the table of checkpoints.
const CHECKPOINTS: &str = "SELECT table_name FROM information_schema.tables \
    WHERE table_schema = DATABASE() AND table_name = 'hakaru_checkpoint'";

/// The storage engine of a table, and whether it has transactions.
const ENGINE: &str = "SELECT tables.engine, engines.transactions FROM information_schema.tables \
    LEFT JOIN information_schema.engines ON engines.engine = tables.engine \
    WHERE table_schema = DATABASE() AND tables.engine IS NOT NULL AND table_name = ";

/// Idle time after which the kernel sends TCP keep-alive probes.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes reserved in a packet for its head.
const PACKET_HEAD_BYTES: usize = 1024;

/// In a larger packet the driver sends each string separately.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Connects as `target` says.
pub(crate) fn connect(target: &MySqlTarget) -> Result<Conn, SinkError> {
    connect_session(target).map(|(connection, _)| connection)
}

/// Connects as `target` says. Also returns the settings of the session.
pub(super) fn connect_session(target: &MySqlTarget) -> Result<(Conn, SessionSettings), SinkError> {
    let password = target.current_password().map_err(SinkError::Stop)?;
    target.look_at_certificates().map_err(SinkError::Stop)?;
    let encrypted = encryption(target);
    let may_be_plain = matches!(target.tls, Tls::Preferred | Tls::VerifiedIfOffered);
    let connect = |options: OptsBuilder| {
        Ok(
            match new_connection(options.clone().ssl_opts(encrypted.clone()))? {
                Err(mysql::Error::DriverError(mysql::DriverError::TlsNotSupported))
                    if may_be_plain =>
                {
                    new_connection(options)?
                }
                outcome => outcome,
            },
        )
    };
    let options = options(target, &password);
    let connected = match &target.address {
        Address::Tcp { host, port } => connect_tcp(target, host, *port, &options, connect),
        Address::Unix(path) => {
            let options = options.socket(Some(path.to_string_lossy()));
            connect(options)?.map_err(sink_error)
        }
    };
    let mut connection = connected.map_err(|fault| with_files(fault, target))?;
    let settings = SessionSettings::set(&mut connection, target)?;
    Ok((connection, settings))
}

/// How connections are encrypted. In addition to what is set here the driver trusts its built-in public authorities.
fn encryption(target: &MySqlTarget) -> Option<SslOpts> {
    let files = &target.files;
    let options = SslOpts::default();
    let verified = |options: SslOpts| {
        // RDS has its own, which the machine may trust.
        let roots = files.authorities.clone();
        options.with_root_cert_path(roots.or_else(|| openssl_probe::probe().cert_file))
    };
    let options = match target.tls {
        Tls::Off => return None,
        Tls::Unverified | Tls::Preferred => options
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true),
        Tls::Verified | Tls::VerifiedIfOffered => verified(options),
        Tls::VerifiedAuthority => verified(options).with_danger_skip_domain_validation(true),
    };
    let identity = files.certificate.clone().zip(files.key.clone());
    let identity = identity.map(|(certificate, key)| ClientIdentity::new(certificate, key));
    Some(options.with_client_identity(identity))
}

/// Names the files that a refused certificate was compared with, or that were shown to the server.
fn with_files(fault: SinkError, target: &MySqlTarget) -> SinkError {
    let fault = match fault {
        SinkError::Stop(fault) if fault.kind == FaultKind::Tls => fault,
        other => return other,
    };
    let files = &target.files;
    let mut text = fault.text.clone();
    for (words, file) in [
        ("trusted are the authorities in", &files.authorities),
        ("shown was the certificate in", &files.certificate),
    ] {
        if let Some(file) = file {
            text += &format!("; {words} {}", file.display());
        }
    }
    SinkError::Stop(Fault { text, ..fault })
}

/// Tries all addresses of a host, which share the time.
fn connect_tcp(
    target: &MySqlTarget,
    host: &str,
    port: u16,
    options: &OptsBuilder,
    connect: impl Fn(OptsBuilder) -> Result<mysql::Result<Conn>, SinkError>,
) -> Result<Conn, SinkError> {
    let found = routes(host, port, target.connect_timeout)?;
    let mut unreachable = None;
    for route in &found.routes {
        let options = options
            .clone()
            .ip_or_hostname(Some(host))
            .tcp_port(port)
            .bind_address(route.bind)
            .tcp_connect_timeout(Some(route.timeout));
        match connect(options)? {
            Err(fault) if is_unreachable(&fault) => unreachable = Some(fault),
            outcome => return outcome.map_err(sink_error),
        }
    }
    Err(match unreachable {
        Some(fault) if found.routes.len() == 1 => sink_error(fault),
        _ => SinkError::Reconnect(Fault::new(format!(
            "cannot connect to any address of `{host}`: {}",
            found.reasons()
        ))),
    })
}

/// Whether an address takes no connection, and another one of the same name may.
fn is_unreachable(fault: &mysql::Error) -> bool {
    use mysql::DriverError::{ConnectTimeout, CouldNotConnect};
    matches!(
        fault,
        mysql::Error::DriverError(ConnectTimeout | CouldNotConnect(_))
    )
}

/// The driver panics over an authentication plugin that it was built without, and over malformed packets.
fn new_connection(options: OptsBuilder) -> Result<mysql::Result<Conn>, SinkError> {
    panics::catch(|| Conn::new(options)).map_err(|message| {
        let fault = panic_fault(&message);
        let text = format!(
            "{}; if it names an authentication plugin, {OTHER_PLUGIN}",
            fault.text
        );
        SinkError::Stop(Fault { text, ..fault })
    })
}

fn options(target: &MySqlTarget, password: &Secret) -> OptsBuilder {
    let keepalive_ms = u32::try_from(KEEPALIVE.as_millis()).ok();
    OptsBuilder::new()
        .user(Some(&target.user))
        .pass(Some(password.reveal()).filter(|password| !password.is_empty()))
        .db_name(Some(&target.database))
        // Otherwise the driver replaces a loopback address by the server's Unix socket.
        .prefer_socket(false)
        .read_timeout(Some(target.read_timeout))
        .write_timeout(Some(target.write_timeout))
        .tcp_keepalive_time_ms(keepalive_ms)
        .max_allowed_packet(target.packet_bytes_max.map(|bytes| bytes as usize))
        .compress(target.compress.then(Compression::default))
        .enable_cleartext_plugin(target.cleartext_password)
        .connect_attrs(Some(target.attributes.iter().cloned().collect()))
        // The sink has a cache of its own.
        .stmt_cache_size(0)
        .init(first_statements(target))
}

/// Finds or creates `eventlog`. Returns what its columns take.
pub(super) fn find_table(connection: &mut Conn) -> Result<EventRule, SinkError> {
    if let Some(rule) = event_rule(connection)? {
        return has_transactions(connection, "eventlog").map(|()| rule);
    }
    connection
        .query_drop(CREATE_TABLE)
        .map_err(|error| match refusal(error) {
            SinkError::Stop(fault) => {
                let text = format!(
                    "{}; the table eventlog is missing and cannot be created",
                    fault.text
                );
                SinkError::Stop(Fault { text, ..fault })
            }
            other => other,
        })?;
    event_rule(connection)?
        .ok_or_else(|| SinkError::Stop(Fault::new("the table eventlog has no column `name`")))
}

/// Finds or creates the table of checkpoints.
pub(super) fn find_checkpoints(connection: &mut Conn) -> Result<(), SinkError> {
    if has_checkpoints(connection)? {
        return has_transactions(connection, "hakaru_checkpoint");
    }
    connection.query_drop(CREATE_CHECKPOINTS).map_err(|error| match refusal(error) {
        SinkError::Stop(fault) => {
            let text = format!(
                "{}; without checkpoints an event could be stored twice. As a user with the right to create \
                 tables, run: {CREATE_CHECKPOINTS}",
                fault.text
            );
            let kind = FaultKind::NoCheckpoints;
            SinkError::Stop(Fault { kind, text, ..fault })
        }
        other => other,
    })
}

/// Whether there is a table of checkpoints that this user may see.
pub(crate) fn has_checkpoints(connection: &mut Conn) -> Result<bool, SinkError> {
    let found: Option<String> = connection.query_first(CHECKPOINTS).map_err(sink_error)?;
    Ok(found.is_some())
}

/// Refuses a table without transactions: a batch that fails halfway must leave no row and no moved checkpoint.
pub(crate) fn has_transactions(connection: &mut Conn, table: &str) -> Result<(), SinkError> {
    let query = format!("{ENGINE}'{table}'");
    let engine: Option<(String, Option<String>)> =
        connection.query_first(query).map_err(sink_error)?;
    match engine {
        Some((engine, Some(transactions))) if transactions != "YES" => {
            let text = format!(
                "the table {table} has the engine {engine}, which has no transactions: a batch could be \
                 stored in part; fix it with ALTER TABLE {table} ENGINE=InnoDB"
            );
            Err(SinkError::Stop(Fault::of(FaultKind::NoTransactions, text)))
        }
        _ => Ok(()),
    }
}

/// What bounds the statements to a server.
pub(super) struct StatementBounds {
    /// The largest EXECUTE to send, in bytes.
    pub(super) packet_bytes_max: usize,
    /// It decides how many rows a statement has.
    pub(super) engine: Engine,
}

/// Asks for what bounds the statements.
pub(super) fn statement_bounds(
    connection: &mut Conn,
    target: &MySqlTarget,
) -> Result<StatementBounds, SinkError> {
    let found: Option<(Option<usize>, Option<String>)> = connection
        .query_first("SELECT @@max_allowed_packet, VERSION()")
        .map_err(sink_error)?;
    let (server, version) = found.unwrap_or_default();
    let asked = target.packet_bytes_max.map(|bytes| bytes as usize);
    let smallest = [server, asked]
        .into_iter()
        .flatten()
        .fold(PACKET_BYTES_MAX, usize::min);
    Ok(StatementBounds {
        packet_bytes_max: smallest.saturating_sub(PACKET_HEAD_BYTES),
        engine: Engine::of(&version.unwrap_or_default()),
    })
}
