//! Encrypted connections to the database: which servers are trusted, and what is logged if none is possible.

use std::path::Path;

use mysql::prelude::Queryable;

use crate::support::{Client, DatabaseServer, Proxy, Settings, run};

/// An authority and a server certificate for 127.0.0.1 and localhost, as files in `directory`.
fn make_certificates(directory: &Path) {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let new_key = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
    ];
    let authority = ["-subj", "/CN=test authority"];
    let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
    let (cert, key) = (file("server.pem"), file("server.key"));
    run(
        "openssl",
        &[&new_key[..], &authority, &["-keyout", &ca_key, "-out", &ca]].concat(),
    );
    let server = ["-subj", "/CN=localhost", "-CA", &ca, "-CAkey", &ca_key];
    let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let is_leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    run(
        "openssl",
        &[
            &new_key[..],
            &server,
            &names,
            &is_leaf,
            &["-keyout", &key, "-out", &cert],
        ]
        .concat(),
    );
}

fn stores_one(settings: Settings) {
    let hakaru = settings.start();
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    assert_eq!(hakaru.stop().stored, 1);
}

#[test]
fn certificates_are_verified_as_set_in_the_dsn() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let option =
        |name: &str, file: &str| format!("--ssl-{name}={}", directory.path().join(file).display());
    let database = DatabaseServer::start_with(&[
        option("ca", "ca.pem"),
        option("cert", "server.pem"),
        option("key", "server.key"),
    ]);
    database.run("CREATE USER app@'%' IDENTIFIED BY 's3cret' REQUIRE SSL");
    database.run("GRANT ALL ON hakaru.* TO app@'%'");
    let dsn = |tls: &str| {
        format!(
            "app:s3cret@tcp(127.0.0.1:{})/hakaru?tls={tls}",
            database.port()
        )
    };

    stores_one(Settings::datasource(&dsn("skip-verify")));
    stores_one(Settings::datasource(&dsn("preferred")));
    // The authority is trusted if the machine trusts it.
    let authority = directory.path().join("ca.pem");
    let trusting = Settings::datasource(&dsn("true"));
    stores_one(trusting.variable("SSL_CERT_FILE", authority.to_str().unwrap()));
    assert_eq!(database.count(), 3);

    let checked = Settings::datasource(&dsn("skip-verify")).flag("check");
    let found = String::from_utf8(checked.run_in(directory.path()).stdout).unwrap();
    assert!(found.contains("ok       encryption: TLSv1."), "{found}");

    let distrusting = Settings::datasource(&dsn("true")).start();
    let line = distrusting.wait_for_event("storing_stopped");
    assert!(line["message"].as_str().unwrap().contains("TLS"), "{line}");
    let plain = Settings::datasource(&dsn("false")).start();
    let line = plain.wait_for_event("storing_stopped");
    assert!(line["message"].as_str().unwrap().contains("1045"), "{line}");
}

#[test]
fn a_server_without_tls_is_used_plain_only_where_that_is_allowed() {
    let database = DatabaseServer::start_without_tls();
    stores_one(Settings::datasource(&format!(
        "{}?tls=preferred",
        database.dsn()
    )));
    stores_one(Settings::datasource(&format!(
        "{}?tls=true&allowFallbackToPlaintext=true",
        database.dsn()
    )));
    let strict = Settings::datasource(&format!("{}?tls=skip-verify", database.dsn())).start();
    let line = strict.wait_for_event("storing_stopped");
    assert!(
        line["message"].as_str().unwrap().contains("no TLS"),
        "{line}"
    );
}

/// Files with certificates, and a server that has one for localhost and 127.0.0.1.
struct Bench {
    directory: tempfile::TempDir,
    database: DatabaseServer,
}

impl Bench {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_certificates(directory.path());
        let option = |name: &str, file: &str| {
            format!("--ssl-{name}={}", directory.path().join(file).display())
        };
        let database = DatabaseServer::start_with(&[
            option("ca", "ca.pem"),
            option("cert", "server.pem"),
            option("key", "server.key"),
        ]);
        Self {
            directory,
            database,
        }
    }

    fn account(&self, demand: &str) {
        let database = &self.database;
        database.run(&format!(
            "CREATE USER app@'%' IDENTIFIED BY 's3cret' REQUIRE {demand}"
        ));
        database.run("GRANT ALL ON hakaru.* TO app@'%'");
    }

    fn settings(&self, host: &str, tls: &str) -> Settings {
        let port = self.database.port();
        let dsn = format!("app:s3cret@tcp({host}:{port})/hakaru?tls={tls}");
        Settings::datasource(&dsn)
    }

    fn file(&self, flag: &str, name: &str) -> String {
        let path = self.directory.path().join(name);
        format!("--db-tls-{flag}={}", path.display())
    }

    /// Starts a server that cannot store, and gives the line that says why.
    fn refused(&self, settings: Settings) -> String {
        let hakaru = settings.start();
        let line = hakaru.wait_for_event("storing_stopped");
        line["message"].as_str().unwrap().to_owned()
    }
}

/// A bundle has several authorities, as that of RDS.
#[test]
fn an_authority_in_a_file_is_trusted_and_others_are_named() {
    let bench = Bench::start();
    bench.account("SSL");
    let other = bench.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    make_certificates(&other);
    let read = |name: &str| std::fs::read_to_string(bench.directory.path().join(name)).unwrap();
    let bundle = read("other/ca.pem") + &read("ca.pem");
    std::fs::write(bench.directory.path().join("bundle.pem"), bundle).unwrap();
    for (host, tls) in [("127.0.0.1", "true"), ("127.0.0.1", "verify-ca")] {
        stores_one(
            bench
                .settings(host, tls)
                .flag(&bench.file("ca", "bundle.pem")),
        );
    }
    // Another authority.
    for tls in ["true", "verify-ca"] {
        let settings = bench.settings("127.0.0.1", tls);
        let line = bench.refused(settings.flag(&bench.file("ca", "other/ca.pem")));
        assert!(line.contains("other/ca.pem"), "{line}");
        // It has the same name, and another key.
        assert!(line.contains("BadSignature"), "{line}");
    }
    // Another name, which leads to the same server.
    let trusting = |tls: &str| {
        bench
            .settings("127.0.0.2", tls)
            .flag(&bench.file("ca", "ca.pem"))
    };
    let _front = Proxy::start_at(
        &format!("127.0.0.2:{}", bench.database.port()),
        bench.database.port(),
    );
    stores_one(trusting("verify-ca"));
    let line = bench.refused(trusting("true"));
    for words in ["127.0.0.2", "localhost", "ca.pem"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(bench.database.count(), 3);
    // No file, and none with a certificate.
    let line = bench.refused(
        bench
            .settings("127.0.0.1", "true")
            .flag(&bench.file("ca", "no.pem")),
    );
    assert!(line.contains("no.pem: No such file"), "{line}");
    let key = bench
        .settings("127.0.0.1", "true")
        .flag(&bench.file("ca", "ca.key"));
    let line = bench.refused(key);
    assert!(line.contains("ca.key: it holds no CERTIFICATE"), "{line}");
}

#[test]
fn a_server_that_demands_a_certificate_gets_it() {
    let bench = Bench::start();
    bench.account("X509");
    // Plain connections that are open stay open.
    let mut plain = bench.database.connect("").unwrap();
    plain
        .query_drop("SET GLOBAL require_secure_transport = 1")
        .unwrap();
    // A certificate of the same authority.
    let shown = |settings: Settings| {
        let settings = settings.flag(&bench.file("cert", "server.pem"));
        settings.flag(&bench.file("key", "server.key"))
    };
    let trusting = || {
        bench
            .settings("127.0.0.1", "true")
            .flag(&bench.file("ca", "ca.pem"))
    };
    stores_one(shown(trusting()));
    let line = bench.refused(trusting());
    assert!(line.contains("1045"), "{line}");
    let line = bench.refused(Settings::mysql(&bench.database));
    // MariaDB since 11.4 and MySQL; before, the account alone decided.
    assert!(line.contains("3159") || line.contains("1045"), "{line}");
}

#[test]
fn a_certificate_that_is_over_is_told() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (key, request) = (file("server.key"), file("request.pem"));
    let ask = ["req", "-new", "-key", &key, "-subj", "/CN=localhost"];
    run("openssl", &[&ask[..], &["-out", &request]].concat());
    std::fs::write(file("index"), "").unwrap();
    let configuration = format!(
        "[ca]\ndefault_ca=a\n[a]\ndatabase={}\nnew_certs_dir={}\ndefault_md=sha256\npolicy=p\nrand_serial=yes\n\
         x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nbasicConstraints=critical,CA:FALSE\n\
         subjectAltName=DNS:localhost,IP:127.0.0.1\n",
        file("index"),
        directory.path().display()
    );
    std::fs::write(file("ca.conf"), configuration).unwrap();
    let sign = [
        "ca",
        "-batch",
        "-notext",
        "-config",
        &file("ca.conf"),
        "-in",
        &request,
    ];
    let by = ["-cert", &file("ca.pem"), "-keyfile", &file("ca.key")];
    let time = [
        "-startdate",
        "20200101000000Z",
        "-enddate",
        "20200102000000Z",
    ];
    let out = ["-out", &file("old.pem")];
    run("openssl", &[&sign[..], &by, &time, &out].concat());
    let options = [("ca", "ca.pem"), ("cert", "old.pem"), ("key", "server.key")];
    let options = options.map(|(name, path)| format!("--ssl-{name}={}", file(path)));
    let database = DatabaseServer::start_with(&options);
    let dsn = format!("{}?tls=true", database.dsn());
    let hakaru = Settings::datasource(&dsn);
    let hakaru = hakaru
        .flag(&format!("--db-tls-ca={}", file("ca.pem")))
        .start();
    let line = hakaru.wait_for_event("storing_stopped").to_string();
    assert!(line.contains("xpired") && line.contains("ca.pem"), "{line}");
}
