//! How a run ends when something is left: what is said on the console, in the log and to whoever asked for the stop, and
//! the exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use crate::cli::{Ran, run, wpgen};
use crate::harness::{Started, status, until};
use crate::net::own_address;

/// An engine whose source has taken a thousand records, for a sink that nobody answers.
fn stuck(folder: &Path, drain_timeout: &str) -> (Started, TcpStream) {
    let host = own_address();
    // Nobody listens there any more.
    let nobody = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
    let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
    let config = format!(
        "[engine]\ndrain_timeout = \"{drain_timeout}\"\n[admin]\nlisten = \"\"\n\
         [[sources]]\nkey = \"a\"\nconnect = \"tcp_src\"\nparams = {{ addr = \"{host}\", port = {port} }}\n\
         [[sinks]]\nkey = \"s\"\nconnect = \"tcp_sink\"\nparams = {{ addr = \"{nobody}\" }}\n"
    );
    fs::write(folder.join("wpsrc.toml"), config).unwrap();
    let engine = Started::in_folder(folder);
    let mut sender = TcpStream::connect((host, port)).unwrap();
    sender.write_all("a record\n".repeat(1000).as_bytes()).unwrap();
    until("all is taken", || status(folder)["sources"][0]["records_in"] == 1000);
    (engine, sender)
}

const LOST: &str = "source 'a': 1,000 records were taken and not delivered: they are lost";

fn is_told(folder: &Path, ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{}", ran.err);
    assert_eq!(ran.err.matches(LOST).count(), 1, "{}", ran.err);
    assert!(!ran.err.contains("reads again"), "{}", ran.err);
    let log = fs::read_to_string(folder.join("logs/wpgen.log")).unwrap();
    assert!(log.lines().any(|line| line.contains("[ERROR]") && line.contains(LOST)), "{log}");
}

#[test]
fn a_drain_that_times_out_says_what_is_lost_and_so_does_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _sender) = stuck(folder.path(), "200ms");
    let stopped = run(folder.path(), &["source", "stop"]);
    assert_eq!(stopped.code, Some(1), "{}", stopped.err);
    assert!(stopped.err.contains(LOST), "{}", stopped.err);
    is_told(folder.path(), &engine.end(), 1);
}

#[test]
fn a_second_signal_says_what_is_lost_before_it_ends_all() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let (engine, _sender) = stuck(folder.path(), "60s");
        engine.signal(signal);
        let log = folder.path().join("logs/wpgen.log");
        let has_said = |words: &str| fs::read_to_string(&log).unwrap().contains(words);
        until("it drains", || has_said(": draining"));
        // One that comes at once is taken for the same wish.
        until("the second one counts", || {
            engine.signal(signal);
            has_said("stopped at once, by a second signal")
        });
        is_told(folder.path(), &engine.end(), 1);
    }
}

#[test]
fn an_engine_is_asked_and_stopped_whose_configuration_was_broken_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    fs::write(folder.path().join("wpsrc.toml"), format!("[engine]\ndata_dir = \"./its\"\n{FILE}")).unwrap();
    let engine = Started::in_folder(folder.path());
    let broken = fs::read_to_string(folder.path().join("wpsrc.toml")).unwrap() + "x =\n";
    fs::write(folder.path().join("wpsrc.toml"), broken).unwrap();
    for (command, found) in [("status", "healthy"), ("stop", "stopped process")] {
        let ran = run(folder.path(), &["source", command]);
        assert!(ran.code == Some(0) && ran.out.contains(found), "{ran:?}");
        assert!(ran.err.contains("WP401") && ran.err.contains("asked all the same"), "{}", ran.err);
    }
    engine.end();
    let ran = run(folder.path(), &["source", "status"]);
    assert!(ran.code == Some(1) && ran.err.contains("WP401"), "nobody is there to be asked: {ran:?}");
}

#[test]
fn a_stop_after_which_all_is_delivered_is_well_and_a_process_that_was_killed_is_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    fs::write(folder.path().join("wpsrc.toml"), FILE).unwrap();
    let engine = Started::in_folder(folder.path());
    let stopped = run(folder.path(), &["source", "stop"]);
    assert_eq!((stopped.code, stopped.err.as_str()), (Some(0), ""));
    assert_eq!(engine.end().code, Some(0));

    let (engine, _sender) = stuck(folder.path(), "60s");
    let stop = wpgen(folder.path(), &["source", "stop"]).stderr(Stdio::piped()).spawn().unwrap();
    let log = folder.path().join("logs/wpgen.log");
    until("it drains", || fs::read_to_string(&log).unwrap().matches(": draining").count() == 2);
    engine.signal(libc::SIGKILL);
    let stopped = Ran::from(stop.wait_with_output().unwrap());
    assert_eq!(stopped.code, Some(1), "{}", stopped.err);
    assert!(stopped.err.contains("left no word whether everything was delivered"), "{}", stopped.err);
}

const FILE: &str = "[admin]\nlisten = \"\"\n\
    [[sources]]\nkey = \"a\"\nconnect = \"file_src\"\nparams = { path = \"a.log\", start = \"beginning\" }\n\
    [[sinks]]\nkey = \"s\"\nconnect = \"file_sink\"\nparams = { path = \"out.log\" }\n";

#[test]
fn a_last_checkpoint_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    fs::write(folder.path().join("wpsrc.toml"), FILE).unwrap();
    let engine = Started::in_folder(folder.path());
    until("it is delivered", || fs::read(folder.path().join("out.log")).is_ok_and(|out| out == b"one\n"));
    fs::rename(&data, folder.path().join("away")).unwrap();
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("error: the last checkpoint could not be written: "), "{}", ran.err);
    assert!(!ran.err.contains("no errors"), "{}", ran.err);
}

#[test]
fn records_that_no_sink_takes_are_warned_of_and_are_not_delivered() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    let file = |key: &str| {
        format!(
            "[[sources]]\nkey = \"{key}\"\nconnect = \"file_src\"\n\
             params = {{ path = \"a.log\", mode = \"once\", start = \"beginning\" }}\n"
        )
    };
    let sink = |takes: &str| format!("[[sinks]]\nkey = \"s\"\nconnect = \"blackhole_sink\"\n{takes}\n");
    for config in
        [file("a") + &file("b") + &sink("sources = [\"b\"]"), file("a") + &sink("where = { env = \"prod\" }")]
    {
        fs::write(folder.path().join("wpsrc.toml"), config).unwrap();
        let _ = fs::remove_dir_all(folder.path().join("data"));
        let words = "no sink takes the records of source 'a'";
        for command in ["validate", "test", "start"] {
            let ran = run(folder.path(), &["source", command]);
            assert_eq!(ran.code, Some(0), "{command}: {}", ran.err);
            assert!(ran.err.contains(words) || ran.out.contains(words), "{command}: {} {}", ran.out, ran.err);
            if command == "start" {
                let row =
                    ran.err.lines().find(|line| line.starts_with("a ") && line.contains("no_sink")).unwrap();
                let cells: Vec<&str> = row.split_whitespace().collect();
                assert_eq!((cells[1], cells[4]), ("2", "0"), "{row}");
                assert!(row.ends_with("dropped as no_sink 2"), "{row}");
            }
        }
    }
}

#[test]
fn an_unusable_rust_log_is_told_and_no_error_is_hidden_by_any() {
    let folder = tempfile::tempdir().unwrap();
    let missing = FILE.replace("start =", "mode = \"once\", start =");
    fs::write(folder.path().join("wpsrc.toml"), missing).unwrap();
    let start = |rust_log: &str| {
        let mut command = wpgen(folder.path(), &["source", "start"]);
        Ran::from(command.env("RUST_LOG", rust_log).output().unwrap())
    };
    let log = || fs::read_to_string(folder.path().join("logs/wpgen.log")).unwrap_or_default();
    for rust_log in ["inof", "!!!", "foo="] {
        let before = log().len();
        let ran = start(rust_log);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert_eq!(ran.err.matches("has no effect").count(), 1, "{}", ran.err);
        assert!(ran.err.contains("error[WP101]"), "{}", ran.err);
        let log = log().split_off(before);
        assert!(log.contains("[WARN] [wpgen::log] RUST_LOG=") && log.contains("[ERROR]"), "{log}");
    }
    for rust_log in ["off", "wpgen::kafka=debug", ""] {
        let before = log().len();
        let ran = start(rust_log);
        assert!(
            ran.err.contains("error[WP101]") && !ran.err.contains("has no effect"),
            "{rust_log}: {}",
            ran.err
        );
        assert_eq!(log().split_off(before).contains("[ERROR]"), rust_log.is_empty(), "{rust_log}");
    }
}
