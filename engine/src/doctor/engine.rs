//! The engine that runs: what it says of itself, twice, and whether the clock has jumped since it began.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Check, Verdict, bytes};
use crate::config::Config;
use crate::health;
use crate::status::{MemoryStatus, PartitionLag, SinkState, SinkStatus, SourceStatus, Status, Waits};

/// An engine takes its lock within this time of its start; more is a step of the clock.
const STEP_SECONDS: f64 = 10.0;
/// Ticks a second in which the kernel tells when a process began.
const TICKS_PER_S: f64 = 100.0;

/// What a running engine said of itself at two moments: answers of `/api/system/health`.
#[derive(Clone, Debug)]
pub struct Running {
    pid: u32,
    before: Value,
    now: Value,
}

impl Running {
    /// Two answers of one engine, the earlier one first; nothing when the later one is none.
    pub fn new(before: Value, now: Value) -> Option<Self> {
        let pid = u32::try_from(now["pid"].as_u64()?).ok()?;
        Some(Self { pid, before, now })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

pub(super) fn checks(running: &Running, config: &Config) -> Vec<Check> {
    let now = &running.now;
    let mut checks = vec![overall(running)];
    let troubles = now["troubles"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let dead = now["overall"] == "unhealthy";
    checks.extend(
        troubles
            .map(|trouble| Check::new(if dead { Verdict::Fail } else { Verdict::Warn }, "engine", trouble)),
    );
    for alert in now["alerts"].as_array().into_iter().flatten() {
        let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
        let found = format!("alert {} of source '{}': {}", text("alert"), text("source"), text("message"));
        checks.push(Check::warn("engine", found));
    }
    let findings = health::findings(&status(&running.before), &status(now));
    checks.extend(findings.into_iter().map(|finding| Check::of("engine", finding)));
    checks.extend(memory(now));
    checks.extend(clock_step(running.pid, &config.engine.data_dir.join("lock")));
    checks
}

fn overall(running: &Running) -> Check {
    let now = &running.now;
    let up = now["uptime_seconds"].as_f64().unwrap_or(0.0);
    let found = format!(
        "PID {} has run for {up:.0} s: records in {}, errors {}",
        running.pid,
        number(now, "records_in"),
        number(now, "errors")
    );
    Check::ok("engine", found)
}

fn memory(now: &Value) -> Option<Check> {
    let (used, limit) = (number(now, "memory_used_bytes"), number(now, "memory_limit_bytes"));
    let found = format!(
        "buffers hold {} of memory_limit, {}; {} resident",
        bytes(used),
        bytes(limit),
        bytes(number(now, "resident_bytes"))
    );
    // What is too high is a finding already.
    (limit > 0).then(|| Check::ok("memory", found))
}

/// The status behind an answer, as far as findings look at it.
fn status(answer: &Value) -> Status {
    let list = |name: &str| answer[name].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let (leaving, sinks): (Vec<&Value>, Vec<&Value>) =
        list("sinks").partition(|sink| sink["state"] == "leaving");
    Status {
        elapsed: Duration::from_secs_f64(answer["uptime_seconds"].as_f64().unwrap_or(0.0).max(0.0)),
        sources: list("sources").map(source).collect(),
        sinks: sinks.into_iter().map(sink).collect(),
        leaving: leaving.into_iter().map(sink).collect(),
        memory: MemoryStatus {
            used_bytes: number(answer, "memory_used_bytes"),
            limit_bytes: number(answer, "memory_limit_bytes"),
            carried_bytes: number(answer, "memory_carried_bytes"),
            ..MemoryStatus::default()
        },
        ..Status::default()
    }
}

fn source(answer: &Value) -> SourceStatus {
    SourceStatus {
        key: text(answer, "key"),
        rejected: number(answer, "rejected"),
        malformed: number(answer, "malformed"),
        misframed: number(answer, "misframed"),
        kernel_drops: number(answer, "kernel_drops"),
        kernel_drops_are_a_lower_bound: answer["kernel_drops_are_a_lower_bound"] == true,
        lag_bytes: number(answer, "lag_bytes"),
        has_datagrams: answer["has_datagrams"] == true,
        partitions: answer["partitions"].as_array().into_iter().flatten().map(partition).collect(),
        trouble: answer["trouble"].as_str().map(str::to_owned),
        waits: Waits {
            read_ns: number(answer, "waited_for_reads_ns"),
            sink_ns: number(answer, "waited_for_sinks_ns"),
        },
        ..SourceStatus::default()
    }
}

fn partition(answer: &Value) -> PartitionLag {
    PartitionLag {
        topic: text(answer, "topic"),
        partition: answer["partition"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(-1),
        messages: answer["lag"].as_u64(),
    }
}

fn sink(answer: &Value) -> SinkStatus {
    let state = match (answer["state"].as_str(), answer["reason"].as_str()) {
        (_, Some(why)) => SinkState::Waiting(why.to_owned()),
        (Some("closed"), None) => SinkState::Closed,
        _ => SinkState::Ready,
    };
    let batches_in_flight = number(answer, "batches_in_flight");
    SinkStatus { key: text(answer, "key"), batches_in_flight, state, ..SinkStatus::default() }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

/// Whether the clock was set since the engine began: its lock was written then by the clock of then, and the kernel
/// knows by a clock that nobody sets how long ago that was.
fn clock_step(pid: u32, lock: &Path) -> Option<Check> {
    let written = fs::metadata(lock).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let began = began(&stat)?;
    let ago = since_boot()? - began;
    let step = now.as_secs_f64() - ago - written.as_secs_f64();
    if step.abs() < STEP_SECONDS {
        return Some(Check::ok("clock step", "the clock was not set since the engine began"));
    }
    let way = if step > 0.0 { "forward" } else { "back" };
    Some(
        Check::warn(
            "clock step",
            format!("the clock was set {way} by {:.0} s since the engine began", step.abs()),
        )
        .note("times of receipt jumped with it, and so did {date} in the paths of outputs")
        .help("let the clock be kept by chronyd or systemd-timesyncd, which do not step it while it runs"),
    )
}

/// Seconds after the machine's start at which a process began: a field behind the name, which may hold anything.
fn began(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(19)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_S)
}

fn since_boot() -> Option<f64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that the kernel fills during the call.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } == 0;
    told.then_some(now.tv_sec as f64 + now.tv_nsec as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_a_status_again() {
        let answer = json!({
            "pid": 7, "uptime_seconds": 2.5, "memory_used_bytes": 3, "memory_limit_bytes": 4, "memory_carried_bytes": 1,
            "sources": [{"key": "a", "kernel_drops": 5, "waited_for_sinks_ns": 6, "has_datagrams": true}],
            "sinks": [
                {"key": "o", "state": "waiting", "reason": "full", "batches_in_flight": 2},
                {"key": "fw", "state": "leaving", "reason": "refused", "batches_in_flight": 8},
            ],
        });
        let status = status(&answer);
        assert_eq!(status.elapsed, Duration::from_millis(2500));
        assert_eq!((status.sources[0].kernel_drops, status.sources[0].waits.sink_ns), (5, 6));
        assert!(status.sources[0].has_datagrams);
        assert_eq!(status.sinks[0].state, SinkState::Waiting("full".into()));
        assert_eq!(status.sinks.len(), 1);
        assert_eq!(status.leaving_words(), ["sink 'fw' was taken out and still has 8 batches: refused"]);
        assert_eq!(status.memory.carried_bytes, 1);
        assert_eq!(Running::new(json!({}), answer).map(|running| running.pid()), Some(7));
        assert!(Running::new(json!({"pid": 7}), json!({})).is_none());
    }

    #[test]
    fn a_clock_that_was_set_shows_between_lock_and_process() {
        let lock = tempfile::NamedTempFile::new().unwrap();
        let of = |moved: i64| {
            let ago = since_boot().unwrap() - began(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
            let began = SystemTime::now() - Duration::from_secs_f64(ago);
            let seconds = Duration::from_secs(moved.unsigned_abs());
            let written = if moved < 0 { began - seconds } else { began + seconds };
            lock.as_file().set_modified(written).unwrap();
            clock_step(std::process::id(), lock.path()).unwrap()
        };
        assert_eq!(of(0).verdict, Verdict::Ok);
        assert!(of(-3600).found.contains("set forward by 3600 s"), "{:?}", of(-3600));
        assert!(of(7200).found.contains("set back by 7200 s"));
    }

    #[test]
    fn the_start_of_a_process_is_behind_its_name() {
        let stat = format!("7 (a) b) S {}4200 0", "1 ".repeat(18));
        assert_eq!(began(&stat), Some(42.0));
        assert_eq!(began("7 (a"), None);
    }
}
