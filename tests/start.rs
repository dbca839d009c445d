//! `source start` from the outside: what it prints where, how it ends, and the commands to a running engine.

use crate::cli::{run, wpgen};

fn folder(sink: &str, source: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.log"), "one\ntwo\nthree\n").unwrap();
    let config = format!(
        "[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"app.log\"\n{source}\n\
         [[sinks]]\nkey = \"out\"\nconnect = \"{sink}\"\nsources = [\"*\"]\n"
    );
    std::fs::write(folder.path().join("wpsrc.toml"), config).unwrap();
    folder
}

fn once(sink: &str) -> tempfile::TempDir {
    folder(sink, "mode = \"once\"\nstart = \"beginning\"")
}

#[test]
fn records_go_to_standard_output_and_words_to_standard_error() {
    let folder = once("stdout_sink");
    let ran = run(folder.path(), &["source", "start"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "one\ntwo\nthree\n"), "{}", ran.err);
    assert!(ran.err.contains("3 records in "), "{}", ran.err);
    assert!(!ran.err.contains('\r') && !ran.err.contains('\x1b'), "no progress and no colours into a pipe");
    let quiet = run(folder.path(), &["-q", "source", "start"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (Some(0), ""));
}

#[test]
fn the_log_has_time_level_target_and_goes_to_the_console_when_asked() {
    let folder = once("blackhole_sink");
    let ran = run(folder.path(), &["source", "start", "--no-daemon"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let log = std::fs::read_to_string(folder.path().join("logs/wpgen.log")).unwrap();
    let line = log.lines().find(|l| l.contains("3 records in ")).unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), &time[10..11], &time[19..20]), (29, "T", "."), "{line}");
    assert!(rest.starts_with("[INFO] [wpgen::"), "{line}");
    assert!(ran.err.contains(line), "{}", ran.err);
    let off = wpgen(folder.path(), &["source", "start"]).env("RUST_LOG", "off").output().unwrap();
    assert_eq!(off.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(folder.path().join("logs/wpgen.log")).unwrap(), log, "RUST_LOG wins");
}

#[test]
fn a_log_folder_that_cannot_be_written_is_told_once_and_no_reason_to_fail() {
    let folder = once("blackhole_sink");
    std::fs::write(folder.path().join("logs"), "a file").unwrap();
    let ran = run(folder.path(), &["source", "start"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.err.matches("the log cannot be written").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("[INFO] [wpgen::"), "{}", ran.err);
}

#[test]
fn a_configuration_that_does_not_load_is_exit_code_3() {
    let folder = once("no_such_sink");
    let ran = run(folder.path(), &["source", "start"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""));
    assert!(ran.err.contains("WP402") && ran.err.contains("connect = \"no_such_sink\""), "{}", ran.err);
    assert_eq!(run(folder.path(), &["source", "start", "nowhere.toml"]).code, Some(3));
}
