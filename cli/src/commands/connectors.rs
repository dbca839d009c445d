//! `connectors`: the templates that sources and sinks are made from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::config::connectors::{Allowed, Origin};
use engine::config::params::{Field, Shape, from_text, show as measure};
use engine::config::tree::{Node, Table as Toml, Value};
use engine::config::{Connector, Connectors, Side, resolve};
use engine::diagnosis::{Diagnostics, Findings, SourceText};

use super::configuration::{self, environment};
use super::{DONE, FAILED};
use crate::printer::{Printer, Style};
use crate::table::{Align, Table};

/// Checks all connector files.
pub fn validate(printer: &Printer) -> u8 {
    let (connectors, findings) = load();
    let own = all(&connectors).filter(|c| c.origin != Origin::BuiltIn).count();
    printer.result(&configuration::text(&findings, printer.out_paint()));
    let counted = configuration::counted(&findings);
    if findings.errors() > 0 {
        printer.result(&format!("{}: {counted}\n", printer.out_paint().text(Style::Red, "failed")));
        return FAILED;
    }
    printer
        .result(&format!("{}: {own} of your own, {counted}\n", printer.out_paint().text(Style::Green, "ok")));
    DONE
}

/// Lists all connectors.
pub fn list(printer: &Printer) -> u8 {
    let (connectors, findings) = load();
    let mut table = Table::new(&[
        ("id", Align::Left),
        ("side", Align::Left),
        ("type", Align::Left),
        ("from", Align::Left),
    ]);
    for connector in all(&connectors) {
        // What this build cannot run is not offered; a file that uses it is shown, with the reason.
        if connector.kind.available || connector.origin != Origin::BuiltIn {
            let mut from = origin(connector);
            if !connector.kind.available {
                from.push_str(" (this build has no such type)");
            }
            table.row(vec![
                connector.id.clone(),
                connector.side.name().into(),
                connector.kind.name.into(),
                from,
            ]);
        }
    }
    printer.result(&table.render(printer.out_paint()));
    told(&findings, printer)
}

/// Shows one connector.
pub fn show(id: &str, printer: &Printer) -> u8 {
    let (connectors, findings) = load();
    let Some(connector) = find(&connectors, id, printer) else { return FAILED };
    let paint = printer.out_paint();
    let mut table = Table::new(&[
        ("parameter", Align::Left),
        ("value", Align::Left),
        ("change", Align::Left),
        ("meaning", Align::Left),
    ]);
    for field in fields(connector) {
        let value = match connector.params.get(field.name) {
            Some(node) => toml(node),
            None => default(field, &connector.params).map_or_else(String::new, |node| toml(&node)),
        };
        let change = if connector.allow_override.contains(field.name) { "yes" } else { "no" };
        table.row(vec![field.name.into(), value, change.into(), meaning(field)]);
    }
    let title = paint.text(Style::Bold, &connector.id);
    let (side, kind) = (connector.side.name(), connector.kind.name);
    printer.result(&format!("{title}: a {side} of type {kind}, {}\n\n", origin(connector)));
    printer.result(&table.render(paint));
    told(&findings, printer)
}

/// Shows what a connector becomes with parameters.
pub fn parse(id: &str, typed: &[(String, String)], printer: &Printer) -> u8 {
    let (connectors, _) = load();
    let Some(connector) = find(&connectors, id, printer) else { return FAILED };
    let over = overrides(connector, typed);
    let mut findings = Findings::new();
    if resolve(connector, &over, &mut findings).is_none() {
        printer.line(&configuration::text(&findings.finish(), printer.err_paint()));
        return FAILED;
    }
    let mut text = String::new();
    for field in fields(connector) {
        let (node, from) = match (over.get(field.name), connector.params.get(field.name)) {
            (Some(node), _) => (Some(node.clone()), "command line"),
            (None, Some(node)) => (Some(node.clone()), "connector"),
            (None, None) => (default(field, &over), "default"),
        };
        if let Some(node) = node {
            let line = format!("{} = {}", field.name, toml(&node));
            text.push_str(&format!("{line:<48}  # {from}\n"));
        }
    }
    printer.result(&text);
    DONE
}

/// The parameters typed on the command line, as a table that knows where they come from.
pub fn overrides(connector: &Connector, typed: &[(String, String)]) -> Toml {
    let source = |text: String| Arc::new(SourceText::new("command line", here(), text));
    let mut over = Toml::empty(source(String::new()));
    for (key, value) in typed {
        let shape = fields(connector).find(|f| f.name == key).map_or(Shape::Text("a value"), |f| f.shape);
        let at = Toml::empty(source(format!("{key}={value}")));
        over.put(from_text(value, &shape, &at).under(key));
    }
    over
}

/// Looks up the connectors that a wpsrc.toml here would see.
pub fn load() -> (Connectors, Diagnostics) {
    engine::config::load_connectors(Path::new("."), &environment())
}

/// The connector of an id, a source before a sink; when there is none, says so.
pub fn find<'a>(connectors: &'a Connectors, id: &str, printer: &Printer) -> Option<&'a Connector> {
    let found = connectors.get(Side::Source, id).or_else(|| connectors.get(Side::Sink, id));
    if found.is_none() {
        let near = engine::diagnosis::nearest_of(id, all(connectors).map(|c| c.id.as_str()));
        printer.error_of(Some("WP402"), &format!("Connector '{id}' not found"));
        for folder in connectors.searched() {
            printer.line(&format!("  note: looked into {}", folder.display()));
        }
        match near {
            Some(near) => printer.help(&format!("did you mean '{near}'?")),
            None => printer.help("wpgen connectors list shows all"),
        }
    }
    found
}

/// Every parameter the connector's kind takes.
pub fn fields(connector: &Connector) -> impl Iterator<Item = &'static Field> {
    connector.side.fields(connector.kind).into_iter().flatten()
}

/// The folder in which a new connector of a side would be found.
pub fn folder(connectors: &Connectors, side: Side) -> PathBuf {
    let found = connectors.searched().iter().find(|path| path.ends_with(side.folder()));
    found.cloned().unwrap_or_else(|| Path::new("connectors").join(side.folder()))
}

/// What a parameter means and takes, in one or two sentences.
pub fn meaning(field: &Field) -> String {
    let doc = field.doc.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let takes = match field.range {
        Some((low, high)) => format!(
            "{}, {} to {}",
            field.shape.words(),
            measure(field.shape, low),
            measure(field.shape, high)
        ),
        None => field.shape.words(),
    };
    format!("{doc} Takes {takes}.")
}

/// A default, as a value.
pub fn default(field: &Field, table: &Toml) -> Option<Node> {
    field.default.map(|text| from_text(text, &field.shape, table))
}

/// A value as it would be written in TOML.
pub fn toml(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => quoted(text),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Datetime(text) => text.clone(),
        Value::Array(nodes) => format!("[{}]", nodes.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let entries: Vec<String> =
                table.entries.iter().map(|e| format!("{} = {}", key(&e.key), toml(&e.value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Unknown => String::new(),
    }
}

fn key(name: &str) -> String {
    let bare =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { name.to_owned() } else { quoted(name) }
}

/// A string of TOML. JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007f")
}

fn all(connectors: &Connectors) -> impl Iterator<Item = &Connector> {
    [Side::Source, Side::Sink].into_iter().flat_map(|side| connectors.of(side))
}

fn origin(connector: &Connector) -> String {
    match &connector.origin {
        Origin::BuiltIn => "built in".to_owned(),
        Origin::File(place) => format!("{}:{}", place.file, place.line),
    }
}

/// Findings about other files do not spoil a look at one connector, but are told.
fn told(findings: &Diagnostics, printer: &Printer) -> u8 {
    if !findings.is_empty() {
        printer.note(&format!("\n{} in connector files", configuration::counted(findings)));
        printer.help("wpgen connectors validate shows them");
    }
    DONE
}

fn here() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}

/// Whether nothing may be changed but what a list names.
pub fn allowed_names(connector: &Connector) -> Vec<String> {
    match &connector.allow_override {
        Allowed::All => fields(connector).map(|f| f.name.to_owned()).collect(),
        Allowed::These(names, _) => names.clone(),
    }
}
