//! The command line as a person or a script meets it: words, streams, exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::fallback;

/// The binary under test, with nothing of the tester's environment that would change its words.
pub fn wpgen(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wpgen"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    for name in ["NO_COLOR", "RUST_LOG", "CLICOLOR", "CLICOLOR_FORCE", "WPGEN_LANG"] {
        command.env_remove(name);
    }
    fallback::filter(&mut command);
    command
}

/// Runs to the end.
pub fn run(folder: &Path, args: &[&str]) -> Ran {
    Ran::from(wpgen(folder, args).output().unwrap())
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn without_arguments_it_explains_itself_and_calls_that_a_mistake() {
    let ran = run(folder().path(), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("Usage: wpgen") && ran.err.contains("Exit codes:"), "{}", ran.err);
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["-h"], &["init", "--help"], &["completions", "--help"], &["--version"]] {
        let ran = run(folder().path(), args);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{}", ran.out);
        assert!(!ran.out.contains('\x1b'), "no colours into a pipe");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let folder = folder();
    std::fs::write(folder.path().join("wpsrc.toml"), "").unwrap();
    let commands = [
        &["schema"][..],
        &["source", "validate"],
        &["explain", "WP101"],
        &["man"],
        &["connectors", "list"],
        &["--help"],
    ];
    for args in commands {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::from(wpgen(folder.path(), args).stdout(full).output().unwrap());
        assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_mistake_is_told_with_the_nearest_word_and_exit_code_2() {
    let ran = run(folder().path(), &["completion", "bash"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("'completions'"), "{}", ran.err);
    assert_eq!(run(folder().path(), &["--color", "blue", "man"]).code, Some(2));
    let nowhere = run(folder().path(), &["-C", "nowhere", "man"]);
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.err.contains("cannot work in nowhere: No such file"), "{}", nowhere.err);
}

#[test]
fn colours_follow_the_flag_and_no_color() {
    let ran = run(folder().path(), &["--color", "always", "bogus"]);
    assert!(ran.err.contains('\x1b'), "{}", ran.err);
    let folder = folder();
    std::fs::write(folder.path().join("sample.log"), "").unwrap();
    let err = |args: &[&str], no_color: &str| {
        let output = wpgen(folder.path(), args).env("NO_COLOR", no_color).output().unwrap();
        Ran::from(output).err
    };
    assert!(err(&["init", "--color=always"], "1").contains('\x1b'), "the flag wins");
    assert!(!err(&["init", "--color=never"], "").contains('\x1b'));
    assert!(!err(&["init"], "1").contains('\x1b'));
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(folder().path(), &["completions", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("wpgen") && ran.out.contains("init"), "{shell}");
    }
}

#[test]
fn the_manual_has_every_command() {
    let ran = run(folder().path(), &["man"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for part in [".TH wpgen 1", ".SH NAME", ".SS wpgen init", ".SS wpgen completions"] {
        assert!(ran.out.contains(part), "{part} is missing");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = wpgen(folder().path(), &["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn init_makes_a_folder_and_never_overwrites() {
    let folder = folder();
    let first = run(folder.path(), &["init", "my-logs"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    let written: Vec<&str> = first.out.lines().collect();
    assert!(written.contains(&"my-logs/wpsrc.toml") && written.len() == 5, "{written:?}");
    assert!(first.err.contains("wpgen -C my-logs source start"), "{}", first.err);
    let unit = std::fs::read_to_string(folder.path().join("my-logs/wpgen.service")).unwrap();
    assert!(
        unit.contains(&format!("{}/my-logs/wpsrc.toml", folder.path().display()))
            && !unit.contains("{folder}")
    );

    std::fs::remove_file(folder.path().join("my-logs/sample.log")).unwrap();
    let again = run(folder.path(), &["init", "my-logs"]);
    assert_eq!((again.code, again.out.as_str()), (Some(1), ""));
    assert!(again.err.contains("my-logs/wpsrc.toml exists already"), "{}", again.err);
    assert!(!folder.path().join("my-logs/sample.log").exists(), "nothing at all is written");

    let quiet = run(folder.path(), &["-q", "init", "other"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (Some(0), ""));
}

#[test]
fn init_names_what_it_cannot_write() {
    let folder = folder();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let ran = run(folder.path(), &["init", "file/inside"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("cannot write file/inside: Not a directory"), "{}", ran.err);
}

/// A folder with a configuration that reads a log file once.
fn configured(sources: &str) -> tempfile::TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("app.log"), "one\ntwo\n").unwrap();
    std::fs::write(folder.path().join("wpsrc.toml"), sources).unwrap();
    folder
}

const GOOD: &str =
    "[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"app.log\"\n";

#[test]
fn a_good_configuration_validates() {
    let folder = configured(GOOD);
    let ran = run(folder.path(), &["source", "validate"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "wpsrc.toml: ok: 1 source, 1 sink, no findings\n"));
    let verbose = run(folder.path(), &["source", "validate", "wpsrc.toml", "--verbose"]);
    assert!(verbose.out.contains("goes to") && verbose.out.contains("data folder"), "{}", verbose.out);
    let json = run(folder.path(), &["source", "validate", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&report["ok"], &report["errors"]), (&true.into(), &0.into()));
}

#[test]
fn all_findings_come_at_once_with_their_lines() {
    let folder = configured(
        "[[sources]]\nkey = \"app\"\nconnect = \"file_scr\"\n[[sources]]\nkey = \"b\"\nconnect = \"file_src\"\n\
         [sources.params_override]\npaht = \"x\"\n",
    );
    let ran = run(folder.path(), &["source", "validate"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""));
    for part in
        ["WP402", "Connector 'file_scr' not found", "file_src", "wpsrc.toml:3:", "wpsrc.toml:8:1", "'paht'"]
    {
        assert!(ran.out.contains(part), "{part} is missing in {}", ran.out);
    }
    let json = run(folder.path(), &["source", "validate", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["ok"], false);
    assert!(report["findings"].as_array().unwrap().iter().any(|f| f["place"]["line"] == 3), "{report}");
    let missing = run(folder.path(), &["source", "validate", "nowhere.toml"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.out.contains("nowhere.toml"), "{}", missing.out);
}

#[test]
fn a_trial_opens_reads_and_leaves_nothing() {
    let folder = configured(GOOD);
    let ran = run(folder.path(), &["source", "test"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("first record: one") && ran.out.contains("all well"), "{}", ran.out);
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "no folder and no file was made");
    std::fs::remove_file(folder.path().join("app.log")).unwrap();
    std::fs::write(folder.path().join("app2.log"), "").unwrap();
    let missing = run(folder.path(), &["source", "test", "--source-id", "app"]);
    assert_eq!(missing.code, Some(1));
    for part in ["WP101", "os error 2", "app2.log", "1 of 1 failed"] {
        assert!(missing.out.contains(part), "{part} is missing in {}", missing.out);
    }
    let unknown = run(folder.path(), &["source", "test", "--source-id", "b"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("its sources: app"), "{}", unknown.err);
}

#[test]
fn without_an_engine_the_commands_to_it_say_so() {
    let folder = configured(GOOD);
    for command in ["list", "status", "stop"] {
        let ran = run(folder.path(), &["source", command]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        assert!(ran.err.contains("no engine is running on"), "{}", ran.err);
    }
}

#[test]
fn what_init_writes_validates() {
    let folder = folder();
    run(folder.path(), &["init"]);
    let ran = run(folder.path(), &["source", "validate"]);
    assert_eq!(ran.out, "wpsrc.toml: ok: 1 source, 1 sink, no findings\n");
    assert_eq!(run(folder.path(), &["connectors", "validate"]).code, Some(0));
    assert_eq!(run(folder.path(), &["source", "test"]).code, Some(0));
}

#[test]
fn connectors_are_listed_shown_and_made() {
    let folder = folder();
    let list = run(folder.path(), &["connectors", "list"]);
    assert!(list.out.contains("file_src") && list.out.contains("built in"), "{}", list.out);
    let show = run(folder.path(), &["connectors", "show", "file_src"]);
    assert!(show.out.contains("max_line_bytes") && show.out.contains("\"1MiB\""), "{}", show.out);
    assert!(show.out.lines().all(|line| line.chars().count() <= 100), "{}", show.out);
    let near = run(folder.path(), &["connectors", "show", "file_scr"]);
    assert_eq!(near.code, Some(1));
    assert!(near.err.contains("did you mean 'file_src'?"), "{}", near.err);

    let create = run(folder.path(), &["connectors", "create", "--template", "file_src", "--name", "mine"]);
    assert_eq!((create.code, create.out.as_str()), (Some(0), "connectors/source.d/50-mine.toml\n"));
    assert_eq!(run(folder.path(), &["connectors", "validate"]).code, Some(0));
    let list = run(folder.path(), &["connectors", "list"]);
    assert!(list.out.contains("50-mine.toml"), "{}", list.out);
    let again = run(folder.path(), &["connectors", "create", "--template", "file_src", "--name", "mine"]);
    assert_eq!(again.code, Some(1));
    assert_eq!(
        run(folder.path(), &["connectors", "create", "--template", "file_src", "--name", "../x"]).code,
        Some(2)
    );

    std::fs::write(
        folder.path().join("connectors/source.d/60.toml"),
        "[[connectors]]\nid = \"mine\"\ntype = \"file\"\n",
    )
    .unwrap();
    let twice = run(folder.path(), &["connectors", "validate"]);
    assert_eq!(twice.code, Some(1));
    assert!(twice.out.contains("Duplicate connector ID 'mine'"), "{}", twice.out);
}

#[test]
fn connectors_are_parsed_and_tried_with_parameters() {
    let folder = configured(GOOD);
    let parse = run(
        folder.path(),
        &["connectors", "parse", "--id", "file_src", "--param", "path=app.log", "--param", "mode=once"],
    );
    assert_eq!(parse.code, Some(0), "{}", parse.err);
    assert!(
        parse.out.contains("path = \"app.log\"") && parse.out.contains("# command line"),
        "{}",
        parse.out
    );
    let wrong = run(folder.path(), &["connectors", "parse", "--id", "file_src", "--param", "mode=twice"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("unknown word 'twice'"), "{}", wrong.err);
    let trial = run(
        folder.path(),
        &["connectors", "test", "--id", "file_src", "--params", "path=app.log", "mode=once"],
    );
    assert_eq!(trial.code, Some(0), "{}", trial.err);
    assert!(trial.out.contains("first record: one"), "{}", trial.out);
}

#[test]
fn a_connector_without_its_parameters_is_told_how_to_give_them() {
    let ran = run(folder().path(), &["connectors", "test", "--id", "file_src"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("help: with parameters: wpgen connectors test --id file_src"), "{}", ran.err);
    assert!(!ran.err.contains(" | "), "an empty line shows nothing: {}", ran.err);
}

#[test]
fn codes_are_explained_listed_and_found_by_words() {
    let folder = folder();
    let one = run(folder.path(), &["explain", "wp101"]);
    assert!(
        one.code == Some(0) && one.out.starts_with("WP101  ") && one.out.contains("Works:"),
        "{}",
        one.out
    );
    let all = run(folder.path(), &["explain"]);
    assert!(all.out.contains("WP101") && all.out.contains("WP603"), "{}", all.out);
    let found = run(folder.path(), &["explain", "Address", "already", "in", "use"]);
    assert!(found.out.contains("WP301"), "{}", found.out);
    let printed = run(folder.path(), &["explain", "error[WP301]: source 'a': 127.0.0.1:1: no"]);
    assert!(printed.out.starts_with("WP301  "), "{}", printed.out);
    let many = run(folder.path(), &["explain", "Too many open files"]);
    assert!(many.out.contains("WP101"), "{}", many.out);
    let full = run(folder.path(), &["explain", "out.log: No space left on device (os error 28)"]);
    assert!(full.code == Some(0) && full.out.contains("df -h"), "{}{}", full.out, full.err);
    assert_eq!(run(folder.path(), &["explain", "zzzz"]).code, Some(1));
}
