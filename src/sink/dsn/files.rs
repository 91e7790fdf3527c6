//! What connections need besides a DSN: a password and certificates in files, which are read anew for each connection.

use std::path::{Path, PathBuf};

use super::{DataSource, MySqlTarget, Secret, Tls};
use crate::sink::{Fault, FaultKind};

/// Longest file of a password, in bytes.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Files of the connections to a MySQL server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFiles {
    /// The password.
    pub password: Option<PathBuf>,
    /// Certificates of the authorities that are trusted.
    pub authorities: Option<PathBuf>,
    /// The certificate that hakaru shows, and those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
}

/// Files that do not fit the DSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// The DSN is no MySQL server.
    #[error("{0}: accepted with a MySQL server in the datasource, and not with a SQLite file")]
    NoServer(&'static str),
    /// The DSN has a password.
    #[error("--db-password-file: accepted where the datasource has no password, and it has one")]
    TwoPasswords,
    /// A certificate without its key, or a key without its certificate.
    #[error("{0}: accepted together with {1}, which is missing")]
    Half(&'static str, &'static str),
    /// The connection is not encrypted, or no certificate is verified.
    #[error("{0}: accepted with {1} in the datasource")]
    OtherTls(&'static str, &'static str),
}

impl DataSource {
    /// Adds files to a MySQL server. Fails where they do not fit the DSN: nothing of what is asked for is left out.
    pub fn with_files(self, files: TargetFiles) -> Result<Self, FilesError> {
        let mut target = match self {
            Self::MySql(target) => target,
            Self::Sqlite(path) => {
                return match files.first_flag() {
                    Some(flag) => Err(FilesError::NoServer(flag)),
                    None => Ok(Self::Sqlite(path)),
                };
            }
        };
        files.fit(&target)?;
        target.files = files;
        Ok(Self::MySql(target))
    }
}

impl TargetFiles {
    fn first_flag(&self) -> Option<&'static str> {
        let Self {
            password,
            authorities,
            certificate,
            key,
        } = self;
        let given = [
            (password, "--db-password-file"),
            (authorities, "--db-tls-ca"),
            (certificate, "--db-tls-cert"),
            (key, "--db-tls-key"),
        ];
        let mut given = given.into_iter().filter(|(path, _)| path.is_some());
        given.next().map(|(_, flag)| flag)
    }

    fn fit(&self, target: &MySqlTarget) -> Result<(), FilesError> {
        if self.password.is_some() && !target.password.reveal().is_empty() {
            return Err(FilesError::TwoPasswords);
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => return Err(FilesError::Half("--db-tls-cert", "--db-tls-key")),
            (None, Some(_)) => return Err(FilesError::Half("--db-tls-key", "--db-tls-cert")),
            _ => {}
        }
        let is_verified = matches!(
            target.tls,
            Tls::Verified | Tls::VerifiedAuthority | Tls::VerifiedIfOffered
        );
        if self.authorities.is_some() && !is_verified {
            return Err(FilesError::OtherTls(
                "--db-tls-ca",
                "tls=true or tls=verify-ca",
            ));
        }
        if self.certificate.is_some() && target.tls == Tls::Off {
            return Err(FilesError::OtherTls(
                "--db-tls-cert",
                "tls=true, verify-ca, skip-verify or preferred",
            ));
        }
        if self.authorities.is_none() && target.tls == Tls::VerifiedAuthority {
            return Err(FilesError::Half("tls=verify-ca", "--db-tls-ca"));
        }
        Ok(())
    }
}

impl MySqlTarget {
    /// The password of the next connection.
    pub(crate) fn current_password(&self) -> Result<Secret, Fault> {
        let Some(path) = &self.files.password else {
            return Ok(self.password.clone());
        };
        let text = text_of("--db-password-file", path)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX || password.contains('\n') {
            let text = format!(
                "--db-password-file {}: accepted is one line of at most {PASSWORD_BYTES_MAX} bytes",
                path.display()
            );
            return Err(Fault::of(FaultKind::File, text));
        }
        Ok(Secret(password.to_owned()))
    }

    /// Makes sure that the certificates can be read: the driver does not say which file it means.
    pub(crate) fn look_at_certificates(&self) -> Result<(), Fault> {
        let files = &self.files;
        for (flag, path, kind) in [
            ("--db-tls-ca", &files.authorities, "CERTIFICATE"),
            ("--db-tls-cert", &files.certificate, "CERTIFICATE"),
            ("--db-tls-key", &files.key, "PRIVATE KEY"),
        ] {
            let Some(path) = path else { continue };
            if !text_of(flag, path)?.contains(&format!("{kind}-----")) {
                let text = format!("{flag} {}: it holds no {kind} in PEM", path.display());
                return Err(Fault::of(FaultKind::File, text));
            }
        }
        Ok(())
    }
}

fn text_of(flag: &str, path: &Path) -> Result<String, Fault> {
    let read = std::fs::read_to_string(path);
    read.map_err(|fault| Fault {
        code: fault.raw_os_error(),
        ..Fault::of(
            FaultKind::File,
            format!("{flag} {}: {fault}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_fit_the_dsn_are_refused() {
        let some = |path: &str| Some(PathBuf::from(path));
        let password = TargetFiles {
            password: some("p"),
            ..TargetFiles::default()
        };
        let authorities = TargetFiles {
            authorities: some("ca"),
            ..TargetFiles::default()
        };
        let certificate = TargetFiles {
            certificate: some("c"),
            ..TargetFiles::default()
        };
        let identity = TargetFiles {
            key: some("k"),
            ..certificate.clone()
        };
        let none = TargetFiles::default();
        for (dsn, files, words) in [
            ("sqlite:a.db", &none, None),
            ("sqlite:a.db", &password, Some("SQLite")),
            ("u@tcp(h)/d", &password, None),
            ("u:p@tcp(h)/d", &password, Some("it has one")),
            ("u@tcp(h)/d", &authorities, Some("tls=true")),
            ("u@tcp(h)/d?tls=skip-verify", &authorities, Some("tls=true")),
            ("u@tcp(h)/d?tls=true", &authorities, None),
            ("u@tcp(h)/d?tls=verify-ca", &authorities, None),
            ("u@tcp(h)/d?tls=verify-ca", &none, Some("--db-tls-ca")),
            ("u@tcp(h)/d?tls=true", &certificate, Some("--db-tls-key")),
            ("u@tcp(h)/d?tls=true", &identity, None),
            ("u@tcp(h)/d", &identity, Some("tls=true")),
        ] {
            let source: DataSource = dsn.parse().unwrap();
            let refused = source
                .with_files(files.clone())
                .err()
                .map(|fault| fault.to_string());
            let is_as_expected = match (&refused, words) {
                (Some(text), Some(words)) => text.contains(words),
                (refused, words) => refused.is_none() && words.is_none(),
            };
            assert!(is_as_expected, "{dsn} {files:?}: {refused:?}");
        }
    }

    #[test]
    fn a_password_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let source: DataSource = "u@tcp(h)/d".parse().unwrap();
        let files = TargetFiles {
            password: Some(path.clone()),
            ..TargetFiles::default()
        };
        let DataSource::MySql(target) = source.with_files(files).unwrap() else {
            panic!()
        };
        let fault = target.current_password().unwrap_err();
        assert!(fault.text.contains("No such file"), "{}", fault.text);
        for (text, password) in [
            ("s3cret", Some("s3cret")),
            (" a b \r\n", Some(" a b ")),
            ("", None),
            ("\n", None),
            ("a\nb\n", None),
        ] {
            std::fs::write(&path, text).unwrap();
            let read = target.current_password();
            let read = read.as_ref().map(Secret::reveal).ok();
            assert_eq!(read, password, "{text:?}");
        }
    }
}
