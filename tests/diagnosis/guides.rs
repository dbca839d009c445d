//! Every command of both guides that is for the engine, as it is printed there.

use std::fs;
use std::process::{Command, Stdio};

use crate::cli::Ran;
use crate::harness::{Site, status, until};

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
