//! wpsrc.toml of any bytes: loaded, or refused with findings that point into it, and the same every time.

use std::path::Path;

use engine::config::{self, Config, Environment};
use engine::diagnosis::Diagnostics;

use super::folder;

/// Loads it from a folder that has nothing else.
pub fn check(data: &[u8]) {
    folder::with(|folder| {
        let path = folder.join("wpsrc.toml");
        folder::write(&path, data);
        loads_or_says_why(&path);
    });
}

/// Loads a configuration twice and holds both answers to what they promise.
pub fn loads_or_says_why(path: &Path) {
    let environment = Environment { var: &|name| (name == "A").then(|| "${B}\n\"".to_owned()), cpus: 2 };
    match (config::load(path, &environment), config::load(path, &environment)) {
        (Ok(one), Ok(two)) => {
            assert_eq!(one.warnings.errors(), 0);
            assert_eq!(shown(&one.warnings), shown(&two.warnings));
            findings_are_readable(&one.warnings);
            names_are_unique(&one.config);
            assert!(one.config.sources == two.config.sources && one.config.sinks == two.config.sinks);
        }
        (Err(one), Err(two)) => {
            assert!(one.errors() > 0, "refused without a reason");
            assert_eq!(shown(&one), shown(&two));
            findings_are_readable(&one);
        }
        _ => panic!("loaded once and refused once"),
    }
}

/// A finding points into a line, and cannot write to a terminal.
pub fn findings_are_readable(found: &Diagnostics) {
    for finding in &found.all {
        for place in finding.place.iter().chain(finding.others.iter().map(|(_, place)| place)) {
            assert!(place.line >= 1 && place.column >= 1 && place.length >= 1, "{place:?}");
            assert!(place.indent as usize <= place.text.chars().count(), "{place:?}");
        }
        let text = finding.to_string();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{}", text.escape_debug());
    }
}

fn shown(found: &Diagnostics) -> Vec<String> {
    found.all.iter().map(ToString::to_string).collect()
}

fn names_are_unique(config: &Config) {
    let sources: Vec<&str> = config.sources.iter().map(|source| &*source.key).collect();
    let sinks: Vec<&str> = config.sinks.iter().map(|sink| &*sink.key).collect();
    for keys in [sources, sinks] {
        for (i, key) in keys.iter().enumerate() {
            assert!(!key.is_empty() && !keys[..i].contains(key), "{key:?} is none or taken");
        }
    }
}
