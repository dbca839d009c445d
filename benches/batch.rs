//! A batch from the pool, filled with runs of 239-byte lines until it is full, sealed, settled and given back; time a
//! record. It is what a lane does, without a shard around it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::{Batch, Columns, Mark, Origin, Positions, Run, Span, Ticket, Verdict};
use engine::memory::Memory;
use engine::pool::{ARENA_BYTES, BATCH_BYTES, Pool};
use engine::settle::Settle;
use engine::sink::format::{Format, encode};

const LINE_BYTES: usize = 239;
/// Records of a run: what a 16 KiB segment of a socket holds, and a read of 1 MiB from a file.
const RUNS: [usize; 2] = [64, 4096];

/// Everything that a batch comes from and goes back to.
struct Desk {
    memory: Arc<Memory>,
    pool: Pool,
    settle: Settle,
    slot: u32,
    position: u64,
}

/// What became of a batch: its records, and those that its coming home settled.
#[derive(Debug, PartialEq, Eq)]
struct Sealed {
    records: u32,
    bytes: usize,
    tickets: usize,
    delivered: u64,
}

impl Desk {
    fn new() -> Self {
        let memory = Memory::unlimited();
        let mut settle = Settle::default();
        let slot = settle.open(1, 0);
        Self { pool: Pool::new(2, Arc::clone(&memory)), memory, settle, slot, position: 0 }
    }

    /// Fills one batch with the run again and again; what does not fit is the next batch's.
    fn build(&mut self, format: Format, run: &Run<'_>) -> Sealed {
        let charge = || self.memory.try_charge(BATCH_BYTES);
        let mut batch = self.pool.take(charge).expect("memory without a limit");
        let mut delivered = 0;
        while batch.arena.len() < ARENA_BYTES {
            let ticket = self.settle.begin(self.slot, self.position + 1, run.records.len() as u32);
            let done = encode(format, run, 0, None, &mut batch.arena, ARENA_BYTES, None);
            self.settle.attach(&ticket);
            batch.tickets.push(Ticket { records: done.records, ..ticket });
            batch.records += done.records;
            batch.charge_growth();
            self.position += 1;
            delivered += self.settle.sealed(&ticket).delivered;
            if done.next < run.records.len() {
                break;
            }
        }
        self.come_home(batch, delivered)
    }

    fn come_home(&mut self, mut batch: Box<Batch>, mut delivered: u64) -> Sealed {
        batch.verdict = Verdict::Delivered;
        for ticket in &batch.tickets {
            delivered += self.settle.verdict(ticket, batch.verdict).delivered;
        }
        let (records, bytes, tickets) = (batch.records, batch.arena.len(), batch.tickets.len());
        self.pool.give(batch);
        Sealed { records, bytes, tickets, delivered }
    }
}

fn batches(criterion: &mut Criterion) {
    let text: String = (0..RUNS[1]).map(|i| format!("{i:06} {}\n", "x".repeat(LINE_BYTES - 8))).collect();
    assert_eq!(text.len(), RUNS[1] * LINE_BYTES);
    let records: Vec<Span> = (0..RUNS[1] as u32)
        .map(|i| Span { start: i * LINE_BYTES as u32, end: (i + 1) * LINE_BYTES as u32 - 1 })
        .collect();
    let tags = vec![("source_type".to_owned(), "file".to_owned())];
    let origin = Origin {
        source: "s".into(),
        host: "h".into(),
        tags,
        peer: None,
        tls_subject: None,
        assignment: None,
        protocol: None,
        mark: Mark::default(),
    };
    let mut group = criterion.benchmark_group("batch");
    for format in [Format::Raw, Format::Ndjson] {
        for n in RUNS {
            let bytes = &text.as_bytes()[..n * LINE_BYTES];
            let run = Run {
                bytes,
                records: &records[..n],
                verbatim: true,
                columns: Columns::None,
                peers: &[],
                origin: &origin,
                received_ns: 1_700_000_000_000_000_000,
                positions: Positions::Linear { base: 0, upto: bytes.len() as u64 },
            };
            let mut desk = Desk::new();
            let sealed = desk.build(format, &run);
            check(&sealed, format, n);
            // A batch that came home is as good as a new one.
            assert_eq!(desk.build(format, &run), sealed);
            group.throughput(Throughput::Elements(sealed.records.into()));
            group.bench_function(BenchmarkId::new(format.name(), format!("runs of {n}")), |b| {
                b.iter(|| desk.build(format, black_box(&run)));
            });
            assert_eq!(desk.settle.low(desk.slot), desk.position, "all is settled");
        }
    }
}

fn check(sealed: &Sealed, format: Format, n: usize) {
    let records = sealed.records as usize;
    assert_eq!(sealed.tickets, records.div_ceil(n));
    assert_eq!(sealed.delivered as usize, sealed.tickets * n, "stretches settle whole, once");
    if format == Format::Raw {
        assert_eq!(sealed.bytes, records * LINE_BYTES);
    }
    assert!(sealed.bytes <= ARENA_BYTES && sealed.bytes > ARENA_BYTES - 2 * LINE_BYTES, "{sealed:?}");
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = batches
}
criterion_main!(benches);
