//! The time of each step on the way of an event: `cargo bench --bench timings`. Compare two states of the code
//! on one idle machine, one directly after the other.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a bench that cannot go on fails; the cases are shared"
)]

mod cases;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hakaru::event::ack::Ack;
use hakaru::http::content::Media;

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    group.throughput(Throughput::Elements(cases::EVENTS.into()));
    for (name, head) in [
        ("request_head/short", cases::SHORT_HEAD),
        ("request_head/browser", cases::BROWSER_HEAD),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| cases::read_heads(head)));
    }
    for (name, query) in [
        ("query/plain", cases::PLAIN_QUERY),
        ("query/escaped", cases::ESCAPED_QUERY),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| cases::decode_queries(query));
        });
    }
    for (name, media) in [
        ("body/array", Media::Json),
        ("body/lines", Media::JsonLines),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| cases::read_body(media)));
    }
    for (name, ack) in [
        ("append/received", Ack::Received),
        ("append/journaled", Ack::Journaled),
    ] {
        // A new journal each time: a single one would fill the disk.
        let new = || cases::Shard::new(ack);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(new, cases::Shard::fill_a_batch, BatchSize::PerIteration);
        });
    }
    let mut record = cases::record();
    group.bench_function("record/encode", |bencher| {
        bencher.iter(|| cases::encode_record(&mut record));
    });
    group.bench_function("record/read", |bencher| {
        bencher.iter(|| cases::read_record(&record));
    });
    let batch = cases::batch();
    group.bench_function("insert/bind", |bencher| {
        bencher.iter(|| cases::bind_rows(&batch));
    });
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
