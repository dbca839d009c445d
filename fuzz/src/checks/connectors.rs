//! Connector files of any bytes: looked up alone, and as what a sound wpsrc.toml is made from.

use engine::config::{Environment, Side, load_connectors};

use super::config::{findings_are_readable, loads_or_says_why};
use super::dial::Dial;
use super::folder;

const CONFIGURATION: &[u8] =
    b"[[sources]]\nkey = \"s\"\nconnect = \"mine\"\n[sources.params_override]\npath = \"x.log\"\n
[[sinks]]\nkey = \"t\"\nconnect = \"mine\"\nsources = [\"s\"]\n[sinks.params_override]\npath = \"y.log\"\n";

/// The file as a source's connector, a sink's, or both.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let sides = dial.one_of(&[&[Side::Source][..], &[Side::Sink], &[Side::Source, Side::Sink]]);
    let text = dial.rest();
    folder::with(|folder| {
        for side in sides {
            folder::write(&folder.join("connectors").join(side.folder()).join("mine.toml"), text);
        }
        let environment = Environment { var: &|_| None, cpus: 2 };
        let (connectors, found) = load_connectors(folder, &environment);
        findings_are_readable(&found);
        for side in [Side::Source, Side::Sink] {
            let mut before = None;
            for connector in connectors.of(side) {
                assert_eq!(connector.side, side);
                assert!(before < Some(connector.id.as_str()), "each id once, in order");
                before = Some(connector.id.as_str());
                assert!(connectors.get(side, &connector.id).is_some_and(|found| found.id == connector.id));
            }
        }
        let path = folder.join("wpsrc.toml");
        folder::write(&path, CONFIGURATION);
        loads_or_says_why(&path);
    });
}
