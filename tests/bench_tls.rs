//! `bench send` to tls://, into our own TLS source, and what is said of receivers that cannot be trusted.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;

use serde_json::Value;

use crate::cli::{Ran, run, wpgen};
use crate::fallback::refuse_io_uring;
use crate::harness::{Started, status, until};
use crate::tls::Certificates;

/// An engine that writes what it gets over TLS into `out.log`.
struct Source {
    files: Certificates,
    engine: Started,
    to: String,
}

impl Source {
    /// `more` is told the source beside its own certificate.
    fn start(more: &str) -> Self {
        let files = Certificates::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[engine]\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"sys\"\nconnect = \"syslog_tcp_src\"\n[sources.params_override]\n\
             addr = \"127.0.0.1\"\nport = {port}\nprotocol = \"tls\"\nheader_mode = \"keep\"\n\
             tls = {{ cert = \"server.pem\", key = \"server.key\"{more} }}\n\
             [[sinks]]\nkey = \"out\"\nconnect = \"file_sink\"\n[sinks.params_override]\npath = \"out.log\"\n"
        );
        std::fs::write(files.path("wpsrc.toml"), config).unwrap();
        let engine = Started::in_folder(files.folder());
        Self { files, engine, to: format!("tls://localhost:{port}") }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["bench", "send", "--json", "--to", &self.to], more].concat()
    }

    fn send(&self, more: &[&str]) -> Ran {
        run(self.files.folder(), &self.args(more))
    }

    /// The engine has taken so many; what `bench verify` says of the file when it has ended.
    fn end(self, sent: u64) -> Value {
        let folder = self.files.folder();
        until("all is delivered", || status(folder)["sinks"][0]["records"].as_u64() >= Some(sent));
        self.engine.stop();
        let ran = run(folder, &["bench", "verify", "--json", "out.log"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }
}

fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn everything_that_is_sent_over_tls_arrives_once() {
    let source = Source::start("");
    // Messages longer than a record of TLS, and so many that a batch is many records.
    let sent = report(&source.send(&["--ca", "ca.pem", "--count", "20000", "--connections", "3"]));
    assert_eq!((sent["sent"].as_u64(), sent["io"].as_str()), (Some(20_000), Some("io_uring")), "{sent:#}");
    let long = ["--ca", "ca.pem", "--count", "50", "--size", "40k", "--framing", "octet", "--rate", "1000"];
    assert_eq!(report(&source.send(&long))["sent"], 50);
    let mut plain = wpgen(source.files.folder(), &source.args(&["--ca", "ca.pem", "--count", "5000"]));
    // SAFETY: between fork and exec the closure only makes two system calls.
    unsafe { plain.pre_exec(refuse_io_uring) };
    let sent = report(&Ran::from(plain.output().unwrap()));
    assert_eq!((sent["sent"].as_u64(), sent["io"].as_str()), (Some(5000), Some("plain")), "{sent:#}");
    let found = source.end(25_050);
    let account = ["received", "lost", "duplicated", "corrupted"].map(|key| found[key].as_u64().unwrap());
    assert_eq!(account, [25_050, 0, 0, 0], "{found:#}");
    assert_eq!(found["connections"], 5);
}

#[test]
fn a_receiver_that_asks_for_a_certificate_gets_one() {
    let source = Source::start(", client_ca = \"ca.pem\"");
    let own = ["--ca", "ca.pem", "--cert", "client.pem", "--key", "client.key", "--count", "100"];
    assert_eq!(report(&source.send(&own))["sent"], 100);
    // Who has none is told so, by the receiver's own word: TLS 1.3 ends the client's handshake before the receiver speaks.
    let ran = source.send(&["--ca", "ca.pem", "--count", "1000000"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("wants a certificate of ours"), "{}", ran.err);
    assert_eq!(source.end(100)["received"], 100);
}

#[test]
fn whoever_cannot_be_trusted_gets_nothing() {
    let source = Source::start("");
    for (args, code, words) in [
        (&["--ca", "client.pem"][..], 1, "is signed by none of the authorities in client.pem"),
        (&["--ca", "ca.pem", "--server-name", "logs.example.org"], 1, "is not for logs.example.org"),
        (&["--ca", "missing.pem"], 1, "missing.pem"),
        (&["--ca", "ca.pem", "--cert", "client.pem"], 2, "--key"),
    ] {
        let ran = source.send(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{args:?}");
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    }
    let plain = run(source.files.folder(), &["bench", "send", "--to", "tcp://127.0.0.1:1", "--ca", "ca.pem"]);
    assert!(plain.code == Some(2) && plain.err.contains("are for TLS"), "{}", plain.err);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tls://{}", mute.local_addr().unwrap());
    let closing = std::thread::spawn(move || drop(mute.accept().unwrap()));
    let ran = run(source.files.folder(), &["bench", "send", "--to", &to, "--ca", "ca.pem"]);
    assert!(ran.code == Some(1) && ran.err.contains("hung up within the TLS handshake"), "{}", ran.err);
    closing.join().unwrap();
    assert_eq!(status(source.files.folder())["sinks"][0]["records"], 0);
    source.engine.stop();
}
