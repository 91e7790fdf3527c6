//! Pages of another origin send events in a browser.

use crate::support::browser::{self, Seen};
use crate::support::{Settings, exchange};

/// Opens a page with this script, in which `hakaru` is the server's address.
fn run(script: &str, address: std::net::SocketAddr) -> Seen {
    let page = format!(
        "<link rel=icon href=data:,><p id=seen>nothing</p><script>const hakaru = 'http://{address}';\n\
         const seen = text => document.getElementById('seen').textContent = text;\n{script}</script>"
    );
    browser::open(&browser::serve(move |_| Some(page.clone())))
}

#[test]
fn images_and_cached_requests_are_as_many_events() {
    let hakaru = Settings::sqlite().start();
    let script = "
        let loaded = 0;
        for (let i = 0; i < 5; i++) {
            const image = new Image();
            image.onload = () => { if (++loaded == 5) again(); };
            image.onerror = () => seen('an image failed');
            // A browser asks only once for equal images that it loads at the same time.
            image.src = hakaru + '/hakaru.gif?name=image&value=1&n=' + i;
        }
        async function again() {
            for (let i = 0; i < 5; i++)
                await fetch(hakaru + '/hakaru?name=cached&value=1', {cache: 'force-cache'});
            seen('done');
        }";
    let Seen { dom, console } = run(script, hakaru.address);
    assert!(dom.contains(">done</p>"), "{dom}");
    assert_eq!(console, [""; 0]);
    assert_eq!(hakaru.stop().received, 10);
}

#[test]
fn a_page_may_add_fields_and_read_why_an_event_was_refused() {
    let hakaru = Settings::sqlite().flag("--event-path=/track").start();
    let script = "
        const headers = {traceparent: '00-1-2-01', baggage: 'a=b', 'sentry-trace': '1'};
        fetch(hakaru + '/track?name=traced&value=1', {headers, credentials: 'include'})
            .then(() => fetch(hakaru + '/hakaru?name=a&value=x'))
            .then(answer => seen(answer.status + ' ' + answer.headers.get('X-Hakaru-Reason')));";
    let Seen { dom, console } = run(script, hakaru.address);
    assert!(dom.contains(">400 value: not a decimal number"), "{dom}");
    let others = console
        .iter()
        .filter(|line| !line.contains("400 (Bad Request)"));
    assert_eq!(others.count(), 0, "{console:?}");
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.rejected), (1, 1));
}

#[test]
fn a_preflight_of_a_less_private_network_is_granted() {
    let hakaru = Settings::sqlite().start();
    let asked = "OPTIONS /hakaru HTTP/1.1\r\nHost: h\r\nOrigin: https://shop.example\r\nConnection: close\r\n\
                 Access-Control-Request-Method: GET\r\nAccess-Control-Request-Private-Network: true\r\n\r\n";
    let answer = exchange(hakaru.address, asked.as_bytes());
    assert!(answer.contains("\r\nAccess-Control-Allow-Private-Network: true\r\n"));
}

#[test]
fn each_way_to_post_is_a_row() {
    let hakaru = Settings::sqlite().start();
    let script = "
        const headers = {traceparent: '00-1-2-01', 'Content-Type': 'application/json'};
        const event = value => JSON.stringify({name: 'posted', value});
        const form = new URLSearchParams({name: 'form', value: 3});
        const sent = [
            navigator.sendBeacon(hakaru + '/hakaru', event(1)),
            navigator.sendBeacon(hakaru + '/hakaru', '[' + event(2) + ',' + event(2) + ']'),
            navigator.sendBeacon(hakaru + '/hakaru', form),
            navigator.sendBeacon(hakaru + '/hakaru', new Blob([event(4)], {type: 'application/json'})),
        ];
        const post = {method: 'POST', keepalive: true};
        Promise.all([
            fetch(hakaru + '/hakaru', {...post, body: event(5)}),
            fetch(hakaru + '/hakaru', {...post, body: event(6), headers, credentials: 'include'}),
            fetch(hakaru + '/hakaru', {...post, body: form}),
        ]).then(answers => seen([...sent, ...answers.map(answer => answer.status)].join()));";
    let Seen { dom, console } = run(script, hakaru.address);
    assert!(
        dom.contains(">true,true,true,true,200,200,200</p>"),
        "{dom}"
    );
    assert_eq!(console, [""; 0]);
    let identity = hakaru.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.rejected),
        (8, 8, 0)
    );
}
