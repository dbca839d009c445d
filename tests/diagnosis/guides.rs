//! Every command of both guides that is for the engine, as it is printed there.

use std::fs;
use std::process::{Command, Stdio};

use crate::cli::{Ran, run};
use crate::harness::{Site, status, until, until_ok};
use crate::net::own_address;

/// The commands that end by themselves, and what each must say.
const COMMANDS: [(&str, &str); 7] = [
    ("wpgen source validate wpsrc.toml", "wpsrc.toml: ok"),
    ("wpgen connectors validate", "ok"),
    ("wpgen source validate wpsrc.toml --verbose", "goes to"),
    ("wpgen source test --source-id kafka_main", "first record: one"),
    ("wpgen connectors test --id file_src", "first record: one"),
    ("wpgen connectors list", "file_src"),
    ("ls -la connectors/source.d/", "10.toml"),
];

/// The commands that run an engine until it is stopped.
const STARTS: [&str; 5] = [
    "RUST_LOG=debug wpgen source start wpsrc.toml",
    "RUST_LOG=trace wpgen source start wpsrc.toml",
    "wpgen source start wpsrc.toml --no-daemon",
    "wpgen source start wpsrc.toml 2>&1 | tee wpgen.log",
    "export RUST_LOG=debug\nexport RUST_LOG=wpgen=trace\nwpgen source start wpsrc.toml",
];

/// A configuration whose source has the name that the guide asks for; of what kind it is, the commands do not say.
fn site() -> Site {
    let site = Site::empty();
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    fs::create_dir_all(site.path("connectors/source.d")).unwrap();
    let connector = "[[connectors]]\nid = \"mine\"\ntype = \"file\"\nallow_override = [\"path\"]\n";
    fs::write(site.path("connectors/source.d/10.toml"), connector).unwrap();
    let config = "[admin]\nlisten = \"\"\n[[sources]]\nkey = \"kafka_main\"\nconnect = \"file_src\"\n\
        [sources.params_override]\npath = \"in/app.log\"\n";
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    site
}

/// A shell in the site that finds `wpgen` where anyone would: in its PATH.
fn shell(site: &Site, command: &str) -> Command {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_wpgen")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(site.folder()).env("PATH", path).env_remove("RUST_LOG");
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn the_commands_that_look_work_as_printed() {
    let site = site();
    for (command, says) in COMMANDS {
        let ran = Ran::from(shell(&site, command).output().unwrap());
        assert_eq!(ran.code, Some(0), "{command}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(says), "{command}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn the_commands_that_start_an_engine_work_as_printed() {
    for command in STARTS {
        let site = site();
        let engine = shell(&site, command).spawn().unwrap();
        until(command, || status(site.folder())["sources"][0]["delivered"] == 1);
        let stop = Ran::from(shell(&site, "wpgen source stop").output().unwrap());
        assert_eq!(stop.code, Some(0), "{command}: {}", stop.err);
        let ran = Ran::from(engine.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{command}: {}{}", ran.out, ran.err);
        assert!(site.path("logs/wpgen.log").exists(), "{command}");
    }
}

/// What the guides tell to write into a source, by the connector that it is for.
const SNIPPETS: [(&str, &str); 8] = [
    ("file_src", "[sources.params_override]\nencode = \"text\"\npath = \"in/app.log\""),
    ("syslog_udp_src", "[sources.params_override]\nport = 1514  # \u{800c}\u{4e0d}\u{662f} 514"),
    ("syslog_udp_src", "[sources.params_override]\nheader_mode = \"keep\"\nprefer_newline = true"),
    ("syslog_udp_src", "[sources.params_override]\nprotocol = \"tcp\""),
    ("syslog_tcp_src", "[sources.params_override]\ntcp_recv_bytes = 104857600  # 100MB"),
    (
        "syslog_tcp_src",
        "tags = [\n    \"monitor:enabled\",\n    \"alert_on_error:true\",\n    \"alert_threshold:1000\"\n]",
    ),
    ("mine", "[sources.params_override]\npath = \"in/app.log\""),
    ("file_src", "[sources.params_override]\npath = \"in/app.log\"\n# encode = \"base64\""),
];

#[test]
fn what_the_guides_tell_to_write_loads() {
    for (connect, snippet) in SNIPPETS {
        let site = site();
        let config = format!("[[sources]]\nkey = \"a\"\nconnect = \"{connect}\"\n{snippet}\n");
        fs::write(site.path("wpsrc.toml"), &config).unwrap();
        let ran = run(site.folder(), &["source", "validate", "wpsrc.toml"]);
        assert_eq!(ran.code, Some(0), "{config}{}{}", ran.out, ran.err);
    }
}

#[test]
fn what_the_guide_calls_wrong_is_told_so() {
    let list = "[[sources]]\nkey = \"a\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"in/app.log\"\n";
    for (wrong, says) in [
        ("key = unquoted_value\n".to_owned(), "Failed to parse TOML configuration"),
        ("[sources]\nconnect = \"file_src\"\n".to_owned(), "[[sources]]"),
        (list.replace("file_src", "unknown_connector"), "Connector 'unknown_connector' not found"),
        (
            list.replace("file_src", "mine").replace("path", "encode"),
            "Parameter 'encode' not in allow_override list",
        ),
    ] {
        let site = site();
        fs::write(site.path("wpsrc.toml"), &wrong).unwrap();
        let ran = run(site.folder(), &["source", "validate", "wpsrc.toml"]);
        assert_eq!(ran.code, Some(1), "{wrong}");
        assert!(format!("{}{}", ran.out, ran.err).contains(says), "{says} in {}{}", ran.out, ran.err);
    }
}

/// The one curl of the endpoints' guide that asks for the engine as a whole; its host is one that no other test has.
#[test]
fn the_health_of_the_system_is_asked_as_printed() {
    let site = site();
    let host = own_address().to_string();
    let config = fs::read_to_string(site.path("wpsrc.toml")).unwrap();
    let admin = format!("[admin]\nlisten = \"{host}:8080\"\n");
    fs::write(site.path("wpsrc.toml"), config.replace("[admin]\nlisten = \"\"\n", &admin)).unwrap();
    let engine = site.start();
    let printed = "curl -X GET \"http://localhost:8080/api/system/health\"";
    let command = printed.replace("localhost", &host);
    until_ok("it answers", || {
        let ran = Ran::from(shell(&site, &command).output().unwrap());
        let answer: Result<serde_json::Value, _> = serde_json::from_str(&ran.out);
        match answer {
            Ok(answer) if answer["code"] == 200 => Ok(()),
            _ => Err(format!("{}{}", ran.out, ran.err)),
        }
    });
    engine.stop();
}
