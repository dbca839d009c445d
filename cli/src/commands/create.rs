//! `connectors create`: a commented connector file, made from a connector there is.
//!
//! It refuses an id that is taken, and never overwrites.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use engine::config::{Connector, Side};

use super::connectors::{allowed_names, default, fields, find, folder, load, meaning, toml};
use super::{DONE, FAILED, USAGE};
use crate::printer::Printer;
use crate::table::wrap;

/// Columns of the comments.
const COMMENT: usize = 96;

/// Writes the file and names it.
pub fn run(template: &str, name: &str, printer: &Printer) -> u8 {
    if !is_id(name) {
        printer.error(&format!("'{name}' is no id: it takes letters, digits, '_', '-' and '.'"));
        return USAGE;
    }
    let (connectors, _) = load();
    let Some(connector) = find(&connectors, template, printer) else { return FAILED };
    if [Side::Source, Side::Sink].iter().any(|side| connectors.get(*side, name).is_some()) {
        printer.error(&format!("there is a connector '{name}' already"));
        printer.help(&format!("wpgen connectors show {name}"));
        return FAILED;
    }
    let path = folder(&connectors, connector.side).join(format!("50-{name}.toml"));
    if let Err(e) = write(&path, &text(connector, name)) {
        printer.error(&format!("cannot write {}: {e}", path.display()));
        return FAILED;
    }
    printer.result(&format!("{}\n", path.display()));
    printer.note(&format!("use it in wpsrc.toml with  connect = \"{name}\""));
    DONE
}

fn is_id(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.')
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn text(connector: &Connector, name: &str) -> String {
    let side = connector.side.name();
    let names: Vec<String> = allowed_names(connector).iter().map(|n| format!("    \"{n}\",\n")).collect();
    let mut text = format!(
        "# Made from {}. Use it in wpsrc.toml with  connect = \"{name}\".\n\n\
         [[connectors]]\nid = \"{name}\"\ntype = \"{}\"\n\
         # What a {side} may change; everything else is fixed here.\nallow_override = [\n{}]\n\n[connectors.params]\n",
        connector.id,
        connector.kind.name,
        names.concat()
    );
    for field in fields(connector) {
        for line in wrap(&meaning(field), COMMENT) {
            text.push_str(&format!("# {line}\n"));
        }
        match (connector.params.get(field.name), default(field, &connector.params)) {
            (Some(node), _) => text.push_str(&format!("{} = {}\n", field.name, toml(node))),
            (None, Some(node)) => text.push_str(&format!("# {} = {}\n", field.name, toml(&node))),
            (None, None) => text.push_str(&format!("# {} =\n", field.name)),
        }
    }
    text
}
