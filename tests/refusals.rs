//! What the engine refuses or cannot do: a clear error with its code, memory that stays flat, and the others go on.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::cli::{Ran, run, wpgen};
use crate::harness::{Site, fifo, status, until};

const SINK: &str = "path = \"out\"\nformat = \"raw\"";

fn stalls_and_goes_on(io: &str) {
    let site = Site::new(io, "path = \"in/*\"", SINK);
    let text: String = (0..600_000).map(|n| format!("{n:08} {:80}\n", "")).collect();
    fs::write(site.path("in/app.log"), &text).unwrap();
    fifo(&site.path("out"));
    let engine = site.start();
    let mut before = 0;
    until("reading stops", || {
        let said = status(site.folder());
        let now = said["sources"][0]["bytes_in"].as_u64().unwrap_or(0);
        let same = now == before && now > 0;
        before = now;
        same && said["sinks"][0]["state"] == "waiting"
    });
    let memory = engine.memory_kib();
    assert!(before < text.len() as u64 / 2, "{before} of {} bytes were read for nobody", text.len());
    let mut all = String::with_capacity(text.len());
    let mut reader = File::open(site.path("out")).unwrap();
    // Not before the engine has seen us is the FIFO something with a writer.
    until("all flows", || {
        let mut piece = [0; 1 << 16];
        while let Ok(n @ 1..) = reader.read(&mut piece) {
            all.push_str(std::str::from_utf8(&piece[..n]).unwrap());
            if all.len() >= text.len() {
                break;
            }
        }
        all.len() >= text.len()
    });
    assert!(all == text, "what came is what was read");
    let grown = engine.memory_kib().saturating_sub(memory);
    assert!(memory < 256 << 10 && grown < 64 << 10, "{memory} KiB, then {grown} more");
    engine.stop();
}

#[test]
fn a_fifo_nobody_reads_stops_the_reading_until_somebody_does() {
    stalls_and_goes_on("auto");
}

#[test]
fn the_same_through_epoll() {
    stalls_and_goes_on("epoll");
}

#[test]
fn a_second_engine_on_one_output_is_refused_with_the_first_ones_pid() {
    let first = Site::new("auto", "path = \"in/*\"", SINK);
    fs::write(first.path("in/app.log"), "one\n").unwrap();
    let engine = first.start();
    until("the output is open", || first.read("out") == b"one\n");
    let sink = format!("path = \"{}\"\nformat = \"raw\"", first.path("out").display());
    let second = Site::new("auto", "path = \"in/*\"", &sink);
    fs::write(second.path("in/app.log"), "two\n").unwrap();
    let ran = run(second.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("WP104") && ran.err.contains(&format!("PID {}", engine.pid())), "{}", ran.err);
    assert_eq!(first.read("out"), b"one\n", "and it left the output alone");
    engine.stop();
}

#[test]
fn a_second_start_is_told_of_the_first_and_not_of_its_admin_api() {
    let site = Site::new("auto", "path = \"in/*\"", SINK);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = fs::read_to_string(site.path("wpsrc.toml")).unwrap();
    let config = config.replace("listen = \"\"", &format!("listen = \"{free}\""));
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    let engine = site.start();
    let ran = run(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let by = format!("PID {}", engine.pid());
    is_told(&ran, "error[WP104]", &[&by, "help: stop that engine: wpgen source stop"]);
    assert!(!ran.err.contains("WP301"), "{}", ran.err);
    engine.stop();
}

/// A source that reads `path` beside one that reads a good file.
fn beside_a_good_one(path: &str, mode: &str) -> Site {
    let source = format!(
        "path = \"{path}\"\nmode = \"{mode}\"\n[[sources]]\nkey = \"good\"\nconnect = \"file_src\"\n\
         [sources.params_override]\npath = \"in/good.log\"\nmode = \"{mode}\""
    );
    let site = Site::new("auto", &source, SINK);
    fs::write(site.path("in/good.log"), "good\n").unwrap();
    site
}

fn is_told(ran: &Ran, code: &str, words: &[&str]) {
    assert!(ran.err.contains(code), "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{word:?} in: {}", ran.err);
    }
}

/// Runs both ways: a source that cannot read is told with its code, and the other one delivers. A file that is not there is an
/// error only where it is not followed.
fn told_and_the_other_goes_on(make: impl Fn(&Site), path: &str, code: &str, words: &[&str]) {
    let site = beside_a_good_one(path, "once");
    make(&site);
    let ran = run(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    is_told(&ran, &format!("error[{code}]"), words);
    assert_eq!(site.read("out"), b"good\n", "{}", ran.err);

    let site = beside_a_good_one(path, "tail");
    make(&site);
    let engine = site.start();
    until("the good one is read", || site.read("out") == b"good\n");
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    is_told(&ran, code, words);
}

#[test]
fn a_missing_file() {
    told_and_the_other_goes_on(
        |_| (),
        "in/god.log",
        "WP101",
        &["in/god.log", "os error 2", "near names there: good.log"],
    );
}

#[test]
fn a_fifo_where_a_file_is_named() {
    told_and_the_other_goes_on(|site| fifo(&site.path("in/pipe")), "in/pipe", "WP101", &["is a FIFO"]);
}

#[test]
fn a_folder_where_a_file_is_named() {
    told_and_the_other_goes_on(|_| (), "in", "WP101", &["is a folder", "in/*"]);
}

#[test]
fn a_device_where_a_file_is_named() {
    told_and_the_other_goes_on(|_| (), "/dev/null", "WP101", &["is a device"]);
}

#[test]
fn a_missing_file_is_read_when_it_comes() {
    let site = Site::new("auto", "path = \"in/later/app.log\"", SINK);
    let engine = site.start();
    fs::create_dir(site.path("in/later")).unwrap();
    fs::write(site.path("in/later/app.log"), "now\n").unwrap();
    until("it is read", || site.read("out") == b"now\n");
    engine.stop();
}

/// Runs it as one who is not root, for whom permissions count.
fn as_nobody(site: &Site) -> Ran {
    // SAFETY: it asks for a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    let mut command = wpgen(site.folder(), &["source", "start"]);
    if is_root {
        fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
        command.uid(65534).gid(65534);
    }
    Ran::from(command.output().unwrap())
}

#[test]
fn an_unreadable_file_among_readable_ones() {
    let source = "path = \"in/*\"\nmode = \"once\"\nstart = \"beginning\"";
    let site = Site::new("auto", source, SINK);
    fs::write(site.path("in/a.log"), "a\n").unwrap();
    fs::write(site.path("in/secret.log"), "no\n").unwrap();
    fs::set_permissions(site.path("in/secret.log"), Permissions::from_mode(0o0)).unwrap();
    let ran = as_nobody(&site);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    is_told(&ran, "WP102", &["Permission denied (os error 13)", "in/secret.log", "chmod"]);
    assert_eq!(site.read("out"), b"a\n");
}

#[test]
fn an_output_nobody_may_write() {
    let site =
        Site::new("auto", "path = \"in/*\"\nmode = \"once\"", "path = \"out/app.log\"\nformat = \"raw\"");
    fs::write(site.path("in/a.log"), "a\n").unwrap();
    fs::write(site.path("out"), "a file where a folder is wanted").unwrap();
    let ran = run(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("out"), "{}", ran.err);
}
