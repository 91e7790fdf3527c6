//! DSNs as they are in deployment files.

use super::*;
use proptest::prelude::*;

fn mysql(text: &str) -> MySqlTarget {
    match text.parse() {
        Ok(DataSource::MySql(target)) => *target,
        other => panic!("{text}: {other:?}"),
    }
}

fn refused(text: &str) -> String {
    text.parse::<DataSource>().unwrap_err().to_string()
}

fn at(host: &str, port: u16) -> Address {
    Address::Tcp {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn go_style_addresses() {
    for (text, address) in [
        ("u:p@tcp(db.example:3307)/d", at("db.example", 3307)),
        ("u:p@tcp(db.example)/d", at("db.example", 3306)),
        ("u:p@tcp([::1]:3307)/d", at("::1", 3307)),
        ("u:p@tcp([::1])/d", at("::1", 3306)),
        ("u:p@tcp(::1)/d", at("::1", 3306)),
        ("u:p@tcp/d", at("127.0.0.1", 3306)),
        ("u:p@tcp(:3307)/d", at("127.0.0.1", 3307)),
        ("u:p@/d", at("127.0.0.1", 3306)),
        ("/d", at("127.0.0.1", 3306)),
        (
            "u@unix(/run/mysqld/mysqld.sock)/d",
            Address::Unix("/run/mysqld/mysqld.sock".into()),
        ),
        ("u@unix/d", Address::Unix("/tmp/mysql.sock".into())),
    ] {
        assert_eq!(mysql(text).address, address, "{text}");
    }
}

#[test]
fn a_password_may_hold_any_character() {
    let target = mysql("root:p@ss:w/o(r)d?#@tcp(h:1)/d%2Fb?timeout=2s");
    assert_eq!(target.user, "root");
    assert_eq!(target.password.reveal(), "p@ss:w/o(r)d?#");
    assert_eq!(target.database, "d/b");
    assert_eq!(target.connect_timeout, Duration::from_secs(2));
    assert_eq!(mysql("u@tcp(h)/d").password.reveal(), "");
}

#[test]
fn url_style() {
    let target = mysql("mysql://u%40x:p%2Fw@db.example:3307/d?tls=skip-verify");
    assert_eq!((&target.user[..], target.password.reveal()), ("u@x", "p/w"));
    assert_eq!(target.address, at("db.example", 3307));
    assert_eq!((&target.database[..], target.tls), ("d", Tls::Unverified));
    assert_eq!(mysql("mysql://u@[::1]/d").address, at("::1", 3306));
    assert!(refused("mysql://u:p@h").contains("no database is named"));
}

#[test]
fn sqlite_style() {
    let path = "sqlite:hakaru-data/eventlog.db".parse();
    assert_eq!(
        path,
        Ok(DataSource::Sqlite("hakaru-data/eventlog.db".into()))
    );
    assert!(refused("sqlite:").contains("without a path"));
}

#[test]
fn every_documented_parameter_is_accepted_or_refused_by_name() {
    for accepted in [
        "allowAllFiles=true",
        "allowCleartextPasswords=true",
        "allowFallbackToPlaintext=true",
        "allowNativePasswords=true",
        "allowOldPasswords=false",
        "charset=utf8mb4,utf8",
        "checkConnLiveness=false",
        "clientFoundRows=true",
        "collation=utf8mb4_unicode_ci",
        "columnsWithAlias=1",
        "compress=true",
        "connectionAttributes=program_name:x,y:z",
        "interpolateParams=true",
        "loc=Asia%2FTokyo",
        "maxAllowedPacket=0",
        "maxAllowedPacket=67108864",
        "multiStatements=true",
        "parseTime=True",
        "readTimeout=1m30s",
        "rejectReadOnly=true",
        "timeTruncate=1ms",
        "timeout=1.5s",
        "tls=preferred",
        "tls=false",
        "writeTimeout=0",
        "time_zone=%27%2B09%3A00%27",
        "transaction_isolation=%27READ-COMMITTED%27",
    ] {
        mysql(&format!("u:p@/d?{accepted}"));
    }
    for (parameter, words) in [
        (
            "allowNativePasswords=false",
            "`allowNativePasswords`: `false`",
        ),
        ("allowOldPasswords=true", "`allowOldPasswords`: `true`"),
        ("charset=latin1", "accepted: utf8mb4"),
        ("charset=utf8mb4,cp932", "accepted: utf8mb4"),
        (
            "collation=latin1_swedish_ci",
            "accepted: a collation of utf8mb4",
        ),
        ("collation=utf8mb4_x;", "accepted: a collation of utf8mb4"),
        ("compress=yes", "accepted: true, false"),
        ("connectionAttributes=x", "accepted: name:value"),
        ("maxAllowedPacket=1024", "at least 4194304"),
        ("readTimeout=5", "accepted: a duration"),
        ("readTimeout=-5s", "accepted: a duration"),
        ("serverPubKey=mykey", "leave it out"),
        (
            "tls=custom",
            "accepted: true, verify-ca, skip-verify, preferred, false",
        ),
        (
            "tls=verify-ca&allowFallbackToPlaintext=true",
            "accepted with tls=verify-ca: false",
        ),
        ("autocommit=1", "always one transaction"),
        ("time_zone=", "one SQL value"),
        (
            "timeuot=5s",
            "unknown parameter `timeuot`; accepted: allowAllFiles",
        ),
    ] {
        let error = refused(&format!("u:s3cret@/d?{parameter}"));
        assert!(error.contains(words), "{parameter}: {error}");
        assert!(
            !error.contains("s3cret") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn parameters_are_applied() {
    let target = mysql("/d?readTimeout=7s&writeTimeout=8s&time_zone=%27UTC%27&tls=true&compress=1");
    assert_eq!(target.read_timeout, Duration::from_secs(7));
    assert_eq!(target.write_timeout, Duration::from_secs(8));
    assert_eq!(target.session, [("time_zone", "'UTC'".to_owned())]);
    assert_eq!((target.tls, target.compress), (Tls::Verified, true));
    assert_eq!(
        mysql("/d?allowFallbackToPlaintext=1&tls=true").tls,
        Tls::VerifiedIfOffered
    );
}

#[test]
fn malformed_addresses_are_refused_without_being_quoted() {
    for (text, words) in [
        ("", "no slash"),
        ("root:s3cret@tcp(h:3306)", "no slash"),
        ("root:s3cret@tcp(h:3306/d", "not closed"),
        ("root:s3cret@tcp(h:x)/d", "port"),
        ("root:s3cret@tcp(h:0)/d", "port"),
        ("root:s3cret@tcp([::1:3306)/d", "IPv6"),
        ("root:s3cret@udp(h)/d", "neither tcp nor unix"),
        ("root:s3cret@tcp(h)/", "no database"),
        ("mysql://root:s3cret@h:port/d", "not a mysql:// address"),
    ] {
        let error = refused(text);
        assert!(
            error.contains(words) && !error.contains("s3cret"),
            "{text}: {error}"
        );
    }
}

#[test]
fn no_displayed_text_has_the_password() {
    for text in [
        "u:s3cret@tcp(h:1)/d?tls=true",
        "mysql://u:s3cret@[::1]:1/d",
        "u:s3cret@unix(/s)/d",
    ] {
        let source: DataSource = text.parse().unwrap();
        let shown = format!("{source} {source:?}");
        assert!(
            !shown.contains("s3cret") && shown.contains("mysql://u@"),
            "{shown}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// With any password, each part is parsed as it was written.
    #[test]
    fn parts_are_parsed_as_written(user in "[a-z0-9_]{0,8}", password in "[ -~]{0,16}", port in 1u16.., database in "[a-z]{1,8}") {
        let target = mysql(&format!("{user}:{password}@tcp(h:{port})/{database}?parseTime=true"));
        prop_assert_eq!(target.user, user);
        prop_assert_eq!(target.password.reveal(), password);
        prop_assert_eq!(target.address, at("h", port));
        prop_assert_eq!(target.database, database);
    }

    #[test]
    fn no_text_causes_a_panic(text in "\\PC{0,60}") {
        drop(text.parse::<DataSource>());
    }
}
