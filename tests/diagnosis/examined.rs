//! `doctor`: on the machine alone, with a configuration, with a running engine; its exit codes, its JSON, its columns.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{NOBODY, checks, examine, is_root, run_as_nobody, texts};
use crate::cli::{Ran, run, wpgen};
use crate::fallback::refuse_io_uring;
use crate::harness::Site;
use crate::net::{PORT, own_address};

/// Without the admin API, whose port another test may have.
const QUIET: &str = "[admin]\nlisten = \"\"\n";

fn of_subject<'a>(checks: &'a [Value], subject: &str) -> &'a Value {
    checks
        .iter()
        .find(|check| check["subject"] == subject)
        .unwrap_or_else(|| panic!("no {subject}: {checks:?}"))
}

fn worst(checks: &[Value]) -> Option<i32> {
    let rank = |check: &Value| match check["verdict"].as_str() {
        Some("ok") => 0,
        Some("warn") => 1,
        _ => 2,
    };
    checks.iter().map(rank).max()
}

#[test]
fn without_a_configuration_it_examines_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let (code, checks) = examine(folder.path());
    for subject in ["io_uring", "clock", "open files", "locked memory", "inotify"] {
        of_subject(&checks, subject);
    }
    assert_eq!(code, worst(&checks), "the exit code is the worst of all");
    assert!(code < Some(2), "{checks:?}");
}

#[test]
fn a_configuration_that_is_named_must_be_there_and_load() {
    let folder = tempfile::tempdir().unwrap();
    let missing = run(folder.path(), &["doctor", "nowhere.toml"]);
    assert!(missing.code == Some(2) && missing.out.contains("[WP101]"), "{}", missing.out);
    fs::write(folder.path().join("wpsrc.toml"), "[engine]\nworkers = four\n").unwrap();
    let broken = run(folder.path(), &["doctor"]);
    assert_eq!(broken.code, Some(2));
    for part in ["[WP401]", "wpsrc.toml:2", "workers = \"four\"", "io_uring"] {
        assert!(broken.out.contains(part), "{part} in {}", broken.out);
    }
}

/// Every name in a folder, with size and time of change.
fn everything(folder: &Path) -> BTreeMap<String, (u64, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        let path = entry.path();
        all.insert(path.display().to_string(), (about.len(), about.modified().unwrap()));
        if about.is_dir() {
            all.extend(everything(&path));
        }
    }
    all
}

/// A source and a sink of several kinds, a unix socket among them.
fn varied() -> Site {
    let site = Site::empty();
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    let socket = site.path("socket");
    let config = format!(
        "{QUIET}[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nparams = {{ path = \"in/app.log\" }}\n\
         [[sources]]\nkey = \"unix\"\nconnect = \"syslog_udp_src\"\nparams = {{ addr = \"unix:{}\" }}\n\
         [[sources]]\nkey = \"udp\"\nconnect = \"syslog_udp_src\"\nparams = {{ addr = \"{}\", port = {PORT} }}\n",
        socket.display(),
        own_address()
    );
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    site
}

#[test]
fn it_changes_nothing_needs_no_root_and_fits_the_terminal() {
    let site = varied();
    if is_root() {
        shell_chown(site.folder());
    }
    let before = everything(site.folder());
    let ran = run_as_nobody(site.folder(), &["doctor"]);
    assert!(ran.code < Some(2), "{}{}", ran.out, ran.err);
    assert_eq!(everything(site.folder()), before);
    let reach = "is reached from this machine only";
    for part in ["source 'app'", "first record: one", ":15140 is free", reach, "checkpoint", "disk"] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    for line in ran.out.lines() {
        let longest = line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
        assert!(line.chars().count() <= 100 || longest > 60, "{line}");
    }
    assert!(!ran.out.contains('\x1b'), "no colours into a pipe");
}

fn shell_chown(folder: &Path) {
    super::shell(&format!("chown -R {NOBODY} {}", folder.display()));
}

#[test]
fn a_running_engine_is_asked_and_its_sockets_are_its_own() {
    let site = varied();
    let engine = site.start();
    let ran = run(site.folder(), &["doctor", "--json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["engine"]["pid"].as_i64(), Some(engine.pid().into()));
    let checks = checks(&ran);
    let pid = format!("PID {}", engine.pid());
    assert!(of_subject(&checks, "engine")["found"].as_str().unwrap().starts_with(&pid));
    assert!(of_subject(&checks, "data_dir")["found"].as_str().unwrap().contains(&pid));
    assert!(
        of_subject(&checks, "source 'udp'")["found"]
            .as_str()
            .unwrap()
            .starts_with("the engine listens on udp ")
    );
    assert_eq!(of_subject(&checks, "source 'unix'")["verdict"], "ok");
    assert_eq!(of_subject(&checks, "clock step")["verdict"], "ok");
    assert_ne!(worst(&checks), Some(2), "{checks:?}");
    assert_eq!(ran.code, worst(&checks));
    engine.stop();
}

#[test]
fn io_uring_that_is_refused_is_told_with_what_that_costs() {
    let folder = tempfile::tempdir().unwrap();
    let examine = |config: &str| {
        fs::write(folder.path().join("wpsrc.toml"), config).unwrap();
        let mut command: Command = wpgen(folder.path(), &["doctor", "--json"]);
        // SAFETY: between fork and exec the closure only makes two system calls.
        unsafe { command.pre_exec(refuse_io_uring) };
        let checks = checks(&Ran::from(command.output().unwrap()));
        of_subject(&checks, "io_uring").clone()
    };
    let found = examine(QUIET);
    assert_eq!(found["verdict"], "warn");
    assert!(found["found"].as_str().unwrap().contains("seccomp filter refuses io_uring_setup"), "{found}");
    assert!(texts(&found, "notes").contains("epoll") && texts(&found, "help").contains("profile"), "{found}");
    assert_eq!(examine(&format!("{QUIET}[engine]\nio = \"uring\"\n"))["verdict"], "fail");
    assert_eq!(examine(&format!("{QUIET}[engine]\nio = \"epoll\"\n"))["verdict"], "ok");
}

#[test]
fn a_checkpoint_that_is_not_whole_is_told_and_left_alone() {
    let site = varied();
    fs::create_dir(site.path("data")).unwrap();
    fs::write(site.path("data/checkpoint"), "not whole").unwrap();
    let (code, checks) = examine(site.folder());
    let found = of_subject(&checks, "checkpoint");
    assert_eq!((code, &found["verdict"]), (Some(2), &"fail".into()));
    assert!(found["found"].as_str().unwrap().contains("data/checkpoint is not whole"), "{found}");
    assert_eq!(site.read("data/checkpoint"), b"not whole");
}

#[test]
fn a_certificate_that_ends_soon_is_told_with_its_date() {
    let site = Site::empty();
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=here -days 5";
    let folder = site.folder().display();
    super::shell(&format!("{make} -keyout {folder}/key.pem -out {folder}/cert.pem 2> /dev/null"));
    let config = format!(
        "{QUIET}[[sources]]\nkey = \"tls\"\nconnect = \"syslog_tcp_src\"\n\
         params = {{ addr = \"{}\", port = {PORT}, protocol = \"tls\", tls = {{ cert = \"cert.pem\", key = \"key.pem\" }} }}\n",
        own_address()
    );
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    let (code, checks) = examine(site.folder());
    let told: Vec<&Value> = checks
        .iter()
        .filter(|check| check["found"].as_str().unwrap().contains("cert.pem expires within 30 days, on "))
        .collect();
    assert_eq!((told.len(), code >= Some(1)), (1, true), "once: {checks:?}");
}

#[test]
fn limits_below_what_the_configuration_asks_for_are_told_with_the_number_to_set() {
    let site = Site::empty();
    let config = format!(
        "{QUIET}[[sources]]\nkey = \"many\"\nconnect = \"syslog_tcp_src\"\n\
         params = {{ addr = \"{}\", port = {PORT}, max_connections = 100000 }}\n",
        own_address()
    );
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    let command = format!("ulimit -n 300; exec {} doctor --json", env!("CARGO_BIN_EXE_wpgen"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(site.folder());
    let checks = checks(&Ran::from(shell.output().unwrap()));
    let found = of_subject(&checks, "open files");
    assert_eq!(found["verdict"], "warn");
    assert!(found["found"].as_str().unwrap().starts_with("300 may be open"), "{found}");
    assert!(texts(found, "help").contains("LimitNOFILE=100256"), "{found}");
}
