//! One row a mistake: the code, the line, and words of the message and its help.

use std::fmt::Write as _;
use std::fs;

use super::{bad, file_source, folder, good, load_in, load_text, sink, source};
use crate::diagnosis::{Code, Severity};

/// What a text must lead to: a code, a line, words of the message, and words of the help.
type Row<'a> = (String, Code, u32, &'a str, &'a str);

fn check(rows: Vec<Row<'_>>) {
    for (text, code, line, message, help) in rows {
        let found = bad(&text);
        let hit =
            found.iter().find(|finding| finding.code == Some(code) && finding.message.contains(message));
        let all = || found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let hit = hit.unwrap_or_else(|| panic!("no {code} '{message}' for:\n{text}\nbut:\n{}", all()));
        let place = hit.place.as_ref().unwrap_or_else(|| panic!("no place: {hit}"));
        assert_eq!(place.line, line, "{text}\n{hit}");
        assert!(place.file.ends_with("wpsrc.toml"), "{hit}");
        assert_eq!(text.lines().nth(line as usize - 1).unwrap_or_default(), place.text, "{hit}");
        assert!(hit.help.join("\n").contains(help), "no help '{help}' in:\n{hit}");
        let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
        assert_eq!(errors, 1, "one mistake is one error:\n{text}\n{}", all());
    }
}

#[test]
fn text_that_is_not_toml() {
    let failed = "Failed to parse TOML configuration";
    check(vec![
        ("[engine]\nworkers = four\n".into(), Code::WP401, 2, failed, "workers = \"four\""),
        ("[engine\nworkers = 4\n".into(), Code::WP401, 1, failed, "[engine]"),
        ("[engine]\nworkers = 1\nworkers = 2\n".into(), Code::WP401, 3, "duplicate key", "once"),
        ("[log]\ndir = \"./logs\n".into(), Code::WP401, 2, failed, "close the string"),
        ("[log]\nlevel: info\n".into(), Code::WP401, 2, failed, "level = \"info\""),
        ("[log]\nlevel =\n".into(), Code::WP401, 2, failed, "give it a value"),
        ("[log]\nlevel = “info”\n".into(), Code::WP401, 2, failed, "typographic quotes"),
        ("[log]\ndir = \"C:\\logs\"\n".into(), Code::WP401, 2, failed, "dir = 'C:\\logs'"),
        ("[log]\ndir = \"${NOT_SET}\"\n".into(), Code::WP401, 2, "'NOT_SET' is not set", "export NOT_SET="),
        ("[log]\ndir = \"${NAME\"\n".into(), Code::WP401, 2, "no closing '}'", "$${"),
        ("[log]\ndir = \"${file:/nowhere}\"\n".into(), Code::WP401, 2, "No such file", ""),
        ("[log]\ndir = \"\0\"\n".into(), Code::WP401, 2, failed, "NUL bytes"),
        (source("f", "file_src", "path = \"${NOT_SET}/a\""), Code::WP401, 5, "'NOT_SET'", "export NOT_SET="),
        (
            source("k", "kafka_src", "brokers = \"${NOT_SET}\"\ntopic = \"t\""),
            Code::WP401,
            5,
            "'NOT_SET'",
            "",
        ),
        ("include = [\"nowhere.toml\"]\n".into(), Code::WP101, 1, "nowhere.toml", "that is there"),
    ]);
}

#[test]
fn help_for_what_is_no_toml_fits_the_mistake() {
    for (text, help) in [
        (format!("a = {}", "[".repeat(5000)), "are all brackets and braces closed?"),
        (format!("a = {}", "{a = ".repeat(5000)), "are all brackets and braces closed?"),
        ("[log]\rlevel = \"info\"\r".to_owned(), "carriage return"),
    ] {
        let found = bad(&text);
        assert!(found[0].help.join("\n").contains(help), "{}", found[0]);
    }
    let folder = folder(&[]);
    let utf16: Vec<u8> = "\u{feff}[log]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(folder.path().join("wpsrc.toml"), utf16).expect("written");
    let found = load_in(folder.path()).expect_err("it does not load");
    assert!(found.all[0].help[0].contains("UTF-16"), "{}", found.all[0]);
    let wrong = bad(&file_source("max_line_bytes = true"));
    assert!(wrong[0].help.is_empty(), "\"true\" is no size either: {}", wrong[0]);
}

#[test]
fn keys_that_are_not_known() {
    check(vec![
        ("[engin]\nworkers = 4\n".into(), Code::WP404, 1, "'engin' of wpsrc.toml", "did you mean 'engine'?"),
        ("[engine]\nworker = 4\n".into(), Code::WP404, 2, "'worker' of 'engine'", "did you mean 'workers'?"),
        ("[log]\nlevl = \"info\"\n".into(), Code::WP404, 2, "'levl'", "'level'"),
        ("[admin]\nzzz = 1\n".into(), Code::WP404, 2, "'zzz'", "known are: listen, token_file"),
        (file_source("paht = \"x\""), Code::WP404, 6, "'paht' of source type 'file'", "did you mean 'path'?"),
        (file_source("multiline = { starts = \"x\", indent = true }"), Code::WP404, 6, "'starts'", "'start'"),
        ("[[sources]]\nkey = \"f\"\nconect = \"file_src\"\nconnect = \"file_src\"\nparams = { path = \"x\" }\n".into(),
            Code::WP404, 3, "'conect' of [[sources]]", "'connect'"),
        ("[[sources]]\nkey = \"f\"\nconnect = \"file_src\"\nmode = \"once\"\nparams = { path = \"x\" }\n".into(),
            Code::WP404, 4, "'mode' of [[sources]]", "[sources.params_override]\nmode = \"once\""),
        (file_source("") + "[[sinks]]\nkey = \"s\"\nconnect = \"blackhole_sink\"\nsource = [\"*\"]\n",
            Code::WP404, 10, "'source' of [[sinks]]", "'sources'"),
    ]);
}

#[test]
fn values_that_are_not_taken() {
    check(vec![
        ("[engine]\nworkers = \"4\"\n".into(), Code::WP404, 2, "wrong type: 'workers'", "workers = 4"),
        ("[engine]\nworkers = -1\n".into(), Code::WP404, 2, "out of range: 'workers' is 0 to 1024", ""),
        ("[engine]\nworkers = 5000\n".into(), Code::WP404, 2, "out of range: 'workers' is 0 to 1024", ""),
        ("[engine]\nworkers = 99999999999999999999\n".into(), Code::WP404, 2, "out of range", ""),
        ("[engine]\nmemory_limit = \"1 gig\"\n".into(), Code::WP404, 2, "'1 gig' is not a size", ""),
        ("[engine]\nmemory_limit = 1.5\n".into(), Code::WP404, 2, "wrong type: 'memory_limit'", ""),
        ("[engine]\nmemory_limit = \"1MiB\"\n".into(), Code::WP404, 2, "16MiB to", ""),
        ("[engine]\ncheckpoint_interval = 200\n".into(), Code::WP404, 2, "wrong type", "\"200ms\""),
        ("[engine]\ncheckpoint_interval = \"200\"\n".into(), Code::WP404, 2, "'200' is not a duration", ""),
        (
            "[engine]\nio = \"uing\"\n".into(),
            Code::WP404,
            2,
            "unknown word 'uing' for 'io'",
            "io = \"uring\"",
        ),
        ("[engine]\ndata_dir = \"\"\n".into(), Code::WP404, 2, "the path is empty", ""),
        ("engine = 1\n".into(), Code::WP404, 1, "wrong type: 'engine'", ""),
        ("sources = 1\n".into(), Code::WP404, 1, "wrong type: 'sources'", ""),
        ("[admin]\nlisten = \"8080\"\n".into(), Code::WP404, 2, "'8080' is not", ""),
        ("[admin]\ntoken_file = \"nope\"\n".into(), Code::WP101, 2, "token_file", "openssl rand"),
        ("[admin]\ntoken_file = \"wpsrc.toml\"\n".into(), Code::WP404, 2, "a token is one word", ""),
        (
            "[engine]\ndata_dir = \"wpsrc.toml/data\"\n".into(),
            Code::WP404,
            2,
            "is not a folder",
            "data_dir =",
        ),
        (file_source("mode = \"one\""), Code::WP404, 6, "unknown word 'one' for 'mode'", "mode = \"once\""),
        (
            file_source("max_line_bytes = 1"),
            Code::WP404,
            6,
            "out of range: 'max_line_bytes' is 64 to 1GiB",
            "",
        ),
        (file_source("parallel = \"yes\""), Code::WP404, 6, "wrong type: 'parallel'", ""),
        (file_source("exclude = \"[a\""), Code::WP404, 6, "unclosed character class", ""),
        (file_source("multiline = {}"), Code::WP404, 6, "neither 'start' nor 'indent'", "multiline = {"),
        (file_source("multiline = 5"), Code::WP404, 6, "wrong type: 'multiline'", ""),
        (
            file_source("multiline = { start = \"(\" }"),
            Code::WP404,
            6,
            "'start' is no regular expression",
            "begin with a year",
        ),
        (file_source("multiline = { start = \"x\", indent = true }"), Code::WP404, 6, "two ways", "take one"),
        (
            file_source("encode = \"hex\"\nmultiline = { indent = true }"),
            Code::WP404,
            7,
            "joins lines of text",
            "encode = \"text\"",
        ),
        (source("f", "file_src", "mode = \"once\""), Code::WP404, 4, "a file source needs 'path'", "path = "),
        (source("f", "file_src", "file = \"a.log\""), Code::WP404, 4, "'base' and 'file'", ""),
        (source("s", "syslog_udp_src", "port = 0"), Code::WP404, 5, "out of range: 'port' is 1 to 65535", ""),
        (
            source("s", "syslog_udp_src", "port = 70000"),
            Code::WP404,
            5,
            "out of range: 'port' is 1 to 65535",
            "",
        ),
        (source("s", "syslog_udp_src", "port = 70000"), Code::WP404, 5, "out of range", ""),
        (source("s", "syslog_udp_src", "addr = \"localhos\""), Code::WP404, 5, "'localhos' is not an IP", ""),
        (source("s", "syslog_udp_src", "header_mode = \"cut\""), Code::WP404, 5, "unknown word 'cut'", ""),
        (source("s", "syslog_udp_src", "allow = [\"10.0.0.0/40\"]"), Code::WP404, 5, "is not a network", ""),
        (source("s", "syslog_udp_src", "timezone = \"Mars/Base\""), Code::WP404, 5, "unknown time zone", ""),
        (source("s", "syslog_tcp_src", "tcp_recv_bytes = 1000"), Code::WP404, 5, "64KiB to 1GiB", ""),
        (
            source("s", "syslog_udp_src", "protocol = \"tls\""),
            Code::WP404,
            5,
            "needs a certificate",
            "tls = {",
        ),
        (source("s", "tcp_src", "tls = { cert = \"x\" }"), Code::WP404, 5, "'tls' needs 'key'", ""),
        (
            source("s", "kafka_src", "topic = \"t\""),
            Code::WP404,
            4,
            "a kafka source needs 'brokers'",
            "kafka1:9092",
        ),
        (source("s", "kafka_src", "brokers = \"h:1\""), Code::WP404, 4, "a kafka source needs 'topic'", ""),
        (source("s", "kafka_src", "brokers = \"h:x\"\ntopic = \"t\""), Code::WP404, 5, "'h:x' is not", ""),
    ]);
}

#[test]
fn sources_and_sinks_that_miss_something() {
    check(vec![
        ("[[sources]]\nconnect = \"file_src\"\nparams = { path = \"x\" }\n".into(), Code::WP404, 1, "needs 'key'", ""),
        ("[[sources]]\nkey = \"f\"\n".into(), Code::WP404, 1, "needs 'connect'", "connectors list"),
        ("[[sources]]\nkey = \"a b\"\nconnect = \"file_src\"\nparams = { path = \"x\" }\n".into(),
            Code::WP404, 2, "'a b' is not", ""),
        ("[[sources]]\nkey = \"../x\"\nconnect = \"file_src\"\nparams = { path = \"x\" }\n".into(),
            Code::WP404, 2, "'../x' is not", ""),
        ("[[sources]]\nkey = \"f\"\nconnect = \"fil_src\"\n".into(),
            Code::WP402, 3, "Connector 'fil_src' not found", "did you mean 'file_src'?"),
        ("[[sources]]\nkey = \"f\"\nconnect = \"file_sink\"\n".into(),
            Code::WP402, 3, "Connector 'file_sink' not found", "'file_sink' is a sink"),
        ("[[sources]]\nkey = \"f\"\nconnect = \"file_src\"\nparams = { path = \"x\" }\nparams_override = { path = \"y\" }\n"
            .into(), Code::WP404, 4, "both are given", ""),
        ("[[sources]]\nkey = \"f\"\nenable = false\nconnect = \"nothing\"\n".into(), Code::WP402, 4, "not found", ""),
        (file_source("") + &sink("s", "tcp_sink", ""), Code::WP404, 10, "a tcp sink needs 'addr'", ""),
        (file_source("") + &sink("s", "tcp_sink", "addr = \"h:0\""), Code::WP404, 11, "'h:0' is not", ""),
        (file_source("") + &sink("s", "kafka_sink", "brokers = \"h:1\""), Code::WP404, 10, "needs 'topic'", ""),
        (file_source("") + &sink("s", "file_sink", "path = \"{sorce}.log\""), Code::WP404, 11, "unknown placeholder", ""),
        (file_source("") + &sink("s", "file_sink", "path = \"{tag:a b}\""), Code::WP404, 11, "the tag 'a b'", ""),
        (file_source("") + &sink("s", "kafka_sink", "brokers = \"h:1\"\ntopic = \"a/{source}\""),
            Code::WP404, 12, "'a/' cannot be in a topic's name", "digits"),
        (file_source("") + &sink("s", "kafka_sink", "brokers = \"h:1\"\ntopic = \"..\""), Code::WP404, 12, "'..'", ""),
        (file_source("") + &sink("s", "file_sink", "permissions = \"999\""), Code::WP404, 11, "octal", ""),
        (file_source("") + &sink("s", "file_sink", "rotate = { keep = 1 }"), Code::WP404, 11, "neither 'size'", "rotate ="),
        (file_source("") + "[[sinks]]\nkey = \"s\"\nconnect = \"blackhole_sink\"\nwhere = { severity = \"worning\" }\n",
            Code::WP404, 10, "did you mean 'warning'?", ""),
        (file_source("") + "[[sinks]]\nkey = \"s\"\nconnect = \"blackhole_sink\"\nwhere = { env = 1 }\n",
            Code::WP404, 10, "wrong type: 'env'", ""),
        (file_source("") + "[[sinks]]\nkey = \"s\"\nconnect = \"blackhole_sink\"\nsources = [\"[\"]\n",
            Code::WP404, 10, "wrong value for 'sources'", ""),
    ]);
}

#[test]
fn tags_that_are_none() {
    let tags = |tag: &str| {
        format!(
            "[[sources]]\nkey = \"f\"\nconnect = \"file_src\"\ntags = [\"{tag}\"]\nparams = {{ path = \"x\" }}\n"
        )
    };
    check(vec![
        (tags("production"), Code::WP404, 4, "is not key:value", ""),
        (tags(&format!("{}:x", "k".repeat(33))), Code::WP404, 4, "is not 1 to 32", ""),
        (tags("alert_threshold:many"), Code::WP404, 4, "takes a number", ""),
        (tags("monitor:on"), Code::WP404, 4, "takes enabled or disabled", ""),
    ]);
}

#[test]
fn things_that_are_there_twice() {
    let udp = |key: &str, lines: &str| source(key, "syslog_udp_src", lines);
    let tcp = |key: &str, lines: &str| source(key, "tcp_src", lines);
    check(vec![
        (file_source("") + &file_source(""), Code::WP405, 8, "duplicate source key 'f'", "rename"),
        (udp("a", "") + &udp("b", ""), Code::WP405, 7, "two sources on one port", "another port"),
        (tcp("a", "port = 1514") + &source("b", "syslog_tcp_src", ""), Code::WP405, 7, "port 1514", ""),
        (tcp("a", "addr = \"::\"") + &tcp("b", "addr = \"127.0.0.1\""), Code::WP405, 7, "port 9000", ""),
        (
            "[admin]\nlisten = \"127.0.0.1:9000\"\n".to_owned() + &tcp("a", ""),
            Code::WP405,
            4,
            "the admin API",
            "",
        ),
        (
            file_source("")
                + &sink("a", "file_sink", "")
                + &sink("b", "file_sink", "path = \"data/out/{source}.log\""),
            Code::WP405,
            13,
            "two sinks on one file",
            "another path",
        ),
        (
            file_source("")
                + &sink("a", "file_sink", "path = \"data/out/f.log\"")
                + &sink("b", "file_sink", "path = \"data/out/{source}.log\""),
            Code::WP405,
            13,
            "two sinks on one file: 'a' and 'b' write",
            "another path",
        ),
    ]);
    good(
        &(file_source("")
            + &sink("a", "file_sink", "path = \"data/out/g.log\"")
            + &sink("b", "file_sink", "path = \"data/out/{source}.log\"")),
    );
    // What is known only when records come may differ.
    good(
        &(file_source("")
            + &sink("a", "file_sink", "path = \"data/out/{tag:source_name}\"")
            + &sink("b", "file_sink", "path = \"data/out/{tag:source_path}\"")
            + &sink("c", "file_sink", "path = \"data/out/{host}.log\"")
            + &sink("d", "file_sink", "path = \"data/out/host.log\"")),
    );
    good(&(udp("a", "") + &source("b", "syslog_tcp_src", "")));
    let reader = |lines: &str| source("f", "file_src", lines);
    check(vec![
        (
            reader("path = \"data/out/*.log\""),
            Code::WP405,
            2,
            "reads what sink 'file_sink' writes",
            "another folder",
        ),
        (reader("path = \"**/*.log\""), Code::WP405, 2, "reads what sink", "exclude"),
    ]);
    good(&reader("path = \"data/*.log\""));
    let back = "receives what sink 'o' sends of it";
    let sends = |addr: &str| sink("o", "tcp_sink", &format!("addr = \"{addr}\""));
    let syslog = sink("o", "syslog_sink", "addr = \"localhost\"\nport = 1514");
    check(vec![
        (tcp("a", "addr = \"127.0.0.1\"") + &sends("127.0.0.1:9000"), Code::WP405, 2, back, "another port"),
        (tcp("a", "addr = \"0.0.0.0\"") + &sends("[::ffff:127.0.0.1]:9000"), Code::WP405, 2, back, ""),
        (source("a", "syslog_tcp_src", "") + &syslog, Code::WP405, 2, back, "sources"),
    ]);
    good(&(tcp("a", "addr = \"127.0.0.1\"") + &sends("127.0.0.1:9001")));
    good(&(udp("a", "port = 1514") + &syslog));
    good(
        &(tcp("a", "addr = \"0.0.0.0\"")
            + &sends("10.0.0.1:9000")
            + &sink("b", "tcp_sink", "addr = \"h:9000\"")),
    );
    good(&reader("path = \"**/*.log\"\nexclude = [\"f.log\"]"));
    good(&(tcp("a", "addr = \"127.0.0.1\"") + &tcp("b", "addr = \"127.0.0.2\"")));
    good(&(udp("a", "") + "[[sources]]\nkey = \"b\"\nconnect = \"syslog_udp_src\"\nenable = false\n"));
}

#[test]
fn both_places_of_a_duplicate_are_shown() {
    let found = bad(&(file_source("") + &file_source("")));
    assert_eq!(found[0].others.len(), 1);
    assert_eq!(found[0].others[0].1.line, 2);
}

#[test]
fn what_older_configurations_hold() {
    let old = |line: &str| source("s", "syslog_udp_src", line);
    check(vec![
        (
            old("strip_header = true"),
            Code::WP406,
            5,
            "removed parameter 'strip_header'",
            "header_mode = \"strip\"",
        ),
        (old("attach_meta_tags = true"), Code::WP406, 5, "'attach_meta_tags'", "header_mode = \"parse\""),
        (old("process_header = false"), Code::WP406, 5, "'process_header'", "header_mode = \"keep\""),
        (
            "[sources]\nconnect = \"file_src\"\n[sources.params_override]\npath = \"x\"\n".into(),
            Code::WP406,
            1,
            "[sources]",
            "[[sources]]\nkey = \"source_1\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"x\"",
        ),
        (
            file_source("") + "[sinks]\nkey = \"s\"\nconnect = \"file_sink\"\n",
            Code::WP406,
            7,
            "[sinks]",
            "[[sinks]]\nkey = \"s\"\nconnect = \"file_sink\"",
        ),
    ]);
}

#[test]
fn what_is_pasted_in_place_of_a_single_table_loads() {
    let found = bad(
        "[sources]\nconnect = \"file_src\"\ntags = [\n  \"a:b\",\n]\n[sources.params_override]\npath = \"x\"\n",
    );
    let paste = found[0].help[0].split_once('\n').expect("more than one line").1;
    assert_eq!(good(paste).config.sources[0].tags.len(), 1);
    let found = bad("[sources.a]\nconnect = \"file_src\"\n[sources.a.params]\npath = \"x\"\n\
         [sources.b]\nconnect = \"tcp_src\"\nparams = { port = 1600 }\n");
    let paste = found[0].help[0].split_once('\n').expect("more than one line").1;
    let sources = good(paste).config.sources;
    assert_eq!(sources.iter().map(|source| &*source.key).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn what_would_not_mend_it_is_no_help() {
    let found =
        bad("[[sources]]\nkey = \"f\"\nconnect = \"file_src\"\ntags = [5]\nparams = { path = \"x\" }\n");
    assert!(found[0].message.contains("a tag, as") && found[0].help.is_empty(), "{}", found[0]);
    assert!(bad(&file_source("file = 5"))[0].help[0].contains("in quotes: file = \"5\""));
}

#[test]
fn what_is_wrong_with_patterns_and_routes_is_told_beside_the_rest() {
    let text = file_source("mode = 5\nexclude = \"[a\"\nmultiline = { start = \"(\" }")
        + "[[sinks]]\nkey = \"s\"\nconnect = \"blackhole_sink\"\nsources = [\"b\", \"f\"]\n";
    let found = bad(&text);
    let messages: Vec<&str> = found.iter().map(|finding| &*finding.message).collect();
    for words in ["'mode'", "unclosed character class", "is no regular expression", "'b' matches no source"] {
        assert_eq!(messages.iter().filter(|m| m.contains(words)).count(), 1, "{words}: {messages:#?}");
    }
    assert_eq!(messages.len(), 4, "{messages:#?}");
    // What is missing because its name is wrong is told once.
    assert_eq!(bad("[[sources]]\nkey = \"f\"\nconnect = \"file_src\"\nparams = { pth = \"x\" }\n").len(), 1);
}

#[cfg(feature = "kafka")]
#[test]
fn what_librdkafka_does_not_take_is_told_before_it_is_asked_to() {
    let kafka = |more: &str| source("k", "kafka_src", more);
    let with = |config: &str| kafka(&format!("brokers = \"h:1\"\ntopic = \"t\"\nconfig = {config}"));
    check(vec![
        (
            with("{ security_protocl = \"x\" }"),
            Code::WP404,
            7,
            "unknown parameter 'security_protocl' of librdkafka",
            "did you mean 'security_protocol'?",
        ),
        (with("[\"sesion.timeout.ms=1\"]"), Code::WP404, 7, "unknown", "did you mean 'session.timeout.ms'?"),
        (with("{ session_timeout_ms = \"x\" }"), Code::WP404, 7, "wrong value for property", ""),
        (
            kafka("brokers = \"h:1\"\ntopic = [\"a\", \"^(\"]"),
            Code::WP404,
            6,
            "'^(' is no regular expression: ",
            "",
        ),
        (
            kafka("brokers = \"http://h:1\"\ntopic = \"t\""),
            Code::WP404,
            5,
            "Kafka has no http://",
            "brokers = \"h:1\"",
        ),
        (
            kafka("brokers = \"h:1\"\ntopic = \"t\"\ngroup_id = \"\""),
            Code::WP404,
            7,
            "wrong value for 'group_id': it is empty",
            "leave it out",
        ),
    ]);
    good(&kafka("brokers = \"SASL_SSL://h:1\"\ntopic = \"^a(b|c)[0-9]+$\"\nconfig = { acks = \"all\" }"));
}

#[test]
fn what_a_transactional_sink_cannot_keep() {
    let reads =
        |more: &str| source("k", "kafka_src", &format!("brokers = \"h:1,i:1\"\ntopic = \"t\"\n{more}"));
    let writes = |key: &str, more: &str| {
        let lines = format!("brokers = \"i:1\"\ntopic = \"u\"\ntransactional = true\n{more}");
        sink(key, "kafka_sink", &lines)
    };
    good(&(reads("") + &writes("w", "")));
    // Files have positions of their own for each sink.
    good(&(file_source("") + &writes("w", "") + &writes("x", "") + &sink("b", "blackhole_sink", "")));
    let alone = "commit the group's offsets";
    check(vec![
        (
            reads("") + &writes("w", "") + &sink("b", "blackhole_sink", ""),
            Code::WP404,
            2,
            alone,
            "of its own",
        ),
        (
            reads("split = \"lines\"") + &writes("w", ""),
            Code::WP404,
            2,
            "two transactions",
            "split = \"none\"",
        ),
        (
            reads("").replace("h:1,i:1", "h:1") + &writes("w", ""),
            Code::WP404,
            2,
            "none in common",
            "same brokers",
        ),
        (
            reads("config = { isolation_level = \"read_uncommitted\" }") + &writes("w", ""),
            Code::WP404,
            2,
            "still open",
            "leave isolation_level out",
        ),
        (file_source("parallel = 4") + &writes("w", ""), Code::WP404, 2, "in parallel", "parallel = \"off\""),
        (
            file_source("") + &writes("w", "").replace("_sink\"\n", "_sink\"\nrescue = true\n"),
            Code::WP404,
            8,
            "rescue = true cannot be with transactional",
            "leave out rescue",
        ),
        (
            file_source("")
                + &writes("w", "transactional_id = \"a\"")
                + &writes("x", "transactional_id = \"a\""),
            Code::WP405,
            16,
            "fence each other",
            "",
        ),
        (
            file_source("") + &writes("w", "state_topic = \"a b\""),
            Code::WP404,
            14,
            "cannot be a topic's name",
            "letters",
        ),
        (
            file_source("") + &writes("w", "transactional_id = \"\""),
            Code::WP404,
            14,
            "it is empty",
            "leave it out",
        ),
        (
            file_source("")
                + &sink("s", "kafka_sink", "brokers = \"h:1\"\ntopic = \"t\"\nstate_topic = \"x\""),
            Code::WP404,
            13,
            "there are no transactions",
            "transactional = true",
        ),
    ]);
}

#[test]
fn kafka_properties() {
    let kafka = |config: &str| {
        source("k", "kafka_src", &format!("brokers = \"h:1\"\ntopic = \"t\"\nconfig = {config}"))
    };
    check(vec![
        (
            kafka("{ max_poll_records = \"1000\" }"),
            Code::WP404,
            7,
            "'max_poll_records' is one of Java's",
            "queued.max",
        ),
        (kafka("[\"max.poll.records=1\"]"), Code::WP404, 7, "Java's", ""),
        (kafka("{ enable_auto_commit = true }"), Code::WP404, 7, "refused: offsets are committed when", ""),
        (kafka("{ bootstrap_servers = \"x\" }"), Code::WP404, 7, "'brokers' says it", ""),
        (kafka("[\"sasl_username\"]"), Code::WP404, 7, "has no '='", ""),
        (kafka("[1]"), Code::WP404, 7, "wrong type", ""),
        (kafka("{ client_id = \"a\", \"client.id\" = \"b\" }"), Code::WP404, 7, "there twice", ""),
        (kafka("7"), Code::WP404, 7, "wrong type", ""),
    ]);
}

#[test]
fn memory_that_does_not_fit() {
    let text = "[engine]\nmemory_limit = \"100MiB\"\n".to_owned()
        + &source("s", "tcp_src", "tcp_recv_bytes = 104857600");
    check(vec![(text, Code::WP404, 4, "200MiB in all, more than memory_limit (100MiB)", "52428800 or less")]);
    good(&source("s", "tcp_src", "tcp_recv_bytes = 104857600"));
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = "[engine]\nworker = 1\nio = \"x\"\n[log]\nlevel = 3\n".to_owned()
        + &file_source("mode = \"x\"\nencode = \"y\"")
        + "[[sinks]]\nkey = \"s\"\nconnect = \"nothing\"\n";
    let found = bad(&text);
    let lines: Vec<u32> =
        found.iter().filter_map(|finding| finding.place.as_ref()).map(|place| place.line).collect();
    assert_eq!(lines, [2, 3, 5, 11, 12, 15]);
}

#[test]
fn an_array_that_is_not_closed_is_one_mistake_where_it_begins() {
    let text = "[engine]\nworkers = 1\n".to_owned()
        + &file_source("").replace("[sources.", "tags = [\"a:b\",\n\"c:d\"\n[sources.")
        + &sink("o", "blackhole_sink", "");
    let found = bad(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    let place = found[0].place.as_ref().expect("a place");
    assert_eq!((place.text.as_str(), place.column), ("tags = [\"a:b\",", 8));
    assert!(found[0].help[0].contains("close the array with ']'"));
}

#[test]
fn several_syntax_errors_are_found_at_once() {
    let found = bad("a = \nb = 1\nc = x\n");
    let lines: Vec<u32> =
        found.iter().filter_map(|finding| finding.place.as_ref()).map(|place| place.line).collect();
    assert_eq!(lines, [1, 3]);
}

#[test]
fn warnings_do_not_keep_a_configuration_from_loading() {
    let one =
        |i| source(&format!("s{i}"), "tcp_src", &format!("port = {}\ntcp_recv_bytes = 65536", 9100 + i));
    let eight = (0..8).map(one).collect::<String>();
    let ndjson = "path = \"o.ndjson\"\nformat = \"ndjson\"";
    for (text, words) in [
        (file_source("parallel = 4"), "'parallel' needs mode"),
        ("[engine]\nmemory_limit = \"16MiB\"\n".to_owned() + &eight, "is little for 8 sources on 2 shards"),
        (
            file_source("").replace("[sources.", "tags = [\"alert_on_eror:true\"]\n[sources."),
            "'alert_on_eror' of source",
        ),
        (
            file_source("")
                + "[[sinks]]\nkey = \"o\"\nconnect = \"blackhole_sink\"\nsources = [\"g*\", \"f\"]\n",
            "'g*' matches no source",
        ),
        (
            file_source("") + &sink("o", "file_sink", &format!("{ndjson}\ncompress = \"gzip\"")),
            "there is no 'rotate'",
        ),
        (
            file_source("")
                + &source("t", "tcp_src", "port = 1600")
                + "[[sinks]]\nkey = \"o\"\nconnect = \"blackhole_sink\"\nsources = [\"f\"]\n",
            "no sink takes the records of source 't'",
        ),
        (
            file_source("")
                + "[[sinks]]\nkey = \"o\"\nconnect = \"blackhole_sink\"\nwhere = { env = \"prod\" }\n",
            "no sink takes the records of source 'f'",
        ),
        (
            file_source("")
                + "[[sinks]]\nkey = \"a\"\nconnect = \"blackhole_sink\"\n"
                + "[[sinks]]\nkey = \"o\"\nconnect = \"blackhole_sink\"\nwhere = { sevrity = \"err\" }\n",
            "sink 'o' takes nothing",
        ),
        (
            file_source("")
                + "[[sinks]]\nkey = \"a\"\nconnect = \"blackhole_sink\"\n"
                + "[[sinks]]\nkey = \"o\"\nconnect = \"blackhole_sink\"\nsources = []\n",
            "sink 'o' takes nothing",
        ),
        (String::new(), "there is no source to run"),
    ] {
        let warnings = good(&text).warnings;
        assert_eq!(warnings.all.len(), 1, "{warnings}");
        assert!(warnings.all[0].message.contains(words), "{warnings}");
    }
    let words =
        |text: &str| good(text).warnings.all.into_iter().map(|w| w.message).collect::<Vec<_>>().join("\n");
    for tag in ["host = \"web1\"", "syslog_malformed = \"true\""] {
        let some = format!("[[sinks]]\nkey = \"o\"\nconnect = \"blackhole_sink\"\nwhere = {{ {tag} }}\n");
        assert_eq!(
            words(&(file_source("") + &sink("a", "blackhole_sink", "") + &some)),
            "",
            "{tag} comes of itself"
        );
    }
    let dated = |path: &str| sink("o", "file_sink", &format!("path = \"{path}\"\ncompress = \"gzip\""));
    assert_eq!(
        words(&(file_source("") + &dated("o-{date:%Y%m%d}.log"))),
        "",
        "a file is packed when its date is over"
    );
    let udp = source("s", "syslog_udp_src", "");
    assert!(words(&udp).contains("loses host and time"));
    assert!(!words(&(udp + &sink("o", "file_sink", ndjson))).contains("loses"));
    assert!(words(&source("s", "syslog_tcp_src", "gro = true")).contains("'gro' is not used"));
    assert!(words(&source("m", "mqtt_src", "")).contains("does not have the kind 'mqtt'"));
}

#[test]
fn ten_megabytes_are_refused_at_once() {
    let begun = std::time::Instant::now();
    let found = bad(&"# nothing\n".repeat(1 << 20));
    assert!(found[0].message.contains("10485760 bytes, more than the 4194304"), "{}", found[0]);
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn nonsense_of_four_megabytes_is_bounded() {
    let mut text = String::new();
    while text.len() < 4_000_000 {
        let _ = writeln!(text, "key_{} = 1", text.len());
    }
    let Err(found) = load_text(&text) else { panic!("it loads") };
    assert_eq!(found.all.len(), 1000);
    assert!(found.dropped > 100_000);
    let Err(found) = load_text(&"[".repeat(4_000_000)) else { panic!("it loads") };
    assert!(found.errors() >= 1);
    assert!(found.to_string().len() < 100_000);
}

#[test]
fn files_that_cannot_be_read() {
    let place = folder(&[]);
    let found = load_in(place.path()).expect_err("no file").all;
    assert!(found[0].code == Some(Code::WP101) && found[0].message.contains("os error 2"), "{}", found[0]);
    fs::create_dir(place.path().join("wpsrc.toml")).expect("made");
    let found = load_in(place.path()).expect_err("a folder").all;
    assert!(found[0].message.contains("it is a folder"), "{}", found[0]);
    let place = folder(&[]);
    fs::write(place.path().join("wpsrc.toml"), b"[log]\nlevel = \"\xff\"\n").expect("written");
    let found = load_in(place.path()).expect_err("not UTF-8").all;
    assert!(found[0].message.contains("byte 0xff at offset 15"), "{}", found[0]);
    assert_eq!(found[0].place.as_ref().map(|place| (place.line, place.column)), Some((2, 10)));
}

/// The quickest way to a panic or to silence: a file that ends too early.
#[test]
fn a_configuration_that_ends_at_any_byte_loads_or_says_why() {
    let place = folder(&[]);
    let text = super::loads::WHOLE;
    for end in 0..=text.len() {
        fs::write(place.path().join("wpsrc.toml"), &text.as_bytes()[..end]).expect("written");
        if let Err(found) = load_in(place.path()) {
            assert!(found.errors() > 0, "{end}");
            assert!(!found.to_string().is_empty(), "{end}");
        }
    }
}

/// A byte that became another one.
#[test]
fn a_configuration_with_any_byte_changed_loads_or_says_why() {
    let place = folder(&[]);
    let text = super::loads::WHOLE.as_bytes();
    for (at, new) in (0..text.len()).zip([b'"', b'[', b'=', b'\n', b'x', 0, 0xff, b'}'].into_iter().cycle()) {
        let mut broken = text.to_vec();
        broken[at] = new;
        fs::write(place.path().join("wpsrc.toml"), &broken).expect("written");
        if let Err(found) = load_in(place.path()) {
            assert!(found.errors() > 0 && !found.to_string().is_empty(), "{at}");
        }
    }
}
