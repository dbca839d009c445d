//! Connectors: templates of sources and sinks, where they are looked up, and what they let be changed.
//!
//! `connectors/source.d` and `connectors/sink.d` are looked up each on its own, from the folder of wpsrc.toml upward. The
//! built-in ones are always there; a file may redefine one. A connector is read without the parameters of whoever uses
//! it, so what it lacks is no mistake of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kinds::Kind;
use super::params::{Field, Param, Params, Shape, list, params, refuse_unknown, unknown, wrong_type};
use super::tree::{Entry, Node, Table, Value};
use super::variables::Lookup;
use super::{builtin, files, removed};
use crate::diagnosis::{Code, Diagnostic, Findings, Place, nearest_of};
use crate::sink::SinkParams;
use crate::sink::common::CommonParams;
use crate::source::SourceParams;

/// Folders that are gone up at most.
const FOLDERS_UP_MAX: usize = 32;

/// Whether something is a source or a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// A source.
    Source,
    /// A sink.
    Sink,
}

impl Side {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Sink => "sink",
        }
    }

    /// Its folder below `connectors`.
    pub fn folder(self) -> &'static str {
        match self {
            Side::Source => "source.d",
            Side::Sink => "sink.d",
        }
    }

    /// Its kinds.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Side::Source => SourceParams::KINDS,
            Side::Sink => SinkParams::KINDS,
        }
    }

    /// A kind by its name.
    pub fn kind(self, name: &str) -> Option<&'static Kind> {
        self.kinds().iter().find(|kind| kind.name == name)
    }

    /// The parameters a kind takes: its own, and those of every kind of its side.
    pub fn fields(self, kind: &Kind) -> [&'static [Field]; 2] {
        match self {
            Side::Source => [kind.fields, &[]],
            Side::Sink => [kind.fields, CommonParams::FIELDS],
        }
    }
}

/// Where a connector comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program.
    BuiltIn,
    /// A file.
    File(Place),
}

/// A connector.
#[derive(Clone, Debug)]
pub struct Connector {
    /// What `connect =` names.
    pub id: String,
    /// Source or sink.
    pub side: Side,
    /// Its kind.
    pub kind: &'static Kind,
    /// What it gives.
    pub params: Table,
    /// What may be changed.
    pub allow_override: Allowed,
    /// Where it comes from.
    pub origin: Origin,
}

/// What of a connector may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Every parameter of its kind: the built-in ones.
    All,
    /// These, and where the list stands.
    These(Vec<String>, Place),
}

impl Allowed {
    /// Whether a parameter may be changed.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Allowed::All => true,
            Allowed::These(names, _) => names.iter().any(|allowed| allowed == name),
        }
    }
}

/// All connectors that can be named.
#[derive(Clone, Debug, Default)]
pub struct Connectors {
    sources: BTreeMap<String, Connector>,
    sinks: BTreeMap<String, Connector>,
    searched: Vec<PathBuf>,
}

impl Connectors {
    /// Looks up all connectors, from `folder` upward.
    pub fn load(folder: &Path, lookup: Lookup<'_>, findings: &mut Findings) -> Self {
        let mut all = Self { searched: vec![folder.join("connectors")], ..Self::default() };
        for connector in builtin::all(folder) {
            all.side_mut(connector.side).insert(connector.id.clone(), connector);
        }
        for side in [Side::Source, Side::Sink] {
            if let Some(found) = find_folder(folder, side, findings) {
                all.searched.push(found.clone());
                all.load_folder(&found, side, lookup, findings);
            }
        }
        all
    }

    /// The connectors of a side, by id.
    pub fn of(&self, side: Side) -> impl Iterator<Item = &Connector> {
        let map = match side {
            Side::Source => &self.sources,
            Side::Sink => &self.sinks,
        };
        map.values()
    }

    /// A connector by its id.
    pub fn get(&self, side: Side, id: &str) -> Option<&Connector> {
        match side {
            Side::Source => self.sources.get(id),
            Side::Sink => self.sinks.get(id),
        }
    }

    /// The folders that were looked into.
    pub fn searched(&self) -> &[PathBuf] {
        &self.searched
    }

    /// The finding for an id that there is not.
    pub fn not_found(&self, side: Side, id: &str) -> Diagnostic {
        let other = if side == Side::Source { Side::Sink } else { Side::Source };
        let mut finding = Diagnostic::error(Code::WP402, format!("Connector '{id}' not found"));
        for folder in &self.searched {
            finding = finding.note(format!("looked into {}", folder.display()));
        }
        // A kind that this build does not have would be the next thing to be refused.
        let built = self.of(side).filter(|connector| connector.kind.available);
        let ids: Vec<&str> = built.map(|connector| connector.id.as_str()).collect();
        finding = finding.note(format!("{} connectors there are: {}", side.name(), ids.join(", ")));
        if self.get(other, id).is_some() {
            return finding.help(format!("'{id}' is a {}: name it in [[{}s]]", other.name(), other.name()));
        }
        match nearest_of(id, self.of(side).map(|connector| connector.id.as_str())) {
            Some(near) => finding.help(format!("did you mean '{near}'?")),
            None => finding.help("wpgen connectors list shows them all"),
        }
    }

    fn side_mut(&mut self, side: Side) -> &mut BTreeMap<String, Connector> {
        match side {
            Side::Source => &mut self.sources,
            Side::Sink => &mut self.sinks,
        }
    }

    fn load_folder(&mut self, folder: &Path, side: Side, lookup: Lookup<'_>, findings: &mut Findings) {
        for path in toml_files(folder, findings) {
            if let Some(root) = files::read_tree(&path, lookup, findings) {
                for table in tables(&root, findings) {
                    if let Some(connector) = read(table, side, findings) {
                        self.add(connector, findings);
                    }
                }
            }
        }
    }

    fn add(&mut self, connector: Connector, findings: &mut Findings) {
        let (side, id) = (connector.side, connector.id.clone());
        if let (Some(Connector { origin: Origin::File(first), .. }), Origin::File(second)) =
            (self.get(side, &id), &connector.origin)
        {
            let finding = Diagnostic::error(Code::WP405, format!("Duplicate connector ID '{id}'"));
            findings.push(
                finding
                    .at(second.clone())
                    .other("the first one", first.clone())
                    .help("rename one of the two"),
            );
            return;
        }
        self.side_mut(side).insert(id, connector);
    }
}

/// The nearest `connectors/source.d` or `sink.d`, from `folder` upward.
fn find_folder(folder: &Path, side: Side, findings: &mut Findings) -> Option<PathBuf> {
    for above in folder.ancestors().take(FOLDERS_UP_MAX) {
        let candidate = above.join("connectors").join(side.folder());
        match fs::metadata(&candidate) {
            Ok(about) if about.is_dir() => return Some(candidate),
            Ok(_) => findings.push(unusable(&candidate, "it is not a folder")),
            Err(error) => match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {}
                // A loop of symbolic links, or a folder we may not enter: not the same as none.
                _ => findings.push(unusable(&candidate, &error.to_string())),
            },
        }
    }
    None
}

fn unusable(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::error(Code::WP402, format!("cannot look up connectors in '{}': {why}", path.display()))
}

/// The folder's `*.toml`, sorted; folders below it are not read.
fn toml_files(folder: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(unusable(folder, &error.to_string()));
            return Vec::new();
        }
    };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "toml") && !hidden(path)).collect();
    paths.sort();
    paths
}

/// The `[[connectors]]` of a file.
fn tables<'a>(root: &'a Table, findings: &mut Findings) -> Vec<&'a Table> {
    let mut found = Vec::new();
    for entry in &root.entries {
        match (&entry.key[..], &entry.value.value) {
            ("connectors", Value::Array(nodes)) => {
                for node in nodes {
                    match node.as_table() {
                        Some(table) => found.push(table),
                        None => findings.push(not_a_table(node)),
                    }
                }
            }
            ("connectors", _) => findings.push(removed::single_table(entry)),
            _ => {
                let finding = unknown(&entry.key, ["connectors"].into_iter(), "a connector file");
                findings.push(finding.at(entry.place()).label("not known"));
            }
        }
    }
    found
}

fn not_a_table(node: &Node) -> Diagnostic {
    let message = format!("wrong type: an entry of 'connectors' is a table, not {}", node.type_name());
    Diagnostic::error(Code::WP404, message).at(node.place())
}

params! {
    /// What stands in a `[[connectors]]` beside its type and parameters.
    struct Head {
        /// What `connect =` names.
        id: Option<String>;
        /// What may be changed.
        allow_override: Vec<String>;
    }
}

const KEYS: [&str; 4] = ["id", "type", "allow_override", "params"];

fn read(table: &Table, side: Side, findings: &mut Findings) -> Option<Connector> {
    for entry in table.entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        findings
            .push(unknown(&entry.key, KEYS.into_iter(), "a connector").at(entry.place()).label("not known"));
    }
    let head = Head::read_fields(table, findings);
    let id = head.id.filter(|id| !id.is_empty());
    if id.is_none() {
        let finding = Diagnostic::error(Code::WP404, "a connector needs 'id'").at(table.place_of("id"));
        findings.push(finding.help("id = \"my_connector\""));
    }
    let kind = kind_of(table, side, findings);
    let params = match table.get("params") {
        None => Table::empty(Arc::clone(table.file())).seen_from(table),
        Some(node) => match node.as_table() {
            Some(params) => params.clone(),
            None => {
                wrong_type(node, "params", &Shape::Map, findings);
                return None;
            }
        },
    };
    let (id, kind) = (id?, kind?);
    let place = table.place_of("id");
    check_params(&params, side, kind, findings);
    check_allowed(table, side, kind, &head.allow_override, findings);
    let list_place = table.entry("allow_override").map_or_else(|| place.clone(), Entry::place);
    Some(Connector {
        id,
        side,
        kind,
        params,
        allow_override: Allowed::These(head.allow_override, list_place),
        origin: Origin::File(place),
    })
}

fn kind_of(table: &Table, side: Side, findings: &mut Findings) -> Option<&'static Kind> {
    let names: Vec<&'static str> = side.kinds().iter().map(|kind| kind.name).collect();
    let Some(node) = table.get("type") else {
        let finding = Diagnostic::error(Code::WP404, "a connector needs 'type'").at(table.place());
        findings.push(finding.help(format!("type = \"...\": {}", list(&names))));
        return None;
    };
    let name = String::read(node, "type", findings)?;
    let kind = side.kind(&name);
    if kind.is_none() {
        let message = format!("Unknown connector type '{name}': a {} is {}", side.name(), list(&names));
        let near = nearest_of(&name, names).map(|near| format!("did you mean '{near}'?"));
        findings.push(Diagnostic::error(Code::WP404, message).at(node.place()).help_if(near));
    }
    kind
}

/// Reads what the connector gives, for its mistakes alone.
fn check_params(params: &Table, side: Side, kind: &Kind, findings: &mut Findings) {
    refuse_unknown(params, &side.fields(kind), &of_kind(side, kind), findings);
    match side {
        Side::Source => {
            SourceParams::read(kind.name, params, findings);
        }
        Side::Sink => {
            SinkParams::read(kind.name, params, findings);
            CommonParams::read_fields(params, findings);
        }
    }
}

fn check_allowed(table: &Table, side: Side, kind: &Kind, names: &[String], findings: &mut Findings) {
    let Some(nodes) = table.get("allow_override").and_then(Node::as_array) else { return };
    let fields = side.fields(kind);
    let known = || fields.iter().flat_map(|fields| fields.iter()).map(|field| field.name);
    for (node, name) in nodes.iter().zip(names) {
        if name == "*" {
            let finding =
                Diagnostic::error(Code::WP403, "allow_override = [\"*\"] is refused: it defeats the list");
            let all: Vec<String> = known().map(|name| format!("\"{name}\"")).collect();
            findings.push(
                finding.at(node.place()).help(format!("name what may be changed, of: {}", all.join(", "))),
            );
        } else if !known().any(|field| field == name) {
            findings.push(unknown(name, known(), &of_kind(side, kind)).at(node.place()).label("not known"));
        }
    }
}

/// `source type 'file'`.
pub fn of_kind(side: Side, kind: &Kind) -> String {
    format!("{} type '{}'", side.name(), kind.name)
}
