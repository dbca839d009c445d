//! Where lines end: the scan beside `memchr_iter`, over 1 MiB of lines of one and of mixed lengths; time a line.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::Span;
use engine::frame::newline;

/// Random lengths within the bounds, so that no branch predictor learns them; the same each time.
fn text(shortest: u64, longest: u64) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut text = Vec::with_capacity(1 << 20);
    loop {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let len = (shortest + seed % (longest - shortest + 1)) as usize;
        if text.len() + len + 1 > 1 << 20 {
            return text;
        }
        text.resize(text.len() + len, b'a' + (seed >> 32) as u8 % 26);
        text.push(b'\n');
    }
}

fn by_memchr(text: &[u8], out: &mut Vec<Span>) {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', text) {
        out.push(Span { start, end: end as u32 });
        start = end as u32 + 1;
    }
}

fn scans(criterion: &mut Criterion) {
    for (name, shortest, longest) in
        [("239", 239, 239), ("100-380", 100, 380), ("20-60", 20, 60), ("0-10", 0, 10)]
    {
        let text = text(shortest, longest);
        let (mut own, mut twin) = (Vec::new(), Vec::new());
        newline::lines(&text, 0, usize::MAX, &mut own);
        by_memchr(&text, &mut twin);
        assert!(own == twin && !own.is_empty(), "the scans disagree");
        let mut group = criterion.benchmark_group(format!("newline {name}"));
        group.throughput(Throughput::Elements(own.len() as u64));
        group.bench_function("own", |b| {
            b.iter(|| {
                own.clear();
                newline::lines(black_box(&text), 0, usize::MAX, &mut own)
            });
        });
        group.bench_function("memchr_iter", |b| {
            b.iter(|| {
                twin.clear();
                by_memchr(black_box(&text), &mut twin);
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = scans
}
criterion_main!(benches);
