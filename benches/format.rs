//! What encoding a record costs, by format: runs of 239-byte access-log lines, as a file source hands them over, and of
//! messages of RFC 5424 with the same lines in them, parsed, as a syslog source does.
//!
//! Each case checks its answer before it is timed. Lines hold six quotes, as access logs do, so NDJSON has to escape.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::{Columns, Mark, Origin, Positions, Run, Span};
use engine::pool::{ARENA_BYTES, Arena};
use engine::sink::format::{Format, encode};
use engine::syslog::{Header, TimeContext, YearPolicy, parse};

const LINE_BYTES: usize = 239;
const LINES: usize = 2000;

/// An access-log line of exactly `LINE_BYTES`, newline included.
fn line(i: usize) -> String {
    let mut line = format!(
        "10.{}.{}.{} - - [22/Nov/2026:21:{:02}:{:02} +0000] \"GET /api/v1/items/{i} HTTP/1.1\" 200 {} \
         \"https://shop.example/cart?step={}\" \"Mozilla/5.0 (X11; Linux x86_64) ",
        i % 256,
        i % 199,
        i % 251,
        i % 60,
        i % 59,
        i * 37 % 100_000,
        i % 7
    );
    while line.len() < LINE_BYTES - 2 {
        line.push(if line.len() % 9 == 0 { ' ' } else { 'k' });
    }
    line + "\"\n"
}

fn origin() -> Origin {
    Origin {
        source: "file_1".into(),
        host: "bench".into(),
        tags: ["source_type:file", "source_path:/var/log/app.log", "source_name:app.log", "host:bench"]
            .iter()
            .filter_map(|tag| tag.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        peer: None,
        tls_subject: None,
        assignment: None,
        protocol: None,
        mark: Mark::default(),
    }
}

fn formats(c: &mut Criterion) {
    let text: String = (0..LINES).map(line).collect();
    assert_eq!(text.len(), LINES * LINE_BYTES);
    let records: Vec<Span> = (0..LINES)
        .map(|i| Span { start: (i * LINE_BYTES) as u32, end: ((i + 1) * LINE_BYTES - 1) as u32 })
        .collect();
    let origin = origin();
    let run = Run {
        bytes: text.as_bytes(),
        records: &records,
        verbatim: true,
        columns: Columns::None,
        peers: &[],
        origin: &origin,
        received_ns: 1_700_000_000_000_000_000,
        positions: Positions::Linear { base: 0, upto: text.len() as u64 },
    };
    measure(c, "encode", &run);
}

fn parsed(c: &mut Criterion) {
    let mut text = String::new();
    let context = TimeContext::new(1_700_000_000, 0, YearPolicy::Inferred);
    let mut whole = Vec::new();
    for i in 0..LINES {
        let start = text.len() as u32;
        text += &format!(
            "<{}>1 2026-11-22T03:15:{:02}.{i:06}Z host{}.example.com app{} {i} ID{} - {}",
            i * 7 % 192,
            i % 60,
            i % 50,
            i % 9,
            i % 90,
            line(i)
        );
        whole.push(Span { start, end: text.len() as u32 - 1 });
    }
    let headers: Vec<Header> = whole.iter().map(|record| parse(text.as_bytes(), *record, &context)).collect();
    let records: Vec<Span> = headers.iter().map(|header| header.message).collect();
    let origin = origin();
    let run = Run {
        bytes: text.as_bytes(),
        records: &records,
        verbatim: false,
        columns: Columns::Syslog(&headers),
        peers: &[],
        origin: &origin,
        received_ns: 1_700_000_000_000_000_000,
        positions: Positions::Linear { base: 0, upto: text.len() as u64 },
    };
    measure(c, "encode_parsed", &run);
}

fn measure(c: &mut Criterion, name: &str, run: &Run<'_>) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(LINES as u64));
    group.sample_size(30).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for format in Format::ALL {
        let mut out = Arena::new(2 * ARENA_BYTES);
        check(format, run, &mut out);
        group.bench_with_input(BenchmarkId::from_parameter(format.name()), &format, |b, &format| {
            b.iter(|| {
                out.clear();
                black_box(encode(format, black_box(run), 0, None, &mut out, usize::MAX, None))
            });
        });
    }
    group.finish();
}

fn check(format: Format, run: &Run<'_>, out: &mut Arena) {
    let encoded = encode(format, run, 0, None, out, usize::MAX, None);
    assert_eq!((encoded.next, encoded.records as usize), (LINES, LINES));
    let last = out.filled().split(|b| *b == b'\n').nth(LINES - 1).map(<[u8]>::to_vec).unwrap_or_default();
    let record = run.records[LINES - 1].of(run.bytes);
    match format {
        Format::Raw if run.verbatim => assert_eq!(out.filled(), run.bytes),
        Format::Raw => assert_eq!(last, record),
        Format::Syslog5424 | Format::Syslog3164 => assert!(last.ends_with(record)),
        Format::Ndjson => {
            let object: serde_json::Value = serde_json::from_slice(&last).expect("a line of NDJSON");
            assert_eq!(object["data"].as_str().map(str::as_bytes), Some(record));
            let parsed = matches!(run.columns, Columns::Syslog(_));
            assert_eq!(object["meta"]["syslog_app_name"].is_string(), parsed);
        }
    }
}

criterion_group!(benches, formats, parsed);
criterion_main!(benches);
