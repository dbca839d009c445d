//! `source start` from the outside: what it prints where, how it ends, and the commands to a running engine.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::cli::{Ran, run, wpgen};
use crate::harness::{Started, status, until};

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
fn a_strict_mask_and_a_low_limit_are_not_felt_by_senders() {
    let folder = tempfile::tempdir().unwrap();
    let source = |key: &str, connect: &str, more: &str| {
        format!(
            "[[sources]]\nkey = \"{key}\"\nconnect = \"{connect}\"\nparams = {{ addr = \"unix:{key}\"{more} }}\n"
        )
    };
    let config = [
        "[admin]\nlisten = \"\"\n",
        &source("datagrams", "syslog_udp_src", ""),
        &source("stream", "syslog_tcp_src", ", permissions = \"0620\""),
        &source("raw", "tcp_src", ""),
        "[[sinks]]\nkey = \"out\"\nconnect = \"file_sink\"\nparams = { path = \"out\", format = \"ndjson\" }\n",
    ];
    std::fs::write(folder.path().join("wpsrc.toml"), config.concat()).unwrap();
    let mut command = Command::new("sh");
    let script = format!("umask 077; ulimit -Sn 128; exec {} source start", env!("CARGO_BIN_EXE_wpgen"));
    command.args(["-c", &script]).current_dir(folder.path());
    let engine = Started::by(folder.path(), command);
    for (name, mode) in [("datagrams", 0o666), ("stream", 0o620), ("raw", 0o666)] {
        let meta = std::fs::symlink_metadata(folder.path().join(name)).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, mode, "of {name}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let (soft, hard) = line.trim().split_once(' ').unwrap();
    assert_eq!(Some(soft), hard.split_whitespace().next(), "{line}");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"<34>one", folder.path().join("datagrams")).unwrap();
    let out = || std::fs::read_to_string(folder.path().join("out")).unwrap_or_default();
    until("it is there", || out().ends_with('\n'));
    let record: serde_json::Value = serde_json::from_str(&out()).unwrap();
    assert_eq!((&record["data"], &record["meta"]["protocol"]), (&"one".into(), &"unix".into()), "{record}");
    engine.stop();
}

#[test]
fn what_a_path_holds_does_not_move_the_cursor() {
    let folder = once("blackhole_sink");
    let config = std::fs::read_to_string(folder.path().join("wpsrc.toml")).unwrap();
    std::fs::write(folder.path().join("a\x1bc\nb.log"), "one\n").unwrap();
    let config = config.replace("\"app.log\"", "\"a\\u001bc\\nb.log\"");
    std::fs::write(folder.path().join("wpsrc.toml"), config).unwrap();
    let ran = run(folder.path(), &["source", "start"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.err.contains('\x1b') && ran.err.contains("a\\x1bc\\nb.log"), "{}", ran.err);
}

#[test]
fn standard_output_that_takes_nothing_is_a_failure_and_a_reader_that_leaves_is_none() {
    let folder = once("stdout_sink");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = wpgen(folder.path(), &["source", "start"]).stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("No space left on device"), "{err}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = wpgen(folder.path(), &["source", "start"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_a_reader_took_before_it_left_is_counted() {
    let folder = once("stdout_sink");
    // More than the pipe holds, in one batch.
    let line = format!("{}\n", "x".repeat(999));
    std::fs::write(folder.path().join("app.log"), line.repeat(200)).unwrap();
    let mut child = wpgen(folder.path(), &["source", "start"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1000];
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut first).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("its reader left"), "{}", ran.err);
    let row =
        ran.err.lines().find(|line| line.starts_with("out ") && line.contains("its reader left")).unwrap();
    let records: u64 = row.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((1..200).contains(&records), "{}", ran.err);
}

#[test]
fn a_data_folder_that_may_not_be_written_is_told_with_its_code() {
    let folder = once("blackhole_sink");
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(folder.path().join("data"), mode(0o555)).unwrap();
    let ran = run(folder.path(), &["source", "start"]);
    // root may write anywhere.
    if ran.code != Some(0) {
        assert!(
            ran.err.contains("error[WP102]: data_dir ") && ran.err.contains("os error 13"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn the_quickstart_works_twice_in_a_row() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let folder = tempfile::tempdir().unwrap();
    for name in ["wpsrc.toml", "access.log"] {
        std::fs::copy(example.join(name), folder.path().join(name)).unwrap();
    }
    let lines = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let config = folder.path().join("wpsrc.toml");
    for _ in 0..2 {
        let ran = run(elsewhere.path(), &["source", "start", config.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains("5,000 records in ") && ran.err.contains("no errors"), "{}", ran.err);
        let out = std::fs::read_to_string(folder.path().join("out/access.ndjson")).unwrap();
        assert_eq!(out.lines().count(), 5000);
        for (object, line) in out.lines().zip(lines.lines()) {
            let object: serde_json::Value = serde_json::from_str(object).unwrap();
            assert_eq!((&object["data"], &object["tags"]["env"]), (&line.into(), &"demo".into()));
        }
    }
    assert_eq!(
        std::fs::read_dir(elsewhere.path()).unwrap().count(),
        0,
        "paths are relative to the configuration"
    );
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

#[test]
fn sigterm_and_sigint_drain_and_end_with_their_codes() {
    for (signal, code) in [(libc::SIGTERM, 0), (libc::SIGINT, 130)] {
        let folder = folder("stdout_sink", "start = \"beginning\"");
        let engine = Started::in_folder(folder.path());
        until("all is delivered", || status(folder.path())["sources"][0]["delivered"] == 3);
        engine.signal(signal);
        let ran = engine.end();
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), "one\ntwo\nthree\n"), "{}", ran.err);
        assert!(ran.err.contains("stopping: delivering what was taken"), "{}", ran.err);
        assert!(!folder.path().join("data/wpgen.sock").exists());
    }
}

#[test]
fn list_status_and_stop_reach_the_running_engine() {
    let folder = folder("blackhole_sink", "start = \"beginning\"");
    let engine = Started::in_folder(folder.path());
    until("all is delivered", || status(folder.path())["sources"][0]["delivered"] == 3);
    let list = run(folder.path(), &["source", "list"]);
    assert!(
        list.out.contains("app") && list.out.contains("running") && list.out.contains("out"),
        "{}",
        list.out
    );
    let text = run(folder.path(), &["source", "status"]);
    assert!(text.out.contains("healthy") && text.out.contains(&engine.pid().to_string()), "{}", text.out);
    assert!(text.out.contains("B resident, nothing in flight"), "WP106: {}", text.out);
    let stop = run(folder.path(), &["source", "stop"]);
    assert_eq!((stop.code, stop.out), (Some(0), format!("stopped process {}\n", engine.pid())));
    assert_eq!(engine.end().code, Some(0));
    assert_eq!(run(folder.path(), &["source", "stop"]).code, Some(1));
}

#[test]
fn who_asks_while_a_sink_blocks_hears_what_is_waited_for_and_how_much_memory_it_holds() {
    let folder = folder("file_sink", "start = \"beginning\"");
    let text = std::fs::read_to_string(folder.path().join("wpsrc.toml")).unwrap();
    let text = format!("{text}\n[sinks.params_override]\npath = \"/dev/full\"\n");
    std::fs::write(folder.path().join("wpsrc.toml"), text).unwrap();
    std::fs::write(folder.path().join("app.log"), "a line of some length\n".repeat(2_000_000)).unwrap();
    let engine = Started::in_folder(folder.path());
    until("the wait is told while it lasts", || {
        let told = status(folder.path());
        told["sources"][0]["waited_for_sinks_percent"].as_u64() >= Some(20)
            && told["in_flight_bytes"].as_u64() >= Some(1 << 19)
    });
    let text = run(folder.path(), &["source", "status"]).out;
    assert!(
        text.contains("degraded") && text.contains("app spent ") && text.contains("on the way"),
        "{text}"
    );
    drop(engine);
}

#[test]
fn a_second_engine_on_one_data_folder_is_refused_with_the_first_ones_pid() {
    let folder = folder("blackhole_sink", "");
    let engine = Started::in_folder(folder.path());
    let second = run(folder.path(), &["source", "start"]);
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains("WP104") && second.err.contains(&engine.pid().to_string()), "{}", second.err);
    assert_eq!(run(folder.path(), &["source", "status"]).code, Some(0), "the first one is still reachable");
}

#[test]
fn a_daemon_is_up_when_the_command_returns_and_removes_its_pid_file() {
    let folder = folder("blackhole_sink", "start = \"beginning\"");
    let ran = run(folder.path(), &["source", "start", "--daemon", "--pid-file", "wpgen.pid"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let pid = std::fs::read_to_string(folder.path().join("wpgen.pid")).unwrap();
    assert_eq!(status(folder.path())["pid"].to_string(), pid.trim());
    let stop = run(folder.path(), &["source", "stop"]);
    assert_eq!(stop.code, Some(0), "{}", stop.err);
    until("the pid file is removed", || !folder.path().join("wpgen.pid").exists());
    let broken = once("no_such_sink");
    let ran = run(broken.path(), &["source", "start", "--daemon"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
}

#[test]
fn a_daemon_that_cannot_start_tells_its_parent() {
    let folder = folder("blackhole_sink", "");
    let _engine = Started::in_folder(folder.path());
    let ran = run(folder.path(), &["source", "start", "--daemon"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("WP104"), "{}", ran.err);
}
