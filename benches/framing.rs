//! Framing, each kind and chunk size: 250-byte syslog messages in segments as small writes, a network's packets, receive
//! buffers and file reads make them, records on the borders carried; time a record.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::Span;
use engine::frame::{Framer, Framing, Oversize, Rules};

const MESSAGES: usize = 4096;
/// Bytes of a segment.
const SEGMENTS: [usize; 4] = [100, 1448, 16 << 10, 1 << 20];

fn message(i: usize) -> Vec<u8> {
    let mut message = format!("<{}>1 2024-05-17T08:54:06Z host app {i} - - ", i % 192).into_bytes();
    message.resize(200 + i * 7919 % 100, b'x');
    message
}

fn stream(frame: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    (0..MESSAGES).flat_map(|i| frame(&message(i))).collect()
}

fn lines(message: &[u8]) -> Vec<u8> {
    [message, b"\n"].concat()
}

fn octets(message: &[u8]) -> Vec<u8> {
    [message.len().to_string().as_bytes(), b" ", message].concat()
}

/// Frames all of it; the number of records and the sum of their lengths.
fn run(framer: &mut Framer, stream: &[u8], segment: usize, spans: &mut Vec<Span>) -> (usize, usize) {
    let (mut records, mut bytes) = (0, 0);
    for segment in stream.chunks(segment) {
        let mut from = 0;
        while from < segment.len() {
            let step = framer.feed(segment, from, spans);
            if let Some(carried) = step.carried {
                records += 1;
                bytes += carried.span.len();
            }
            records += spans.len();
            bytes += spans.iter().map(|span| span.len()).sum::<usize>();
            from = step.next;
        }
        framer.release();
    }
    (records, bytes)
}

fn kinds(criterion: &mut Criterion) {
    let want = (MESSAGES, (0..MESSAGES).map(|i| message(i).len()).sum());
    let mut group = criterion.benchmark_group("framing");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, framing, stream) in [
        ("newline", Framing::Newline, stream(lines)),
        ("crlf", Framing::Newline, stream(|message| [message, b"\r\n"].concat())),
        ("auto, lines", Framing::Auto, stream(lines)),
        ("auto, octet", Framing::Auto, stream(octets)),
        ("octet", Framing::Octet, stream(octets)),
        ("nul", Framing::Nul, stream(|message| [message, b"\0"].concat())),
        ("len32", Framing::Len32, stream(|m| [&(m.len() as u32).to_be_bytes()[..], m].concat())),
    ] {
        let rules =
            Rules { framing, prefer_newline: false, oversize: Oversize::Truncate, record_bytes_max: 1 << 20 };
        for bytes in SEGMENTS {
            let (mut framer, mut spans) = (Framer::new(rules), Vec::new());
            assert_eq!(run(&mut framer, &stream, bytes, &mut spans), want, "{name}, {bytes}");
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| run(&mut framer, black_box(&stream), bytes, &mut spans));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = kinds
}
criterion_main!(benches);
