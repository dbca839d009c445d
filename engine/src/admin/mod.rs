//! The admin API: what a running engine tells and takes from outside.
//!
//! Owns the routes and their answers; [`http`] owns the wire, [`socket`] the unix socket in the data folder, which is
//! always there, [`tcp`] the configured address, [`metrics`] what Prometheus reads. Invariants: an answer is
//! `{"code": N, "message": "...", "data": {...}}` (but for the metrics) with the HTTP status equal to `code`; a request
//! changes nothing unless it is a POST, and no page in a browser can make one. It refuses requests of more than
//! [`http::HEAD_BYTES_MAX`].

pub mod http;
pub mod metrics;
mod serve;
pub mod socket;
pub mod tcp;

use std::time::Duration;

use serde_json::{Value, json};

use crate::diagnosis::Diagnostics;
use crate::exposition;
use crate::health;
use crate::reload::{Lists, Reloaded};
use crate::status::{AlertStatus, PartitionLag, RescueStatus, SinkState, SinkStatus, SourceStatus, Status};
use http::Request;

/// What the admin API needs of a running engine.
pub trait Control: Send + Sync + 'static {
    /// The engine at this moment.
    fn status(&self) -> Status;
    /// Whether every shard answers.
    fn is_alive(&self) -> bool;
    /// Asks for a drain: stop taking, deliver, end. Returns at once.
    fn stop(&self);
    /// Reads the configuration anew and waits for what comes of it; the error says why nothing was changed.
    fn reload(&self) -> Result<Reloaded, Refusal>;
}

/// Why it cannot be told what a reload has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The engine stops: nothing was changed.
    Stopping,
    /// It takes longer than anybody waits for it.
    GoingOn,
    /// What is wrong with the configuration: nothing was changed.
    Findings(Diagnostics),
}

/// An answer, before it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// What happened, for people.
    pub message: String,
    /// What was asked for.
    pub data: Value,
    /// What was asked for, where it is no JSON; the only thing that is sent then.
    pub page: Option<String>,
    /// Whether only its head was asked for.
    pub is_head: bool,
}

impl Answer {
    fn ok(data: Value) -> Self {
        Self { code: 200, message: "ok".to_owned(), data, page: None, is_head: false }
    }

    fn page(text: String) -> Self {
        Self { page: Some(text), ..Self::ok(Value::Null) }
    }

    /// An answer that is only a refusal.
    pub fn refusal(code: u16, message: &str) -> Self {
        Self { code, message: message.to_owned(), data: Value::Null, page: None, is_head: false }
    }

    /// What the body is.
    pub fn content_type(&self) -> &'static str {
        if self.page.is_some() { exposition::CONTENT_TYPE } else { "application/json" }
    }

    /// The body.
    pub fn body(&self) -> String {
        if let Some(page) = &self.page {
            return page.clone();
        }
        json!({ "code": self.code, "message": self.message, "data": self.data }).to_string()
    }
}

/// Every route.
const ROUTES: [(&str, &str); 8] = [
    ("GET", "/metrics"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/api/sources"),
    ("GET", "/api/sinks"),
    ("GET", "/api/system/health"),
    ("POST", "/api/reload"),
    ("POST", "/api/stop"),
];

/// Answers one request.
pub fn answer(request: &Request<'_>, engine: &dyn Control) -> Answer {
    if request.method == "HEAD" {
        return Answer { is_head: true, ..answer(&Request { method: "GET", ..*request }, engine) };
    }
    if request.method == "POST" && request.from_a_page {
        return Answer::refusal(403, "pages of a browser may not change anything");
    }
    match (request.method, request.path) {
        ("GET", "/metrics") => Answer::page(metrics::page(&engine.status())),
        ("GET", "/health/live") if engine.is_alive() => Answer::ok(Value::Null),
        ("GET", "/health/live") => Answer::refusal(503, "a shard does not answer"),
        ("GET", "/health/ready") => ready(&engine.status()),
        ("GET", "/api/sources") => Answer::ok(json!({ "sources": sources(&engine.status()) })),
        ("GET", "/api/sinks") => Answer::ok(json!({ "sinks": sinks(&engine.status()) })),
        ("GET", "/api/system/health") => Answer::ok(whole(&engine.status())),
        ("POST", "/api/reload") => reloaded(engine.reload()),
        ("POST", "/api/stop") => {
            engine.stop();
            Answer { message: "draining".to_owned(), ..Answer::ok(Value::Null) }
        }
        (_, path) => match ROUTES.iter().find(|(_, known)| *known == path) {
            Some((method, _)) => Answer::refusal(405, &format!("this takes {method} only")),
            None => Answer::refusal(404, "no such route"),
        },
    }
}

fn reloaded(reloaded: Result<Reloaded, Refusal>) -> Answer {
    let lists = |lists: &Lists| {
        let keys = |list: &[std::sync::Arc<str>]| list.iter().map(|key| json!(**key)).collect::<Value>();
        json!({
            "kept": keys(&lists.kept),
            "added": keys(&lists.added),
            "removed": keys(&lists.removed),
            "changed": keys(&lists.changed),
        })
    };
    match reloaded {
        Ok(Reloaded { changes, findings }) => {
            let findings = Diagnostics { all: findings, dropped: 0 };
            let data = json!({
                "sources": lists(&changes.sources),
                "sinks": lists(&changes.sinks),
                "findings": findings.all,
                "text": findings.to_string(),
            });
            if findings.errors() == 0 {
                return Answer::ok(data);
            }
            Answer { data, ..Answer::refusal(409, "not all of it could be changed") }
        }
        Err(Refusal::Stopping) => Answer::refusal(503, "the engine is stopping"),
        Err(Refusal::GoingOn) => Answer::refusal(
            504,
            "the reload is still going on: what comes of it will be in the log, and `wpgen source list` shows what runs",
        ),
        Err(Refusal::Findings(findings)) => {
            let data = json!({ "findings": findings.all, "text": findings.to_string() });
            Answer { data, ..Answer::refusal(400, "nothing was changed") }
        }
    }
}

/// Whether everything works: what balancers and orchestrators ask.
fn ready(status: &Status) -> Answer {
    let troubles = status.troubles();
    let answer =
        if troubles.is_empty() { Answer::ok(Value::Null) } else { Answer::refusal(503, "not ready") };
    let leaving = status.leaving_words();
    Answer { data: json!({ "overall": overall(status), "troubles": troubles, "leaving": leaving }), ..answer }
}

fn overall(status: &Status) -> &'static str {
    match (status.is_dead(), status.troubles().is_empty()) {
        (true, _) => "unhealthy",
        (false, false) => "degraded",
        (false, true) => "healthy",
    }
}

/// The engine as a whole, with what its figures give reason to say since its start.
fn whole(status: &Status) -> Value {
    let (batches, in_flight_bytes) = status.in_flight();
    json!({
        "overall": overall(status),
        "troubles": status.troubles(),
        "leaving": status.leaving_words(),
        "alerts": alerts(status),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": status.elapsed.as_secs_f64(),
        "records_in": status.records_in(),
        "bytes_in": status.bytes_in(),
        "lag_bytes": status.lag_bytes(),
        "errors": status.errors(),
        "resident_bytes": status.usage.resident_bytes,
        "cpu_seconds": status.usage.cpu.as_secs_f64(),
        "records_in_flight": status.left_behind(),
        "batches_in_flight": batches,
        "in_flight_bytes": in_flight_bytes,
        "memory_used_bytes": status.memory.used_bytes,
        "memory_limit_bytes": status.memory.limit_bytes,
        "memory_carried_bytes": status.memory.carried_bytes,
        "findings": health::findings(&Status::default(), status),
        "sources": sources(status),
        "sinks": sinks(status),
    })
}

/// The alerts that are active.
fn alerts(status: &Status) -> Vec<Value> {
    let active = status.alerts.iter().filter_map(|alert| Some((alert, alert.active_for?)));
    let row = |(alert, since): (&AlertStatus, Duration)| {
        json!({
            "source": alert.source,
            "alert": alert.alert,
            "active_seconds": since.as_secs_f64(),
            "message": alert.message,
        })
    };
    active.map(row).collect()
}

fn sources(status: &Status) -> Vec<Value> {
    status.sources.iter().map(|s| source(s, status.elapsed)).collect()
}

fn source(source: &SourceStatus, elapsed: Duration) -> Value {
    let (read_percent, sink_percent) = source.waits.percents(elapsed);
    let dropped: serde_json::Map<String, Value> =
        source.dropped.iter().map(|(reason, n)| (reason.clone(), json!(n))).collect();
    let partition = |p: &PartitionLag| json!({"topic": p.topic, "partition": p.partition, "lag": p.messages});
    let partitions: Vec<Value> = source.partitions.iter().map(partition).collect();
    json!({
        "key": source.key,
        "state": match (source.failed, source.done) {
            (true, _) => "failed",
            (false, true) => "done",
            (false, false) => "running",
        },
        "records_in": source.records_in,
        "bytes_in": source.bytes_in,
        "delivered": source.delivered,
        "rejected": source.rejected,
        "in_flight": source.in_flight(),
        "dropped": dropped,
        "malformed": source.malformed,
        "misframed": source.misframed,
        "truncated": source.truncated,
        "split": source.split,
        "kernel_drops": source.kernel_drops,
        "kernel_drops_are_a_lower_bound": source.kernel_drops_are_a_lower_bound,
        "errors": source.errors,
        "lag_bytes": source.lag_bytes,
        "total_bytes": source.total_bytes,
        "waited_for_reads_percent": read_percent,
        "waited_for_sinks_percent": sink_percent,
        "waited_for_reads_ns": source.waits.read_ns,
        "waited_for_sinks_ns": source.waits.sink_ns,
        "has_datagrams": source.has_datagrams,
        "partitions": partitions,
        "lag_messages": source.lag_messages(),
        "trouble": source.trouble,
    })
}

fn sinks(status: &Status) -> Vec<Value> {
    let leaving = |leaving| {
        let mut row = sink(leaving);
        row["state"] = "leaving".into();
        row
    };
    status.sinks.iter().map(sink).chain(status.leaving.iter().map(leaving)).collect()
}

fn sink(sink: &SinkStatus) -> Value {
    let (state, reason) = match &sink.state {
        SinkState::Ready => ("ready", None),
        SinkState::Waiting(why) => ("waiting", Some(why)),
        SinkState::Closed => ("closed", None),
    };
    json!({
        "key": sink.key,
        "state": state,
        "reason": reason,
        "records": sink.records,
        "bytes": sink.bytes,
        "repeated": sink.repeated,
        "batches_in_flight": sink.batches_in_flight,
        "errors": sink.errors,
        "rescue": sink.rescue.as_ref().map(rescue),
    })
}

fn rescue(rescue: &RescueStatus) -> Value {
    json!({
        "bytes": rescue.bytes,
        "limit_bytes": rescue.limit_bytes,
        "records": rescue.records,
        "oldest_seconds": rescue.oldest.map(|oldest| oldest.as_secs_f64()),
        "kept_records": rescue.kept_records,
        "kept_bytes": rescue.kept_bytes,
        "sent_records": rescue.sent_records,
        "refusals": rescue.refusals,
        "full": rescue.full,
        "errors": rescue.errors,
        "stranded_files": rescue.stranded_files,
        "reason": rescue.trouble,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Diagnostic;
    use crate::status::Waits;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    struct Fake {
        stopped: AtomicBool,
    }

    impl Control for Fake {
        fn status(&self) -> Status {
            Status {
                sources: vec![SourceStatus {
                    key: "a".into(),
                    dropped: vec![("x".into(), 2)],
                    waits: Waits { read_ns: 0, sink_ns: 710_000_000 },
                    ..Default::default()
                }],
                sinks: vec![SinkStatus {
                    state: SinkState::Waiting("full".into()),
                    batches_in_flight: 3,
                    ..Default::default()
                }],
                elapsed: Duration::from_secs(1),
                ..Status::default()
            }
        }

        fn is_alive(&self) -> bool {
            !self.stopped.load(Ordering::Relaxed)
        }

        fn stop(&self) {
            self.stopped.store(true, Ordering::Relaxed);
        }

        fn reload(&self) -> Result<Reloaded, Refusal> {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Refusal::Findings(Diagnostic::plain("no").into()));
            }
            Ok(Reloaded::default())
        }
    }

    fn ask(method: &'static str, path: &'static str, engine: &Fake) -> Answer {
        answer(&Request { method, path, ..Request::default() }, engine)
    }

    #[test]
    fn routes_answer_and_only_a_post_changes_anything() {
        let engine = Fake::default();
        let sources = ask("GET", "/api/sources", &engine);
        assert_eq!((sources.code, &sources.data["sources"][0]["dropped"]["x"]), (200, &json!(2)));
        let health = ask("GET", "/api/system/health", &engine);
        assert_eq!(
            (&health.data["overall"], &health.data["sinks"][0]["reason"]),
            (&json!("degraded"), &json!("full"))
        );
        assert_eq!(health.data["sources"][0]["waited_for_sinks_percent"], 71, "WP105");
        assert_eq!(health.data["in_flight_bytes"], 3 * crate::pool::ARENA_BYTES, "WP106");
        assert_eq!(health.data["findings"][0]["code"], "WP105");
        assert_eq!(ask("GET", "/api/stop", &engine).code, 405);
        let live = ask("GET", "/health/live", &engine);
        assert_eq!(ask("HEAD", "/health/live", &engine), Answer { is_head: true, ..live.clone() });
        let head = http::write(&Answer { is_head: true, ..live.clone() });
        assert!(http::write(&live).starts_with(&head) && head.ends_with(b"\r\n\r\n"));
        assert_eq!(ask("HEAD", "/api/stop", &engine).code, 405);
        assert_eq!(ask("GET", "/api/stopp", &engine).code, 404);
        assert!(!engine.stopped.load(Ordering::Relaxed));
        assert_eq!(ask("POST", "/api/stop", &engine).code, 200);
        assert!(engine.stopped.load(Ordering::Relaxed));
    }

    #[test]
    fn a_reload_tells_what_was_changed_or_why_not() {
        let engine = Fake::default();
        let done = ask("POST", "/api/reload", &engine);
        assert_eq!((done.code, &done.data["sinks"]["kept"]), (200, &json!([])));
        engine.stop();
        let refused = ask("POST", "/api/reload", &engine);
        assert_eq!((refused.code, &refused.data["text"]), (400, &json!("error: no\n")));
    }

    #[test]
    fn every_route_in_the_table_exists() {
        for (method, path) in ROUTES.into_iter().filter(|(_, path)| *path != "/health/ready") {
            assert_eq!(ask(method, path, &Fake::default()).code, 200, "{path}");
        }
    }

    #[test]
    fn health_is_not_green_while_a_pipeline_is_dead() {
        let engine = Fake::default();
        let waiting = ask("GET", "/health/ready", &engine);
        assert_eq!((waiting.code, &waiting.data["troubles"]), (503, &json!(["sink '' waits: full"])));
        let code = |status: &Status| (ready(status).code, overall(status));
        assert_eq!(code(&Status::default()), (200, "healthy"));
        let failed = SourceStatus { failed: true, ..Default::default() };
        assert_eq!(code(&Status { sources: vec![failed], ..Status::default() }), (503, "unhealthy"));
        let closed = SinkStatus { state: SinkState::Closed, ..Default::default() };
        assert_eq!(code(&Status { sinks: vec![closed], ..Status::default() }), (503, "unhealthy"));
        engine.stop();
        assert_eq!(ask("GET", "/health/live", &engine).code, 503);
    }

    #[test]
    fn a_sink_that_leaves_is_among_the_sinks_and_what_it_has_in_flight() {
        let state = SinkState::Waiting("refused".into());
        let leaving = SinkStatus { key: "fw".into(), batches_in_flight: 8, state, ..Default::default() };
        let source = SourceStatus { records_in: 9, delivered: 2, ..Default::default() };
        let status = Status { sources: vec![source], leaving: vec![leaving], ..Status::default() };
        let data = whole(&status);
        let row = &data["sinks"][0];
        assert_eq!(
            (&row["key"], &row["state"], &row["reason"]),
            (&json!("fw"), &json!("leaving"), &json!("refused"))
        );
        assert_eq!((&data["records_in_flight"], &data["batches_in_flight"]), (&json!(7), &json!(8)));
        assert_eq!(data["findings"][0]["severity"], "warning", "{data}");
        let words = "sink 'fw' was taken out and still has 8 batches: refused";
        let ready = ready(&status);
        assert_eq!((ready.code, &ready.data["leaving"][0]), (200, &json!(words)));
    }

    #[test]
    fn a_page_in_a_browser_changes_nothing() {
        let engine = Fake::default();
        let request = Request { method: "POST", path: "/api/stop", from_a_page: true, ..Request::default() };
        assert_eq!(answer(&request, &engine).code, 403);
        assert!(!engine.stopped.load(Ordering::Relaxed));
    }
}
