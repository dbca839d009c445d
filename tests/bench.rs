//! The bench against itself, with a proxy in between that does what a network does, each thing a known number of times.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cli::{Ran, run, wpgen};
use crate::harness::{PATIENCE, until};

/// A receiver at work, and where it listens.
struct Recv {
    child: Child,
    address: String,
    told: JoinHandle<String>,
}

impl Recv {
    fn start(folder: &Path, listen: &str, more: &[&str]) -> Self {
        let args = [&["bench", "recv", "--json", "--listen", listen], more].concat();
        let mut child = wpgen(folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        told.read_line(&mut first).unwrap();
        let address =
            first.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{first}")).to_owned();
        // Somebody has to read what it says later.
        let told = std::thread::spawn(move || {
            let mut rest = String::new();
            told.read_to_string(&mut rest).unwrap();
            rest
        });
        Self { child, address, told }
    }

    /// `host:port`
    fn host_port(&self) -> &str {
        self.address.split_once("//").unwrap().1
    }

    fn report(self) -> Value {
        let output = self.child.wait_with_output().unwrap();
        let told = self.told.join().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"))
    }
}

fn send(folder: &Path, to: &str, more: &[&str]) -> Value {
    let args = [&["bench", "send", "--json", "--to", to], more].concat();
    let ran = run(folder, &args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn verify(folder: &Path, args: &[&str]) -> (Ran, Value) {
    let ran = run(folder, &[&["bench", "verify", "--json"], args].concat());
    let report = serde_json::from_str(&ran.out).unwrap_or_default();
    (ran, report)
}

/// The numbers of an account, in this order: received, lost, duplicated, reordered, corrupted.
fn account(report: &Value) -> [u64; 5] {
    ["received", "lost", "duplicated", "reordered", "corrupted"].map(|key| report[key].as_u64().unwrap())
}

/// What happens to message `n` on its way, of ten each: one lost, one there twice, one behind its successor.
#[derive(Default)]
struct Mischief {
    n: u64,
    held: Option<Vec<u8>>,
}

impl Mischief {
    fn pass(&mut self, message: &[u8], mut on: impl FnMut(&[u8])) {
        match self.n % 10 {
            2 => {}
            4 => {
                on(message);
                on(message);
            }
            6 => self.held = Some(message.to_vec()),
            _ => {
                on(message);
                if let Some(held) = self.held.take() {
                    on(&held);
                }
            }
        }
        self.n += 1;
    }
}

const MESSAGES: u64 = 2000;
/// What [`Mischief`] makes of them.
const ACCOUNT: [u64; 5] = [MESSAGES * 9 / 10, MESSAGES / 10, MESSAGES / 10, MESSAGES / 10, 0];

#[test]
fn what_a_proxy_does_to_datagrams_is_found_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let recv = Recv::start(folder.path(), "udp://127.0.0.1:0", &[]);
    let proxy = UdpSocket::bind("127.0.0.1:0").unwrap();
    // All of them fit, however long the proxy is kept from running.
    socket2::SockRef::from(&proxy).set_recv_buffer_size(4 << 20).unwrap();
    proxy.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = format!("udp://{}", proxy.local_addr().unwrap());
    let out = UdpSocket::bind("127.0.0.1:0").unwrap();
    out.connect(recv.host_port()).unwrap();
    let passing = std::thread::spawn(move || {
        let (mut mischief, mut buffer) = (Mischief::default(), [0; 2048]);
        while mischief.n < MESSAGES {
            let n = proxy.recv(&mut buffer).unwrap();
            mischief.pass(&buffer[..n], |message| assert_eq!(out.send(message).unwrap(), message.len()));
        }
    });
    let sent = send(folder.path(), &to, &["--rate", "4000", "--count", &MESSAGES.to_string()]);
    assert_eq!(sent["sent"], MESSAGES);
    passing.join().unwrap();
    let report = recv.report();
    assert_eq!(account(&report), ACCOUNT, "{report:#}");
    assert_eq!(report["connections_without_end"], 0);
}

#[test]
fn what_a_proxy_does_to_a_stream_is_found_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let recv = Recv::start(folder.path(), "tcp://127.0.0.1:0", &[]);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", proxy.local_addr().unwrap());
    let mut out = TcpStream::connect(recv.host_port()).unwrap();
    let passing = std::thread::spawn(move || {
        let mut mischief = Mischief::default();
        let from = BufReader::new(proxy.accept().unwrap().0);
        for line in from.split(b'\n') {
            let line = [line.unwrap(), b"\n".to_vec()].concat();
            mischief.pass(&line, |message| out.write_all(message).unwrap());
        }
    });
    let count = MESSAGES.to_string();
    let sent = send(folder.path(), &to, &["--count", &count, "--format", "ndjson"]);
    assert_eq!((sent["sent"].as_u64(), sent["unsent"].as_u64()), (Some(MESSAGES), None));
    passing.join().unwrap();
    let report = recv.report();
    assert_eq!(account(&report), ACCOUNT, "{report:#}");
}

/// When a message was due, nanoseconds since 1970: the fifth part of its marker.
fn due_ns(message: &[u8]) -> u64 {
    let text = std::str::from_utf8(message).unwrap();
    let marker = &text[text.find("wpb1-").unwrap()..];
    u64::from_str_radix(marker.split('-').nth(4).unwrap(), 16).unwrap()
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Passes messages on after a time; how long after it was due each went out of here.
fn delay(from: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream, by: Duration) -> Vec<u64> {
    let mut late = Vec::new();
    for (came, message) in from {
        std::thread::sleep((came + by).saturating_duration_since(Instant::now()));
        to.write_all(&message).unwrap();
        late.push(now_ns() - due_ns(&message));
    }
    late.sort_unstable();
    late
}

/// A busy machine adds to every delay, so the proxy measures what it really was, and that is compared.
#[test]
fn latencies_are_those_that_were_put_in() {
    const DELAY: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().unwrap();
    let recv = Recv::start(folder.path(), "tcp://127.0.0.1:0", &[]);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", proxy.local_addr().unwrap());
    let out = TcpStream::connect(recv.host_port()).unwrap();
    out.set_nodelay(true).unwrap();
    let (messages, later) = channel();
    let delaying = std::thread::spawn(move || delay(&later, out, DELAY));
    let passing = std::thread::spawn(move || {
        for line in BufReader::new(proxy.accept().unwrap().0).split(b'\n') {
            messages.send((Instant::now(), [line.unwrap(), b"\n".to_vec()].concat())).unwrap();
        }
    });
    send(folder.path(), &to, &["--rate", "1000", "--count", "2000"]);
    passing.join().unwrap();
    let late = delaying.join().unwrap();
    let report = recv.report();
    assert_eq!(account(&report), [2000, 0, 0, 0, 0]);
    let within = |key: &str, put_in: u64| {
        let found = report["latency_ns"][key].as_f64().unwrap() / put_in as f64;
        assert!((0.99..1.05).contains(&found), "{key}: {found} of {put_in} ns: {report:#}");
    };
    assert!(u128::from(late[0]) >= DELAY.as_nanos());
    within("p50", late[999]);
    within("p90", late[1799]);
}

#[test]
fn a_file_of_any_program_can_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.log");
    let args = ["--count", "100", "--connections", "3", "--format", "rfc5424", "--rate", "100k"];
    assert_eq!(send(folder.path(), "file:out.log", &args)["sent"], 100);
    let (ran, report) = verify(folder.path(), &["out.log"]);
    assert_eq!((ran.code, account(&report)), (Some(0), [100, 0, 0, 0, 0]));
    assert_eq!(report["connections"], 3);

    // One line away, one twice, one changed, all in a dress of JSON.
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(|line| Value::from(line).to_string()).collect();
    let twice = lines[20].clone();
    lines.insert(22, twice);
    lines[40].pop();
    lines[40].pop();
    lines[40].push_str("?\"");
    lines.remove(10);
    std::fs::write(&path, lines.join("\n")).unwrap();
    let (ran, report) = verify(folder.path(), &["out.log"]);
    assert_eq!((ran.code, account(&report)), (Some(1), [99, 1, 1, 0, 1]), "{report:#}");
    let (_, report) = verify(folder.path(), &["--sent", "200", "out.log"]);
    assert_eq!(account(&report), [99, 101, 1, 0, 1]);
}

#[test]
fn a_sample_with_quotes_and_tabs_comes_as_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample"), "a \"quoted\" 1\nb\ttab \\ 2\n\u{e4} 3\n").unwrap();
    let socket = folder.path().join("in.sock");
    let to = format!("unix:{}", socket.display());
    let recv = Recv::start(folder.path(), &to, &[]);
    let args = ["--count", "5000", "--sample", "sample", "--format", "ndjson", "--framing", "octet"];
    assert_eq!(send(folder.path(), &to, &args)["sent"], 5000);
    assert_eq!(account(&recv.report()), [5000, 0, 0, 0, 0]);
    assert!(!socket.exists(), "a receiver takes its socket away");
}

#[test]
fn a_rate_is_kept_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let sent = send(folder.path(), "file:/dev/null", &["--rate", "20k", "--count", "10000"]);
    assert_eq!(sent["sent"], 10_000);
    let (rate, asked) = (sent["messages_per_s"].as_f64().unwrap(), sent["asked_per_s"].as_f64().unwrap());
    assert!(asked == 20_000.0 && rate < asked * 1.01, "never faster: {sent:#}");
    let most = send(folder.path(), "file:/dev/null", &["--duration", "300ms", "--plot", "rate.svg"]);
    assert_eq!(most["limit"], "sender", "nothing takes faster than /dev/null: {most:#}");
    assert!(std::fs::read_to_string(folder.path().join("rate.svg")).unwrap().ends_with("</svg>\n"));
}

#[test]
fn ctrl_c_ends_with_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["bench", "send", "--to", "file:out.log", "--rate", "1000", "--duration", "1h", "--json"];
    let child = wpgen(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it sends", || std::fs::metadata(folder.path().join("out.log")).is_ok_and(|found| found.len() > 0));
    // SAFETY: the process is our child and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let (found, account_of) = verify(folder.path(), &["out.log"]);
    assert_eq!(found.code, Some(0), "{}", found.err);
    assert_eq!(account_of["received"], report["sent"], "what it tells is what is there");
    assert_eq!(account_of["connections_without_end"], 0);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    for (args, code, words) in [
        (&["send", "--to", "kafka://b:9092"][..], 2, "a topic is needed"),
        (&["send", "--to", "mqtt://b:1883/t"], 2, "no mqtt source so far"),
        (&["send", "--to", "file:x", "--rate", "fast"], 2, "ramp:1000..50000"),
        (&["send", "--to", "file:x", "--size", "10"], 2, "bytes"),
        (&["send", "--to", "tcp://127.0.0.1:1", "--segment"], 2, "--segment is for UDP"),
        (&["send", "--to", "tcp://127.0.0.1:1"], 1, "cannot send to tcp://127.0.0.1:1: "),
        (&["send", "--to", "file:x", "--sample", "none"], 1, "cannot use the sample none"),
        (&["send", "--to", "file:x", "--pid", "999999999"], 1, "no such process"),
        (&["recv", "--listen", "tcp://192.0.2.1:1"], 1, "cannot listen on tcp://192.0.2.1:1"),
        (&["verify", "missing"], 1, "cannot read missing"),
        (&["verify", "/dev/null"], 1, "no message of a bench"),
    ] {
        let ran = run(folder.path(), &[&["bench"], args].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{args:?}");
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    }
    assert!(!folder.path().join("x").exists());
}

#[test]
fn what_could_not_be_sent_is_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap());
    // A receiver that ends.
    let ends = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.read_exact(&mut [0; 1000]).unwrap();
    });
    let args = ["bench", "send", "--json", "--to", &to, "--count", "1000000"];
    let ran = run(folder.path(), &args);
    ends.join().unwrap();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let of = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((ran.code, of("sent") + of("unsent")), (Some(1), 1_000_000), "{report}");
    assert!(of("unsent") > 1000 && ran.err.contains("could not be sent"), "{}", ran.err);
    assert_eq!(report["limit"], "error", "{report}");
}

#[test]
fn a_message_that_no_datagram_holds_is_told_with_what_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = format!("udp://{}", socket.local_addr().unwrap());
    let args = ["bench", "send", "--json", "--to", &to, "--count", "100", "--size", "100000"];
    let ran = run(folder.path(), &args);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["unsent"], &report["limit"]), (Some(1), &100.into(), &"error".into()));
    assert!(ran.err.contains("EMSGSIZE") && ran.err.contains("65507"), "{}", ran.err);
}

#[test]
fn a_receiver_that_knows_how_many_were_sent_fails_when_some_are_missing() {
    for (sent, code) in [("100", Some(0)), ("101", Some(1))] {
        let folder = tempfile::tempdir().unwrap();
        let recv = Recv::start(folder.path(), "tcp://127.0.0.1:0", &["--count", "100", "--sent", sent]);
        send(folder.path(), &recv.address, &["--count", "100"]);
        let output = recv.child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{sent}");
        recv.told.join().unwrap();
    }
}

#[test]
fn run_measures_every_case_beside_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let args = [
        "bench",
        "run",
        "--json",
        "--duration",
        "300ms",
        "--rate",
        "20k",
        "--messages",
        "5000",
        "--sink",
        "file",
    ];
    let ran = run(folder.path(), &[&args[..], &["--scratch", dir]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    for case in ["file", "tcp", "udp"] {
        let rows = report["results"].as_array().unwrap();
        let row =
            rows.iter().find(|row| row["case"] == case).unwrap_or_else(|| panic!("no {case}: {report:#}"));
        let got = ["duplicated", "corrupted"].map(|key| row[key].as_u64());
        assert_eq!(got, [Some(0), Some(0)], "{report:#}");
        // How many are sent in a given time is the machine's doing, and so is what UDP loses and whether there is a
        // tick of the CPU clock.
        assert!(row["messages"].as_u64() > Some(0) && row["cpu_s"].as_f64() >= Some(0.0), "{report:#}");
        assert!(case == "udp" || row["lost"] == 0, "{report:#}");
        assert!(case != "file" || row["messages"] == 5000, "{report:#}");
        assert!(row["memory_peak_bytes"].as_u64() > Some(1_000_000), "{report:#}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
}

#[test]
fn run_lets_another_program_have_the_same_input() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let common =
        ["bench", "run", "--json", "--rounds", "1", "--scratch", dir, "--messages", "5000", "--case", "file"];
    let ran = run(folder.path(), &[&common[..], &["--against", "cat > $WPGEN_BENCH_OUT"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let theirs = &report["results"][1];
    assert_eq!((theirs["messages"].as_u64(), theirs["lost"].as_u64()), (Some(5000), Some(0)), "{report:#}");
    assert!(report["ratios"][0]["messages_per_s"].as_f64() > Some(0.0));

    let ran = run(folder.path(), &[&common[..], &["--against", "echo oh no >&2; exit 3"]].concat());
    assert_eq!(
        (ran.code, ran.err.contains("exit 3 failed (exit status 3): oh no")),
        (Some(1), true),
        "{}",
        ran.err
    );
    let tcp = ["bench", "run", "--case", "tcp", "--duration", "100ms", "--against", "true", "--scratch", dir];
    let ran = run(folder.path(), &tcp);
    assert_eq!((ran.code, ran.err.contains("true ended before it listened")), (Some(1), true), "{}", ran.err);
}

#[test]
fn older_spellings_work() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.log"), "one\ntwo\nthree").unwrap();
    let last = |args: &[&str]| -> Value {
        let ran = run(folder.path(), &[&["source"], args, &["--json"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    assert_eq!(last(&["benchmark", "--file", "app.log"])["results"][0]["messages"], 3);
    let report = last(&["load_test", "--concurrent", "5", "--duration", "200ms"]);
    assert_eq!(
        (report["results"][0]["case"].as_str(), report["results"][0]["lost"].as_u64()),
        (Some("tcp"), Some(0))
    );
    let report = last(&["stress_test", "--rate", "10k", "--duration", "200ms"]);
    assert!((1..=2000).contains(&report["results"][0]["messages"].as_u64().unwrap()), "{report:#}");
}

/// Looks for a capacity until the first rate was tried, then asks for the end.
fn capacity(command: &[&str], more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let args = [command, &["--json", "--trial", "300ms", "--p99", "30s"], more].concat();
    let mut child =
        wpgen(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.starts_with("10,000 messages/s: p99 "), "{line}");
    // SAFETY: the process is our child and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let first = &report["trials"][0];
    assert_eq!(
        (first["messages_per_s"].as_f64(), first["lost_percent"].as_f64()),
        (Some(10_000.0), Some(0.0))
    );
    assert!(first["p99_ns"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn capacity_is_looked_for_where_the_messages_are_written() {
    capacity(&["bench", "capacity"], &[]);
    capacity(&["source", "capacity_plan"], &[]);
    // The simplest program that writes what it gets: none. What is sent is in the file at once.
    capacity(&["bench", "capacity"], &["--to", "file:out.log", "--out", "out.log"]);
}
