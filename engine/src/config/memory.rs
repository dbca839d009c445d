//! Whether `memory_limit` is enough: for what sources were told to use, and for what everything needs to work at all.
//!
//! What is needed at the least is what is set aside while the engine runs ([`crate::memory`]): with it each source can
//! receive, and has a batch, however little the others leave. All of it is used only when every source is busy at once, so
//! a limit below it is told and not refused. Pure.

use super::tree::Table;
use super::units::Size;
use super::{Config, SourceConfig};
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::io::bufring::{BUFFER_BYTES, HOT_BUFFERS, SEGMENT_BYTES};
use crate::io::runtime::READ_BUFFER_BYTES;
use crate::memory::CARRIED_SHARE;
use crate::pool::BATCH_BYTES;
use crate::source::SourceParams;
use crate::source::datagram::{RING_BYTES, RING_BYTES_GRO, WAITING_STEP_BYTES};
use crate::source::syslog::Protocol;

/// How a source receives, as far as memory goes.
enum Way {
    /// Into buffers that the shard's streams share.
    Streams { budget: Size },
    /// Into buffers of its own.
    Datagrams { gro: bool },
    /// Into buffers that the shard's readers share.
    Files,
    /// Elsewhere.
    Other,
}

fn way(source: &SourceConfig) -> Way {
    match &source.params {
        SourceParams::Syslog(syslog) if syslog.protocol == Protocol::Udp => {
            Way::Datagrams { gro: syslog.gro }
        }
        SourceParams::Syslog(syslog) => Way::Streams { budget: syslog.tcp_recv_bytes },
        SourceParams::Tcp(tcp) => Way::Streams { budget: tcp.tcp_recv_bytes },
        SourceParams::File(_) => Way::Files,
        SourceParams::Kafka(_) | SourceParams::Mqtt(_) => Way::Other,
    }
}

/// Tells what does not fit.
pub(super) fn check(config: &Config, cpus: usize, root: &Table, findings: &mut Findings) {
    let shards = config.shards(cpus) as u64;
    let limit = config.engine.memory_limit;
    for source in config.sources.iter().filter(|source| source.enable) {
        let Way::Streams { budget } = way(source) else { continue };
        let all = budget.0.saturating_mul(shards);
        if all > limit.0 {
            findings.push(budget_too_large(source, budget, all, shards, limit));
        }
    }
    let least = least_bytes(config, shards);
    if least > limit.0 && findings.errors() == 0 {
        // Rounded up, so that the number is one to type.
        let least = Size(least.next_multiple_of(1 << 20));
        let sources = config.sources.iter().filter(|source| source.enable).count();
        let place = root.get("engine").map_or_else(|| root.place(), |node| node.place());
        let message = format!(
            "memory_limit ({limit}) is little for {sources} sources on {shards} shards: when all are busy at once they use {least} at the least"
        );
        findings.push(
            Diagnostic::warning(None, message)
                .at(place)
                .help(format!("raise it: [engine] memory_limit = \"{least}\" or more"))
                .help("or use fewer shards: [engine] workers"),
        );
    }
}

fn budget_too_large(source: &SourceConfig, each: Size, all: u64, shards: u64, limit: Size) -> Diagnostic {
    let message = format!(
        "out of range: tcp_recv_bytes of source '{}' is {each} on each of {shards} shards, {} in all, more than memory_limit ({limit})",
        source.key,
        Size(all),
    );
    let most = Size(limit.0 / shards);
    Diagnostic::error(Code::WP404, message)
        .at(source.place.clone())
        .help(format!("lower it: tcp_recv_bytes = {} or less", most.0))
        .help(format!("or raise the limit: [engine] memory_limit = \"{}\"", Size(all)))
}

/// What is set aside while the engine runs.
fn least_bytes(config: &Config, shards: u64) -> u64 {
    let (mut batches, mut each_shard, mut streams, mut files) = (0, 0, false, false);
    for source in config.sources.iter().filter(|source| source.enable) {
        batches += BATCH_BYTES as u64;
        match way(source) {
            Way::Streams { .. } => {
                streams = true;
                each_shard += SEGMENT_BYTES;
            }
            Way::Datagrams { gro } => {
                each_shard += WAITING_STEP_BYTES + if gro { RING_BYTES_GRO } else { RING_BYTES };
            }
            Way::Files => files = true,
            Way::Other => {}
        }
    }
    each_shard += if streams { HOT_BUFFERS * BUFFER_BYTES } else { 0 };
    each_shard += if files { READ_BUFFER_BYTES } else { 0 };
    let fixed = batches + shards * each_shard as u64;
    // Unfinished records have their part beside.
    fixed + fixed / (CARRIED_SHARE as u64 - 1)
}
