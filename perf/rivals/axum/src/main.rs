//! A rival of perf/compare: takes events with axum and inserts them with `mysql_async`. A channel of events is emptied into
//! multi-value inserts. An event is answered 200 once it is in the channel, so that one may be lost.
//!
//! Usage: rival-axum ADDRESS URL

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Router, serve};
use chrono::{NaiveDateTime, Utc};
use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts, Value};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, timeout_at};

/// Events that wait for an insert. More are answered 503.
const WAITING_EVENTS: usize = 100_000;

/// Rows of an insert.
const BATCH_EVENTS: usize = 1_000;

/// How long an event waits for others of its insert.
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// Connections to the database, and so inserts at a time.
const CONNECTIONS: usize = 4;

/// How often an insert is tried.
const TRIES: u32 = 5;

/// Characters of the column.
const NAME_CHARACTERS: usize = 255;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
struct Parameters {
    name: String,
    value: u32,
}

struct Event {
    at: NaiveDateTime,
    name: String,
    value: u32,
}

/// Answers a request. Parameters that are missing or are no number have been answered 400 by the extractor.
async fn take(
    State(events): State<Sender<Event>>,
    Query(Parameters { name, value }): Query<Parameters>,
) -> StatusCode {
    if name.is_empty() || name.chars().count() > NAME_CHARACTERS {
        return StatusCode::BAD_REQUEST;
    }
    let at = Utc::now().naive_utc();
    match events.try_send(Event { at, name, value }) {
        Ok(()) => StatusCode::OK,
        Err(TrySendError::Full(_) | TrySendError::Closed(_)) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Empties the channel into inserts until it is closed, and waits for the last of them.
async fn store(mut events: Receiver<Event>, pool: Pool) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let mut batch = Vec::with_capacity(BATCH_EVENTS);
        if events.recv_many(&mut batch, BATCH_EVENTS).await == 0 {
            break;
        }
        let end = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_EVENTS {
            let free = BATCH_EVENTS - batch.len();
            match timeout_at(end, events.recv_many(&mut batch, free)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let Ok(permit) = connections.clone().acquire_owned().await else {
            break;
        };
        let pool = pool.clone();
        tokio::spawn(async move {
            insert_or_drop(&pool, batch).await;
            drop(permit);
        });
    }
    // All permits are free again after the last insert.
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    drop(connections.acquire_many(all).await);
}

async fn insert_or_drop(pool: &Pool, batch: Vec<Event>) {
    let events = batch.len();
    let row = "(?, ?, ?)";
    let statement = format!(
        "INSERT INTO eventlog (at, name, value) VALUES {}",
        vec![row; events].join(", ")
    );
    let values: Vec<Value> = batch
        .into_iter()
        .flat_map(|event| [event.at.into(), event.name.into(), event.value.into()])
        .collect();
    for attempt in 1..=TRIES {
        match insert(pool, &statement, Params::Positional(values.clone())).await {
            Ok(()) => return,
            Err(error) => eprintln!("try {attempt} of an insert of {events} events: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
    eprintln!("{events} events were dropped");
}

/// The driver keeps the prepared statements of a connection.
async fn insert(pool: &Pool, statement: &str, values: Params) -> mysql_async::Result<()> {
    pool.get_conn().await?.exec_drop(statement, values).await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: rival-axum ADDRESS URL".into());
    };
    let constraints = PoolConstraints::new(CONNECTIONS, CONNECTIONS).ok_or("no constraints")?;
    // A reset would forget the prepared statements each time.
    let pool_options = PoolOpts::default()
        .with_constraints(constraints)
        .with_reset_connection(false);
    let options = OptsBuilder::from_opts(Opts::from_url(&url)?).pool_opts(pool_options);
    let pool = Pool::new(options);
    let (sender, receiver) = channel(WAITING_EVENTS);
    let storing = tokio::spawn(store(receiver, pool.clone()));

    let mut terminated = signal(SignalKind::terminate())?;
    let router = Router::new().route("/hakaru", get(take)).with_state(sender);
    let listener = TcpListener::bind(address).await?.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            eprintln!("no TCP_NODELAY: {error}");
        }
    });
    serve(listener, router)
        .with_graceful_shutdown(async move {
            terminated.recv().await;
        })
        .await?;
    // The router and its sender are gone, so that the channel is closed.
    storing.await?;
    pool.disconnect().await?;
    Ok(())
}
