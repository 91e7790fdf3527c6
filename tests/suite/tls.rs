//! Encrypted connections to the database: which servers are trusted, and what is logged if none is possible.

use std::path::Path;

use crate::support::{Client, DatabaseServer, Settings, run};

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
