//! Logins with authentication plugins. A plugin that the driver does not support is an error with advice.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::{Client, DatabaseServer, Family, Settings, ask, engine, wait_until};

const PASSWORD: &str = "s3cret";

fn login(database: &DatabaseServer) -> String {
    let port = database.port();
    format!("app:{PASSWORD}@tcp(127.0.0.1:{port})/hakaru")
}

/// Runs `hakaru check`. Returns its exit code, and the level and the line of the connection.
fn connection(dsn: &str) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let asked = ask(directory.path(), dsn, &["check", "--json"]);
    assert!(!asked.err.contains("panicked"), "{asked:?}");
    let lines = asked.out.lines();
    let line = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let line = line.into_iter().find(|line| line["thing"] == "connection");
    let line = line.unwrap();
    let level = line["level"].as_str().unwrap().to_owned();
    (asked.code, level, line.to_string())
}

/// An authentication plugin of the engine under test.
struct Plugin {
    /// The statement that loads it. Empty: it is built in.
    load: &'static str,
    /// How an account uses it, after `IDENTIFIED`.
    account: String,
    /// What the server calls it on the wire.
    name: &'static str,
}

impl Plugin {
    fn create_account(&self, database: &DatabaseServer) {
        if !self.load.is_empty() {
            database.run(self.load);
        }
        let account = &self.account;
        database.run(&format!("CREATE USER app@'%' IDENTIFIED {account}"));
        database.run("GRANT ALL ON hakaru.* TO app@'%'");
    }
}

/// Those that work.
fn supported() -> Vec<Plugin> {
    match engine().family {
        Family::MariaDb => vec![
            Plugin {
                load: "INSTALL SONAME 'auth_ed25519'",
                account: format!("VIA ed25519 USING PASSWORD('{PASSWORD}')"),
                name: "client_ed25519",
            },
            Plugin {
                load: "",
                account: format!("VIA mysql_native_password USING PASSWORD('{PASSWORD}')"),
                name: "mysql_native_password",
            },
        ],
        Family::MySql => vec![Plugin {
            load: "",
            account: format!("WITH caching_sha2_password BY '{PASSWORD}'"),
            name: "caching_sha2_password",
        }],
    }
}

/// Those that do not.
fn unsupported() -> Vec<Plugin> {
    let sha256 = || Plugin {
        load: "",
        account: format!("WITH sha256_password BY '{PASSWORD}'"),
        name: "sha256_password",
    };
    let pam = || Plugin {
        load: "INSTALL SONAME 'auth_pam'",
        account: "VIA pam".to_owned(),
        name: "dialog",
    };
    let parsec = || Plugin {
        load: "INSTALL SONAME 'auth_parsec'",
        account: format!("VIA parsec USING PASSWORD('{PASSWORD}')"),
        name: "parsec",
    };
    match engine().family {
        Family::MySql => vec![sha256()],
        Family::MariaDb if engine().version().starts_with("10.") => vec![pam()],
        Family::MariaDb => vec![pam(), parsec()],
    }
}

#[test]
fn an_account_with_a_supported_plugin_stores() {
    for plugin in supported() {
        let database = DatabaseServer::start_without_tls();
        plugin.create_account(&database);
        let (_, level, line) = connection(&login(&database));
        assert_eq!(level, "ok", "{}: {line}", plugin.name);
        let hakaru = Settings::datasource(&login(&database)).start();
        let mut client = Client::connect(hakaru.address);
        assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
        wait_until("it is stored", || database.count() == 1);
        assert_eq!(hakaru.stop().stored, 1);
    }
}

#[test]
fn an_account_with_an_unsupported_plugin_is_an_error_with_advice() {
    for plugin in unsupported() {
        let database = DatabaseServer::start_without_tls();
        plugin.create_account(&database);
        let (code, level, line) = connection(&login(&database));
        assert_eq!((code, &level[..]), (Some(1), "error"), "{line}");
        let is_told = |line: &str| line.contains(plugin.name) && line.contains("ALTER USER");
        assert!(is_told(&line), "{line}");
        let hakaru = Settings::datasource(&login(&database)).start();
        let line = hakaru.wait_for_event("storing_stopped").to_string();
        assert!(is_told(&line), "{line}");
        let mut client = Client::connect(hakaru.address);
        assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
        // Follows the advice.
        let other = &supported()[0];
        if !other.load.is_empty() {
            database.run(other.load);
        }
        database.run(&format!("ALTER USER app@'%' IDENTIFIED {}", other.account));
        wait_until("it is stored", || database.count() == 1);
        assert_eq!(hakaru.stop().stored, 1);
    }
}

/// The password of the account is another one from now on, while events arrive. Nobody starts hakaru again.
#[test]
fn a_password_in_a_file_may_change_while_events_arrive() {
    let database = DatabaseServer::start();
    database.run("CREATE USER app@'%' IDENTIFIED BY 'first'");
    database.run("GRANT ALL ON hakaru.* TO app@'%'");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let dsn = format!("app@tcp(127.0.0.1:{})/hakaru", database.port());
    let settings = Settings::datasource(&dsn).flag("--linger=20ms");
    let hakaru = settings
        .variable("HAKARU_DB_PASSWORD_FILE", file.to_str().unwrap())
        .start();
    hakaru.send(0..100);
    wait_until("they are stored", || database.count() == 100);
    database.run("ALTER USER app@'%' IDENTIFIED BY 'second'");
    // All sessions end, as those of a server that is replaced do.
    let sessions: Vec<u64> =
        database.query("SELECT id FROM information_schema.processlist WHERE user = 'app'");
    for session in sessions {
        database.run(&format!("KILL {session}"));
    }
    hakaru.send(100..200);
    let line = hakaru.wait_for_event("storing_stopped").to_string();
    assert!(line.contains("1045") && !line.contains("first"), "{line}");
    std::fs::write(&file, "second\n").unwrap();
    hakaru.send(200..300);
    wait_until("all is stored", || database.count() == 300);
    assert!(database.values().into_iter().eq(0..300));
    assert_eq!(hakaru.stop().stored, 300);
}

/// A server that sends the greeting of MariaDB, and then one of `replies` for each packet.
fn server_that_replies(replies: &'static [&[u8]]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut greeting = b"\x0a5.5.5-10.11.0-MariaDB\0\x01\0\0\0abcdefgh\0".to_vec();
            // CLIENT_PROTOCOL_41, _SECURE_CONNECTION, _CONNECT_WITH_DB and _PLUGIN_AUTH.
            greeting.extend(b"\x08\x82\x2d\x02\0\x08\0\x15");
            greeting.extend([0; 10]);
            greeting.extend(b"ijklmnopqrst\0mysql_native_password\0");
            let packet = |number: u8, body: &[u8]| {
                let length = u32::try_from(body.len()).unwrap().to_le_bytes();
                [&length[..3], &[number], body].concat()
            };
            // The client may close the connection at any time.
            drop(stream.write_all(&packet(0, &greeting)));
            for (number, reply) in (2..).step_by(2).zip(replies) {
                drop(stream.read(&mut [0; 4096]));
                drop(stream.write_all(&packet(number, reply)));
            }
            drop(stream.read(&mut [0; 4096]));
        }
    });
    format!("app:{PASSWORD}@tcp(127.0.0.1:{port})/hakaru")
}

#[test]
fn a_panic_of_the_driver_is_an_error_and_ends_no_process() {
    // An empty packet, and a plugin that this build of the driver does not have.
    const EMPTY: &[&[u8]] = &[b"".as_slice()];
    const PARSEC: &[&[u8]] = &[
        b"\xfeparsec\0abcdefghijklmnopqrstuvwxyzabcdef".as_slice(),
        b"P\0abcdefghijklmnopqr".as_slice(),
    ];
    for (replies, words) in [(EMPTY, "driver"), (PARSEC, "parsec")] {
        let dsn = server_that_replies(replies);
        let (code, level, line) = connection(&dsn);
        assert_eq!((code, &level[..]), (Some(1), "error"), "{line}");
        assert!(line.contains(words), "{line}");
        let hakaru = Settings::datasource(&dsn).start();
        let line = hakaru.wait_for_event("storing_stopped").to_string();
        assert!(line.contains(words), "{line}");
        let mut client = Client::connect(hakaru.address);
        assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
        assert_eq!(hakaru.events("panic").len(), 0, "{}", hakaru.log());
        hakaru.crash();
    }
}
