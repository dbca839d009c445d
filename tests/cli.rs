//! The command line as a person or a script meets it: words, streams, exit codes.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary under test, with nothing of the tester's environment that would change its words.
pub fn wpgen(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wpgen"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    for name in ["NO_COLOR", "RUST_LOG", "CLICOLOR", "CLICOLOR_FORCE", "WPGEN_LANG"] {
        command.env_remove(name);
    }
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
