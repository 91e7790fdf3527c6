//! The metrics in the text format of Prometheus.

use std::fmt::{Display, Write};
use std::sync::Arc;

use super::overview::Overview;
use super::process::Process;
use crate::event::ack::Ack;
use crate::http::query::Rejection;
use crate::http::response::Status;
use crate::metrics::{Histogram, SealCause, Snapshot, WriterCounters};

/// The document so far.
struct Exposition(String);

/// Labels of a sample: names and values.
type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

impl Exposition {
    /// Begins a metric.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let written = self.0.write_fmt(line);
        debug_assert!(written.is_ok(), "a string takes every write");
        self.0.push('\n');
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        let labels = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(&value.to_string())))
            .collect::<Vec<_>>()
            .join(",");
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    /// A metric with one sample.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A metric with one sample for each of the `owners`; the label `owner` has its index.
    fn each<O, V: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        (owner, owners): (&str, &[O]),
        value: impl Fn(&O) -> V,
    ) {
        self.begin(name, kind, help);
        for (index, one) in owners.iter().enumerate() {
            self.sample(name, &[(owner, &index)], value(one));
        }
    }

    /// A histogram for each of the `owners`. Observed values are multiplied by `unit`, so that they are in the unit of
    /// the metric's name. The bounds are the powers of two from 2^`powers.0` to 2^`powers.1`.
    fn histograms<O>(
        &mut self,
        (name, help): (&str, &str),
        (owner, owners): (&str, &[O]),
        (unit, powers): (f64, (u32, u32)),
        histogram: impl Fn(&O) -> &Histogram,
    ) {
        self.begin(name, "histogram", help);
        for (index, one) in owners.iter().enumerate() {
            let mut snapshot = Snapshot::default();
            histogram(one).add_to(&mut snapshot);
            let bucket = format!("{name}_bucket");
            for (bound, count) in snapshot.cumulative(powers.0, powers.1) {
                let bound = bound as f64 * unit;
                self.sample(&bucket, &[(owner, &index), ("le", &bound)], count);
            }
            let count = snapshot.count();
            self.sample(&bucket, &[(owner, &index), ("le", &"+Inf")], count);
            let sum = snapshot.sum() as f64 * unit;
            self.sample(&format!("{name}_sum"), &[(owner, &index)], sum);
            self.sample(&format!("{name}_count"), &[(owner, &index)], count);
        }
    }
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics.
pub(super) fn text(overview: &Overview) -> String {
    let mut out = Exposition(String::with_capacity(16 * 1024));
    events(&mut out, overview);
    http(&mut out, overview);
    journal(&mut out, overview);
    batches(&mut out, overview);
    database(&mut out, overview);
    process(&mut out, overview);
    out.0
}

/// What became of events.
fn ends(out: &mut Exposition, writers: (&'static str, &[Arc<WriterCounters>])) {
    out.each(
        (
            "hakaru_events_recovered_total",
            "counter",
            "Events of an earlier process, read from its journal.",
        ),
        writers,
        |writer| writer.recovered.get(),
    );
    out.each(
        (
            "hakaru_events_stored_total",
            "counter",
            "Events committed in the database.",
        ),
        writers,
        |writer| writer.stored.get(),
    );
    out.each(
        (
            "hakaru_events_duplicate_total",
            "counter",
            "Events whose id the database has already: they made no row.",
        ),
        writers,
        |writer| writer.duplicates.get(),
    );
    out.each(
        (
            "hakaru_events_dead_lettered_total",
            "counter",
            "Events that the database refused, kept in the dead-letter file.",
        ),
        writers,
        |writer| writer.dead_lettered.get(),
    );
    out.each(
        (
            "hakaru_events_lost_total",
            "counter",
            "Events that were promised and that the disk has lost.",
        ),
        writers,
        |writer| writer.lost.get(),
    );
}

fn events(out: &mut Exposition, overview: &Overview) {
    let metrics = &overview.metrics;
    let totals = metrics.totals();
    let shards = ("shard", metrics.shards());
    let writers = ("writer", metrics.writers());
    let received = "hakaru_events_received_total";
    out.each(
        (received, "counter", "Events taken by this process."),
        shards,
        |shard| shard.received.get(),
    );
    ends(out, writers);
    out.each(
        (
            "hakaru_events_shed_total",
            "counter",
            "Events answered 503.",
        ),
        shards,
        |shard| shard.shed.get(),
    );
    let rejected = "hakaru_events_rejected_total";
    out.begin(rejected, "counter", "Events answered 400, by reason.");
    for (reason, count) in Rejection::ALL.iter().zip(totals.rejected) {
        out.sample(rejected, &[("reason", &reason.label())], count);
    }
    let help =
        "Events taken, here or by an earlier process, and neither stored nor dead-lettered yet.";
    out.single("hakaru_events_pending", "gauge", help, totals.pending());
}

fn http(out: &mut Exposition, overview: &Overview) {
    let requests = "hakaru_http_requests_total";
    out.begin(requests, "counter", "Requests answered, by status code.");
    for (index, shard) in overview.metrics.shards().iter().enumerate() {
        for status in Status::ALL {
            let labels: Labels<'_> = &[("shard", &index), ("code", &status.code())];
            out.sample(requests, labels, shard.answered(status).get());
        }
    }
    let slots = &overview.slots;
    let help = "Open HTTP connections.";
    out.single("hakaru_http_connections", "gauge", help, slots.open());
    let help = "HTTP connections that may be open at once.";
    out.single("hakaru_http_connections_limit", "gauge", help, slots.max());
}

fn journal(out: &mut Exposition, overview: &Overview) {
    let (bytes, limit) = match &overview.journal {
        Some(bound) => (bound.bytes(), bound.bytes_max()),
        None => (0, 0),
    };
    let help = "Disk space of unstored events in the journal.";
    out.single("hakaru_journal_bytes", "gauge", help, bytes);
    let help = "Disk space that unstored events may take before events are answered 503; 0 without a journal.";
    out.single("hakaru_journal_limit_bytes", "gauge", help, limit);
    let help = "Time since the oldest unstored event was received; 0 if all events are stored.";
    let age = overview.oldest_age_seconds();
    out.single("hakaru_journal_oldest_age_seconds", "gauge", help, age);
    out.histograms(
        (
            "hakaru_journal_sync_duration_seconds",
            "Time of one synced journal write.",
        ),
        ("shard", overview.metrics.shards()),
        (1e-6, (5, 24)),
        |shard| &shard.sync_time,
    );
}

fn batches(out: &mut Exposition, overview: &Overview) {
    let shards = overview.metrics.shards();
    out.histograms(
        ("hakaru_batch_events", "Events of a sealed batch."),
        ("shard", shards),
        (1.0, (0, 17)),
        |shard| &shard.batch_events,
    );
    let seals = "hakaru_batch_seal_total";
    out.begin(seals, "counter", "Batches sealed, by cause.");
    for (index, shard) in shards.iter().enumerate() {
        for cause in SealCause::ALL {
            let labels: Labels<'_> = &[("shard", &index), ("cause", &cause.label())];
            out.sample(seals, labels, shard.seals(cause).get());
        }
    }
    let queued = "hakaru_batches_queued";
    let help = "Batches that wait for the writer or are being stored, updated every second.";
    out.each((queued, "gauge", help), ("shard", shards), |shard| {
        shard.batches_under_way.get()
    });
}

fn database(out: &mut Exposition, overview: &Overview) {
    let writers = ("writer", overview.metrics.writers());
    out.histograms(
        (
            "hakaru_store_duration_seconds",
            "Time to store a batch in the database, with its COMMIT.",
        ),
        writers,
        (1e-6, (8, 26)),
        |writer| &writer.store_time,
    );
    out.histograms(
        (
            "hakaru_event_age_at_store_seconds",
            "Time from receiving an event to the COMMIT of its batch.",
        ),
        writers,
        (1e-3, (2, 26)),
        |writer| &writer.age_at_store,
    );
    let errors = "hakaru_database_errors_total";
    out.begin(
        errors,
        "counter",
        "Errors of the database, by class (what hakaru does about them) and error code.",
    );
    for (index, writer) in writers.1.iter().enumerate() {
        for ((class, code), count) in writer.errors() {
            let code = code.map_or_else(
                || "none".to_owned(),
                |code| match code {
                    -1 => "other".to_owned(),
                    code => code.to_string(),
                },
            );
            let labels: Labels<'_> = &[
                ("writer", &index),
                ("class", &class.label()),
                ("code", &code),
            ];
            out.sample(errors, labels, count);
        }
    }
    let (lanes, events) = overview.served.foreign();
    let help = "Lanes of the journal that were written for another database and are not stored.";
    out.single("hakaru_journal_foreign_lanes", "gauge", help, lanes);
    let help = "Events of these lanes that are not noted as stored.";
    out.single("hakaru_journal_foreign_events", "gauge", help, events);
    let (lanes, events) = overview.served.held();
    let help = "Lanes of the journal that wait for a person: see hakaru journal settle.";
    out.single("hakaru_journal_held_lanes", "gauge", help, lanes);
    let help = "Events of these lanes of which nobody can tell whether they are stored.";
    out.single("hakaru_journal_held_events", "gauge", help, events);
    let (help, lanes) = (
        "Lanes of the journal that cannot be taken over or read at present.",
        overview.served.waiting(),
    );
    out.single("hakaru_journal_waiting_lanes", "gauge", help, lanes);
    let help = "1 while an event whose id the table has is no second row.";
    let ids = u8::from(overview.are_ids_stored());
    out.single("hakaru_event_ids_stored", "gauge", help, ids);
    let connected = "hakaru_database_connected";
    let help = "1 while the writer has a connection that is not known to be lost.";
    out.each((connected, "gauge", help), writers, |writer| {
        writer.connected.get()
    });
}

fn process(out: &mut Exposition, overview: &Overview) {
    let build = "hakaru_build_info";
    let facts = &overview.facts;
    let ack: Ack = facts.ack;
    out.begin(
        build,
        "gauge",
        "Always 1; the labels have the version and the main settings.",
    );
    let labels: Labels<'_> = &[
        ("version", &crate::VERSION),
        ("revision", &crate::REVISION),
        ("io", &facts.io),
        ("ack", &ack),
    ];
    out.sample(build, labels, 1);
    let process = Process::measure();
    let help = "User and system time of the process.";
    let cpu = process.cpu.as_secs_f64();
    out.single("process_cpu_seconds_total", "counter", help, cpu);
    let help = "Resident memory of the process.";
    out.single(
        "process_resident_memory_bytes",
        "gauge",
        help,
        process.memory_bytes,
    );
    let help = "Open files of the process.";
    out.single("process_open_fds", "gauge", help, process.open_fds);
    let help = "Files that the process may have open.";
    out.single("process_max_fds", "gauge", help, process.max_fds);
    let help = "When the process started, in seconds since 1970.";
    let started = overview.facts.started_at.0 as f64 / 1000.0;
    out.single("process_start_time_seconds", "gauge", help, started);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Recorder;

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition(String::new());
        out.sample("m", &[("a", &"x\"\\\n"), ("b", &1)], 2);
        assert_eq!(out.0, "m{a=\"x\\\"\\\\\\n\",b=\"1\"} 2\n");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_everything() {
        let (recorder, histogram) = Recorder::new(Histogram::default());
        recorder.observe(|histogram| histogram, 3, 2);
        recorder.observe(|histogram| histogram, 1_000_000, 1);
        let mut out = Exposition(String::new());
        out.histograms(
            ("h_seconds", "H."),
            ("w", &[histogram]),
            (1e-6, (1, 3)),
            |one| one,
        );
        assert_eq!(
            out.0,
            "# HELP h_seconds H.\n# TYPE h_seconds histogram\n\
             h_seconds_bucket{w=\"0\",le=\"0.000002\"} 0\n\
             h_seconds_bucket{w=\"0\",le=\"0.000004\"} 2\n\
             h_seconds_bucket{w=\"0\",le=\"0.000008\"} 2\n\
             h_seconds_bucket{w=\"0\",le=\"+Inf\"} 3\n\
             h_seconds_sum{w=\"0\"} 1.000006\nh_seconds_count{w=\"0\"} 3\n"
        );
    }
}
