//! What a syslog header costs: 250-byte messages of several shapes, against `syslog_loose` in the same run.
//!
//! A thousand messages that differ in every field are parsed a round, so that branches are predicted as well as real
//! traffic allows and no better. Times criterion prints are for a round; its throughput line is messages a second.
//! Before anything is timed, both parsers must agree on every message, and ours must not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::Span;
use engine::syslog::{Header, TimeContext, YearPolicy, parse_into, write_rfc3339};

/// Messages of a round.
const MESSAGES: usize = 1000;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 250;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A run of messages, one shape.
struct Messages {
    bytes: Vec<u8>,
    records: Vec<Span>,
}

impl Messages {
    fn new(header: impl Fn(usize) -> String) -> Self {
        let mut messages = Self { bytes: Vec::new(), records: Vec::new() };
        for i in 0..MESSAGES {
            let mut text = header(i);
            while text.len() < MESSAGE_BYTES {
                text.push_str("GET /index.html status=200 bytes=1234 retry timeout ");
            }
            text.truncate(MESSAGE_BYTES - 1);
            // A message that ends in a space is trimmed by `syslog_loose` and would differ.
            text.push('.');
            let start = messages.bytes.len() as u32;
            messages.bytes.extend_from_slice(text.as_bytes());
            messages.records.push(Span { start, end: messages.bytes.len() as u32 });
            messages.bytes.push(b'\n');
        }
        messages
    }

    fn text(&self, record: Span) -> &str {
        std::str::from_utf8(record.of(&self.bytes)).expect("messages are text")
    }
}

/// Letters, `least` of them and up to `more` more, other ones and another number of them for each `i`.
fn word(i: usize, least: usize, more: usize) -> String {
    let mut seed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let len = least + next() % (more + 1);
    (0..len).map(|_| char::from(b'a' + (next() % 26) as u8)).collect()
}

fn shapes() -> Vec<(&'static str, Messages)> {
    let second = |i: usize| format!("{:02}", i % 60);
    // With fields of any length, and structured data behind them.
    let any = |i: usize, data: &str| {
        let (host, app, id) = (word(i, 1, 30), word(i + 1, 1, 20), word(i + 2, 1, 12));
        format!("<{}>1 2003-10-11T22:14:{}.{:03}Z {host} {app} {i} {id} {data} ", i % 192, second(i), i)
    };
    vec![
        (
            "rfc3164",
            Messages::new(|i| {
                let (day, host) = (1 + i % 28, i % 50);
                format!("<{}>Oct {day:>2} 22:14:{} mymachine{host} su[{i}]: ", i % 192, second(i))
            }),
        ),
        (
            "rfc5424",
            Messages::new(|i| {
                let host = i % 50;
                format!(
                    "<{}>1 2003-10-11T22:14:{}.{i:06}Z host{host}.example.com evntslog {i} ID{} - ",
                    i % 192,
                    second(i),
                    i % 90
                )
            }),
        ),
        (
            "rfc5424_two_elements",
            Messages::new(|i| {
                let host = i % 50;
                format!(
                    "<{}>1 2003-10-11T22:14:{}.{i:06}Z host{host}.example.com evntslog {i} ID{} [exampleSDID@32473 \
                     iut=\"{i}\" eventSource=\"App\\\"x\\\"\" eventID=\"1011\"][ex@1 class=\"high\"] ",
                    i % 192,
                    second(i),
                    i % 90
                )
            }),
        ),
        (
            "rfc3164_any_lengths",
            Messages::new(|i| {
                let (day, host, tag) = (1 + i % 28, word(i, 1, 30), word(i + 1, 1, 20));
                let pid = if i % 3 == 0 { format!("[{i}]") } else { String::new() };
                format!("<{}>Oct {day:>2} 22:14:{} {host} {tag}{pid}: ", i % 192, second(i))
            }),
        ),
        ("rfc5424_any_lengths", Messages::new(|i| any(i, "-"))),
        (
            "rfc5424_one_long_value",
            Messages::new(|i| any(i, &format!("[a@1 value=\"{}\"]", word(i + 3, 60, 60)))),
        ),
        (
            "rfc5424_many_parameters",
            Messages::new(|i| {
                let params: String =
                    (0..4 + i % 9).map(|n| format!(" {}=\"{n}\"", word(i + n, 1, 3))).collect();
                any(i, &format!("[a@1{params}]"))
            }),
        ),
        (
            "rfc5424_any_elements",
            Messages::new(|i| {
                let value = |n: usize| match (i + n) % 4 {
                    0 => "\\\"q\\\"".to_owned(),
                    _ => word(i + n, 0, 12),
                };
                let element = |n: usize| format!("[{}@1 a=\"{}\"]", word(i + n, 2, 8), value(n));
                any(i, &(0..1 + i % 4).map(element).collect::<String>())
            }),
        ),
    ]
}

/// What `syslog_loose` says, in the year that our context infers and in UTC, whatever the machine's zone is.
macro_rules! loose {
    ($text:expr, $utc:expr) => {
        syslog_loose::parse_message_with_year_tz($text, |_| 2003, Some($utc), syslog_loose::Variant::Either)
    };
}

/// The zone type that `syslog_loose` takes, without naming the crate it comes from.
macro_rules! utc {
    () => {
        *syslog_loose::parse_message("<1>1 1970-01-01T00:00:00Z - - - - -", syslog_loose::Variant::RFC5424)
            .timestamp
            .expect("a time of RFC 5424")
            .offset()
    };
}

/// Fails unless both parsers say the same of every message.
fn check_agreement(messages: &Messages, headers: &[Header]) {
    let utc = utc!();
    for (record, header) in messages.records.iter().zip(headers) {
        let text = messages.text(*record);
        let theirs = loose!(text, utc);
        let ours =
            |span: Span| std::str::from_utf8(span.of(&messages.bytes)).ok().filter(|text| !text.is_empty());
        assert_eq!(header.time_ns(), theirs.timestamp.and_then(|time| time.timestamp_nanos_opt()), "{text}");
        assert_eq!(header.severity(), theirs.severity.map(|severity| severity as u8), "{text}");
        assert_eq!(header.facility(), theirs.facility.map(|facility| facility as u8), "{text}");
        assert_eq!(ours(header.host), theirs.hostname, "{text}");
        assert_eq!(ours(header.app), theirs.appname, "{text}");
        assert_eq!(ours(header.proc_id), theirs.procid.map(|id| id.to_string()).as_deref(), "{text}");
        assert_eq!(ours(header.msg_id), theirs.msgid, "{text}");
        assert_eq!(ours(header.message), Some(theirs.msg), "{text}");
    }
}

fn headers(c: &mut Criterion) {
    let context = TimeContext::new(1_067_000_000, 0, YearPolicy::Inferred);
    for (shape, messages) in &shapes() {
        let mut headers = vec![Header::default(); MESSAGES];
        let round = |headers: &mut [Header]| {
            for (header, record) in headers.iter_mut().zip(&messages.records) {
                parse_into(&messages.bytes, *record, &context, header);
            }
        };
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        round(&mut headers);
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "parsing allocates nothing");
        check_agreement(messages, &headers);

        let mut group = c.benchmark_group(*shape);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        group.bench_function("wpgen", |b| b.iter(|| round(black_box(&mut headers))));
        group.bench_function("syslog_loose", |b| {
            let utc = utc!();
            b.iter(|| {
                for record in &messages.records {
                    black_box(loose!(messages.text(*record), utc));
                }
            });
        });
        group.finish();
    }
}

fn times(c: &mut Criterion) {
    let mut out = [0; 35];
    let mut ns = 1_067_000_000_000_000_000;
    c.bench_function("write_rfc3339", |b| {
        b.iter(|| {
            ns += 1_234_567_891;
            write_rfc3339(black_box(&mut out), ns)
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = headers, times
}
criterion_main!(benches);
