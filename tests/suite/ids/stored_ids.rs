//! What a table does to ids.

use super::constraints::start;
use super::server_with;
use crate::support::{Client, wait_until};

/// What a `binary` column adds to the ids is in the packets.
#[test]
fn padded_ids_fit_into_small_packets() {
    let database = server_with(
        "ALTER TABLE eventlog ADD COLUMN event_id binary(255) DEFAULT NULL, ADD UNIQUE KEY event_id (event_id)",
    );
    database.run("SET GLOBAL max_allowed_packet = 16384");
    let hakaru = start(&database);
    let mut client = Client::connect(hakaru.address);
    for value in 0..300 {
        let path = format!("/hakaru?name=a&value={value}&id=id{value}");
        assert_eq!(client.get(&path).status, 200);
    }
    wait_until("all are stored", || database.count() == 300);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (300, 0));
}
