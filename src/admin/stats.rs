//! The document `/stats.json`, from which the status page is made.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::history::{History, Point, STEP, micros, millis};
use super::overview::{Overview, Readiness};
use super::process::{Process, node};
use crate::event::UnixMillis;
use crate::http::response::Status;
use crate::metrics::{RecentError, SAMPLED_ONE_IN, Snapshot};

/// Most names in the document.
const NAMES_SHOWN: usize = 12;

/// Most errors in the document, of all writers together.
const ERRORS_SHOWN: usize = 10;

/// The document at this moment.
pub(super) fn document(overview: &Overview, readiness: Readiness, history: &History) -> Value {
    let (metrics, facts) = (&overview.metrics, &overview.facts);
    let totals = metrics.totals();
    let rejected: Map<String, Value> = crate::http::query::Rejection::ALL
        .iter()
        .zip(totals.rejected)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.label().to_owned(), count.into()))
        .collect();
    let now = UnixMillis::now();
    let process = Process::measure();
    let shards = metrics.shards();
    json!({
        "version": crate::VERSION,
        "revision": crate::REVISION,
        "now": seconds(now),
        "uptime_seconds": seconds(now) - seconds(facts.started_at),
        "node": node(),
        "pid": std::process::id(),
        "state": readiness.label(),
        "reason": readiness.reason(),
        "ack": facts.ack.to_string(),
        "promise": facts.promise,
        "io": facts.io,
        "shards": shards.len(),
        "listen": facts.listen,
        "data_dir_warning": facts.data_dir_warning,
        "events": {
            "received": totals.received,
            "recovered": totals.recovered,
            "stored": totals.stored,
            "duplicate": totals.duplicates,
            "dead_lettered": totals.dead_lettered,
            "lost": totals.lost,
            "pending": totals.pending(),
            "shed": totals.shed,
            "rejected": rejected,
        },
        "http": {
            "connections": overview.slots.open(),
            "connections_max": overview.slots.max(),
            "requests": requests(overview),
        },
        "journal": overview.journal.as_ref().map(|bound| json!({
            "bytes": bound.bytes(),
            "limit_bytes": bound.bytes_max(),
            "oldest_age_seconds": overview.oldest_age_seconds(),
        })),
        "queue": {
            "batches": shards.iter().map(|shard| shard.batches_under_way.get()).sum::<u64>(),
            "batches_max": facts.batches_max,
            "events_open": shards.iter().map(|shard| shard.events_open.get()).sum::<u64>(),
        },
        "database": database(overview, now),
        "latency_seconds": latency(overview, history),
        "top_names": top_names(overview),
        "process": {
            "cpu_seconds": process.cpu.as_secs_f64(),
            "memory_bytes": process.memory_bytes,
            "open_fds": process.open_fds,
            "max_fds": process.max_fds,
        },
        "history": plots(history),
    })
}

fn seconds(at: UnixMillis) -> f64 {
    at.0 as f64 / 1000.0
}

fn requests(overview: &Overview) -> Map<String, Value> {
    let count = |status: Status| -> u64 {
        let shards = overview.metrics.shards().iter();
        shards.map(|shard| shard.answered(status).get()).sum()
    };
    Status::ALL
        .into_iter()
        .map(|status| (status, count(status)))
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| (status.code().to_owned(), count.into()))
        .collect()
}

fn database(overview: &Overview, now: UnixMillis) -> Value {
    let writers = overview.metrics.writers();
    let mut errors: Vec<RecentError> = writers
        .iter()
        .flat_map(|writer| writer.recent_errors())
        .collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.at.0));
    errors.truncate(ERRORS_SHOWN);
    let last_write = writers
        .iter()
        .map(|writer| writer.last_write_at.get())
        .max();
    let last_write = last_write.filter(|&at| at > 0);
    let unhealthy_reason = overview.sink_unhealthy_reason();
    let (foreign_lanes, foreign_events) = overview.served.foreign();
    let (held_lanes, held_events) = overview.served.held();
    json!({
        "kind": overview.facts.database_kind,
        "address": overview.facts.database,
        "id": overview.served.id().map(|id| id.to_string()),
        "foreign_lanes": foreign_lanes,
        "foreign_events": foreign_events,
        "held_lanes": held_lanes,
        "held_events": held_events,
        "waiting_lanes": overview.served.waiting(),
        "ids_stored": overview.are_ids_stored(),
        "healthy": unhealthy_reason.is_none(),
        "reason": unhealthy_reason,
        "writers": writers.iter().map(|writer| json!({
            "connected": writer.connected.get() == 1,
        })).collect::<Vec<_>>(),
        "last_write_age_seconds": last_write.map(|at| now.0.saturating_sub(at) as f64 / 1000.0),
        "errors": errors.iter().map(|error| json!({
            "at": seconds(error.at),
            "class": error.class.label(),
            "code": error.fault.code,
            "text": error.fault.text,
        })).collect::<Vec<_>>(),
    })
}

fn latency(overview: &Overview, history: &History) -> Value {
    let percentiles = |times: &Snapshot, unit: fn(f64) -> f64| {
        let of = |quantile| times.quantile(quantile).map(unit);
        of(0.5).map(|p50| {
            json!({
                "p50": p50, "p99": of(0.99), "p999": of(0.999), "count": times.count(),
            })
        })
    };
    let times = history.last_minute(&overview.metrics);
    json!({
        "journal_sync": percentiles(&times.journal_sync, micros),
        "store": percentiles(&times.store, micros),
        "event_age_at_store": percentiles(&times.event_age, millis),
    })
}

fn top_names(overview: &Overview) -> Value {
    let mut counts: HashMap<Box<str>, u64> = HashMap::new();
    for writer in overview.metrics.writers() {
        writer.with_names(|names| names.add_to(&mut counts));
    }
    let all = counts.values().sum::<u64>().max(1) as f64;
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    counts.truncate(NAMES_SHOWN);
    json!({
        "sampled_one_in": SAMPLED_ONE_IN,
        "names": counts.iter().map(|(name, count)| json!({
            "name": name, "share": *count as f64 / all,
        })).collect::<Vec<_>>(),
    })
}

fn plots(history: &History) -> Value {
    let rate = |of: fn(&Point) -> f64| history.plot(|point| rounded(of(point)));
    let time = |of: fn(&Point) -> Option<f64>| -> Vec<Option<f64>> {
        history.plot(of).into_iter().map(Option::flatten).collect()
    };
    json!({
        "step_seconds": STEP.as_secs(),
        "end": history.end(),
        "received_per_second": rate(|point| point.received),
        "stored_per_second": rate(|point| point.stored),
        "rejected_per_second": rate(|point| point.rejected),
        "shed_per_second": rate(|point| point.shed),
        "pending": history.plot(|point| point.pending),
        "connections": history.plot(|point| point.connections),
        "journal_bytes": history.plot(|point| point.journal_bytes),
        "journal_sync_p99_seconds": time(|point| point.journal_sync),
        "store_p99_seconds": time(|point| point.store),
        "event_age_p99_seconds": time(|point| point.event_age),
        "cpu_cores": rate(|point| point.cpu_cores),
    })
}

/// Rounds to three decimals, which keeps the document small. A page fetches it once a second.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
