//! The script for pages, in a browser: pages of another origin that stay, that are left, and whose server is gone.

use std::net::SocketAddr;

use crate::support::browser::{self, Browser};
use crate::support::{DatabaseServer, Settings, exchange, free_port, wait_until};

/// Serves a page with this script, and an empty one.
fn page(address: SocketAddr, script: &str) -> String {
    let page = format!(
        "<link rel=icon href=data:,><script src='http://{address}/hakaru.js'></script>\n\
         <script>{script}; document.title = 'ready'</script>"
    );
    browser::serve(move |path| match path {
        "/" => Some(page.clone()),
        "/other" => Some("<link rel=icon href=data:,><title>other</title>".to_owned()),
        _ => None,
    })
}

fn ids_are_stored(database: &DatabaseServer) {
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, at datetime DEFAULT NULL, \
         name varchar(255) NOT NULL, value int unsigned, event_id varbinary(64) DEFAULT NULL, UNIQUE KEY event_id (event_id)) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci",
    );
}

#[test]
fn calls_of_one_turn_are_one_request_and_a_wrong_one_costs_no_other() {
    let hakaru = Settings::sqlite().start();
    let script = "
        for (const value of [1, 2, 'x', 4, 5]) hakaru('a', value);
        setTimeout(() => hakaru('b', 6), 100);";
    let browser = Browser::start();
    browser.open(&page(hakaru.address, script));
    wait_until("the others are taken", || {
        hakaru.stats()["events"]["received"] == 5
    });
    let console = browser.stop();
    let others = console
        .iter()
        .filter(|line| !line.contains("400 (Bad Request)"));
    assert_eq!(others.count(), 0, "{console:?}");
    // Five events, then two and three, then of the three one and two; and the last event.
    wait_until("one is refused alone", || {
        hakaru.stats()["events"]["rejected"]["value_not_decimal"] == 3
    });
    let metrics = exchange(hakaru.admin(), b"GET /metrics HTTP/1.0\r\n\r\n");
    let answers = |code: u32| {
        let with = format!(",code=\"{code}\"}} ");
        let counts = metrics.lines().filter_map(|line| line.split_once(&with));
        counts
            .map(|(_, count)| count.parse::<u32>().unwrap())
            .sum::<u32>()
    };
    // The script itself is one of them.
    assert_eq!((answers(200), answers(400)), (4, 3), "{metrics}");
    assert_eq!(hakaru.stop().stored, 5);
}

#[test]
fn what_comes_while_a_page_is_left_is_sent() {
    let database = DatabaseServer::start();
    ids_are_stored(&database);
    let hakaru = Settings::mysql(&database).start();
    let leaving = "addEventListener('pagehide', () => { hakaru('left', 1); hakaru('left', 2); });";
    let browser = Browser::start();
    let navigates = format!("{leaving} setTimeout(() => location = '/other', 100)");
    let tab = browser.open(&page(hakaru.address, &navigates));
    browser.wait_for_title(&tab, "other");
    wait_until("both are taken", || database.count() == 2);
    let tab = browser.open(&page(hakaru.address, leaving));
    browser.wait_for_title(&tab, "ready");
    browser.close(&tab);
    wait_until("all four are taken", || database.count() == 4);
    // Several requests, together about as much as a browser sends of a page that is left. Those that are under way then are
    // sent once more.
    let many = "setTimeout(() => {
        for (let i = 0; i < 300; i++) hakaru('n'.repeat(99), i);
        location = '/other';
    }, 100)";
    let tab = browser.open(&page(hakaru.address, many));
    browser.wait_for_title(&tab, "other");
    wait_until("all of them are taken", || database.count() == 304);
    assert_eq!(browser.stop(), [""; 0]);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, database.count()), (304, 304));
}

#[test]
fn events_outlive_a_server_that_is_gone_for_a_while_and_are_no_second_row() {
    let database = DatabaseServer::start();
    ids_are_stored(&database);
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let listen = format!("--listen=127.0.0.1:{port}");
        let settings = Settings::mysql(&database).directory(directory.path());
        settings.flag(&listen).start()
    };
    let hakaru = start();
    let script = "
        let sent = 0;
        const timer = setInterval(() => {
            hakaru('n', sent);
            if (++sent == 100) { clearInterval(timer); document.title = 'all'; }
        }, 40);";
    let browser = Browser::start();
    let tab = browser.open(&page(hakaru.address, script));
    wait_until("some are taken", || {
        hakaru.stats()["events"]["received"].as_u64() > Some(20)
    });
    hakaru.crash();
    let downtime = std::time::Instant::now();
    wait_until("two seconds are over", || downtime.elapsed().as_secs() >= 2);
    let hakaru = start();
    browser.wait_for_title(&tab, "all");
    // What has not been answered when the page is left is sent once more.
    wait_until("each is a row", || database.count() == 100);
    browser.close(&tab);
    let console = browser.stop();
    let others = console.iter().filter(|line| !line.contains("net::ERR_"));
    assert_eq!(others.count(), 0, "{console:?}");
    hakaru.stop();
    let distinct = database.query_one::<u64>("SELECT COUNT(DISTINCT value) FROM eventlog");
    assert_eq!((database.count(), distinct), (100, 100));
}
