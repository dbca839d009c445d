//! The connectors that are there without any file, so that a first run needs none.

use std::path::Path;
use std::sync::Arc;

use super::connectors::{Allowed, Connector, Origin, Side};
use super::params::from_text;
use super::tree::Table;
use crate::diagnosis::SourceText;

/// A built-in connector: its id, side, kind and what it gives beside the defaults of its kind.
type BuiltIn = (&'static str, Side, &'static str, &'static [(&'static str, &'static str)]);

const ALL: [BuiltIn; 12] = [
    ("file_src", Side::Source, "file", &[]),
    ("syslog_udp_src", Side::Source, "syslog", &[("protocol", "udp")]),
    ("syslog_tcp_src", Side::Source, "syslog", &[("protocol", "tcp")]),
    ("tcp_src", Side::Source, "tcp", &[]),
    ("kafka_src", Side::Source, "kafka", &[]),
    ("mqtt_src", Side::Source, "mqtt", &[]),
    ("file_sink", Side::Sink, "file", &[("path", "./data/out/{source}.log")]),
    ("stdout_sink", Side::Sink, "stdout", &[]),
    ("blackhole_sink", Side::Sink, "blackhole", &[]),
    ("kafka_sink", Side::Sink, "kafka", &[]),
    ("tcp_sink", Side::Sink, "tcp", &[]),
    ("syslog_sink", Side::Sink, "syslog", &[]),
];

/// The built-in connectors; their relative paths are relative to `folder`.
pub fn all(folder: &Path) -> impl Iterator<Item = Connector> {
    let file = Arc::new(SourceText::new("built in", folder, String::new()));
    ALL.into_iter().map(move |(id, side, kind, given)| {
        let kind = side.kind(kind).expect("a built-in connector is of a kind there is");
        let mut params = Table::empty(Arc::clone(&file));
        for (name, text) in given {
            let field =
                kind.fields.iter().find(|field| field.name == *name).expect("a parameter of the kind");
            let node = from_text(text, &field.shape, &params);
            params.put(node.under(name));
        }
        Connector {
            id: id.to_owned(),
            side,
            kind,
            params,
            allow_override: Allowed::All,
            origin: Origin::BuiltIn,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_built_in_connector() {
        let all: Vec<Connector> = all(Path::new("/")).collect();
        for side in [Side::Source, Side::Sink] {
            for kind in side.kinds() {
                assert!(
                    all.iter().any(|connector| connector.side == side && connector.kind.name == kind.name),
                    "{kind:?}"
                );
            }
        }
    }
}
