//! A record's way through the engine, from a framed run to its settled ticket, on real shards without kernel work: a
//! source that has its runs in memory, and a sink that only looks at what it is given; time a record.
//!
//! `counted` is a sink that takes no bytes; `here` encodes into batches that are owned on the same shard; `across` sends
//! every batch to the other shard and waits for it to come home.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::{Columns, Origin, Positions, Run, ShardId, SinkId, Span, Verdict};
use engine::engine::{Engine, Wired, Wiring};
use engine::io::Backend;
use engine::lane::deliver;
use engine::shard::{Intake, Shard};
use engine::sink::format::Format;
use engine::sink::route::{Sink, Where};
use engine::source::part::{Part, Source, Surroundings};
use engine::status::SinkStatus;

const LINE_BYTES: usize = 239;
/// Records of a run: what is framed from 16 KiB at a time.
const RUN: usize = 64;
/// Runs of an iteration.
const EACH: u64 = 256;

/// Hands the same run to its lanes so many times, on the first shard.
struct Runs {
    text: String,
    spans: Vec<Span>,
    runs: u64,
}

impl Runs {
    fn new(runs: u64) -> Arc<Self> {
        let text = (0..RUN).map(|i| format!("{i:06} {}\n", "x".repeat(LINE_BYTES - 8))).collect();
        let span = |i| Span { start: i * LINE_BYTES as u32, end: (i + 1) * LINE_BYTES as u32 - 1 };
        Arc::new(Self { text, spans: (0..RUN as u32).map(span).collect(), runs })
    }
}

impl Source for Runs {
    fn key(&self) -> &str {
        "runs"
    }

    fn opened(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_finite(&self) -> bool {
        true
    }

    fn run(self: Arc<Self>, around: Surroundings) -> Part {
        Box::pin(async move {
            if around.shard.id() != 0 {
                return;
            }
            let origin = Origin::new("runs", "h");
            let slot = around.shard.settle().open(1, 0);
            for n in 0..self.runs {
                let bytes = self.text.len() as u64;
                around.counters.records.add(RUN as u64);
                around.counters.bytes.add(bytes);
                let run = Run {
                    bytes: self.text.as_bytes(),
                    records: &self.spans,
                    verbatim: true,
                    columns: Columns::None,
                    peers: &[],
                    origin: &origin,
                    received_ns: 1_700_000_000_000_000_000,
                    positions: Positions::Linear { base: n * bytes, upto: (n + 1) * bytes },
                };
                let Some(entered) = around.lanes.enter(&around.stop).await else { return };
                deliver(&around, &entered, slot, &run, (n + 1) * bytes).await;
            }
            around.lanes.seal(&around.shard);
            around.shard.settle().close(slot);
        })
    }
}

/// Counts what it is given and sends it home.
struct Look {
    format: Option<Format>,
    owner: ShardId,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Sink for Look {
    fn id(&self) -> SinkId {
        0
    }

    fn format(&self) -> Option<Format> {
        self.format
    }

    fn owner(&self, _outlet: u32, _home: ShardId) -> ShardId {
        self.owner
    }

    fn start_owner(&self, shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
        let shard = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            while let Some(batch) = intake.next().await {
                shard.send_home(batch, Verdict::Delivered);
            }
            intake.ended();
        });
    }

    fn sealed(&self, _outlet: u32, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn counted(&self, records: u64, _bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    fn status(&self) -> SinkStatus {
        SinkStatus::default()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What a case is.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    format: Option<Format>,
    shards: usize,
}

const CASES: [Case; 4] = [
    Case { name: "counted", format: None, shards: 1 },
    Case { name: "here, raw", format: Some(Format::Raw), shards: 1 },
    Case { name: "here, ndjson", format: Some(Format::Ndjson), shards: 1 },
    Case { name: "across, raw", format: Some(Format::Raw), shards: 2 },
];

/// Runs a case once, from the source's start to its last record settled; all must be there and none twice.
fn run(case: Case, runs: u64) -> Duration {
    let owner = (case.shards - 1) as ShardId;
    let look = Look { format: case.format, owner, records: AtomicU64::new(0), bytes: AtomicU64::new(0) };
    let sink = Arc::new(look);
    let allowed = engine::io::affinity::allowed();
    let wiring = Wiring {
        cpus: (0..case.shards).map(|shard| allowed.get(shard).copied()).collect(),
        backend: Backend::Epoll,
        sinks: vec![sink.clone()],
        sources: vec![Wired { source: Runs::new(runs), routes: vec![(0, Where::default())] }],
        keeping: None,
        next_input: Arc::new(AtomicU64::new(2)),
        memory: engine::memory::Memory::unlimited(),
    };
    let began = Instant::now();
    let engine = Engine::start(wiring).expect("the engine starts");
    assert!(engine.wait(Duration::from_secs(600)), "the source ends");
    let (settled, status) = engine.drain(Duration::from_secs(60));
    let took = began.elapsed();
    let records = runs * RUN as u64;
    assert!(settled && status.sources[0].delivered == records, "{}: {status:?}", case.name);
    match case.format {
        None => assert_eq!(sink.records.load(Ordering::Relaxed), records),
        Some(Format::Raw) => assert_eq!(sink.bytes.load(Ordering::Relaxed), records * LINE_BYTES as u64),
        Some(_) => assert!(sink.bytes.load(Ordering::Relaxed) >= records * LINE_BYTES as u64),
    }
    took
}

fn ways(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(EACH * RUN as u64)).sample_size(20);
    for case in CASES {
        // An engine without work starts and ends, too: that is not the record's.
        group.bench_function(case.name, |b| {
            b.iter_custom(|iterations| run(case, iterations * EACH).saturating_sub(run(case, 0)));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = ways
}
criterion_main!(benches);
