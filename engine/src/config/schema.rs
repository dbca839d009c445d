//! JSON schemas for editors and programs: of wpsrc.toml, of a connector file, and of the findings that are printed as
//! JSON. The first two derive from the declarations that read the files, so that they cannot differ from what loads.
//!
//! Where a connector decides which parameters there are, the schema decides by its id as well. Pure.

use serde_json::{Map, Value, json};

use super::connectors::{Allowed, Connector, Connectors, Side};
use super::entries::{self, SinkHead, SourceHead};
use super::kinds::Kind;
use super::params::{Field, Param, Params, Shape};
use super::top::{AdminConfig, EngineConfig, LogConfig};
use crate::diagnosis::Code;
use crate::sink::common::CommonParams;
use crate::sink::route::Where;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A string that is filled from the environment or a file, which any text may be.
const VARIABLE: &str = r"\$\{";

/// The schema of wpsrc.toml, with the connectors that it can name.
pub fn of_config(connectors: &Connectors) -> Value {
    let mut properties = Map::new();
    let sections =
        [("engine", EngineConfig::FIELDS), ("log", LogConfig::FIELDS), ("admin", AdminConfig::FIELDS)];
    for (name, fields) in sections {
        properties.insert(name.to_owned(), table(fields));
    }
    properties.insert("include".to_owned(), list(json!({ "type": "string" })));
    properties.insert("sources".to_owned(), list(entry(Side::Source, connectors)));
    properties.insert("sinks".to_owned(), list(entry(Side::Sink, connectors)));
    json!({
        "$schema": DRAFT,
        "title": "wpsrc.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

/// The schema of a file in connectors/source.d or connectors/sink.d.
pub fn of_connectors() -> Value {
    let kinds = [Side::Source, Side::Sink].map(|side| side.kinds().iter().map(move |kind| (side, kind)));
    let choices: Vec<Value> = kinds.into_iter().flatten().map(|(side, kind)| connector(side, kind)).collect();
    json!({
        "$schema": DRAFT,
        "title": "connectors",
        "type": "object",
        "additionalProperties": false,
        "required": ["connectors"],
        "properties": { "connectors": list(json!({ "type": "object", "anyOf": choices })) },
    })
}

/// The schema of what `source validate --json` prints.
pub fn of_findings() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let codes: Vec<Value> = Code::ALL.iter().map(|code| json!(code)).chain([Value::Null]).collect();
    let place = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["file", "line", "column", "text", "length"],
        "properties": {
            "file": { "type": "string", "description": "The file as it was named." },
            "line": { "type": "integer", "minimum": 1 },
            "column": { "type": "integer", "minimum": 1, "description": "In characters." },
            "text": { "type": "string", "description": "The line, or the part of it around the finding." },
            "length": { "type": "integer", "minimum": 1, "description": "Characters the finding covers." },
        },
    });
    let finding = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["severity", "code", "message", "place"],
        "properties": {
            "severity": { "enum": ["error", "warning"] },
            "code": { "enum": codes, "description": "The row of the catalogue: wpgen explain CODE." },
            "message": text,
            "place": { "anyOf": [place, { "type": "null" }] },
            "label": { "type": "string", "description": "What stands beside the caret." },
            "others": {
                "type": "array",
                "description": "Other places that belong to it, each with what it is.",
                "items": { "type": "array", "prefixItems": [text, place] },
            },
            "notes": { "type": "array", "items": text, "description": "What was found out about the cause." },
            "help": { "type": "array", "items": text, "description": "What mends it, ready to use." },
        },
    });
    json!({
        "$schema": DRAFT,
        "title": "wpgen source validate --json",
        "type": "object",
        "additionalProperties": false,
        "required": ["file", "ok", "errors", "warnings", "findings", "not_shown"],
        "properties": {
            "file": text,
            "ok": { "type": "boolean", "description": "Whether the configuration loads." },
            "errors": number,
            "warnings": number,
            "findings": { "type": "array", "items": finding },
            "not_shown": { "type": "integer", "minimum": 0, "description": "Findings beyond those that are kept." },
        },
    })
}

/// An entry of `[[sources]]` or `[[sinks]]`: its own keys, and the parameters that its connector lets it change.
fn entry(side: Side, connectors: &Connectors) -> Value {
    let (head, others): (&[Field], Vec<Field>) = match side {
        Side::Source => (SourceHead::FIELDS, Vec::new()),
        Side::Sink => (SinkHead::FIELDS, CommonParams::FIELDS.to_vec()),
    };
    let mut properties: Map<String, Value> =
        head.iter().chain(&others).map(|field| (field.name.to_owned(), of_field(field))).collect();
    if side == Side::Sink {
        properties.insert("where".to_owned(), of_shape(&Where::SHAPE, None));
    }
    for name in entries::PARAMS_KEYS {
        properties.insert(name.to_owned(), json!({ "type": "object" }));
    }
    let ids: Vec<&str> = connectors.of(side).map(|connector| connector.id.as_str()).collect();
    properties.insert("connect".to_owned(), json!({ "enum": ids, "description": "A connector's id." }));
    let by_connector: Vec<Value> = connectors.of(side).map(override_of).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["key", "connect"],
        "properties": properties,
        "allOf": by_connector,
    })
}

/// If it is this connector, then these parameters.
fn override_of(connector: &Connector) -> Value {
    let may_change = |field: &&Field| match &connector.allow_override {
        Allowed::All => true,
        allowed @ Allowed::These(..) => allowed.contains(field.name),
    };
    let fields = connector.side.fields(connector.kind);
    let fields: Vec<Field> = fields.into_iter().flatten().filter(may_change).copied().collect();
    let table = table(&fields);
    let params: Map<String, Value> =
        entries::PARAMS_KEYS.iter().map(|name| ((*name).to_owned(), table.clone())).collect();
    json!({
        "if": { "properties": { "connect": { "const": connector.id } }, "required": ["connect"] },
        "then": { "properties": params },
    })
}

fn connector(side: Side, kind: &Kind) -> Value {
    let fields: Vec<Field> = side.fields(kind).into_iter().flatten().copied().collect();
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    json!({
        "title": format!("{} of type {}", side.name(), kind.name),
        "additionalProperties": false,
        "required": ["id", "type"],
        "properties": {
            "id": { "type": "string", "description": "What `connect =` names." },
            "type": { "const": kind.name },
            "allow_override": { "type": "array", "items": { "enum": names }, "description": "What may be changed." },
            "params": table(&fields),
        },
    })
}

fn list(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

fn table(fields: &[Field]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.to_owned(), of_field(field))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn of_field(field: &Field) -> Value {
    let mut schema = of_shape(&field.shape, field.range);
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(field.doc.trim()));
        if let Some(default) = field.default {
            object.insert("default".to_owned(), default_value(default, &field.shape));
        }
    }
    schema
}

/// A default as it would be written.
fn default_value(text: &str, shape: &Shape) -> Value {
    let bare = matches!(shape, Shape::Integer | Shape::Boolean | Shape::Size);
    if bare { serde_json::from_str(text).unwrap_or_else(|_| json!(text)) } else { json!(text) }
}

fn of_shape(shape: &Shape, range: Option<(u64, u64)>) -> Value {
    let integer = || match range {
        Some((low, high)) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        None => json!({ "type": "integer", "minimum": 0 }),
    };
    match shape {
        Shape::Text(_) => json!({ "type": "string" }),
        Shape::Word(words) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
        }
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer => integer(),
        Shape::Size => {
            json!({ "anyOf": [integer(), { "type": "string", "pattern": format!("^[0-9]|{VARIABLE}") }] })
        }
        Shape::Duration => {
            json!({ "anyOf": [{ "const": 0 }, { "type": "string", "pattern": format!("^[0-9]|{VARIABLE}") }] })
        }
        Shape::List(item) => list(of_shape(item, range)),
        Shape::OneOrMany(item) => {
            // One string may hold several, with commas between them.
            let one = if item.is_quoted() { json!({ "type": "string" }) } else { of_shape(item, range) };
            json!({ "anyOf": [one, list(of_shape(item, range))] })
        }
        Shape::Table(fields) => table(fields),
        Shape::Map => json!({ "type": "object" }),
        Shape::Either(one, other) => json!({ "anyOf": [of_shape(one, range), of_shape(other, range)] }),
    }
}
