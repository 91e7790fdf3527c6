//! The number of instructions of each step on the way of an event, counted by callgrind. perf/instructions runs
//! this and compares the numbers with perf/instructions.json.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a bench that cannot go on fails; the cases are shared"
)]

mod cases;

use cases::Shard;
use gungraun::prelude::*;
use hakaru::event::ack::Ack;
use hakaru::event::batch::Batch;
use hakaru::http::content::Media;

#[library_benchmark]
#[bench::short(cases::SHORT_HEAD)]
#[bench::browser(cases::BROWSER_HEAD)]
fn request_head(head: &[u8]) {
    cases::read_heads(head);
}

#[library_benchmark]
#[bench::plain(cases::PLAIN_QUERY)]
#[bench::escaped(cases::ESCAPED_QUERY)]
fn query(query: &[u8]) {
    cases::decode_queries(query);
}

#[library_benchmark]
#[bench::array(Media::Json)]
#[bench::lines(Media::JsonLines)]
fn body(media: Media) -> usize {
    cases::read_body(media)
}

// A case returns its input, so that dropping it is not counted.
#[library_benchmark]
#[bench::received(Shard::new(Ack::Received))]
#[bench::journaled(Shard::new(Ack::Journaled))]
fn append(mut shard: Shard) -> Shard {
    shard.fill_a_batch();
    shard
}

#[library_benchmark]
#[bench::encode(cases::record(), cases::encode_record)]
#[bench::read(cases::record(), |record: &mut Vec<u8>| cases::read_record(record))]
fn record(mut record: Vec<u8>, part: fn(&mut Vec<u8>)) -> Vec<u8> {
    part(&mut record);
    record
}

#[library_benchmark]
#[bench::bind(cases::batch())]
fn insert(batch: Batch) -> Batch {
    cases::bind_rows(&batch);
    batch
}

library_benchmark_group!(
    name = parts,
    benchmarks = [request_head, query, body, append, record, insert]
);

main!(library_benchmark_groups = parts);
