//! Where connectors come from, and what they let be changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use super::{environment, folder, load_in};
use crate::config::connectors::{Connectors, Origin, Side};
use crate::config::params::{Shape, from_text};
use crate::config::tree::Table;
use crate::config::{SourceConfig, builtin, load_connectors, resolve};
use crate::diagnosis::{Code, Diagnostics, Findings, SourceText};
use crate::source::SourceParams;

const SYSLOG: &str = "[[connectors]]\nid = \"mine\"\ntype = \"syslog\"\nallow_override = [\"port\"]\n[connectors.params]\nport = 1600\nprotocol = \"tcp\"\n";

fn found(folder: &Path) -> Diagnostics {
    load_in(folder).expect_err("it loads")
}

fn connectors(folder: &Path) -> (Connectors, Diagnostics) {
    load_connectors(folder, &environment())
}

fn port(source: &SourceConfig) -> u16 {
    match &source.params {
        SourceParams::Syslog(syslog) => syslog.port,
        _ => panic!("a syslog source"),
    }
}

#[test]
fn the_nearest_folder_upward_wins_each_side_on_its_own() {
    let place = folder(&[
        ("connectors/source.d/a.toml", SYSLOG),
        ("connectors/sink.d/a.toml", "[[connectors]]\nid = \"out\"\ntype = \"stdout\"\n"),
        ("a/connectors/source.d/b.toml", &SYSLOG.replace("1600", "1700")),
        (
            "a/b/wpsrc.toml",
            "[[sources]]\nkey = \"s\"\nconnect = \"mine\"\n[[sinks]]\nkey = \"o\"\nconnect = \"out\"\n",
        ),
    ]);
    let loaded = load_in(&place.path().join("a/b")).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(port(&loaded.config.sources[0]), 1700);
}

#[test]
fn overrides_replace_and_are_held_to_the_list() {
    let text = "[[sources]]\nkey = \"s\"\nconnect = \"mine\"\n[sources.params_override]\nport = 1800\n";
    let place = folder(&[("connectors/source.d/a.toml", SYSLOG), ("wpsrc.toml", text)]);
    assert_eq!(
        port(&load_in(place.path()).unwrap_or_else(|found| panic!("{found}")).config.sources[0]),
        1800
    );

    fs::write(place.path().join("wpsrc.toml"), text.replace("port = 1800", "addr = \"::1\""))
        .expect("written");
    let all = found(place.path()).all;
    assert_eq!(all[0].code, Some(Code::WP403));
    assert!(all[0].message.contains("Parameter 'addr' not in allow_override list"), "{}", all[0]);
    assert_eq!(all[0].place.as_ref().map(|place| place.line), Some(5));
    assert!(all[0].others[0].1.file.ends_with("a.toml") && all[0].others[0].1.line == 4);
    assert!(all[0].help[0].contains("allow_override = [\"port\", \"addr\"]"), "{}", all[0]);
}

#[test]
fn without_a_list_nothing_may_be_changed_and_a_star_is_refused() {
    let text = "[[sources]]\nkey = \"s\"\nconnect = \"mine\"\n[sources.params_override]\nport = 1800\n";
    for (list, code) in [("", Code::WP403), ("allow_override = []\n", Code::WP403)] {
        let connector = SYSLOG.replace("allow_override = [\"port\"]\n", list);
        let place = folder(&[("connectors/source.d/a.toml", &connector), ("wpsrc.toml", text)]);
        assert_eq!(found(place.path()).all[0].code, Some(code));
    }
    let place =
        folder(&[("connectors/source.d/a.toml", &SYSLOG.replace("\"port\"", "\"*\"")), ("wpsrc.toml", text)]);
    let all = connectors(place.path()).1.all;
    assert!(all[0].message.contains("it defeats the list"), "{}", all[0]);
    assert!(all[0].help[0].contains("\"port\""), "{}", all[0]);
    let all = found(place.path()).all;
    let help = all.iter().flat_map(|finding| &finding.help).find(|help| help.contains("to allow it"));
    assert!(help.is_some_and(|help| help.ends_with("allow_override = [\"port\"]")), "{all:?}");
}

#[test]
fn a_duplicate_id_names_both_files() {
    let place = folder(&[("connectors/source.d/a.toml", SYSLOG), ("connectors/source.d/b.toml", SYSLOG)]);
    let all = connectors(place.path()).1.all;
    assert_eq!(all[0].code, Some(Code::WP405));
    assert!(all[0].message.contains("Duplicate connector ID 'mine'"), "{}", all[0]);
    assert!(all[0].place.as_ref().is_some_and(|place| place.file.ends_with("b.toml")));
    assert!(all[0].others[0].1.file.ends_with("a.toml"));
}

#[test]
fn a_file_may_redefine_a_built_in_connector() {
    let place = folder(&[("connectors/source.d/a.toml", &SYSLOG.replace("mine", "syslog_tcp_src"))]);
    let (all, wrong) = connectors(place.path());
    assert!(wrong.is_empty(), "{wrong}");
    let origin = |id: &str| all.get(Side::Source, id).map(|connector| connector.origin.clone());
    assert!(matches!(origin("syslog_tcp_src"), Some(Origin::File(_))));
    assert_eq!(origin("file_src"), Some(Origin::BuiltIn));
    assert_eq!(all.of(Side::Source).count(), 6);
    assert_eq!(all.of(Side::Sink).count(), 6);
}

#[test]
fn mistakes_in_a_connector_are_shown_in_its_file() {
    for (text, code, line, words) in [
        (SYSLOG.replace("\"syslog\"", "\"sislog\""), Code::WP404, 3, "Unknown connector type 'sislog'"),
        (SYSLOG.replace("\"syslog\"", "\"stdout\""), Code::WP404, 3, "Unknown connector type 'stdout'"),
        (SYSLOG.replace("type = \"syslog\"\n", ""), Code::WP404, 1, "a connector needs 'type'"),
        (SYSLOG.replace("id = \"mine\"\n", ""), Code::WP404, 1, "a connector needs 'id'"),
        (SYSLOG.replace("port = 1600", "prot = 1600"), Code::WP404, 6, "unknown parameter 'prot'"),
        (SYSLOG.replace("port = 1600", "port = \"x\""), Code::WP404, 6, "wrong type: 'port'"),
        (SYSLOG.replace("[\"port\"]", "[\"prot\"]"), Code::WP404, 4, "unknown parameter 'prot'"),
        (
            SYSLOG.replace("allow_override", "alow_override"),
            Code::WP404,
            4,
            "unknown parameter 'alow_override'",
        ),
        (
            SYSLOG.replace("[[connectors]]", "[[connector]]").replace("[connectors.params]", "[x]"),
            Code::WP404,
            1,
            "'connector'",
        ),
        (SYSLOG.replace("port = 1600", "strip_header = true"), Code::WP406, 6, "removed parameter"),
        (SYSLOG.replace("= 1600", "= "), Code::WP401, 6, "Failed to parse TOML"),
    ] {
        let place = folder(&[("connectors/source.d/a.toml", &text), ("wpsrc.toml", "")]);
        let all = found(place.path()).all;
        assert!(all[0].code == Some(code) && all[0].message.contains(words), "{words}: {}", all[0]);
        assert_eq!(all[0].place.as_ref().map(|place| place.line), Some(line), "{}", all[0]);
    }
}

#[test]
fn a_connector_that_is_not_found_says_where_was_looked() {
    let place = folder(&[
        ("connectors/source.d/a.toml", SYSLOG),
        ("wpsrc.toml", "[[sources]]\nkey = \"s\"\nconnect = \"mien\"\n"),
    ]);
    let all = found(place.path()).all;
    let notes = all[0].notes.join("\n");
    assert!(
        notes.contains("connectors/source.d") && notes.contains("file_src") && notes.contains("mine"),
        "{}",
        all[0]
    );
    assert_eq!(all[0].help, ["did you mean 'mine'?"]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_others_go_on() {
    let place =
        folder(&[("connectors/source.d/b.toml", SYSLOG), ("connectors/source.d/sub/c.toml", "not read")]);
    let inside = place.path().join("connectors/source.d");
    fs::create_dir(inside.join("a.toml")).expect("made");
    symlink("loop.toml", inside.join("loop.toml")).expect("linked");
    symlink("/dev/zero", inside.join("zero.toml")).expect("linked");
    fs::write(inside.join("notes.txt"), "not TOML").expect("written");
    let (all, wrong) = connectors(place.path());
    assert!(all.get(Side::Source, "mine").is_some());
    let messages: Vec<String> = wrong.all.iter().map(|finding| finding.message.clone()).collect();
    assert_eq!(messages.len(), 3, "{wrong}");
    for words in ["a folder", "Too many levels of symbolic links", "not a regular file"] {
        assert!(messages.iter().any(|message| message.contains(words)), "{words}: {wrong}");
    }
}

#[test]
fn a_loop_of_folders_is_told() {
    let place = folder(&[("connectors/x", "")]);
    symlink("source.d", place.path().join("connectors/source.d")).expect("linked");
    let wrong = connectors(place.path()).1;
    assert!(wrong.all[0].message.contains("Too many levels of symbolic links"), "{wrong}");
    let place = folder(&[("connectors/source.d", "a file")]);
    let wrong = connectors(place.path()).1;
    assert!(wrong.all[0].message.contains("it is not a folder"), "{wrong}");
}

#[test]
fn an_include_that_is_not_there_or_goes_on_is_told() {
    for (include, words) in [
        ("\"nothing.toml\"", "cannot read"),
        ("\"*/x.toml\"", "a pattern stands for a file name only"),
        ("\"nowhere/*.toml\"", "cannot include"),
        ("\"more.toml\"", "unknown parameter 'include' of an included file"),
        ("5", "wrong type"),
    ] {
        let main = format!("include = [{include}]\n");
        let place = folder(&[("wpsrc.toml", &main), ("more.toml", "include = [\"more.toml\"]\n")]);
        let all = found(place.path());
        assert!(all.all.iter().any(|finding| finding.message.contains(words)), "{include}: {all}");
    }
}

#[test]
fn parameters_typed_without_quotes_become_typed() {
    let file = Arc::new(SourceText::new("command line", "/", String::new()));
    for (id, typed, words) in [
        (
            "file_src",
            &[("path", "a.log"), ("mode", "once"), ("parallel", "4"), ("max_line_bytes", "2MiB")][..],
            "",
        ),
        (
            "file_src",
            &[("path", "[a].log"), ("multiline", "{ indent = true }"), ("exclude", "*.gz,*.zst")],
            "",
        ),
        (
            "kafka_src",
            &[("brokers", "a:1,b:2"), ("topic", "[\"t\"]"), ("config", "{ client_id = \"x\" }")],
            "",
        ),
        ("syslog_udp_src", &[("port", "1x")], "wrong type: 'port'"),
        ("syslog_udp_src", &[("gro", "yes")], "wrong type: 'gro'"),
        ("file_src", &[("path", "x"), ("multiline", "{ indent")], "wrong type: 'multiline'"),
        ("file_src", &[("paht", "x")], "unknown parameter 'paht'"),
    ] {
        let connector = builtin::all(Path::new("/")).find(|connector| connector.id == id).expect("built in");
        let mut over = Table::empty(Arc::clone(&file));
        for (key, value) in typed {
            let field = connector.kind.fields.iter().find(|field| field.name == *key);
            let shape = field.map_or(Shape::Text("a value"), |field| field.shape);
            over.put(from_text(value, &shape, &over).under(key));
        }
        let mut findings = Findings::new();
        let resolved = resolve(&connector, &over, &mut findings);
        let found = findings.finish().to_string();
        assert_eq!(resolved.is_some(), words.is_empty(), "{typed:?} {found}");
        assert!(found.contains(words), "{typed:?} {found}");
    }
}
