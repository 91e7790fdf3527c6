//! The parameters of a DSN. Each one that the Go driver documents is accepted or refused by name.

use std::time::Duration;

use super::{DsnError, MySqlTarget, Tls};
use crate::units;

/// Longest accepted timeout.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Smallest accepted packet size. The largest statement of a batch fits into it.
const PACKET_BYTES_MIN: u32 = 4 * 1024 * 1024;

/// System variables that may be set for a session. The Go driver takes every unknown parameter for a variable;
/// with this list a misspelt parameter is refused at the start.
const SESSION_VARIABLES: [&str; 10] = [
    "innodb_lock_wait_timeout",
    "lock_wait_timeout",
    "max_execution_time",
    "max_statement_time",
    "net_read_timeout",
    "net_write_timeout",
    "sql_mode",
    "time_zone",
    "transaction_isolation",
    "tx_isolation",
];

/// Applies a parameter to the target.
type Apply = fn(Value<'_>, &mut MySqlTarget) -> Result<(), DsnError>;

/// The documented parameters, in the order of the documentation.
const PARAMETERS: [(&str, Apply); 24] = [
    // Without effect: rows are sent by prepared inserts, and no file is read.
    ("allowAllFiles", |value, _| value.boolean().map(drop)),
    ("allowCleartextPasswords", |value, target| {
        target.cleartext_password = value.boolean()?;
        Ok(())
    }),
    ("allowFallbackToPlaintext", |value, target| {
        if value.boolean()? {
            target.tls = match target.tls {
                Tls::Verified => Tls::VerifiedIfOffered,
                Tls::Unverified => Tls::Preferred,
                Tls::VerifiedAuthority => {
                    return Err(value.refused("accepted with tls=verify-ca: false"));
                }
                tls @ (Tls::Off | Tls::Preferred | Tls::VerifiedIfOffered) => tls,
            };
        }
        Ok(())
    }),
    ("allowNativePasswords", |value, _| {
        match value.boolean()? {
            true => Ok(()),
            false => Err(value.refused("native passwords cannot be switched off; accepted: true")),
        }
    }),
    ("allowOldPasswords", |value, _| match value.boolean()? {
        false => Ok(()),
        true => {
            Err(value.refused("passwords from before MySQL 4.1 are not supported; accepted: false"))
        }
    }),
    ("charset", charset),
    ("checkConnLiveness", |value, _| value.boolean().map(drop)),
    ("clientFoundRows", |value, _| value.boolean().map(drop)),
    // Without effect on an INSERT, which compares nothing. But it must not be of another character set.
    ("collation", |value, _| {
        let name = value.text;
        let is_utf8 = ["utf8_", "utf8mb3_", "utf8mb4_", "uca1400_"]
            .iter()
            .any(|set| name.starts_with(set));
        if !is_utf8
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(value.refused("accepted: a collation of utf8mb4, utf8mb3 or utf8"));
        }
        Ok(())
    }),
    ("columnsWithAlias", |value, _| value.boolean().map(drop)),
    ("compress", |value, target| {
        target.compress = value.boolean()?;
        Ok(())
    }),
    ("connectionAttributes", |value, target| {
        for pair in value.text.split(',').filter(|pair| !pair.is_empty()) {
            let Some((name, attribute)) = pair.split_once(':') else {
                return Err(value.refused("accepted: name:value,name:value"));
            };
            target
                .attributes
                .push((name.to_owned(), attribute.to_owned()));
        }
        Ok(())
    }),
    ("interpolateParams", |value, _| value.boolean().map(drop)),
    // Without effect: the time zone of times that a client sends. hakaru sends Unix seconds, which the server
    // converts to the session's time zone.
    ("loc", |_, _| Ok(())),
    ("maxAllowedPacket", |value, target| {
        target.packet_bytes_max = match value.text.parse() {
            Ok(0) => None,
            Ok(bytes) if bytes >= PACKET_BYTES_MIN => Some(bytes),
            _ => {
                return Err(
                    value.refused("accepted: 0 (ask the server), or at least 4194304 bytes")
                );
            }
        };
        Ok(())
    }),
    ("multiStatements", |value, _| value.boolean().map(drop)),
    ("parseTime", |value, _| value.boolean().map(drop)),
    ("readTimeout", |value, target| {
        value.timeout_into(&mut target.read_timeout)
    }),
    // Without effect: hakaru always reconnects after a lost connection or to a read-only server.
    ("rejectReadOnly", |value, _| value.boolean().map(drop)),
    ("serverPubKey", |value, _| {
        Err(value.refused("keys registered by a Go program are not known here; leave it out"))
    }),
    ("timeTruncate", |value, _| {
        value.timeout_into(&mut Duration::default())
    }),
    ("timeout", |value, target| {
        value.timeout_into(&mut target.connect_timeout)
    }),
    ("tls", |value, target| {
        target.tls = match value.text {
            "skip-verify" => Tls::Unverified,
            "verify-ca" => Tls::VerifiedAuthority,
            "preferred" => Tls::Preferred,
            _ => match value.boolean() {
                Ok(true) => Tls::Verified,
                Ok(false) => Tls::Off,
                Err(_) => {
                    return Err(
                        value.refused("accepted: true, verify-ca, skip-verify, preferred, false")
                    );
                }
            },
        };
        Ok(())
    }),
    ("writeTimeout", |value, target| {
        value.timeout_into(&mut target.write_timeout)
    }),
];

/// Applies `params`, the part of a DSN after its question mark, to `target`.
pub(super) fn apply(params: &str, target: &mut MySqlTarget) -> Result<(), DsnError> {
    let mut pairs: Vec<(String, String)> = url::form_urlencoded::parse(params.as_bytes())
        .into_owned()
        .collect();
    // It changes the effect of `tls`, and is applied last.
    pairs.sort_by_key(|(name, _)| name == "allowFallbackToPlaintext");
    for (name, text) in &pairs {
        if let Some((name, apply)) = PARAMETERS.iter().find(|(known, _)| known == name) {
            apply(Value { name, text }, target)?;
        } else if let Some(variable) = SESSION_VARIABLES.iter().find(|known| *known == name) {
            if text.is_empty() || text.contains(';') {
                return Err(Value {
                    name: variable,
                    text,
                }
                .refused("accepted: one SQL value"));
            }
            target.session.push((variable, text.clone()));
        } else if name == "autocommit" {
            return Err(Value {
                name: "autocommit",
                text,
            }
            .refused("a batch is always one transaction"));
        } else {
            let known = PARAMETERS
                .iter()
                .map(|(known, _)| *known)
                .chain(SESSION_VARIABLES);
            let accepted = known.collect::<Vec<_>>().join(", ");
            // In a misread DSN this may be a part of the password: only a plain name is shown.
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            let name = if is_name {
                name.clone()
            } else {
                "***".to_owned()
            };
            return Err(DsnError::UnknownParameter { name, accepted });
        }
    }
    Ok(())
}

/// Names are sent as UTF-8, so that only UTF-8 is accepted. Like for the Go driver, it may be a list.
fn charset(value: Value<'_>, _: &mut MySqlTarget) -> Result<(), DsnError> {
    match value
        .text
        .split(',')
        .all(|set| matches!(set, "utf8mb4" | "utf8mb3" | "utf8"))
    {
        true => Ok(()),
        false => Err(value.refused("names are sent as UTF-8; accepted: utf8mb4, utf8mb3, utf8")),
    }
}

/// A parameter as written.
#[derive(Clone, Copy)]
struct Value<'a> {
    name: &'static str,
    text: &'a str,
}

impl Value<'_> {
    fn refused(self, accepted: &'static str) -> DsnError {
        DsnError::ParameterValue {
            name: self.name,
            value: self.text.to_owned(),
            accepted,
        }
    }

    fn boolean(self) -> Result<bool, DsnError> {
        match self.text {
            "1" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.refused("accepted: true, false")),
        }
    }

    /// In the Go driver, `0` means no timeout. Here every wait has a timeout, and `0` keeps the default.
    fn timeout_into(self, timeout: &mut Duration) -> Result<(), DsnError> {
        match units::duration(self.text) {
            Some(Duration::ZERO) => Ok(()),
            Some(duration) if duration <= TIMEOUT_MAX => {
                *timeout = duration;
                Ok(())
            }
            _ => Err(self.refused("accepted: a duration such as 500ms or 5s, at most 1h")),
        }
    }
}
