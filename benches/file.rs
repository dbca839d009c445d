//! The first job, measured: one file, read `once`, every line framed, into the blackhole; CPU a line, beside `dd`.
//!
//! `cargo bench -p wpgen-engine --bench file` makes a 2 GB file of 239-byte lines below `WPGEN_BENCH_DIR` (default: the
//! target folder) and keeps it. Each figure is the median of 11 runs in alternation, an empty run taken off. Without
//! `--bench` (under `cargo test`) it runs once over a small file and only checks its answer.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use engine::decode::{Encode, OnBad};
use engine::engine::{Engine, Wired, Wiring};
use engine::io::Backend;
use engine::sink::blackhole::Blackhole;
use engine::sink::route::Where;
use engine::source::file::known::Known;
use engine::source::file::lines::LongLines;
use engine::source::file::params::Compression;
use engine::source::file::settings::Settings;
use engine::source::file::source::{Once, OnceStart};
use engine::source::file::told::Told;

const LINE_BYTES: usize = 239;
const RUNS: usize = 11;

fn main() {
    let full = std::env::args().any(|a| a == "--bench");
    let lines: u64 = if full { 2_000_000_000 / LINE_BYTES as u64 } else { 100_000 };
    let dir = std::env::var_os("WPGEN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join(format!("wpgen-bench-{lines}.log"));
    let empty = dir.join("wpgen-bench-0.log");
    generate(&path, lines);
    generate(&empty, 0);
    let runs = if full { RUNS } else { 1 };
    let cpus = engine::io::affinity::allowed();
    let mut table = Table::default();
    for _ in 0..runs {
        let idle = read(&empty, 0, &cpus[..1], Backend::Uring).cpu;
        table.add("dd bs=1M of=/dev/null", Took { cpu: dd(&path), wall: 0 }, 0);
        table.add("uring, 1 shard", read(&path, lines, &cpus[..1], Backend::Uring), idle);
        table.add("epoll, 1 shard", read(&path, lines, &cpus[..1], Backend::Epoll), idle);
        if cpus.len() > 1 {
            table.add("uring, 2 shards", read(&path, lines, &cpus[..2], Backend::Uring), idle);
        }
        table.add("into a file, raw", copy(&path, &dir, "raw", lines), idle);
        table.add("into a file, ndjson", copy(&path, &dir, "ndjson", lines), idle);
    }
    table.print(lines);
    if !full {
        let _ = std::fs::remove_file(&path);
    }
}

#[derive(Clone, Copy)]
struct Took {
    cpu: u64,
    wall: u64,
}

#[derive(Default)]
struct Table {
    rows: Vec<(&'static str, Vec<u64>, Vec<u64>)>,
}

impl Table {
    fn add(&mut self, name: &'static str, took: Took, idle: u64) {
        let at = self.rows.iter().position(|r| r.0 == name).unwrap_or_else(|| {
            self.rows.push((name, Vec::new(), Vec::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.push(took.cpu.saturating_sub(idle));
        self.rows[at].2.push(took.wall);
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn print(&mut self, lines: u64) {
        println!("{:<24} {:>12} {:>14}", "", "CPU ns/line", "wall M lines/s");
        for (name, cpu, wall) in &mut self.rows {
            let (cpu, wall) = (median(cpu) as f64, median(wall) as f64);
            let rate = if wall > 0.0 { lines as f64 * 1e3 / wall } else { 0.0 };
            println!("{name:<24} {:>12.1} {rate:>14.1}", cpu / lines as f64);
        }
    }
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn read(path: &Path, lines: u64, cpus: &[usize], backend: Backend) -> Took {
    let settings = Settings {
        key: "bench".into(),
        host: "host".into(),
        tags: Vec::new(),
        max_line_bytes: 1 << 20,
        long_lines: LongLines::Split,
        encode: Encode::Text,
        on_bad: OnBad::Skip,
        multiline: None,
        compression: Compression::Auto,
        told: Told::new(&"bench".into()),
        known: Arc::new(Known::new("bench", &[], Arc::new(AtomicU64::new(1)))),
    };
    let start = OnceStart { resume: false, parallel: true };
    let source = Arc::new(Once::new(settings, &[path.to_owned()], Vec::new(), start));
    let sink = Blackhole::new(0, "blackhole");
    let (cpu, wall) = (cpu_ns(), Instant::now());
    let engine = Engine::start(Wiring {
        cpus: cpus.iter().map(|c| Some(*c)).collect(),
        backend,
        sinks: vec![sink.clone()],
        sources: vec![Wired { source, routes: vec![(0, Where::default())] }],
        keeping: None,
        next_input: Arc::new(AtomicU64::new(1)),
        memory: engine::memory::Memory::unlimited(),
    })
    .expect("the engine starts");
    assert!(engine.wait(Duration::from_secs(600)), "the file is read");
    let wall = wall.elapsed().as_nanos() as u64;
    assert!(engine.drain(Duration::from_secs(10)).0, "the engine drains");
    assert_eq!(sink.counts().0, lines, "every line, once");
    Took { cpu: cpu_ns() - cpu, wall }
}

/// As a user would: a configuration, one worker, the file sink with its defaults.
fn copy(path: &Path, dir: &Path, format: &str, lines: u64) -> Took {
    let work = dir.join("wpgen-bench-work");
    std::fs::create_dir_all(&work).expect("a folder for the bench");
    let text = format!(
        r#"
[engine]
workers = 1
data_dir = "./data"
[[sources]]
key = "bench"
connect = "file_src"
params = {{ path = "{}", mode = "once", start = "beginning" }}
[[sinks]]
key = "copy"
connect = "file_sink"
params = {{ path = "./out.{format}", format = "{format}", existing = "truncate" }}
"#,
        path.display()
    );
    let file = work.join("wpsrc.toml");
    std::fs::write(&file, text).expect("room for a configuration");
    let environment = engine::config::Environment { var: &|_| None, cpus: 1 };
    let loaded =
        engine::config::load(&file, &environment).map_err(|_| "it does not load").expect("a configuration");
    let (cpu, wall) = (cpu_ns(), Instant::now());
    let engine =
        engine::assemble::start(&loaded.config).map_err(|e| e[0].to_string()).expect("the engine starts");
    assert!(engine.wait(Duration::from_secs(600)), "the file is copied");
    let wall = wall.elapsed().as_nanos() as u64;
    let (settled, status) = engine.drain(Duration::from_secs(10));
    assert!(settled, "the engine drains");
    assert_eq!(status.sinks[0].records, lines, "every line, once");
    if format == "raw" {
        let size = |path: &Path| path.metadata().map_or(0, |m| m.len());
        assert_eq!(size(&work.join("out.raw")), size(path), "every byte, once");
    }
    let took = Took { cpu: cpu_ns() - cpu, wall };
    let _ = std::fs::remove_dir_all(&work);
    took
}

fn dd(path: &Path) -> u64 {
    let before = children_ns();
    let status = Command::new("dd")
        .arg(format!("if={}", path.display()))
        .args(["bs=1M", "of=/dev/null", "status=none"])
        .status();
    assert!(status.is_ok_and(|s| s.success()), "dd runs");
    children_ns() - before
}

fn generate(path: &Path, lines: u64) {
    let size = lines * LINE_BYTES as u64;
    if path.metadata().is_ok_and(|m| m.len() == size) {
        return;
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file for the bench"));
    let mut seed = 42u64;
    let mut line = [0u8; LINE_BYTES];
    for i in 0..lines {
        for b in &mut line {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *b = b' ' + ((seed >> 40) % 90) as u8;
        }
        line[..20].copy_from_slice(format!("{i:020}").as_bytes());
        line[LINE_BYTES - 1] = b'\n';
        file.write_all(&line).expect("room for the bench's file");
    }
    file.flush().expect("room for the bench's file");
}

fn usage_ns(who: libc::c_int) -> u64 {
    // SAFETY: getrusage fills a plain struct.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

fn cpu_ns() -> u64 {
    usage_ns(libc::RUSAGE_SELF)
}

fn children_ns() -> u64 {
    usage_ns(libc::RUSAGE_CHILDREN)
}
