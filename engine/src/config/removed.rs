//! What older configurations hold and this one does not take, with its replacement (WP406).

use super::entries::PARAMS_KEYS;
use super::tree::{Entry, Table, Value};
use crate::diagnosis::{Code, Diagnostic};

/// The finding for a parameter that was removed.
pub fn parameter(entry: &Entry) -> Option<Diagnostic> {
    let on = !matches!(entry.value.value, Value::Boolean(false));
    let mode = match (entry.key.as_str(), on) {
        ("strip_header", true) => "strip",
        ("attach_meta_tags" | "process_header", true) => "parse",
        ("strip_header" | "attach_meta_tags" | "process_header", false) => "keep",
        _ => return None,
    };
    let message = format!("removed parameter '{}': 'header_mode' says it now", entry.key);
    let finding = Diagnostic::error(Code::WP406, message).at(entry.place()).label("no longer taken");
    Some(finding.help(format!("write in its place:\nheader_mode = \"{mode}\"")))
}

/// The finding for `[sources]` or `[sinks]` as one table, and for `[sources.name]`.
pub fn single_table(entry: &Entry) -> Diagnostic {
    let key = &entry.key;
    let message = format!("[{key}] is one table; each of them is an entry of an array of tables, [[{key}]]");
    let named = entry.value.as_table().and_then(|table| named(key, table));
    if let Some(paste) = named {
        return Diagnostic::error(Code::WP406, message)
            .at(entry.place())
            .help(format!("write in its place:\n{paste}"));
    }
    let mut paste = format!("[[{key}]]");
    let mut below = String::new();
    let given = entry.value.as_table();
    for part in given.iter().flat_map(|table| &table.entries) {
        match &part.value.value {
            Value::Table(params) => {
                below.push_str(&format!("\n[{key}.{}]", part.key));
                for param in &params.entries {
                    below.push_str(&format!("\n{}", param.written()));
                }
            }
            _ => paste.push_str(&format!("\n{}", part.written())),
        }
    }
    if given.is_none_or(|table| table.get("key").is_none()) {
        let name = if key == "sources" { "source_1" } else { "sink_1" };
        paste = paste.replacen("]]", &format!("]]\nkey = \"{name}\""), 1);
    }
    Diagnostic::error(Code::WP406, message)
        .at(entry.place())
        .help(format!("write in its place:\n{paste}{below}"))
}

/// Tables below that are sources or sinks by the names they have, as entries of an array.
fn named(key: &str, whole: &Table) -> Option<String> {
    let mut paste = String::new();
    for part in &whole.entries {
        let table = part.value.as_table()?;
        if PARAMS_KEYS.contains(&part.key.as_str()) || part.key == "where" {
            return None;
        }
        paste.push_str(&format!("\n[[{key}]]"));
        if table.get("key").is_none() {
            paste.push_str(&format!("\nkey = \"{}\"", part.key));
        }
        let (below, beside): (Vec<&Entry>, Vec<&Entry>) =
            table.entries.iter().partition(|entry| entry.value.as_table().is_some());
        beside.iter().for_each(|entry| paste.push_str(&format!("\n{}", entry.written())));
        for entry in below {
            paste.push_str(&format!("\n[{key}.{}]", entry.key));
            let params = entry.value.as_table().into_iter().flat_map(|table| &table.entries);
            params.for_each(|param| paste.push_str(&format!("\n{}", param.written())));
        }
    }
    (!paste.is_empty()).then(|| paste.trim_start().to_owned())
}
