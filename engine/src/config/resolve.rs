//! A connector and what is written over it, made into typed parameters.

use super::connectors::{Allowed, Connector, Origin, Side, of_kind};
use super::params::{Params, refuse_unknown};
use super::tree::{Entry, Table, Value};
use crate::diagnosis::{Code, Diagnostic, Findings, nearest_of};
use crate::sink::SinkParams;
use crate::sink::common::CommonParams;
use crate::source::SourceParams;

/// Typed parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// Of a source.
    Source(SourceParams),
    /// Of a sink, with what every sink may be told.
    Sink(SinkParams, CommonParams),
}

/// Puts `over` over what the connector gives, and reads the whole.
pub fn resolve(connector: &Connector, over: &Table, findings: &mut Findings) -> Option<Resolved> {
    let before = findings.errors();
    let fields = connector.side.fields(connector.kind);
    refuse_unknown(over, &fields, &of_kind(connector.side, connector.kind), findings);
    let known = |name: &str| fields.iter().any(|fields| fields.iter().any(|field| field.name == name));
    let mut whole = connector.params.clone().seen_from(over);
    for entry in over.entries.iter().filter(|entry| known(&entry.key)) {
        if !connector.allow_override.contains(&entry.key) {
            findings.push(not_allowed(connector, entry));
        }
        whole.put(entry.clone());
    }
    // What is written but could not be made out is told already; a check would call it missing.
    let readable = !whole.entries.iter().any(|entry| matches!(entry.value.value, Value::Unknown));
    let resolved = match connector.side {
        Side::Source => {
            let params = SourceParams::read(connector.kind.name, &whole, findings)?;
            check(|found| params.check(&whole, found), readable, before, findings);
            Resolved::Source(params)
        }
        Side::Sink => {
            let params = SinkParams::read(connector.kind.name, &whole, findings)?;
            let common = CommonParams::read_fields(&whole, findings);
            check(|found| params.check(&whole, found), readable, before, findings);
            Resolved::Sink(params, common)
        }
    };
    (findings.errors() == before).then_some(resolved)
}

/// Checks parameters as a whole. Where some could not be read, others stand at their defaults, and what would be said of them
/// together may be wrong: then only what is wrong with a value alone is told.
fn check(check: impl FnOnce(&mut Findings), readable: bool, before: usize, findings: &mut Findings) {
    if !readable {
        return;
    }
    if findings.errors() == before {
        return check(findings);
    }
    let mut found = Findings::new();
    check(&mut found);
    found.finish().all.into_iter().filter(is_of_one_value).for_each(|finding| findings.push(finding));
}

fn is_of_one_value(finding: &Diagnostic) -> bool {
    let message = &finding.message;
    message.starts_with("wrong value for '") || message.contains(" is no regular expression")
}

fn not_allowed(connector: &Connector, entry: &Entry) -> Diagnostic {
    let key = &entry.key;
    let message = format!("Parameter '{key}' not in allow_override list of connector '{}'", connector.id);
    let finding = Diagnostic::error(Code::WP403, message).at(entry.place());
    let (Allowed::These(names, list), Origin::File(_)) = (&connector.allow_override, &connector.origin)
    else {
        return finding;
    };
    // A star names no parameter, and would still be none in the list to write.
    let named = || names.iter().filter(|name| *name != "*");
    let mut all: Vec<String> = named().map(|name| format!("\"{name}\"")).collect();
    let near =
        nearest_of(key, names.iter().map(String::as_str)).map(|near| format!("did you mean '{near}'?"));
    let allowed = if all.is_empty() { "nothing may be changed".to_owned() } else { all.join(", ") };
    all.push(format!("\"{key}\""));
    finding
        .other("the connector and its list", list.clone())
        .note(format!("allow_override: {allowed}"))
        .help_if(near)
        .help(format!("to allow it, write in {}:\nallow_override = [{}]", list.file, all.join(", ")))
}
