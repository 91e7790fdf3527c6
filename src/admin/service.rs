//! Answers the requests of the admin port.

use super::exposition;
use super::history::{History, STEP};
use super::overview::{Overview, ShedSeen};
use super::stats;
use crate::event::UnixMillis;
use crate::http::conversation::Service;
use crate::http::paths::LIVENESS_PATH;
use crate::http::request::{Method, Request};
use crate::http::response::{Answer, Answers, Body, Status};
use crate::os::printable::Printable;

const PAGE: &[u8] = include_bytes!("page.html");

/// The page loads nothing from outside, and may not be framed.
const PAGE_FIELDS: &str = "Content-Type: text/html; charset=utf-8\r\n\
    Cache-Control: no-store\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\n";

const JSON_FIELDS: &str = "Content-Type: application/json\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";

/// The text format of Prometheus.
const METRICS_FIELDS: &str =
    "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nCache-Control: no-store\r\n";

const TEXT_FIELDS: &str = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n";

/// The counts of frequent names are halved after this many steps: a minute.
const FADE_STEPS: u32 = 12;

/// Answers requests from the overview, and from earlier samples of it.
pub(super) struct AdminService {
    overview: Overview,
    history: History,
    shed_seen: ShedSeen,
    answers: Answers,
    steps: u32,
}

const _: () = assert!(STEP.as_secs() * FADE_STEPS as u64 == 60);

impl AdminService {
    pub(super) fn new(overview: Overview) -> Self {
        Self {
            overview,
            history: History::default(),
            shed_seen: ShedSeen::default(),
            answers: Answers::new(UnixMillis::now().seconds()),
            steps: 0,
        }
    }

    /// Takes a sample. Must be called every [`STEP`].
    pub(super) fn sample(&mut self) {
        self.history.sample(&self.overview);
        self.overview.readiness(&mut self.shed_seen);
        self.steps = (self.steps + 1) % FADE_STEPS;
        if self.steps == 0 {
            for writer in self.overview.metrics.writers() {
                writer.with_names(|names| names.halve());
            }
        }
    }

    fn document(&mut self, path: &str) -> Option<(Status, &'static str, Vec<u8>)> {
        let health = |reason: Option<String>| match reason {
            None => (Status::Ok, "ok\n".to_owned()),
            // Escaped, since it may quote a database, and people read it in a terminal.
            Some(reason) => (
                Status::ServiceUnavailable,
                format!("{}\n", Printable(reason)),
            ),
        };
        let (status, fields, bytes) = match path {
            "/" => (Status::Ok, PAGE_FIELDS, PAGE.to_vec()),
            "/stats.json" => {
                let readiness = self.overview.readiness(&mut self.shed_seen);
                let stats = stats::document(&self.overview, readiness, &self.history);
                (Status::Ok, JSON_FIELDS, stats.to_string().into_bytes())
            }
            "/metrics" => {
                let text = exposition::text(&self.overview);
                (Status::Ok, METRICS_FIELDS, text.into_bytes())
            }
            "/ready" => {
                let readiness = self.overview.readiness(&mut self.shed_seen);
                let (status, text) = health(readiness.reason().map(str::to_owned));
                (status, TEXT_FIELDS, text.into_bytes())
            }
            "/sink-health" => {
                let (status, text) = health(self.overview.sink_unhealthy_reason());
                (status, TEXT_FIELDS, text.into_bytes())
            }
            LIVENESS_PATH => (Status::Ok, TEXT_FIELDS, Vec::from("ok\n")),
            _ => return None,
        };
        Some((status, fields, bytes))
    }
}

impl Service for AdminService {
    fn respond(
        &mut self,
        request: &Request<'_>,
        plain: Answer<'_>,
        out: &mut Vec<u8>,
        _decoded: &mut Vec<u8>,
    ) {
        self.answers.set_second(UnixMillis::now().seconds());
        let is_read = matches!(request.method, Method::Get | Method::Head);
        let found = self.document(request.path);
        let answer = match &found {
            None => Answer {
                status: Status::NotFound,
                body: Body::Reason(
                    "path: not found; accepted: /, /stats.json, /metrics, /ready, /sink-health and /ok",
                ),
                ..plain
            },
            Some(_) if !is_read => Answer {
                status: Status::MethodNotAllowed,
                accepted: "Allow: GET, HEAD",
                body: Body::Reason("method: not allowed; accepted: GET, HEAD"),
                ..plain
            },
            Some((status, fields, bytes)) => Answer {
                status: *status,
                body: Body::Document { fields, bytes },
                ..plain
            },
        };
        self.write(out, &answer);
    }

    fn write(&mut self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        self.answers.write(out, answer);
    }

    /// Connections stay open until the process ends, unless a successor serves the port.
    fn is_draining(&self) -> bool {
        self.overview.stage.is_handed_over()
    }
}
