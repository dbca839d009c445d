//! `/metrics`: the engine's figures by Prometheus' conventions (base units, `_total` for what only grows).
//!
//! The law of conservation can be read off it: for each source, received = delivered + rejected + dropped (all reasons)
//! + in flight, at every scrape. Datagrams that the kernel dropped were never received and have a counter of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::exposition::{Kind, Page};
use crate::memory::USES;
use crate::metrics::REASONS;
use crate::rescue::Forgotten;
use crate::status::{
    AlertStatus, MemoryStatus, PartitionLag, RescueStatus, SinkState, SinkStatus, SourceStatus, Status,
};

/// The whole page.
pub fn page(status: &Status) -> String {
    let mut page = Page::default();
    process(&mut page, status);
    memory(&mut page, &status.memory);
    checkpoint(&mut page, status);
    records(&mut page, &status.sources);
    sources(&mut page, &status.sources);
    sinks(&mut page, &status.sinks);
    leaving(&mut page, &status.leaving);
    rescues(&mut page, &status.sinks);
    forgotten(&mut page, &status.forgotten);
    alerts(&mut page, &status.alerts);
    page.finish()
}

fn alerts(page: &mut Page, alerts: &[AlertStatus]) {
    let help = "1 while an alert that the source's tags ask for is active.";
    let mut family = page.family("wpgen_alert_active", Kind::Gauge, help);
    for alert in alerts {
        let labels = [("source", alert.source.as_str()), ("alert", alert.alert)];
        family.sample(&labels, u8::from(alert.active_for.is_some()));
    }
}

fn process(page: &mut Page, status: &Status) {
    page.family("wpgen_build_info", Kind::Gauge, "The version that runs; always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("wpgen_uptime_seconds", Kind::Gauge, "Time since the engine started.")
        .sample(&[], status.elapsed.as_secs_f64());
    page.family("wpgen_process_resident_memory_bytes", Kind::Gauge, "Memory of the process that is in RAM.")
        .sample(&[], status.usage.resident_bytes);
    page.family("wpgen_process_cpu_seconds_total", Kind::Counter, "CPU time of the process.")
        .sample(&[], status.usage.cpu.as_secs_f64());
    page.family("wpgen_in_flight_bytes", Kind::Gauge, "Memory of batches that wait for a sink's verdict.")
        .sample(&[], status.in_flight().1);
}

fn memory(page: &mut Page, memory: &MemoryStatus) {
    page.family("wpgen_memory_limit_bytes", Kind::Gauge, "The setting memory_limit.")
        .sample(&[], memory.limit_bytes);
    let help = "What the engine buffers of memory_limit, by what for.";
    let mut family = page.family("wpgen_memory_used_bytes", Kind::Gauge, help);
    for ((_, name), bytes) in USES.iter().zip(memory.used_by) {
        family.sample(&[("for", name)], bytes);
    }
    family.sample(&[("for", "unfinished_records")], memory.carried_bytes);
}

fn checkpoint(page: &mut Page, status: &Status) {
    let Some(checkpoint) = &status.checkpoint else { return };
    page.family(
        "wpgen_checkpoint_age_seconds",
        Kind::Gauge,
        "Time since the checkpoint on disk was up to date.",
    )
    .sample(&[], checkpoint.age.as_secs_f64());
    page.family("wpgen_checkpoint_writes_total", Kind::Counter, "Checkpoints written.")
        .sample(&[], checkpoint.written);
    page.family("wpgen_checkpoint_failures_total", Kind::Counter, "Checkpoints that could not be written.")
        .sample(&[], checkpoint.failed);
    page.family(
        "wpgen_checkpoint_up",
        Kind::Gauge,
        "1 while the checkpoint can be written, 0 while it cannot.",
    )
    .sample(&[], u8::from(checkpoint.trouble.is_none()));
}

/// One family with one sample a source.
fn each_source(
    page: &mut Page,
    sources: &[SourceStatus],
    (name, kind, help): (&'static str, Kind, &str),
    of: impl Fn(&SourceStatus) -> u64,
) {
    let mut family = page.family(name, kind, help);
    for source in sources {
        family.sample(&[("source", &source.key)], of(source));
    }
}

/// The terms of the law.
fn records(page: &mut Page, sources: &[SourceStatus]) {
    use Kind::{Counter, Gauge};
    each_source(
        page,
        sources,
        (
            "wpgen_source_received_records_total",
            Counter,
            "Records received, the dropped and rejected ones included.",
        ),
        |source| source.records_in,
    );
    each_source(
        page,
        sources,
        ("wpgen_source_delivered_records_total", Counter, "Records that every sink has which takes them."),
        |source| source.delivered,
    );
    each_source(
        page,
        sources,
        ("wpgen_source_rejected_records_total", Counter, "Records that a sink refused for good."),
        |source| source.rejected,
    );
    let help = "Records left out on purpose, by reason.";
    let mut family = page.family("wpgen_source_dropped_records_total", Counter, help);
    for source in sources {
        // All reasons from the beginning: a rate needs the zero before the first drop.
        for (_, reason) in REASONS {
            let n = source.dropped.iter().find(|(other, _)| other == reason).map_or(0, |(_, n)| *n);
            family.sample(&[("source", &source.key), ("reason", reason)], n);
        }
    }
    each_source(
        page,
        sources,
        (
            "wpgen_source_in_flight_records",
            Gauge,
            "Records received, and not yet delivered, rejected or dropped.",
        ),
        SourceStatus::in_flight,
    );
    let help = "Datagrams that the kernel dropped at the socket; they count as neither received nor dropped.";
    let mut family = page.family("wpgen_udp_kernel_drops_total", Counter, help);
    for source in sources {
        if source.has_datagrams {
            family.sample(&[("source", &source.key)], source.kernel_drops);
        }
    }
}

fn sources(page: &mut Page, sources: &[SourceStatus]) {
    use Kind::{Counter, Gauge};
    type Row = ((&'static str, Kind, &'static str), fn(&SourceStatus) -> u64);
    let rows: [Row; 8] = [
        (("wpgen_source_received_bytes_total", Counter, "Bytes received, before any decoding."), |s| {
            s.bytes_in
        }),
        (("wpgen_source_errors_total", Counter, "Failures that are not of one record."), |s| s.errors),
        (("wpgen_source_malformed_records_total", Counter, "Messages with a malformed header."), |s| {
            s.malformed
        }),
        (
            (
                "wpgen_source_misframed_frames_total",
                Counter,
                "Frames that do not begin as their framing demands; they are taken as lines.",
            ),
            |s| s.misframed,
        ),
        (("wpgen_source_truncated_records_total", Counter, "Records cut at their longest."), |s| s.truncated),
        (("wpgen_source_split_records_total", Counter, "Long lines that became several records."), |s| {
            s.split
        }),
        (("wpgen_source_lag_bytes", Gauge, "Bytes that are there and not read yet."), |s| s.lag_bytes),
        (
            (
                "wpgen_source_up",
                Gauge,
                "1 while the source does its work, or has ended it; 0 when it failed.",
            ),
            |s| u64::from(!s.failed),
        ),
    ];
    for (family, of) in rows {
        each_source(page, sources, family, of);
    }
    let help = "Messages of a partition that are there and that not every sink has.";
    let mut family = page.family("wpgen_kafka_lag", Gauge, help);
    for source in sources {
        for PartitionLag { topic, partition, messages } in &source.partitions {
            if let Some(messages) = messages {
                let number = partition.to_string();
                family
                    .sample(&[("source", &source.key), ("topic", topic), ("partition", &number)], *messages);
            }
        }
    }
    let help = "Time that the source waited, on the shard where it waited longest, by what for.";
    let mut family = page.family("wpgen_source_waited_seconds_total", Counter, help);
    for source in sources {
        for (what, ns) in [("read", source.waits.read_ns), ("sink", source.waits.sink_ns)] {
            let labels = [("source", source.key.as_str()), ("for", what)];
            family.sample(&labels, Duration::from_nanos(ns).as_secs_f64());
        }
    }
}

fn sinks(page: &mut Page, sinks: &[SinkStatus]) {
    use Kind::{Counter, Gauge};
    type Row = ((&'static str, Kind, &'static str), fn(&SinkStatus) -> u64);
    let rows: [Row; 4] = [
        (("wpgen_sink_delivered_records_total", Counter, "Records that are durable at the sink."), |s| {
            s.records
        }),
        (("wpgen_sink_delivered_bytes_total", Counter, "Encoded bytes that are durable at the sink."), |s| {
            s.bytes
        }),
        (("wpgen_sink_errors_total", Counter, "Failed attempts of the sink."), |s| s.errors),
        (("wpgen_sink_in_flight_batches", Gauge, "Batches that wait for the sink's verdict."), |s| {
            s.batches_in_flight
        }),
    ];
    for ((name, kind, help), of) in rows {
        let mut family = page.family(name, kind, help);
        for sink in sinks {
            family.sample(&[("sink", &sink.key)], of(sink));
        }
    }
    let help =
        "1 for the state that the sink is in: ready, waiting (it tries again), closed (it takes no more).";
    let mut family = page.family("wpgen_sink_state", Gauge, help);
    for sink in sinks {
        let is = match sink.state {
            SinkState::Ready => "ready",
            SinkState::Waiting(_) => "waiting",
            SinkState::Closed => "closed",
        };
        for state in ["ready", "waiting", "closed"] {
            family.sample(&[("sink", &sink.key), ("state", state)], u8::from(state == is));
        }
    }
}

/// What sinks still have that a reload has taken out. Several may have had one key.
fn leaving(page: &mut Page, sinks: &[SinkStatus]) {
    let mut batches: BTreeMap<&str, u64> = BTreeMap::new();
    sinks.iter().for_each(|sink| *batches.entry(&sink.key).or_default() += sink.batches_in_flight);
    if batches.is_empty() {
        return;
    }
    let help = "Batches that wait for a sink that a reload has taken out and that is not closed yet.";
    let mut family = page.family("wpgen_sink_leaving_batches", Kind::Gauge, help);
    for (key, batches) in batches {
        family.sample(&[("sink", key)], batches);
    }
}

/// What lies on disk for sinks that are not configured.
fn forgotten(page: &mut Page, forgotten: &[Forgotten]) {
    if forgotten.is_empty() {
        return;
    }
    let help =
        "Bytes of rescued records of a sink that is not configured, as of the start or the last reload.";
    let mut family = page.family("wpgen_sink_rescue_forgotten_bytes", Kind::Gauge, help);
    for left in forgotten {
        family.sample(&[("sink", &left.key)], left.bytes);
    }
}

/// What waits on disk for sinks that have a rescue.
fn rescues(page: &mut Page, sinks: &[SinkStatus]) {
    use Kind::{Counter, Gauge};
    type Row = ((&'static str, Kind, &'static str), fn(&RescueStatus) -> u64);
    let rows: [Row; 9] = [
        (
            ("wpgen_sink_rescue_bytes", Gauge, "Bytes of the files that hold what the sink could not take."),
            |r| r.bytes,
        ),
        (("wpgen_sink_rescue_limit_bytes", Gauge, "The setting rescue_bytes."), |r| r.limit_bytes),
        (("wpgen_sink_rescue_records", Gauge, "Records that wait in those files."), |r| r.records),
        (("wpgen_sink_rescue_kept_records_total", Counter, "Records that were written to them."), |r| {
            r.kept_records
        }),
        (("wpgen_sink_rescue_kept_bytes_total", Counter, "Encoded bytes that were written to them."), |r| {
            r.kept_bytes
        }),
        (("wpgen_sink_rescue_sent_records_total", Counter, "Records that the sink had from them."), |r| {
            r.sent_records
        }),
        (
            (
                "wpgen_sink_rescue_refusals_total",
                Counter,
                "Attempts to write to them that left something in memory: they were full, or the disk said no.",
            ),
            |r| r.refusals,
        ),
        (("wpgen_sink_rescue_errors_total", Counter, "Failures of the disk, and broken files."), |r| {
            r.errors
        }),
        (("wpgen_sink_rescue_up", Gauge, "1 while it works, 0 while it is full or the disk says no."), |r| {
            u64::from(!r.full && r.trouble.is_none())
        }),
    ];
    let rescues = || sinks.iter().filter_map(|sink| Some((&sink.key, sink.rescue.as_ref()?)));
    if rescues().next().is_none() {
        return;
    }
    for ((name, kind, help), of) in rows {
        let mut family = page.family(name, kind, help);
        for (key, rescue) in rescues() {
            family.sample(&[("sink", key)], of(rescue));
        }
    }
    let help = "Time since the oldest record in them was received; 0 when there is none.";
    let mut family = page.family("wpgen_sink_rescue_oldest_record_age_seconds", Gauge, help);
    for (key, rescue) in rescues() {
        family.sample(&[("sink", key)], rescue.oldest.unwrap_or_default().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rescue_stands_on_the_page_of_the_sinks_that_have_one() {
        let rescue = RescueStatus { bytes: 7, records: 3, full: true, ..RescueStatus::default() };
        let with = SinkStatus { key: "a".into(), rescue: Some(rescue), ..SinkStatus::default() };
        let without = SinkStatus { key: "b".into(), ..SinkStatus::default() };
        let text = page(&Status { sinks: vec![with, without], ..Status::default() });
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("wpgen_sink_rescue_")).collect();
        assert!(lines.iter().all(|line| line.contains("{sink=\"a\"}")), "{text}");
        for line in ["bytes{sink=\"a\"} 7", "records{sink=\"a\"} 3", "up{sink=\"a\"} 0"] {
            assert!(lines.contains(&&*format!("wpgen_sink_rescue_{line}")), "{line}: {text}");
        }
    }

    #[test]
    fn what_waits_for_a_sink_that_is_not_configured_stands_on_the_page() {
        let of = |key: &str, batches_in_flight| SinkStatus {
            key: key.into(),
            batches_in_flight,
            ..SinkStatus::default()
        };
        let left = Forgotten { key: "old".into(), path: "data/rescue/old".into(), bytes: 9 };
        let text = page(&Status {
            sinks: vec![of("a", 1)],
            leaving: vec![of("a", 2), of("a", 3), of("b", 4)],
            forgotten: vec![left],
            ..Status::default()
        });
        for line in [
            "wpgen_sink_in_flight_batches{sink=\"a\"} 1",
            "wpgen_sink_leaving_batches{sink=\"a\"} 5",
            "wpgen_sink_leaving_batches{sink=\"b\"} 4",
            "wpgen_sink_rescue_forgotten_bytes{sink=\"old\"} 9",
        ] {
            assert_eq!(text.lines().filter(|other| *other == line).count(), 1, "{line}: {text}");
        }
    }

    #[test]
    fn the_terms_of_the_law_stand_on_the_page() {
        let source = SourceStatus {
            key: "a\"b".into(),
            records_in: 10,
            delivered: 4,
            rejected: 1,
            dropped: vec![("too_long".into(), 2)],
            kernel_drops: 99,
            has_datagrams: true,
            ..SourceStatus::default()
        };
        let text = page(&Status { sources: vec![source], ..Status::default() });
        for line in [
            "wpgen_source_received_records_total{source=\"a\\\"b\"} 10",
            "wpgen_source_dropped_records_total{source=\"a\\\"b\",reason=\"too_long\"} 2",
            "wpgen_source_dropped_records_total{source=\"a\\\"b\",reason=\"malformed\"} 0",
            "wpgen_source_in_flight_records{source=\"a\\\"b\"} 3",
            "wpgen_udp_kernel_drops_total{source=\"a\\\"b\"} 99",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
