//! What a sink takes: the sources by key or pattern, and their records by tag and severity.

use globset::{GlobBuilder, GlobMatcher};

use super::params::{Param, Shape, list, wrong_type, wrong_value};
use super::tree::{Node, Value};
use crate::diagnosis::{Findings, nearest};
use crate::sink::route::Where;

/// The sources a sink takes records of, as keys and patterns of keys (`*`, `?`, `[..]`, `{a,b}`).
#[derive(Clone, Debug)]
pub struct Selection {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    written: String,
    matcher: GlobMatcher,
    node: Option<Box<Node>>,
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        let written = |of: &Self| of.patterns.iter().map(|p| p.written.clone()).collect::<Vec<_>>();
        written(self) == written(other)
    }
}

impl Selection {
    /// Every source.
    pub fn all() -> Self {
        let matcher = matcher("*").expect("a star is a pattern");
        Self { patterns: vec![Pattern { written: "*".to_owned(), matcher, node: None }] }
    }

    /// Whether it names no source at all.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a source is taken.
    pub fn takes(&self, key: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.written == key || pattern.matcher.is_match(key))
    }

    /// The patterns no source has, each with where it stands.
    pub(super) fn unmatched<'a>(&'a self, keys: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let matched = |pattern: &Pattern| {
            keys.iter().any(|key| pattern.written == *key || pattern.matcher.is_match(key))
        };
        self.patterns
            .iter()
            .filter(move |pattern| !matched(pattern))
            .filter_map(|pattern| pattern.node.as_deref().map(|node| (pattern.written.as_str(), node)))
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build()?.compile_matcher())
}

impl Param for Selection {
    const SHAPE: Shape = Shape::List(&Shape::Text("the key of a source, or a pattern of keys"));

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(nodes) = node.as_array() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        let mut patterns = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(text) = node.as_text() else {
                wrong_type(node, name, &Shape::Text("the key of a source, or a pattern of keys"), findings);
                continue;
            };
            match matcher(text) {
                Ok(matcher) => {
                    let node = Some(Box::new(node.clone()));
                    patterns.push(Pattern { written: text.to_owned(), matcher, node });
                }
                Err(error) => wrong_value(node, name, &format!("'{text}': {}", error.kind()), findings),
            }
        }
        (patterns.len() == nodes.len()).then_some(Self { patterns })
    }

    fn absent() -> Option<Self> {
        Some(Self::all())
    }
}

/// The words for severities, by number.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// Other words for them.
const OTHER_WORDS: [(&str, u8); 6] =
    [("emergency", 0), ("panic", 0), ("critical", 2), ("error", 3), ("warn", 4), ("informational", 6)];

impl Param for Where {
    const SHAPE: Shape = Shape::Map;

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(table) = node.as_table() else {
            wrong_type(
                node,
                name,
                &Shape::Text("a table, as { env = \"production\", severity = \"warning\" }"),
                findings,
            );
            return None;
        };
        let mut condition = Self::default();
        for entry in &table.entries {
            if entry.key == "severity" {
                condition.severity_max = severity(&entry.value, findings);
                continue;
            }
            match &entry.value.value {
                Value::Text(value) => condition.tags.push((entry.key.clone(), value.clone())),
                _ => wrong_type(
                    &entry.value,
                    &entry.key,
                    &Shape::Text("a string, the value of a tag"),
                    findings,
                ),
            }
        }
        Some(condition)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

fn severity(node: &Node, findings: &mut Findings) -> Option<u8> {
    if let Some(number) = node.as_integer() {
        let severity = u8::try_from(number).ok().filter(|number| *number <= 7);
        if severity.is_none() {
            wrong_value(node, "severity", "out of range: 0 (emerg) to 7 (debug)", findings);
        }
        return severity;
    }
    let Some(text) = node.as_text() else {
        wrong_type(node, "severity", &Shape::Word(&SEVERITIES), findings);
        return None;
    };
    let known = SEVERITIES.iter().position(|word| *word == text).map(|number| number as u8);
    let known =
        known.or_else(|| OTHER_WORDS.iter().find(|(word, _)| *word == text).map(|(_, number)| *number));
    if known.is_none() {
        let near =
            nearest(text, &SEVERITIES).map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
        wrong_value(node, "severity", &format!("'{text}' is none of {}{near}", list(&SEVERITIES)), findings);
    }
    known
}
