//! The tables of wpsrc.toml, read one by one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::connectors::{Connectors, Side};
use super::params::{Param, Params, params, read_table, unknown, wrong_type};
use super::resolve::{Resolved, resolve};
use super::tree::{Entry, Node, Table, Value};
use super::{
    Actions, AdminConfig, Config, EngineConfig, Environment, LogConfig, Selection, SinkConfig, SourceConfig,
    Tag, check, files, include, params as fields, removed,
};
use crate::diagnosis::{Code, Diagnostic, Findings, Place, SourceText};
use crate::sink::route::Where;

/// Longest key of a source or sink: it becomes a label, a file name and part of a path.
const KEY_BYTES_MAX: usize = 128;

const MAIN_KEYS: [&str; 6] = ["engine", "log", "admin", "include", "sources", "sinks"];
const INCLUDED_KEYS: [&str; 2] = ["sources", "sinks"];

/// Reads everything; nothing when the file itself cannot be read.
pub fn load(path: &Path, environment: &Environment<'_>, findings: &mut Findings) -> Option<Config> {
    let root = files::read_tree(path, environment.var, findings)?;
    let folder = root.file().folder().to_path_buf();
    refuse_keys(&root, &MAIN_KEYS, "wpsrc.toml", findings);
    let included = include::read(&root, environment.var, findings);
    for tree in &included {
        refuse_keys(tree, &INCLUDED_KEYS, "an included file", findings);
    }
    let connectors = Connectors::load(&folder, environment.var, findings);
    let mut config = Config {
        file: path.to_path_buf(),
        folder,
        engine: section::<EngineConfig>(&root, "engine", findings),
        log: section::<LogConfig>(&root, "log", findings),
        admin: section::<AdminConfig>(&root, "admin", findings),
        admin_listen_given: root
            .get("admin")
            .and_then(Node::as_table)
            .is_some_and(|t| t.get("listen").is_some()),
        sources: Vec::new(),
        sinks: Vec::new(),
    };
    let mut reader = Reader { connectors: &connectors, findings, keys: HashMap::new() };
    for tree in std::iter::once(&root).chain(&included) {
        config.sources.extend(reader.entries(tree, "sources").into_iter().filter_map(|t| reader.source(t)));
        config.sinks.extend(reader.entries(tree, "sinks").into_iter().filter_map(|t| reader.sink(t)));
    }
    let written =
        std::iter::once(&root).chain(&included).map(|tree| tree.get("sources").and_then(Node::as_array));
    let written: usize = written.map(|sources| sources.map_or(0, <[Node]>::len)).sum();
    let keys = reader.keys.keys().filter(|(side, _)| *side == Side::Source).map(|(_, key)| key.clone());
    let keys = keys.collect::<Vec<_>>();
    let any_sinks = std::iter::once(&root).chain(&included).any(|tree| tree.get("sinks").is_some());
    if !any_sinks {
        config.sinks.push(reader.default_sink(&config.folder));
    }
    let keys = Some(&*keys).filter(|keys| keys.len() == written);
    check::all(&config, keys, environment.cpus, &root, findings);
    Some(config)
}

fn section<T: Params + Param>(root: &Table, name: &str, findings: &mut Findings) -> T {
    root.get(name)
        .and_then(|node| read_table(node, name, findings))
        .unwrap_or_else(|| T::read_fields(&Table::empty(Arc::clone(root.file())), findings))
}

fn refuse_keys(tree: &Table, known: &[&'static str], of: &str, findings: &mut Findings) {
    for entry in tree.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        findings.push_error(|| {
            let finding = unknown(&entry.key, known.iter().copied(), of).at(entry.place()).label("not known");
            let misplaced = MAIN_KEYS.contains(&entry.key.as_str());
            if misplaced { finding.help("it stands in wpsrc.toml itself") } else { finding }
        });
    }
}

params! {
    /// What stands in a `[[sources]]` beside its parameters.
    pub struct SourceHead {
        /// Its name; unique.
        key: Option<String>;
        /// A connector's id.
        connect: Option<String>;
        /// Whether it runs.
        enable: bool = true;
        /// What is attached to its records.
        tags: Vec<Tag>;
    }
}

params! {
    /// What stands in a `[[sinks]]` beside its parameters.
    pub struct SinkHead {
        /// Its name; unique.
        key: Option<String>;
        /// A connector's id.
        connect: Option<String>;
        /// Whether it runs.
        enable: bool = true;
        /// The sources it takes records of.
        sources: Selection;
    }
}

/// Both names of what is written over the connector.
pub const PARAMS_KEYS: [&str; 2] = ["params_override", "params"];
/// Keys of a sink that are no fields of its head.
const SINK_KEYS: [&str; 3] = [PARAMS_KEYS[0], PARAMS_KEYS[1], "where"];

struct Reader<'a> {
    connectors: &'a Connectors,
    findings: &'a mut Findings,
    /// Where each key was given first, by side.
    keys: HashMap<(Side, String), Place>,
}

impl Reader<'_> {
    /// The tables of `[[sources]]` or `[[sinks]]`.
    fn entries<'t>(&mut self, tree: &'t Table, name: &str) -> Vec<&'t Table> {
        let Some(entry) = tree.entry(name) else { return Vec::new() };
        match &entry.value.value {
            Value::Array(nodes) => nodes.iter().filter_map(|node| self.table(node, name)).collect(),
            Value::Table(_) => {
                self.findings.push(removed::single_table(entry));
                Vec::new()
            }
            _ => {
                wrong_type(&entry.value, name, &fields::Shape::List(&fields::Shape::Map), self.findings);
                Vec::new()
            }
        }
    }

    fn table<'t>(&mut self, node: &'t Node, name: &str) -> Option<&'t Table> {
        if node.as_table().is_none() {
            wrong_type(node, name, &fields::Shape::Map, self.findings);
        }
        node.as_table()
    }

    fn source(&mut self, table: &Table) -> Option<SourceConfig> {
        self.refuse_unknown(table, Side::Source, SourceHead::FIELDS, &PARAMS_KEYS);
        let head = SourceHead::read_fields(table, self.findings);
        let key = self.key(table, Side::Source, head.key);
        let resolved = self.params(table, Side::Source, head.connect.as_deref(), &[]);
        let (key, Resolved::Source(params)) = (key?, resolved?) else { return None };
        Some(SourceConfig {
            key,
            connect: head.connect?,
            enable: head.enable,
            actions: Actions::of(&head.tags),
            tags: head.tags,
            params,
            place: table.place_of("key"),
        })
    }

    fn sink(&mut self, table: &Table) -> Option<SinkConfig> {
        let common = crate::sink::common::CommonParams::FIELDS;
        let keys: Vec<&str> = SINK_KEYS.into_iter().chain(common.iter().map(|field| field.name)).collect();
        self.refuse_unknown(table, Side::Sink, SinkHead::FIELDS, &keys);
        let head = SinkHead::read_fields(table, self.findings);
        let condition = table.get("where").and_then(|node| Where::read(node, "where", self.findings));
        let key = self.key(table, Side::Sink, head.key);
        let beside: Vec<&Entry> = common.iter().filter_map(|field| table.entry(field.name)).collect();
        let resolved = self.params(table, Side::Sink, head.connect.as_deref(), &beside);
        let (key, Resolved::Sink(params, common)) = (key?, resolved?) else { return None };
        Some(SinkConfig {
            key,
            connect: head.connect?,
            enable: head.enable,
            sources: head.sources,
            condition: condition.unwrap_or_default(),
            common,
            params,
            place: table.place_of("key"),
        })
    }

    /// The built-in sink of a configuration that has none.
    fn default_sink(&mut self, folder: &Path) -> SinkConfig {
        let file = Arc::new(SourceText::new("built in", folder, String::new()));
        let table = Table::empty(file);
        let connector =
            super::builtin::all(folder).find(|c| c.id == "file_sink").expect("file_sink is built in");
        let Some(Resolved::Sink(params, common)) = resolve(&connector, &table, self.findings) else {
            unreachable!("the built-in sink has no mistakes")
        };
        SinkConfig {
            key: Arc::from("file_sink"),
            connect: "file_sink".to_owned(),
            enable: true,
            sources: Selection::all(),
            condition: Where::default(),
            common,
            params,
            place: table.place(),
        }
    }

    fn refuse_unknown(&mut self, table: &Table, side: Side, head: &'static [fields::Field], others: &[&str]) {
        let known = |name: &str| head.iter().any(|field| field.name == name) || others.contains(&name);
        for entry in table.entries.iter().filter(|entry| !known(&entry.key)) {
            if let Some(finding) = removed::parameter(entry) {
                self.findings.push(finding);
                continue;
            }
            let names = head.iter().map(|field| field.name).chain(["params_override"]);
            let finding = unknown(&entry.key, names, &format!("[[{}s]]", side.name()))
                .at(entry.place())
                .label("not known");
            let is_param =
                side.kinds().iter().any(|kind| kind.fields.iter().any(|field| field.name == entry.key));
            self.findings.push(if is_param {
                finding.help(format!(
                    "it is a parameter of a connector; write below:\n[{}s.params_override]\n{}",
                    side.name(),
                    entry.written()
                ))
            } else {
                finding
            });
        }
    }

    fn key(&mut self, table: &Table, side: Side, key: Option<String>) -> Option<Arc<str>> {
        let Some(key) = key else {
            if table.get("key").is_none() {
                let finding =
                    Diagnostic::error(Code::WP404, format!("a {} needs 'key', its name", side.name()));
                self.findings.push(finding.at(table.place()).help(format!("key = \"{}_1\"", side.name())));
            }
            return None;
        };
        let place = table.get("key").map_or_else(|| table.place(), Node::place);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(legal) || key.starts_with('.') {
            let message =
                format!("wrong value for 'key': '{key}' is not 1 to {KEY_BYTES_MAX} of A-Z a-z 0-9 _ . -");
            self.findings.push(Diagnostic::error(Code::WP404, message).at(place));
            return None;
        }
        if let Some(first) = self.keys.get(&(side, key.clone())) {
            let finding = Diagnostic::error(Code::WP405, format!("duplicate {} key '{key}'", side.name()));
            self.findings
                .push(finding.at(place).other("the first one", first.clone()).help("rename one of the two"));
            return None;
        }
        self.keys.insert((side, key.clone()), place);
        Some(Arc::from(key))
    }

    fn params(
        &mut self,
        table: &Table,
        side: Side,
        connect: Option<&str>,
        beside: &[&Entry],
    ) -> Option<Resolved> {
        let over = self.over(table, beside);
        let Some(connect) = connect else {
            if table.get("connect").is_none() {
                let finding = Diagnostic::error(
                    Code::WP404,
                    format!("a {} needs 'connect', a connector's id", side.name()),
                );
                self.findings.push(finding.at(table.place()).help("wpgen connectors list shows them all"));
            }
            return None;
        };
        match self.connectors.get(side, connect) {
            Some(connector) => resolve(connector, &over?, self.findings),
            None => {
                let place = table.get("connect").map_or_else(|| table.place(), Node::place);
                self.findings.push(self.connectors.not_found(side, connect).at(place));
                None
            }
        }
    }

    /// What is written over the connector.
    fn over(&mut self, table: &Table, beside: &[&Entry]) -> Option<Table> {
        let (long, short) = (table.entry("params_override"), table.entry("params"));
        if let (Some(long), Some(short)) = (long, short) {
            let message = "'params' is another name of 'params_override', and both are given";
            let finding = Diagnostic::error(Code::WP404, message).at(short.place());
            self.findings.push(
                finding.other("the other one", long.place()).help("put all of it into params_override"),
            );
        }
        let mut over = match long.or(short) {
            None => Table::empty(Arc::clone(table.file())).seen_from(table),
            Some(entry) => match entry.value.as_table() {
                Some(over) => over.clone(),
                None => {
                    wrong_type(&entry.value, &entry.key, &fields::Shape::Map, self.findings);
                    return None;
                }
            },
        };
        for entry in beside {
            if let Some(other) = over.entry(&entry.key) {
                let finding = Diagnostic::error(Code::WP404, format!("'{}' is given twice", entry.key))
                    .at(entry.place());
                self.findings.push(finding.other("the other one", other.place()));
            }
            over.put((*entry).clone());
        }
        Some(over)
    }
}
