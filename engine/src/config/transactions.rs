//! What a transactional Kafka sink asks of the sources that feed it, and of other sinks beside it.

use super::{Config, SinkConfig, SourceConfig};
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::sink::SinkParams;
use crate::sink::kafka::KafkaParams;
use crate::source::SourceParams;
use crate::source::file::params::Parallel;
use crate::source::kafka::KafkaParams as KafkaSource;
use crate::source::kafka::params::Split;

/// Tells where exactly once could not be kept.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    let mut ids: Vec<(&SinkConfig, &str)> = Vec::new();
    for (sink, params) in config.sinks.iter().filter_map(transactional) {
        for source in config.sources.iter().filter(|source| source.enable && sink.sources.takes(&source.key))
        {
            check_source(config, sink, params, source, findings);
        }
        let Some(id) = params.transactional_id.as_deref() else { continue };
        if let Some((first, _)) = ids.iter().find(|(_, other)| *other == id) {
            let message = format!(
                "two sinks with one transactional_id: '{}' and '{}' would fence each other",
                first.key, sink.key
            );
            let finding = Diagnostic::error(Code::WP405, message).at(sink.place.clone());
            findings.push(
                finding.other("the other one", first.place.clone()).help("leave it out in one of them"),
            );
        }
        ids.push((sink, id));
    }
}

/// An enabled sink that makes transactions.
fn transactional(sink: &SinkConfig) -> Option<(&SinkConfig, &KafkaParams)> {
    match &sink.params {
        SinkParams::Kafka(params) if params.transactional && sink.enable => Some((sink, params)),
        _ => None,
    }
}

fn check_source(
    config: &Config,
    sink: &SinkConfig,
    params: &KafkaParams,
    source: &SourceConfig,
    findings: &mut Findings,
) {
    let refused = |why: &str| {
        let message = format!("source '{}' feeds the transactional sink '{}': {why}", source.key, sink.key);
        Diagnostic::error(Code::WP404, message).at(source.place.clone()).other("the sink", sink.place.clone())
    };
    match &source.params {
        SourceParams::File(file) if matches!(file.parallel, Parallel::Ranges(_)) => {
            let finding =
                refused("a file that is read in parallel has no single position for a transaction to hold");
            findings.push(finding.help("parallel = \"off\""));
        }
        SourceParams::Kafka(kafka) => {
            for (why, mend) in against(params, kafka) {
                findings.push(refused(why).help(mend));
            }
            let mut others = config.sinks.iter().filter(|other| other.enable && other.key != sink.key);
            if let Some(other) = others.find(|other| other.sources.takes(&source.key)) {
                let why = format!(
                    "its transactions commit the group's offsets, and would do so before sink '{}' has the records",
                    other.key
                );
                findings.push(refused(&why).help(
                    "read the topic with a source of its own, in a group of its own, for the other sink",
                ));
            }
        }
        // Files have their positions in the transactions; what cannot repeat is there at least once, as ever.
        _ => {}
    }
}

/// What of a Kafka source cannot be in transactions, and what mends it.
fn against(sink: &KafkaParams, source: &KafkaSource) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    if source.split == Split::Lines {
        all.push((
            "with split = \"lines\" a message may lie in two transactions, and an offset is behind the whole of it",
            "split = \"none\"",
        ));
    }
    if !source.brokers.0.iter().any(|broker| sink.brokers.0.contains(broker)) {
        all.push((
            "a transaction is one cluster's, and their 'brokers' have none in common",
            "write the same brokers in both; into another cluster: transactional = false",
        ));
    }
    if source.config.0.get("isolation.level").is_some_and(|level| level != "read_committed") {
        all.push((
            "with isolation_level = \"read_uncommitted\" it would begin at offsets of transactions that are still open",
            "leave isolation_level out",
        ));
    }
    all
}
