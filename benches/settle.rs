//! Tickets on their way home: windows of stretches that two sinks hold, verdicts in order, backwards and mixed; time a
//! ticket.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::{Ticket, Verdict};
use engine::settle::Settle;

/// Inputs, as of many connections or files.
const INPUTS: usize = 64;
/// Stretches of each that are out at once.
const STRETCHES: usize = 64;
const RECORDS: u32 = 100;
const SINKS: usize = 2;

/// In which order verdicts come.
type Order = Vec<usize>;

fn orders() -> [(&'static str, Order); 3] {
    let all = INPUTS * STRETCHES * SINKS;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut mixed: Order = (0..all).collect();
    for at in (1..all).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        mixed.swap(at, (seed % (at as u64 + 1)) as usize);
    }
    [("in order", (0..all).collect()), ("backwards", (0..all).rev().collect()), ("mixed", mixed)]
}

/// Begins all stretches and lets them come home; the records that were settled.
fn round(settle: &mut Settle, slots: &[u32], begun: &mut u64, order: &Order, out: &mut Vec<Ticket>) -> u64 {
    out.clear();
    let mut delivered = 0;
    for stretch in 1..=STRETCHES as u64 {
        for slot in slots {
            let ticket = settle.begin(*slot, *begun + stretch, RECORDS);
            for _ in 0..SINKS {
                settle.attach(&ticket);
                out.push(ticket);
            }
            delivered += settle.sealed(&ticket).delivered;
        }
    }
    *begun += STRETCHES as u64;
    for at in order {
        delivered += settle.verdict(&out[*at], Verdict::Delivered).delivered;
    }
    delivered
}

fn verdicts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("settle");
    group.throughput(Throughput::Elements((INPUTS * STRETCHES * SINKS) as u64));
    for (name, order) in orders() {
        let mut settle = Settle::default();
        let slots: Vec<u32> = (0..INPUTS).map(|input| settle.open(input as u64 + 1, 0)).collect();
        let (mut begun, mut out) = (0, Vec::new());
        let want = (INPUTS * STRETCHES) as u64 * u64::from(RECORDS);
        assert_eq!(round(&mut settle, &slots, &mut begun, &order, &mut out), want, "{name}");
        group.bench_function(name, |b| {
            b.iter(|| round(&mut settle, &slots, &mut begun, black_box(&order), &mut out));
        });
        assert!(settle.is_all_idle() && slots.iter().all(|slot| settle.low(*slot) == begun), "{name}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = verdicts
}
criterion_main!(benches);
