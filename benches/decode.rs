//! Encoded lines to records: base64 and hex, runs of 1 MiB, records of 180 to 300 bytes; throughput of input.

use std::hint::black_box;
use std::time::Duration;

use base64_simd::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::decode::{Encode, OnBad, decode_run};
use engine::frame::newline;
use hex_simd::AsciiCase;

fn records() -> Vec<Vec<u8>> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    (0..3000).map(|_| (0..180 + next() % 120).map(|_| next() as u8).collect()).collect()
}

fn decodes(criterion: &mut Criterion) {
    let records = records();
    let mut group = criterion.benchmark_group("decode");
    let text = |line: &dyn Fn(&[u8]) -> String| -> Vec<u8> {
        records.iter().flat_map(|record| (line(record) + "\n").into_bytes()).collect()
    };
    for (name, encode, text) in [
        ("base64", Encode::Base64, text(&|record| STANDARD.encode_to_string(record))),
        ("base64 url", Encode::Base64, text(&|record| URL_SAFE_NO_PAD.encode_to_string(record))),
        ("hex", Encode::Hex, text(&|record| hex_simd::encode_to_string(record, AsciiCase::Lower))),
    ] {
        let (mut lines, mut out, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        newline::lines(&text, 0, usize::MAX, &mut lines);
        let mut run = || {
            out.clear();
            spans.clear();
            let taken =
                decode_run(encode, black_box(&text), &lines, &mut out, &mut spans, &mut |_, _| OnBad::Stop);
            (taken, out.len(), spans.len())
        };
        let bytes = records.iter().map(Vec::len).sum();
        assert_eq!(run(), (records.len(), bytes, records.len()), "{name}");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(&mut run));
        assert!(spans.iter().zip(&records).all(|(span, record)| span.of(&out) == record), "{name}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = decodes
}
criterion_main!(benches);
