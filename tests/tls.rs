//! TLS as an operator meets it: real openssl clients into the real binary, and what is said about files and clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::run;
use crate::fallback;
use crate::harness::{Started, status, until};

const EXTENSIONS: &str = "[req]\ndistinguished_name = name\n[name]\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\n\
    [leaf]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n";
const MESSAGES: usize = 50_000;

/// A folder with an authority, and certificates that it signed.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// `ca`, `server` and `client`, each as `NAME.pem` and `NAME.key`.
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(this.path("openssl.cnf"), EXTENSIONS).unwrap();
        this.make("ca", "authority", None, 90);
        this.make("server", "leaf", Some("ca"), 90);
        this.make("client", "leaf", Some("ca"), 90);
        this
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Makes `NAME.pem` and `NAME.key`, signed by another or by itself.
    fn make(&self, name: &str, extensions: &str, by: Option<&str>, days: u32) {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.folder()).args(["req", "-x509", "-config", "openssl.cnf", "-nodes"]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", &days.to_string()]);
        openssl.args(["-extensions", extensions, "-subj", &format!("/CN={name}")]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        if let Some(by) = by {
            openssl.args(["-CA", &format!("{by}.pem"), "-CAkey", &format!("{by}.key")]);
        }
        let output = openssl.output().expect("openssl is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A folder with certificates and a configuration.
struct Site {
    files: Certificates,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { files: Certificates::new(), port }
    }

    fn folder(&self) -> &Path {
        self.files.folder()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path(name)
    }

    /// Writes a configuration of one syslog source; `tls` is the inside of its table, or empty for none.
    fn configure(&self, io: &str, protocol: &str, tls: &str) {
        let tls = if tls.is_empty() { String::new() } else { format!("tls = {{ {tls} }}\n") };
        let io = fallback::io(io);
        let config = format!(
            "[engine]\nworkers = 2\nio = \"{io}\"\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"sys\"\nconnect = \"syslog_tcp_src\"\n[sources.params_override]\n\
             addr = \"127.0.0.1\"\nport = {}\nprotocol = \"{protocol}\"\nheader_mode = \"keep\"\n{tls}\
             [[sinks]]\nkey = \"out\"\nconnect = \"file_sink\"\n[sinks.params_override]\npath = \"out.log\"\n",
            self.port
        );
        std::fs::write(self.path("wpsrc.toml"), config).unwrap();
    }

    fn out(&self) -> String {
        std::fs::read_to_string(self.path("out.log")).unwrap_or_default()
    }

    /// Sends text through openssl's client, which closes at once; whether it was satisfied.
    fn send(&self, options: &[&str], text: &str) -> bool {
        let mut client = Command::new("openssl")
            .current_dir(self.folder())
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-CAfile", "ca.pem"])
            .args(["-verify_return_error", "-quiet", "-no_ign_eof"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A client that was refused takes no more.
        let _ = client.stdin.take().unwrap().write_all(text.as_bytes());
        client.wait().unwrap().success()
    }
}

fn messages(who: &str) -> String {
    (0..MESSAGES).map(|i| format!("<34>Oct 11 22:14:15 host {who}: message {i}\n")).collect()
}

fn number(line: &str) -> usize {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn openssl_clients_of_both_versions_are_heard_to_the_last_message() {
    for io in ["uring", "epoll"] {
        let site = Site::new();
        site.configure(io, "tls", "cert = \"server.pem\", key = \"server.key\", client_ca = \"ca.pem\"");
        let engine = Started::in_folder(site.folder());
        for version in ["-tls1_2", "-tls1_3"] {
            let own = [version, "-cert", "client.pem", "-key", "client.key"];
            assert!(site.send(&own, &messages(version)), "{io} {version}");
            until("every message is there", || {
                site.out().lines().filter(|line| line.contains(version)).count() == MESSAGES
            });
        }
        assert!(!site.send(&["-tls1_2"], "<34>no certificate\n"), "who has no certificate is refused");
        for version in ["-tls1_2", "-tls1_3"] {
            let out = site.out();
            let numbers = out.lines().filter(|line| line.contains(version)).map(number);
            assert!(numbers.eq(0..MESSAGES), "{io} {version}: in order");
        }
        engine.signal(libc::SIGTERM);
        let ran = engine.end();
        assert!(ran.err.contains("presents no certificate, which 'client_ca' demands"), "{}", ran.err);
        assert!(!site.out().contains("no certificate"), "nothing of it is taken");
    }
}

#[test]
fn one_version_alone_refuses_the_other_and_says_so() {
    let site = Site::new();
    site.configure("auto", "tls", "cert = \"server.pem\", key = \"server.key\", versions = \"1.3\"");
    let engine = Started::in_folder(site.folder());
    assert!(!site.send(&["-tls1_2"], "<34>old\n"));
    assert!(site.send(&["-tls1_3"], "<34>new\n"));
    until("the new one is there", || site.out() == "<34>new\n");
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert!(ran.err.contains("none of the versions in 'versions'"), "{}", ran.err);
}

#[test]
fn plain_and_encrypted_at_the_wrong_port_are_recognised() {
    let site = Site::new();
    site.configure("auto", "tls", "cert = \"server.pem\", key = \"server.key\"");
    let engine = Started::in_folder(site.folder());
    let mut plain = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    plain.write_all(b"<34>Oct 11 22:14:15 host su: hello\n").unwrap();
    let _ = plain.read_to_end(&mut Vec::new());
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert!(ran.err.contains("does not speak TLS, it begins with <34>Oct 11 22:14:15"), "{}", ran.err);

    site.configure("auto", "tcp", "");
    let engine = Started::in_folder(site.folder());
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", site.port), "-quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("its first bytes are judged", || status(site.folder())["errors"].as_u64() > Some(0));
    client.kill().unwrap();
    client.wait().unwrap();
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    let told = ["warning[WP304]", "it speaks TLS, which this port does not"];
    assert!(told.iter().all(|words| ran.err.contains(words)), "{}", ran.err);
}

#[test]
fn files_that_cannot_be_used_are_told_before_anything_starts() {
    let site = Site::new();
    site.files.make("other", "leaf", Some("ca"), 90);
    site.files.make("short", "leaf", Some("ca"), 10);
    std::fs::write(site.path("empty.pem"), "nothing\n").unwrap();
    let mode = |name: &str, mode| {
        std::fs::set_permissions(site.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("server.key", 0o600);
    let said = |tls: &str| {
        site.configure("auto", "tls", tls);
        let ran = run(site.folder(), &["source", "validate"]);
        (ran.code, format!("{}{}", ran.out, ran.err))
    };
    for (tls, words) in [
        ("cert = \"none.pem\", key = \"server.key\"", &["[WP101]", "none.pem"][..]),
        ("cert = \"empty.pem\", key = \"server.key\"", &["no certificate in", "empty.pem"]),
        ("cert = \"server.pem\", key = \"server.pem\"", &["no private key in", "look swapped"]),
        (
            "cert = \"server.pem\", key = \"other.key\"",
            &["is not the key of the certificate", "openssl pkey"],
        ),
        ("cert = \"server.pem\", key = \"server.key\", client_ca = \"empty.pem\"", &["empty.pem"]),
        ("cert = \"server.pem\", key = \"server.key\", versions = \"1.1\"", &["1.1", "1.2", "1.3"]),
    ] {
        let (code, text) = said(tls);
        assert_ne!(code, Some(0), "{tls}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{tls}: {text}");
    }
    let (code, text) = said("cert = \"server.pem\", key = \"server.key\"");
    assert!(code == Some(0) && !text.contains("warning"), "{text}");
    mode("short.key", 0o644);
    let (code, text) = said("cert = \"short.pem\", key = \"short.key\"");
    assert!(text.contains("expires within 30 days, on ") && text.contains("chmod o= "), "{code:?} {text}");
}
