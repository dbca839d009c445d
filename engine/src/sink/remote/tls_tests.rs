//! The sinks under TLS, with the openssl command as the peer.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::tests::{PATIENT_PROBATION, nobody, send, settings, start, until};
use super::*;
use crate::config::tls::{TlsConnect, TlsVersion};
use crate::config::types::OneOrMany;
use crate::io::Backend;
use crate::tls::rig::Papers;

/// `openssl s_server`, which writes what it receives into a file.
struct Peer {
    child: Child,
    at: SocketAddr,
    received: PathBuf,
}

impl Peer {
    /// With the certificate of a name, and more arguments.
    fn new(papers: &Papers, name: &str, more: &[&str]) -> Self {
        let (at, received) = (nobody(), papers.path("received"));
        let mut openssl = Command::new("openssl");
        openssl.current_dir(papers.path("")).args(["s_server", "-quiet", "-accept", &at.to_string()]);
        openssl.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]).args(more);
        openssl.stdin(Stdio::piped()).stderr(Stdio::null()).stdout(File::create(&received).unwrap());
        let child = openssl.spawn().expect("openssl is there");
        until("it listens", || TcpStream::connect(at).is_ok());
        Self { child, at, received }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn trusting(papers: &Papers, ca: &str) -> TlsConnect {
    TlsConnect {
        ca: Some(papers.path(ca)),
        cert: None,
        key: None,
        server_name: None,
        versions: OneOrMany(vec![TlsVersion::V12, TlsVersion::V13]),
    }
}

/// With a certificate of our own.
fn known(papers: &Papers, name: &str) -> TlsConnect {
    let file = |end: &str| Some(papers.path(&format!("{name}.{end}")));
    TlsConnect { cert: file("pem"), key: file("key"), ..trusting(papers, "ca.pem") }
}

fn remote(at: SocketAddr, connect: &TlsConnect) -> Arc<Remote> {
    let tls = Some(Client::open(connect).unwrap());
    Remote::new(0, Settings { tls, ..settings(Framing::Newline, Format::Raw, &[at]) })
}

/// A certificate that has been good for a while, long ago.
fn make_expired(papers: &Papers) {
    let run = |args: &[&str]| {
        let output = Command::new("openssl").current_dir(papers.path("")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let config = "[ca]\ndefault_ca = it\n[it]\ndatabase = index\nserial = serial\nnew_certs_dir = .\n\
        default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n\
        [leaf]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
    std::fs::write(papers.path("old.cnf"), config).unwrap();
    std::fs::write(papers.path("index"), "").unwrap();
    std::fs::write(papers.path("serial"), "01").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "old.key"];
    run(&[&["req", "-new", "-config", "openssl.cnf", "-subj", "/CN=old", "-out", "old.csr"][..], &key]
        .concat());
    let signs = ["ca", "-batch", "-notext", "-config", "old.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"];
    let dates = ["-startdate", "20200101000000Z", "-enddate", "20210102000000Z", "-extensions", "leaf"];
    run(&[&signs[..], &dates, &["-in", "old.csr", "-out", "old.pem"]].concat());
}

#[test]
fn records_arrive_under_tls() {
    const RECORDS: usize = 100_000;
    let papers = Papers::new();
    let lines: String = (0..RECORDS).map(|i| format!("{i:060}\n")).collect();
    let mutual = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"];
    for (backend, connect, args) in [
        (Backend::Uring, trusting(&papers, "ca.pem"), &["-tls1_2"][..]),
        (
            Backend::Epoll,
            TlsConnect { server_name: Some("localhost".into()), ..trusting(&papers, "ca.pem") },
            &[],
        ),
        (Backend::Uring, known(&papers, "client"), &[&mutual[..], &["-tls1_3"]].concat()),
        (Backend::Epoll, known(&papers, "client"), &[&mutual[..], &["-tls1_2"]].concat()),
    ] {
        let peer = Peer::new(&papers, "server", args);
        let sink = remote(peer.at, &connect);
        let (engine, at) = start(backend, crate::frame::Framing::Newline, &sink);
        send(at, RECORDS).join().unwrap();
        until("all is delivered", || sink.status().records == RECORDS as u64);
        assert!(engine.drain(Duration::from_secs(60)).0);
        until("it is written", || std::fs::metadata(&peer.received).unwrap().len() >= lines.len() as u64);
        assert!(std::fs::read_to_string(&peer.received).unwrap() == lines, "{args:?}");
        assert_eq!(sink.status().repeated, 0);
    }
}

/// Has a sink meet a peer that it must not talk to, or that does not want it, and returns what its status says.
fn refusal(at: SocketAddr, connect: &TlsConnect) -> String {
    let tls = Some(Client::open(connect).unwrap());
    let settings = settings(Framing::Newline, Format::Raw, &[at]);
    let sink = Remote::new(0, Settings { tls, probation: PATIENT_PROBATION, ..settings });
    let (engine, source) = start(Backend::Epoll, crate::frame::Framing::Newline, &sink);
    TcpStream::connect(source).unwrap().write_all(b"secret\n").unwrap();
    until("it waits", || matches!(sink.status().state, SinkState::Waiting(_)));
    let SinkState::Waiting(why) = sink.status().state else { panic!("it waits no more") };
    let (settled, _) = engine.drain(Duration::from_millis(10));
    assert!(!settled && sink.status().records == 0, "nothing was delivered");
    why
}

#[test]
fn who_cannot_prove_the_name_gets_nothing() {
    let papers = Papers::new();
    papers.make("stranger", "authority", None);
    let namesakes = Papers::new();
    make_expired(&papers);
    let trusts = |ca| trusting(&papers, ca);
    let named = TlsConnect { server_name: Some("logs.example.org".into()), ..trusts("ca.pem") };
    for (cert, connect, words) in [
        ("server", named, "not for logs.example.org, but for localhost, 127.0.0.1"),
        ("server", trusts("stranger.pem"), "signed by none of the authorities in "),
        ("server", trusting(&namesakes, "ca.pem"), "has only the name of one in "),
        (
            "server",
            TlsConnect { ca: None, ..trusts("ca.pem") },
            "signed by none of the authorities in the system's list",
        ),
        ("old", trusts("ca.pem"), "has expired on 2021-01-02"),
        ("ca", trusts("ca.pem"), "the certificate of an authority"),
    ] {
        let peer = Peer::new(&papers, cert, &[]);
        let why = refusal(peer.at, &connect);
        assert!(why.contains(words), "{why}");
        assert_eq!(std::fs::read(&peer.received).unwrap(), b"");
    }
}

#[test]
fn a_server_that_refuses_us_is_told_with_what_it_wants() {
    let papers = Papers::new();
    papers.make("stranger", "leaf", None);
    let mutual = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"];
    let new = TlsConnect { versions: OneOrMany(vec![TlsVersion::V13]), ..trusting(&papers, "ca.pem") };
    for (args, connect, words) in [
        (
            &[&mutual[..], &["-tls1_2"]].concat()[..],
            trusting(&papers, "ca.pem"),
            "wants a certificate of ours",
        ),
        (&[&mutual[..], &["-tls1_3"]].concat(), trusting(&papers, "ca.pem"), "wants a certificate of ours"),
        (
            &[&mutual[..], &["-tls1_3"]].concat(),
            known(&papers, "stranger"),
            "does not trust who signed our certificate",
        ),
        (&["-tls1_2"], new, "none of the versions"),
    ] {
        let peer = Peer::new(&papers, "server", args);
        let why = refusal(peer.at, &connect);
        assert!(why.contains(words), "{args:?}: {why}");
    }
}

#[test]
fn a_plain_peer_never_sees_a_record() {
    let papers = Papers::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"220 hello\r\n").unwrap();
        let mut heard = Vec::new();
        let _ = connection.read_to_end(&mut heard);
        heard
    });
    let why = refusal(at, &trusting(&papers, "ca.pem"));
    assert!(why.contains("not TLS"), "{why}");
    let heard = peer.join().unwrap();
    assert!(heard[0] == 22 && !heard.windows(6).any(|bytes| bytes == b"secret"));
}

#[test]
fn files_that_cannot_be_used_are_told_at_once() {
    let papers = Papers::new();
    let told = |connect: &TlsConnect| Client::open(connect).unwrap_err().message;
    let missing = TlsConnect { ca: Some("/nowhere/ca.pem".into()), ..known(&papers, "client") };
    assert!(told(&missing).contains("/nowhere/ca.pem"));
    let mixed = TlsConnect { key: Some(papers.path("server.key")), ..known(&papers, "client") };
    assert!(told(&mixed).contains("is not the key of the certificate"));
    let unnamed = TlsConnect { server_name: Some("a b".into()), ..known(&papers, "client") };
    assert!(told(&unnamed).contains("no server can prove that it is 'a b'"));
}
