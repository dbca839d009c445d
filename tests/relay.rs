//! From one engine to another over TCP: the same records come out, and a peer that is away is waited for.

use std::fmt::Write as _;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli::run;
use crate::fallback;
use crate::harness::{Started, status, until};

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Writes a configuration of one source and one sink.
fn configure(folder: &Path, io: &str, source: &str, sink: &str) {
    let io = fallback::io(io);
    let config = format!(
        "[engine]\nworkers = 2\nio = \"{io}\"\n[admin]\nlisten = \"\"\n\
         [[sources]]\nkey = \"app\"\n{source}\n[[sinks]]\nkey = \"out\"\nsources = [\"*\"]\n{sink}\n"
    );
    std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
}

/// Records of several lines, blank ones, long ones, and characters that headers are made of.
fn records() -> Vec<String> {
    let mut records: Vec<String> = (0..3000)
        .map(|n| match n % 6 {
            0 => format!("R {n} <34>1 - [x] {}", "é".repeat(n % 50)),
            1 => format!("R {n}\n  at one\n\n  at \"two\" \\ ] \t"),
            2 => "R".to_owned(),
            3 => format!("R 12 {n}"),
            4 => format!("R  {n} two blanks  "),
            _ => format!("R {n} {}", "x".repeat(n)),
        })
        .collect();
    records.push(format!("R {}", "y".repeat(64 * 1024)));
    records
}

/// How records go from one engine to the other.
#[derive(Clone, Copy)]
struct Way {
    io: &'static str,
    framing: &'static str,
    format: &'static str,
    header_mode: &'static str,
    /// Both engines are known to each other by certificate.
    tls: bool,
}

const COUNTED: Way =
    Way { io: "uring", framing: "octet", format: "syslog5424", header_mode: "parse", tls: false };

impl Way {
    /// Writes the configurations of both ends.
    fn configure(self, from: &Path, to: &Path, port: u16) {
        let Self { io, framing, format, header_mode, tls } = self;
        let tls_of = |file: &str, other: &str| {
            let own = from.join(file);
            let other = from.join(other);
            format!("tls = {{ cert = {own:?}, key = \"{}.key\", {{}} = {other:?} }}", own.display())
        };
        let (listen, connect) = if tls {
            make_certificates(from);
            let listen = tls_of("to", "from").replace("{}", "client_ca");
            (
                format!("protocol = \"tls\", {listen}, "),
                format!("{}, ", tls_of("from", "to").replace("{}", "ca")),
            )
        } else {
            Default::default()
        };
        let source = format!(
            "connect = \"syslog_tcp_src\"\nparams = {{ addr = \"127.0.0.1\", port = {port}, framing = \"{framing}\", \
             {listen}header_mode = \"{header_mode}\" }}"
        );
        configure(
            to,
            io,
            &source,
            "connect = \"file_sink\"\nparams = { path = \"out.ndjson\", format = \"ndjson\" }",
        );
        let sink = format!(
            "connect = \"syslog_sink\"\nparams = {{ addr = \"127.0.0.1:{port}\", framing = \"{framing}\", \
             {connect}format = \"{format}\" }}"
        );
        let source = "connect = \"file_src\"\nparams = { path = \"in.log\", mode = \"once\", multiline = { start = \"^R\" } }";
        configure(from, io, source, &sink);
    }
}

/// Makes a certificate for each end, signed by itself.
fn make_certificates(folder: &Path) {
    for name in ["from", "to"] {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(["req", "-x509", "-nodes", "-newkey", "ec", "-days", "90"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &format!("/CN={name}")]);
        openssl.args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        let output = openssl.args(["-out", name, "-keyout", &format!("{name}.key")]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Sends the records from one engine to another and returns what the other wrote, in order.
fn relayed(way: Way, records: &[String]) -> Vec<String> {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    way.configure(from.path(), to.path(), free_port());
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(from.path().join("in.log"), text).unwrap();
    let receiver = Started::in_folder(to.path());
    let ran = run(from.path(), &["source", "test"]);
    assert_eq!((ran.code, ran.out.contains("the name is proven")), (Some(0), way.tls), "{}", ran.out);
    let ran = run(from.path(), &["source", "start"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    receiver.stop();
    let out = std::fs::read_to_string(to.path().join("out.ndjson")).unwrap();
    let data = |line: &str| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        object["data"].as_str().unwrap().to_owned()
    };
    out.lines().map(data).collect()
}

fn assert_same(got: &[String], wanted: &[String]) {
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().zip(wanted) {
        assert_eq!(got, wanted);
    }
}

#[test]
fn counted_records_arrive_as_they_were() {
    let records = records();
    assert_same(&relayed(COUNTED, &records), &records);
    assert_same(&relayed(Way { io: "epoll", format: "syslog3164", ..COUNTED }, &records), &records);
    assert_same(
        &relayed(Way { io: "epoll", format: "raw", header_mode: "keep", ..COUNTED }, &records),
        &records,
    );
}

#[test]
fn lines_arrive_as_lines_and_none_is_split() {
    let records = records();
    let escaped: Vec<String> = records.iter().map(|record| record.replace('\n', "#012")).collect();
    let lines = Way { framing: "newline", ..COUNTED };
    assert_same(&relayed(lines, &records), &escaped);
    assert_same(
        &relayed(Way { io: "epoll", format: "raw", header_mode: "keep", ..lines }, &records),
        &escaped,
    );
}

#[test]
fn records_arrive_between_ends_that_are_known_to_each_other() {
    let records = records();
    for io in ["uring", "epoll"] {
        assert_same(&relayed(Way { io, tls: true, ..COUNTED }, &records), &records);
    }
}

#[test]
fn tls_that_cannot_work_is_found_before_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let source = "connect = \"file_src\"\nparams = { path = \"in.log\" }";
    for (tls, words) in [
        ("ca = \"/nowhere/ca.pem\"", "/nowhere/ca.pem"),
        ("cert = \"a.pem\"", "'tls' has 'cert' and no 'key'"),
        ("server_name = \"a b\"", "no server can prove that it is 'a b'"),
    ] {
        let sink = format!("connect = \"tcp_sink\"\nparams = {{ addr = \"a:1\", tls = {{ {tls} }} }}");
        configure(folder.path(), "auto", source, &sink);
        let ran = run(folder.path(), &["source", "validate"]);
        assert_ne!(ran.code, Some(0));
        assert!(format!("{}{}", ran.out, ran.err).contains(words), "{}{}", ran.out, ran.err);
    }
}

/// A peer that reads everything; ends with its connection.
fn read_all(port: u16) -> JoinHandle<Vec<u8>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        let mut got = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
        got
    })
}

#[test]
fn a_peer_that_is_down_is_waited_for_in_little_memory() {
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        configure(
            folder.path(),
            io,
            "connect = \"file_src\"\nparams = { path = \"in.log\" }",
            &format!(
                "connect = \"tcp_sink\"\nparams = {{ addr = \"127.0.0.1:{port}\", reconnect_max = \"200ms\" }}"
            ),
        );
        let mut lines = String::new();
        for n in 0..2_000_000 {
            writeln!(lines, "{n:08} {}", "x".repeat(90)).unwrap();
        }
        std::fs::write(folder.path().join("in.log"), &lines).unwrap();
        let engine = Started::in_folder(folder.path());
        until("the sink waits", || {
            let sink = &status(folder.path())["sinks"][0];
            sink["state"] == "waiting" && sink["batches_in_flight"].as_u64() >= Some(8)
        });
        let sink = &status(folder.path())["sinks"][0];
        let reason = sink["reason"].as_str().unwrap();
        assert!(reason.contains("[WP303]") && reason.contains("refused"), "{reason}");
        assert_eq!(sink["records"], 0);
        assert!(engine.memory_kib() < 100 << 10, "{} KiB", engine.memory_kib());
        let peer = read_all(port);
        until("it is delivered", || status(folder.path())["sinks"][0]["records"] == 2_000_000);
        engine.stop();
        assert!(peer.join().unwrap() == lines.as_bytes());
    }
}

#[test]
fn a_stop_without_the_peer_ends_in_time_and_the_next_start_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    configure(
        folder.path(),
        "auto",
        "connect = \"file_src\"\nparams = { path = \"in.log\" }",
        &format!(
            "connect = \"tcp_sink\"\nparams = {{ addr = \"127.0.0.1:{port}\", reconnect_max = \"50ms\" }}"
        ),
    );
    let config = folder.path().join("wpsrc.toml");
    let text =
        std::fs::read_to_string(&config).unwrap().replace("[engine]", "[engine]\ndrain_timeout = \"500ms\"");
    std::fs::write(config, text).unwrap();
    std::fs::write(folder.path().join("in.log"), "one\ntwo\n").unwrap();
    let engine = Started::in_folder(folder.path());
    until("the sink waits", || status(folder.path())["sinks"][0]["state"] == "waiting");
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert_eq!(ran.code, Some(1), "what was taken could not be delivered: {}", ran.err);
    let peer = read_all(port);
    let engine = Started::in_folder(folder.path());
    until("it is delivered", || status(folder.path())["sinks"][0]["records"] == 2);
    engine.stop();
    assert_eq!(peer.join().unwrap(), b"one\ntwo\n");
}

#[test]
fn a_trial_connects_and_binds() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, port) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    let peer = listener.local_addr().unwrap();
    configure(
        folder.path(),
        "auto",
        &format!("connect = \"tcp_src\"\nparams = {{ addr = \"127.0.0.1\", port = {port} }}"),
        &format!("connect = \"tcp_sink\"\nparams = {{ addr = \"{peer}\" }}"),
    );
    let ran = run(folder.path(), &["source", "test"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("is free") && ran.out.contains(&format!("{peer} answers")), "{}", ran.out);
    drop(listener);
    let ran = run(folder.path(), &["source", "test"]);
    assert_ne!(ran.code, Some(0));
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("[WP303] cannot connect"), "{said}");
    // A trial leaves nothing behind.
    assert!(TcpStream::connect_timeout(&peer, Duration::from_millis(100)).is_err());
}
