//! The settings of the connections to the database.

use std::path::PathBuf;

use clap::Args;

use super::parsers::{DataSourceSetting, Optional, Parsed, Refusal, file};
use crate::sink::dsn::DataSource;
use crate::sink::dsn::files::TargetFiles;

/// The database, and files that connections to it need.
#[derive(Debug, Args)]
pub(super) struct DatabaseArguments {
    /// Database that stores the events: `user:pass@tcp(host:port)/db?params` as Go programs write it,
    /// `mysql://…`, or `sqlite:PATH`
    #[arg(
        long,
        env = "HAKARU_DATASOURCENAME",
        value_name = "DSN",
        hide_env_values = true,
        default_value = "sqlite:hakaru-data/eventlog.db",
        value_parser = DataSourceSetting
    )]
    datasource: Parsed<DataSource>,

    /// File that holds the password of the datasource's user; it is read anew for each connection [default: the password in the datasource]
    #[arg(
        long,
        env = "HAKARU_DB_PASSWORD_FILE",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(file())
    )]
    db_password_file: Parsed<Option<PathBuf>>,

    /// PEM file with the authorities that may sign the database's certificate, for tls=true and tls=verify-ca [default: those that this machine trusts]
    #[arg(
        long,
        env = "HAKARU_DB_TLS_CA",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(file())
    )]
    db_tls_ca: Parsed<Option<PathBuf>>,

    /// PEM file with the certificate that is shown to the database [default: none]
    #[arg(
        long,
        env = "HAKARU_DB_TLS_CERT",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(file())
    )]
    db_tls_cert: Parsed<Option<PathBuf>>,

    /// PEM file with the key of that certificate [default: none]
    #[arg(
        long,
        env = "HAKARU_DB_TLS_KEY",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(file())
    )]
    db_tls_key: Parsed<Option<PathBuf>>,
}

impl DatabaseArguments {
    /// The data source with these files.
    pub(super) fn source(self) -> Result<DataSource, Refusal> {
        let files = TargetFiles {
            password: self.db_password_file?,
            authorities: self.db_tls_ca?,
            certificate: self.db_tls_cert?,
            key: self.db_tls_key?,
        };
        self.datasource?.with_files(files).map_err(Refusal::Files)
    }
}
