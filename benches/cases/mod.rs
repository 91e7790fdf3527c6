//! The steps on the way of an event that both benches measure.
//!
//! Each function does its step for [`EVENTS`] events, in the steady state: memory has grown to its size before.

use std::hint::black_box;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use hakaru::event::ack::Ack;
use hakaru::event::batch::{Batch, BatchEvents};
use hakaru::event::position::Position;
use hakaru::event::rule::EventRule;
use hakaru::event::{Event, UnixMillis};
use hakaru::handoff::{self, Handoff, Work};
use hakaru::http::content::{self, Content, ContentScratch, Media};
use hakaru::http::{query, request};
use hakaru::journal::disk_thread;
use hakaru::journal::lane_handle::MemoryLane;
use hakaru::journal::quota::JournalBound;
use hakaru::journal::record::{self, ParsedRecord, SegmentId, SegmentNumber};
use hakaru::journal::served_database::{EarlierLanes, ServedDatabase};
use hakaru::metrics::{Recorder, ShardCounters};
use hakaru::os::notifier::ShardNotifier;
use hakaru::shard::ingest::{Ingest, Medium};
use hakaru::sink::mysql;

/// Events of each case, and of a full batch.
pub const EVENTS: u32 = 1_000;

/// The head that `wrk` sends.
pub const SHORT_HEAD: &[u8] =
    b"GET /hakaru?name=purchase&value=120 HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n";

/// The head that a browser sends from another site's page.
pub const BROWSER_HEAD: &[u8] = b"GET /hakaru?name=purchase&value=120 HTTP/1.1\r\n\
    Host: events.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    Accept: */*\r\n\
    Origin: https://shop.example.com\r\n\
    Sec-Fetch-Site: same-site\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Referer: https://shop.example.com/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9,ja;q=0.8\r\n\r\n";

/// A query that needs no decoding: it is read in place.
pub const PLAIN_QUERY: &[u8] = b"name=purchase&value=120";

/// A query whose name must be decoded into another buffer.
pub const ESCAPED_QUERY: &[u8] = b"name=%E8%A8%88+purchase&value=120";

/// A copy on the heap, which is aligned. Code that reads several bytes at once takes a different number of
/// instructions depending on the alignment, and that of a constant changes with each build.
fn aligned(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// Reads the head.
pub fn read_heads(head: &[u8]) {
    let head = &aligned(head);
    for _ in 0..EVENTS {
        let (request, length) = request::parse(black_box(head)).unwrap().unwrap();
        assert_eq!(length, head.len());
        black_box(request);
    }
}

/// Decodes the query.
pub fn decode_queries(query: &[u8]) {
    let query = &aligned(query);
    let mut decoded = Vec::new();
    for _ in 0..EVENTS {
        let measured = query::measurement(black_box(query), EventRule::DEPLOYED, &mut decoded);
        black_box(measured.unwrap());
    }
}

/// Reads a body of [`EVENTS`] events.
pub fn read_body(media: Media) -> usize {
    let (before, between, after) = match media {
        Media::Json => ("[", ",", "]"),
        _ => ("", "\n", ""),
    };
    let object = |value| format!("{{\"name\":\"purchase\",\"value\":{value}}}");
    let objects: Vec<_> = (0..EVENTS).map(object).collect();
    let body = format!("{before}{}{after}", objects.join(between));
    let content = Content {
        media,
        is_gzip: false,
        is_lenient: false,
    };
    let mut scratch = ContentScratch::default();
    let body = black_box(body.as_bytes());
    content::read(content, body, body.len(), EventRule::DEPLOYED, &mut scratch).unwrap();
    scratch.events.len()
}

/// One of the events of every case: nine of ten are small.
fn event(index: u32) -> Event<'static> {
    Event {
        name: if index % 10 == 9 { "purchase" } else { "open" },
        value: index,
        received_at: UnixMillis(1_700_000_000_000),
        id: None,
    }
}

/// A shard's [`Ingest`] without the shard, and the writer's end of its handoff. No event is written to the
/// disk.
pub struct Shard {
    ingest: Ingest,
    to_store: Receiver<Work>,
    /// The directory of the journal. Dropped after what uses it.
    _journal: Option<tempfile::TempDir>,
}

impl Shard {
    /// A shard whose batches and groups have grown to their size.
    pub fn new(ack: Ack) -> Self {
        let (notifier, mut notified) = ShardNotifier::new().unwrap();
        let (opened, _lanes) = channel();
        let directory = (ack != Ack::Received).then(|| tempfile::tempdir().unwrap());
        let medium = match &directory {
            None => Medium::Memory(MemoryLane::new().unwrap()),
            Some(directory) => {
                let (disk, work) = disk_thread::disk_thread(
                    directory.path().to_owned(),
                    Arc::new(ServedDatabase::new(
                        "here".to_owned(),
                        false,
                        EarlierLanes::default(),
                    )),
                    notifier,
                    opened,
                );
                std::thread::spawn(|| work.run());
                Medium::Journal(disk, JournalBound::new(1 << 30, Arc::default()))
            }
        };
        let (to_writer, to_store) = handoff::inbox(1);
        let handoff = Handoff::new(to_writer, BatchEvents::new(EVENTS).unwrap());
        let (recorder, _) = Recorder::new(ShardCounters::default());
        let mut ingest = Ingest::new(ack, Rc::new(recorder), handoff, medium, 1_000);
        if directory.is_some() {
            // The first report of the disk thread is that a lane is open.
            notified.read_exact(&mut [0]).unwrap();
            ingest.on_notify();
        }
        let mut shard = Self {
            ingest,
            to_store,
            _journal: directory,
        };
        for _ in 0..4 {
            shard.fill_a_batch();
        }
        shard
    }

    /// Takes the events of a batch, ends the write of their group at once, and returns the batch as its writer
    /// does.
    pub fn fill_a_batch(&mut self) {
        for index in 0..EVENTS {
            self.ingest.take(black_box(event(index))).unwrap();
        }
        if let Some(write) = self.ingest.begin_write() {
            self.ingest.end_write(write.blocks, Ok(()));
        }
        match self.to_store.try_recv() {
            Ok(Work::Batch(sealed)) => sealed.give_back(),
            other => panic!("no batch: {other:?}"),
        }
    }
}

/// The segment of every record.
fn segment() -> SegmentId {
    SegmentId {
        lane: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        number: SegmentNumber(3),
    }
}

/// A record of [`EVENTS`] events.
pub fn record() -> Vec<u8> {
    let mut record = Vec::new();
    encode_record(&mut record);
    record
}

/// Writes a record into a used buffer.
pub fn encode_record(record: &mut Vec<u8>) {
    record::begin_record(record);
    for index in 0..EVENTS {
        record::append_event(record, black_box(event(index)));
    }
    record::finish_record(record, segment(), Position(7), EVENTS);
}

/// Checks a record and reads its events.
pub fn read_record(bytes: &[u8]) {
    let ParsedRecord::Record(head, payload) = record::parse_record(black_box(bytes), segment())
    else {
        panic!("no record");
    };
    assert_eq!(head.events, EVENTS);
    assert_eq!(
        record::events(payload).map(black_box).count(),
        EVENTS as usize
    );
}

/// A full batch.
pub fn batch() -> Batch {
    let mut batch = Batch::new(BatchEvents::new(EVENTS).unwrap());
    for index in 0..EVENTS {
        batch.push(event(index)).unwrap();
    }
    batch
}

/// Creates and frees the parameters of one insert.
pub fn bind_rows(batch: &Batch) {
    black_box(mysql::bind(black_box(batch), 0..batch.len()));
}
