//! Busy connections are spread evenly over the shards, wherever the kernel has put them.

use std::time::{Duration, Instant};

use crate::support::{Client, Hakaru, Settings, wait_until};

/// Requests that make a connection busy, if it sends them within a second.
const BUSY: usize = 16;

const EVENT: &str = "/hakaru?name=a&value=1";

/// Events that each of two shards has taken.
fn received(hakaru: &Hakaru) -> [u64; 2] {
    let metrics = Client::connect(hakaru.admin()).get("/metrics").body;
    [0, 1].map(|shard| {
        let series = format!("hakaru_events_received_total{{shard=\"{shard}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse().unwrap()
    })
}

/// Sends an event on each connection. Returns how many events each shard has taken.
fn round(hakaru: &Hakaru, clients: &mut [Client]) -> [u64; 2] {
    let before = received(hakaru);
    for client in clients {
        assert_eq!(client.get(EVENT).status, 200);
    }
    let after = received(hakaru);
    [after[0] - before[0], after[1] - before[1]]
}

/// Connections that are all served by one shard.
fn on_one_shard(hakaru: &Hakaru, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    while clients.len() < count {
        let mut client = Client::connect(hakaru.address);
        if round(hakaru, std::slice::from_mut(&mut client)) == [1, 0] {
            clients.push(client);
        }
    }
    clients
}

/// Makes all connections busy.
fn burst(clients: &mut [Client]) {
    for _ in 0..2 * BUSY {
        for client in &mut *clients {
            client.send(format!("GET {EVENT} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        }
        let mut answers = clients.iter_mut().map(Client::answer);
        assert!(answers.all(|answer| answer.status == 200));
    }
}

#[test]
fn half_of_the_busy_connections_of_a_shard_move_to_an_idle_one() {
    for (io, ack) in [("io_uring", "journaled"), ("epoll", "received")] {
        let hakaru = Settings::sqlite()
            .flag("--cores=2")
            .flag(&format!("--io={io}"))
            .flag(&format!("--ack={ack}"))
            .start();
        let mut clients = on_one_shard(&hakaru, 6);
        wait_until("the shards are even", || {
            burst(&mut clients);
            round(&hakaru, &mut clients) == [3, 3]
        });
        for _ in 0..4 {
            burst(&mut clients);
            assert_eq!(round(&hakaru, &mut clients), [3, 3], "{io}");
        }
        // Those of the other shard end. They are told apart by who takes an event of each.
        clients.retain_mut(|client| round(&hakaru, std::slice::from_mut(client)) == [1, 0]);
        assert_eq!(clients.len(), 3);
        wait_until("the shards are even again", || {
            burst(&mut clients);
            let taken = round(&hakaru, &mut clients);
            taken == [2, 1] || taken == [1, 2]
        });
        let identity = hakaru.stop();
        assert_eq!(identity.stored, identity.received);
    }
}

/// Many such connections are evenly spread by chance.
#[test]
fn a_connection_with_few_requests_a_second_stays() {
    let hakaru = Settings::sqlite().flag("--cores=2").start();
    let mut clients = on_one_shard(&hakaru, 4);
    for _ in 0..5 {
        let start = Instant::now();
        wait_until("another second", || {
            start.elapsed() > Duration::from_secs(1)
        });
        for _ in 0..BUSY / 4 {
            assert_eq!(round(&hakaru, &mut clients), [4, 0]);
        }
    }
    hakaru.stop();
}
