//! What is written from the catalogue and the declarations is what is kept in the repository, and what the program prints
//! as JSON is what its schema says.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{Ran, run, wpgen};
use crate::harness::Site;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn explain(language: &str, args: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    Ran::from(wpgen(folder.path(), args).env("WPGEN_LANG", language).output().unwrap())
}

#[test]
fn the_reference_pages_are_what_the_catalogue_writes() {
    for (language, name) in [("en", "diagnostics.md"), ("zh", "diagnostics.zh.md")] {
        let page = explain(language, &["explain", "--markdown"]).out;
        let kept = fs::read_to_string(docs(name)).unwrap_or_default();
        assert!(page == kept, "write it anew: WPGEN_LANG={language} wpgen explain --markdown > docs/{name}");
    }
}

#[test]
fn the_language_is_that_of_the_variable_else_of_the_locale() {
    let folder = tempfile::tempdir().unwrap();
    let said = |set: &[(&str, &str)]| {
        let mut command = wpgen(folder.path(), &["explain", "WP301"]);
        for name in ["LC_ALL", "LC_MESSAGES", "LANG"] {
            command.env_remove(name);
        }
        command.envs(set.iter().copied());
        Ran::from(command.output().unwrap()).out
    };
    assert!(said(&[]).contains("What mends it:"));
    assert!(said(&[("LANG", "zh_CN.UTF-8")]).contains("端口占用"));
    assert!(said(&[("LANG", "zh_CN.UTF-8"), ("WPGEN_LANG", "en")]).contains("What mends it:"));
    let all = explain("zh", &["explain"]).out;
    assert!(all.contains("Address already in use") && all.contains("文件不存在"), "the phrases stay: {all}");
}

/// The phrases of both guides, as they stand behind `Error:`, `ERROR:` and `WARN:`.
const PHRASES: [(&str, &str); 32] = [
    ("No such file or directory (os error 2)", "WP101"),
    ("Permission denied (os error 13)", "WP102"),
    ("Invalid base64 encoding", "WP103"),
    ("Invalid hex encoding", "WP103"),
    ("Resource busy (os error 16)", "WP104"),
    ("Failed to connect to Kafka cluster", "WP201"),
    ("Timeout while connecting to Kafka", "WP201"),
    ("SASL authentication failed", "WP202"),
    ("SSL handshake failed", "WP202"),
    ("Topic not found", "WP203"),
    ("Unknown topic or partition", "WP203"),
    ("Consumer group rebalance failed", "WP204"),
    ("Max poll interval exceeded", "WP204"),
    ("Address already in use", "WP301"),
    ("Permission denied", "WP302"),
    ("Connection refused", "WP303"),
    ("Network unreachable", "WP303"),
    ("Invalid syslog format", "WP304"),
    ("Parse error in syslog message", "WP304"),
    ("Failed to parse TOML configuration", "WP401"),
    ("Connector 'unknown_connector' not found", "WP402"),
    ("Parameter 'invalid_param' not in allow_override list", "WP403"),
    ("Port 1883 is already in use", "WP501"),
    ("Failed to bind to address 0.0.0.0:1883", "WP502"),
    ("Authentication failed for client", "WP503"),
    ("Configuration not applied", "WP504"),
    ("Invalid parameter value", "WP505"),
    ("Connection limit reached", "WP506"),
    ("Message processing slow", "WP507"),
    ("High memory usage", "WP508"),
    ("Configuration sync failed", "WP601"),
    ("Node communication failed", "WP602"),
];

#[test]
fn every_phrase_of_the_guides_finds_its_row() {
    for (phrase, code) in PHRASES {
        let found = explain("en", &["explain", phrase]);
        assert!(found.code == Some(0) && found.out.contains(code), "{phrase}: {}", found.out);
    }
}

/// Whether a value is what a schema says, as far as our schemas use the language.
fn fits(value: &Value, schema: &Value) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}: {value} is not {schema}"));
    if let Some(choices) = schema["anyOf"].as_array() {
        return if choices.iter().any(|choice| fits(value, choice).is_ok()) {
            Ok(())
        } else {
            wrong("none of them")
        };
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return wrong("no such word");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("not that");
    }
    // A pattern of ours asks for a digit in front, or for a variable.
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        let is_number = pattern.starts_with("^[0-9]|") && text.starts_with(|c: char| c.is_ascii_digit());
        assert!(pattern.ends_with(r"\$\{"), "{pattern}");
        if !is_number && !text.contains("${") {
            return wrong("no such text");
        }
    }
    let is_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    };
    if !is_type {
        return wrong("another type");
    }
    let within = |name: &str, ok: fn(i64, i64) -> bool| match (schema[name].as_i64(), value.as_i64()) {
        (Some(limit), Some(number)) => ok(number, limit),
        _ => true,
    };
    if !within("minimum", |n, limit| n >= limit) || !within("maximum", |n, limit| n <= limit) {
        return wrong("out of range");
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
        fits(item, &schema["items"])?;
    }
    let keys = value.as_object().into_iter().flatten();
    for (key, item) in keys.filter(|_| schema.get("properties").is_some()) {
        match schema["properties"].get(key) {
            Some(schema) => fits(item, schema)?,
            None if schema["additionalProperties"] == false => return wrong(key),
            None => {}
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.get(key.as_str().unwrap()).is_none() {
            return wrong(&format!("{key} is missing"));
        }
    }
    for rule in schema["allOf"].as_array().into_iter().flatten() {
        if rule.get("if").is_none_or(|condition| fits(value, condition).is_ok()) {
            fits(value, rule.get("then").unwrap_or(rule))?;
        }
    }
    Ok(())
}

fn schema(folder: &Path, of: &str) -> Value {
    serde_json::from_str(&run(folder, &["schema", of]).out).unwrap()
}

#[test]
fn findings_are_what_their_schema_says() {
    let site = Site::empty();
    let schema = schema(site.folder(), "findings");
    for text in [
        "[engine]\nworkers = four\n",
        "[[sources]]\nkey = \"a\"\nconnect = \"file_scr\"\n[[sources]]\nkey = \"a\"\nconnect = \"file_src\"\n",
        "",
    ] {
        fs::write(site.path("wpsrc.toml"), text).unwrap();
        let report: Value =
            serde_json::from_str(&run(site.folder(), &["source", "validate", "--json"]).out).unwrap();
        assert!(!report["findings"].as_array().unwrap().is_empty());
        fits(&report, &schema).unwrap();
    }
    assert!(fits(&serde_json::json!({ "ok": true }), &schema).is_err(), "the comparison can fail");
}

#[test]
fn the_schema_of_a_configuration_takes_what_loads_and_refuses_what_does_not() {
    let site = Site::empty();
    fs::create_dir_all(site.path("connectors/source.d")).unwrap();
    let connector = "[[connectors]]\nid = \"mine\"\ntype = \"syslog\"\nallow_override = [\"port\"]\nparams = { protocol = \"tcp\" }\n";
    fs::write(site.path("connectors/source.d/10.toml"), connector).unwrap();
    let of_config = schema(site.folder(), "config");
    let good = serde_json::json!({
        "engine": { "workers": 2, "memory_limit": "1GiB", "io": "auto", "drain_timeout": "5s" },
        "sources": [
            { "key": "a", "connect": "file_src", "params_override": { "path": "x", "mode": "once" }, "tags": ["env:x"] },
            { "key": "b", "connect": "mine", "params": { "port": 1514 } },
        ],
        "sinks": [{ "key": "o", "connect": "file_sink", "sources": ["*"], "params": { "path": "out", "format": "raw" } }],
    });
    fits(&good, &of_config).unwrap();
    for (pointer, wrong) in [
        ("/engine/workers", serde_json::json!(5000)),
        ("/engine/io", serde_json::json!("kqueue")),
        ("/sources/0/connect", serde_json::json!("file_scr")),
        ("/sources/0/params_override", serde_json::json!({ "paht": "x" })),
        ("/sources/1/params", serde_json::json!({ "protocol": "udp" })),
        ("/sinks/0/params", serde_json::json!({ "path": 5 })),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(fits(&bad, &of_config).is_err(), "{pointer}");
    }
    let of_connectors = schema(site.folder(), "connectors");
    let file = serde_json::json!({
        "connectors": [{ "id": "mine", "type": "syslog", "allow_override": ["port"], "params": { "protocol": "tcp" } }]
    });
    fits(&file, &of_connectors).unwrap();
    let mut bad = file;
    bad["connectors"][0]["params"] = serde_json::json!({ "protocl": "tcp" });
    assert!(fits(&bad, &of_connectors).is_err());
}
