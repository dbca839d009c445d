//! What a status gives reason to say: the findings of a running engine, from its own figures.
//!
//! Pure: two statuses in, findings out. Shares of time are those between the two, so that an engine that was slow last
//! week is not called slow now; counts are since the start. It refuses to guess: a cause is named where a figure
//! shows it.

use std::time::Duration;

use crate::diagnosis::{Code, Diagnostic};
use crate::status::{SinkState, SourceStatus, Status, Waits};

/// Percent of the time from which waiting is what limits.
pub const SLOWED_PERCENT: u64 = 50;
/// A shorter time says nothing about what limits.
const TELLING: Duration = Duration::from_millis(500);
/// Messages behind from which it is told; fewer are on their way.
const LAG_MESSAGES: u64 = 1000;
/// Percent of memory_limit from which it is told: an eighth of it is for unfinished records alone, so that sources wait
/// for memory somewhat below the whole.
const MEMORY_PERCENT: u64 = 80;

/// What there is to say of `now`, when it was `before` some time ago; an empty status stands for the start.
pub fn findings(before: &Status, now: &Status) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for source in &now.sources {
        let earlier = before.sources.iter().find(|earlier| earlier.key == source.key);
        findings.extend(slow(source, earlier, now, now.elapsed.saturating_sub(before.elapsed)));
        findings.extend(lost(source));
        findings.extend(malformed(source));
        findings.extend(undecoded(source));
        findings.extend(lagging(source, earlier, now.elapsed.saturating_sub(before.elapsed)));
    }
    findings.extend(memory(now));
    let leaving = now.leaving_words().into_iter().map(|words| leaves_when(Diagnostic::warning(None, words)));
    findings.extend(leaving);
    findings
}

fn slow(
    source: &SourceStatus,
    earlier: Option<&SourceStatus>,
    now: &Status,
    elapsed: Duration,
) -> Option<Diagnostic> {
    let before = earlier.map_or_else(Waits::default, |earlier| earlier.waits);
    let waits = Waits {
        read_ns: source.waits.read_ns.saturating_sub(before.read_ns),
        sink_ns: source.waits.sink_ns.saturating_sub(before.sink_ns),
    };
    let (reads, sinks) = waits.percents(elapsed);
    let by_sink = sinks >= SLOWED_PERCENT;
    // Who waits for reads while nothing is left to read is not slow.
    let by_reads = reads >= SLOWED_PERCENT && source.lag_bytes > 0;
    if elapsed < TELLING || !(by_sink || by_reads) {
        return None;
    }
    let key = &source.key;
    let seconds = elapsed.as_secs_f64();
    if !by_sink {
        let message =
            format!("slow reading: source '{key}' waited for its reads {reads} % of {seconds:.1} s");
        return Some(
            Diagnostic::warning(Some(Code::WP105), message)
                .note(format!(
                    "the disk limits: it waited for sinks {sinks} %, {} bytes are left to read",
                    source.lag_bytes
                ))
                .help(
                    "iostat -x 1 shows how busy the disk is; another disk, or less that reads from this one",
                ),
        );
    }
    let mut finding = Diagnostic::warning(
        Some(Code::WP105),
        format!(
            "slow reading: source '{key}' waited for its sinks {sinks} % of {seconds:.1} s, for reads {reads} %"
        ),
    );
    let slowest = now.sinks.iter().max_by_key(|sink| sink.batches_in_flight);
    if let Some(sink) = slowest.filter(|sink| sink.batches_in_flight > 0) {
        let batches = sink.batches_in_flight;
        finding =
            finding.note(format!("sink '{}' limits: {batches} batches wait for it to be done", sink.key));
    }
    for sink in &now.sinks {
        if let SinkState::Waiting(why) = &sink.state {
            finding = finding.note(format!("sink '{}' cannot write: {why}", sink.key));
        }
    }
    if source.has_datagrams {
        finding =
            finding.note("what comes meanwhile fills the socket's buffer, and then is lost on UDP (WP305)");
    }
    Some(finding.help("widen that sink: a faster disk or peer, fsync = \"interval\", compress = \"none\", or `where` to give it less"))
}

fn lost(source: &SourceStatus) -> Option<Diagnostic> {
    (source.kernel_drops > 0).then(|| {
        let least = if source.kernel_drops_are_a_lower_bound { "at least " } else { "" };
        let message = format!(
            "messages lost on UDP: the kernel dropped {least}{} datagrams of source '{}'",
            source.kernel_drops, source.key
        );
        Diagnostic::warning(Some(Code::WP305), message)
            .note("the socket's buffer was full when they came: a burst, or a sink that is slow")
            .help("sysctl -w net.core.rmem_max=33554432   (then so_rcvbuf = \"32MiB\")")
            .help("or protocol = \"tcp\", which loses none")
    })
}

fn malformed(source: &SourceStatus) -> Option<Diagnostic> {
    let key = &source.key;
    let (message, help) = match (source.malformed, source.misframed) {
        (0, 0) => return None,
        (0, n) => (
            format!(
                "Parse error in syslog message: {n} frames of source '{key}' did not begin as framing says"
            ),
            "the framing that the log names with the first of them",
        ),
        (n, _) => (
            format!("Invalid syslog format: {n} messages of source '{key}' are none"),
            "header_mode = \"keep\"   (passes everything as it comes)",
        ),
    };
    let finding = Diagnostic::warning(Some(Code::WP304), message);
    Some(finding.note("the log shows the first of them with peer, position and bytes, and which setting would take it").help(help))
}

fn undecoded(source: &SourceStatus) -> Option<Diagnostic> {
    (source.rejected > 0).then(|| {
        let message = format!(
            "Invalid base64 encoding or Invalid hex encoding: {} lines of source '{}' could not be decoded",
            source.rejected, source.key
        );
        Diagnostic::warning(Some(Code::WP103), message)
            .note("the log names file, line and byte of the first, and what the file looks like where most lines are bad")
            .help("encode = ...   (where most lines are bad: as the log says)")
            .help("on_bad_line = \"pass\"   (where few are: they come as they are)")
    })
}

/// Messages that wait in Kafka and do not become fewer.
fn lagging(source: &SourceStatus, earlier: Option<&SourceStatus>, elapsed: Duration) -> Option<Diagnostic> {
    let earlier = earlier.filter(|earlier| earlier.partitions.iter().any(|lag| lag.messages.is_some()))?;
    let (then, lag) = (earlier.lag_messages(), source.lag_messages());
    if elapsed < TELLING || lag < LAG_MESSAGES || lag < then {
        return None;
    }
    let (key, partitions) = (&source.key, source.partitions.len());
    let a_second = (lag - then) as f64 / elapsed.as_secs_f64();
    let message =
        format!("consumer lag: source '{key}' is {lag} messages behind, and {a_second:.0} more each second");
    let mut finding = Diagnostic::warning(Some(Code::WP205), message);
    let worst = source.partitions.iter().max_by_key(|lag| lag.messages);
    let worst = worst.map(|worst| (worst, worst.messages.unwrap_or(0)));
    if let Some((worst, messages)) = worst {
        let (topic, number) = (&worst.topic, worst.partition);
        finding = finding.note(format!(
            "most of it on {topic}[{number}]: {messages}; {partitions} partitions are read here"
        ));
    }
    let waits = Waits { read_ns: 0, sink_ns: source.waits.sink_ns.saturating_sub(earlier.waits.sink_ns) };
    let (_, sinks) = waits.percents(elapsed);
    finding = finding.note(format!("it waited for its sinks {sinks} % of {:.1} s", elapsed.as_secs_f64()));
    // Half of it on one of several is a key, and not our pace.
    let is_skewed = partitions > 2 && worst.is_some_and(|(_, messages)| messages > lag / 2);
    Some(if sinks >= SLOWED_PERCENT {
        finding.help("its sinks limit: widen them, or give them less with `where`")
    } else if is_skewed {
        finding.help("one partition has most of it: a key that gets most of the messages; only its producer can change that")
    } else {
        finding.help(
            "reading limits: config = { fetch_min_bytes = 102400 }, or a further engine in the same group",
        )
    })
}

fn memory(now: &Status) -> Option<Diagnostic> {
    let (used, limit) = (now.memory.used_bytes, now.memory.limit_bytes);
    if limit == 0 || u128::from(used) * 100 < u128::from(limit) * u128::from(MEMORY_PERCENT) {
        return None;
    }
    let (batches, in_flight) = now.in_flight();
    let carried = now.memory.carried_bytes;
    let buffers = used.saturating_sub(in_flight).saturating_sub(carried);
    let message = format!("memory too high: buffers hold {used} bytes of memory_limit ({limit})");
    let finding = Diagnostic::warning(Some(Code::WP106), message)
        .note(format!("{in_flight} bytes in {batches} batches on their way to sinks"))
        .note(format!("{carried} bytes in unfinished records"))
        .note(format!("{buffers} bytes in receive and read buffers, and set aside for sources"));
    // Many sources have much set aside whatever their sinks do: a third of it in flight is a sink that is slow.
    let slow = "mend the sink that is slow (WP105), or raise memory_limit: it holds what waits for it";
    let finding = if in_flight >= used / 3 { finding.help(slow) } else { finding };
    let largest = in_flight.max(carried).max(buffers);
    Some(if largest == carried {
        finding.help("lower max_line_bytes or max_message_bytes: unfinished records hold most")
    } else if largest == buffers {
        finding.help("raise memory_limit, or lower tcp_recv_bytes: each source has buffers of its own")
    } else {
        finding
    })
}

/// When a sink that was taken out is closed, and what else can be done.
pub(crate) fn leaves_when(finding: Diagnostic) -> Diagnostic {
    finding
        .note("it is closed when what it writes to takes what it still has; `wpgen source list` shows that")
        .help("bring back what it writes to")
        .help(
            "or put it back, if it is a tcp or syslog sink that had no rescue, at this address or another: it goes on \
             with that",
        )
        .help(
            "or `wpgen source stop`, which ends after drain_timeout: what no checkpoint has by then is read again at the \
             next start, from sources that can repeat, and is lost from others",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{MemoryStatus, PartitionLag, SinkStatus};

    fn status(seconds: u64, waits: Waits, batches: u64) -> Status {
        let source = SourceStatus { key: "s".into(), waits, lag_bytes: 1, ..SourceStatus::default() };
        let sink = SinkStatus { key: "o".into(), batches_in_flight: batches, ..SinkStatus::default() };
        Status {
            elapsed: Duration::from_secs(seconds),
            sources: vec![source],
            sinks: vec![sink],
            ..Status::default()
        }
    }

    fn codes(before: &Status, now: &Status) -> Vec<Option<Code>> {
        findings(before, now).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn what_limits_now_is_told_and_not_what_did() {
        let second = 1_000_000_000;
        let slow = Waits { read_ns: 0, sink_ns: 9 * second };
        let (then, now) = (status(10, slow, 3), status(20, slow, 3));
        let finding = &findings(&Status::default(), &then)[0];
        assert_eq!(finding.code, Some(Code::WP105));
        assert!(finding.message.contains("waited for its sinks 90 %"), "{finding}");
        assert!(finding.notes[0].contains("sink 'o' limits: 3 batches"), "{finding}");
        assert!(findings(&then, &now).is_empty(), "it was slow, and is not now");
    }

    #[test]
    fn a_disk_limits_only_while_something_is_left_to_read() {
        let reads = Waits { read_ns: 9_000_000_000, sink_ns: 0 };
        let mut now = status(10, reads, 0);
        assert!(findings(&Status::default(), &now)[0].notes[0].starts_with("the disk limits"));
        now.sources[0].lag_bytes = 0;
        assert!(findings(&Status::default(), &now).is_empty());
    }

    #[test]
    fn lag_that_does_not_shrink_names_what_limits() {
        let lags = |status: &mut Status, messages: [u64; 3]| {
            let lag = |(partition, messages)| PartitionLag {
                topic: "t".into(),
                partition,
                messages: Some(messages),
            };
            status.sources[0].partitions = (0..).zip(messages).map(lag).collect();
        };
        let (mut then, mut now) = (status(10, Waits::default(), 0), status(20, Waits::default(), 0));
        lags(&mut then, [500, 500, 500]);
        lags(&mut now, [1000, 1000, 1500]);
        let finding = &findings(&then, &now)[0];
        assert_eq!(finding.code, Some(Code::WP205));
        assert!(finding.message.contains("3500 messages behind, and 200 more each second"), "{finding}");
        assert!(
            finding.notes[0].contains("t[2]: 1500") && finding.help[0].starts_with("reading limits"),
            "{finding}"
        );
        lags(&mut now, [1, 1, 5000]);
        assert!(findings(&then, &now)[0].help[0].starts_with("one partition"));
        now.sources[0].waits.sink_ns = 9_000_000_000;
        let of_lag = |finding: &&Diagnostic| finding.code == Some(Code::WP205);
        assert!(findings(&then, &now).iter().find(of_lag).unwrap().help[0].starts_with("its sinks limit"));
        lags(&mut now, [400, 500, 500]);
        assert!(!findings(&then, &now).iter().any(|finding| of_lag(&finding)), "it shrinks");
    }

    #[test]
    fn memory_names_who_holds_most() {
        let mut now = status(10, Waits::default(), 0);
        now.memory =
            MemoryStatus { used_bytes: 79, limit_bytes: 100, carried_bytes: 0, ..MemoryStatus::default() };
        assert!(findings(&Status::default(), &now).is_empty());
        now.memory =
            MemoryStatus { used_bytes: 80, limit_bytes: 100, carried_bytes: 70, ..MemoryStatus::default() };
        let finding = &findings(&Status::default(), &now)[0];
        assert_eq!(finding.code, Some(Code::WP106));
        assert!(finding.help[0].contains("max_line_bytes"), "{finding}");
        now.memory.carried_bytes = 1;
        assert!(findings(&Status::default(), &now)[0].help[0].contains("tcp_recv_bytes"));
    }

    #[test]
    fn a_sink_that_leaves_is_told_with_what_ends_it() {
        let leaving = SinkStatus { key: "fw".into(), batches_in_flight: 1, ..SinkStatus::default() };
        let now = Status { leaving: vec![leaving], ..Status::default() };
        let found = findings(&Status::default(), &now);
        assert_eq!(found[0].message, "sink 'fw' was taken out and still has 1 batch");
        assert!(found[0].help[2].contains("`wpgen source stop`"), "{:?}", found[0].help);
    }

    #[test]
    fn what_was_lost_or_bad_is_counted() {
        let mut now = status(10, Waits::default(), 0);
        let source = &mut now.sources[0];
        (source.kernel_drops, source.malformed, source.rejected) = (5, 2, 1);
        let all = [Some(Code::WP305), Some(Code::WP304), Some(Code::WP103)];
        assert_eq!(codes(&Status::default(), &now), all);
        assert_eq!(codes(&now.clone(), &now), all, "counts are since the start");
    }
}
