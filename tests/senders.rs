//! Real senders, unmodified, as Debian has them: rsyslog, syslog-ng's loggen, util-linux's logger, netcat, and what
//! systemd-journald does. What they send arrives once and in order within its connection, whenever they close.
//!
//! They are unpacked into the build's folder and never installed. Where that cannot be done, the tests say so and are
//! skipped; with WPGEN_TEST_ALL set, as CI has it, they fail.

use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use crate::harness::until;
use crate::net::{BACKENDS, By, NDJSON, Net, RAW};
use crate::tls::Certificates;

/// Programs of Debian, unpacked.
pub struct Debian {
    pub root: PathBuf,
}

impl Debian {
    /// Unpacks them, once.
    pub fn unpacked() -> Option<&'static Self> {
        static UNPACKED: OnceLock<Option<Debian>> = OnceLock::new();
        UNPACKED.get_or_init(Self::unpack).as_ref()
    }

    fn unpack() -> Option<Self> {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("senders");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/senders");
        let ran = Command::new(&script).arg(&root).output().unwrap();
        if ran.status.success() {
            return Some(Self { root });
        }
        let why = String::from_utf8_lossy(&ran.stderr);
        assert!(std::env::var_os("WPGEN_TEST_ALL").is_none(), "{}: {why}", script.display());
        // Past the capture of what tests print: who runs them must see it.
        let _ = writeln!(std::io::stderr(), "skipped: tests with real senders, for want of them: {why}");
        None
    }

    /// Where their libraries are, for the dynamic linker.
    pub fn libraries(&self) -> String {
        let machines = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
        let folders =
            machines.iter().flat_map(|machine| [format!("usr/lib/{machine}"), format!("lib/{machine}")]);
        let folders = folders.chain(["usr/lib/syslog-ng".to_owned()]);
        folders.map(|folder| self.root.join(folder).display().to_string()).collect::<Vec<_>>().join(":")
    }

    /// Where rsyslog's modules are.
    pub fn rsyslog_modules(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.root.join("usr/lib")).unwrap().flatten();
        // `usr/lib/rsyslog` itself holds a script.
        folders.map(|entry| entry.path().join("rsyslog")).find(|path| path.is_dir()).unwrap()
    }

    /// A program with its own libraries.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join(program));
        command.env("LD_LIBRARY_PATH", self.libraries()).env("SYSLOGNG_PREFIX", self.root.join("usr"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Runs a sender to its end.
fn send(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a sender that reads its standard input.
fn send_input(command: &mut Command, input: &[u8]) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Messages for a sender: numbered, of many lengths.
fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("number {i}:{}", "x".repeat(i * 7 % 400))).collect()
}

// --- loggen -----------------------------------------------------------------------------------------------------------

/// How loggen is told to send, and how the engine listens to that.
const LOGGEN: [(By, &str, &str); 13] = [
    (By::Tcp, "", "-i -S -r 1000000 -n 20000"),
    (By::Tcp, "", "-i -S -r 1000000 -n 2000 --active-connections=10 --idle-connections=5"),
    (By::Tcp, "", "-i -S -r 2000 -n 1000"),
    (By::Tcp, "", "-i -S -s 8000 -r 1000000 -n 2000"),
    (By::Tcp, "", "-i -S -P -r 1000000 -n 20000"),
    (By::Tcp, "framing = \"octet\"", "-i -S -P -r 1000000 -n 20000"),
    (By::Tcp, "framing = \"newline\"", "-i -S -P -F -r 1000000 -n 20000"),
    (By::Tcp, "proxy_protocol = true", "-i -S -H -r 1000000 -n 5000 --active-connections=4"),
    (By::Tcp6, "", "-i -6 -S -r 1000000 -n 5000"),
    (By::UnixStream, "", "-x -S -r 1000000 -n 20000 --active-connections=4"),
    (By::UnixDatagram, "", "-x -D -r 1000000 -n 5000 --active-connections=2"),
    (By::Udp, "", "-i -D -r 5000 -n 1000"),
    (By::Udp, "", "-i -D -P -r 5000 -n 1000"),
];

/// Connections that are open to an engine's address, as the kernel has it.
fn connections_to(net: &Net) -> usize {
    let std::net::IpAddr::V4(ip) = net.at.ip() else { panic!("of IPv4") };
    let at = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), net.at.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let open = |line: &&str| {
        line.split_whitespace().nth(1) == Some(&at) && line.split_whitespace().nth(3) != Some("0A")
    };
    table.lines().filter(open).count()
}

fn loggen(debian: &Debian, net: &Net, by: By, args: &str) -> Command {
    let mut command = debian.command("usr/bin/loggen");
    command.args(args.split(' '));
    match by {
        By::UnixStream | By::UnixDatagram => command.arg(net.socket()),
        _ => command.arg(net.at.ip().to_string()).arg(net.at.port().to_string()),
    };
    command
}

/// How many messages loggen says it has sent: `..., count=20000, ...`.
fn count(output: &Output) -> u64 {
    let said = String::from_utf8_lossy(&output.stderr);
    let counts = said.split("count=").skip(1).map(|rest| rest.split(',').next().unwrap().trim());
    counts.last().unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

/// `(thread, number)` of a message of loggen's.
fn numbered(line: &str) -> (usize, u64) {
    let word = |name: &str| {
        let rest = line.split_once(name).unwrap_or_else(|| panic!("not of loggen: {line:?}")).1;
        rest.split(',').next().unwrap().trim().parse::<u64>().unwrap()
    };
    (word("thread:") as usize, word("seq:"))
}

/// Fails unless each connection's messages are there once and in order, from `first` on.
fn in_order(lines: &[String], first: u64) {
    let mut next: Vec<u64> = Vec::new();
    for line in lines {
        let (thread, number) = numbered(line);
        next.resize(next.len().max(thread + 1), first);
        assert_eq!(number, next[thread], "of connection {thread}: {line}");
        next[thread] += 1;
    }
}

#[test]
fn loggen_in_all_its_modes() {
    let Some(debian) = Debian::unpacked() else { return };
    for (i, (by, params, args)) in LOGGEN.into_iter().enumerate() {
        let net = Net::start(BACKENDS[i % 2], by, params);
        let sent = count(&send(&mut loggen(debian, &net, by, args)));
        net.await_delivered(sent);
        assert_eq!((net.figure("kernel_drops"), net.figure("malformed")), (0, 0), "{args}");
        let lines = net.lines();
        assert_eq!(lines.len() as u64, sent, "{args}");
        // With -H, loggen sends the PROXY header in the first message's place.
        in_order(&lines, u64::from(args.contains("-H")));
    }
}

#[test]
fn loggen_reads_a_file() {
    let Some(debian) = Debian::unpacked() else { return };
    let net = Net::start("uring", By::Tcp, "");
    let texts: Vec<String> = texts(5000).iter().map(|text| format!("<34>{text}")).collect();
    std::fs::write(net.site.path("texts"), texts.join("\n") + "\n").unwrap();
    let args = format!("-i -S -d -r 1000000 -n {} -R {}", texts.len(), net.site.path("texts").display());
    send(&mut loggen(debian, &net, By::Tcp, &args));
    net.await_delivered(texts.len() as u64);
    assert_eq!(net.lines(), texts);
}

#[test]
fn loggen_that_never_ends_is_killed_and_what_it_sent_is_there() {
    let Some(debian) = Debian::unpacked() else { return };
    for io in BACKENDS {
        let net = Net::start(io, By::Tcp, "");
        let args = "-i -S --permanent -r 1000000 --active-connections=4";
        let mut child = loggen(debian, &net, By::Tcp, args).spawn().unwrap();
        until("much has come", || net.figure("records_in") > 50_000);
        child.kill().unwrap();
        child.wait().unwrap();
        // Nothing tells how much it sent: all of it is there once nothing comes any more and no connection is left.
        until("its connections are gone", || connections_to(&net) == 0);
        let mut lines = net.lines();
        let cut: Vec<String> = lines.extract_if(.., |line| !line.ends_with("PADD")).collect();
        assert!(cut.len() <= 4, "the kill cuts one message a connection: {cut:?}");
        in_order(&lines, 0);
    }
}

// --- logger -----------------------------------------------------------------------------------------------------------

/// How logger is told to send, and how the engine listens to that.
const LOGGER: [(By, &str, &str); 9] = [
    (By::Tcp, "", "-T --rfc3164"),
    (By::Tcp, "", "-T --rfc5424"),
    (By::Tcp, "", "-T --rfc5424 --octet-count --msgid ID47 --sd-id app@1 --sd-param a=\"b\""),
    (By::Tcp, "framing = \"octet\"", "-T --rfc3164 --octet-count"),
    (By::Tcp6, "", "-T"),
    (By::Udp, "", "-d --rfc3164"),
    (By::Udp6, "", "-d --rfc5424"),
    (By::UnixStream, "", "-T"),
    (By::UnixDatagram, "", "-d"),
];

#[test]
fn logger_over_everything_it_speaks() {
    for (i, (by, params, args)) in LOGGER.into_iter().enumerate() {
        let params = format!("header_mode = \"parse\"\n{params}");
        let net = Net::with(BACKENDS[i % 2], by, &params, NDJSON);
        // logger waits for nothing: what UDP is sent fits into the socket's buffer.
        let texts = texts(500);
        let mut command = Command::new("logger");
        command.args(args.split(' ')).args(["--tag", "teller", "--priority", "auth.crit", "--size", "8KiB"]);
        match by {
            By::UnixStream | By::UnixDatagram => command.arg("--socket").arg(net.socket()),
            _ => command.args(["--server", &net.at.ip().to_string(), "--port", &net.at.port().to_string()]),
        };
        send_input(&mut command, (texts.join("\n") + "\n").as_bytes());
        net.await_delivered(texts.len() as u64);
        assert_eq!((net.figure("kernel_drops"), net.figure("malformed")), (0, 0), "{args}");
        for (line, text) in net.lines().iter().zip(&texts) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["data"], text.as_str(), "{args}: {line}");
            for told in ["teller", "\"auth\"", "\"crit\""] {
                assert!(line.contains(told), "{args}: no {told} in {line}");
            }
        }
    }
}

// --- netcat -----------------------------------------------------------------------------------------------------------

#[test]
fn the_guides_test_message_through_netcat() {
    let Some(debian) = Debian::unpacked() else { return };
    for (by, args) in
        [(By::Tcp, "-N"), (By::Udp, "-u -w1"), (By::UnixStream, "-N -U"), (By::UnixDatagram, "-u -w1 -U")]
    {
        let net = Net::with("uring", by, "header_mode = \"parse\"", RAW);
        let mut command = debian.command("bin/nc.openbsd");
        command.args(args.split(' '));
        match by {
            By::UnixStream | By::UnixDatagram => command.arg(net.socket()),
            _ => command.args([net.at.ip().to_string(), net.at.port().to_string()]),
        };
        send_input(&mut command, b"<34>test message\n");
        net.await_delivered(1);
        assert_eq!(net.figure("malformed"), 0);
        assert_eq!(net.lines(), ["test message"], "{args}");
    }
}

#[test]
fn a_burst_through_netcat_that_closes_behind_it() {
    let Some(debian) = Debian::unpacked() else { return };
    for io in BACKENDS {
        let net = Net::start(io, By::Tcp, "");
        let lines: Vec<String> = texts(100_000).iter().map(|text| format!("<34>{text}")).collect();
        let mut command = debian.command("bin/nc.openbsd");
        command.args(["-N", &net.at.ip().to_string(), &net.at.port().to_string()]);
        // Without a newline at its end the last message is one all the same.
        send_input(&mut command, lines.join("\n").as_bytes());
        net.await_delivered(lines.len() as u64);
        assert!(net.lines() == lines, "through {io}");
    }
}

// --- rsyslog ----------------------------------------------------------------------------------------------------------

/// A running rsyslogd that forwards the lines of a file; it is told to end when a test is done with it.
struct Rsyslog(Child);

impl Rsyslog {
    /// `action` are further words for omfwd.
    fn start(debian: &Debian, net: &Net, file: &Path, action: &str) -> Self {
        let folder = net.site.folder().display();
        let (ip, port) = (net.at.ip(), net.at.port());
        let configuration = format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\")\n\
             module(load=\"imfile\")\n\
             input(type=\"imfile\" File=\"{}\" Tag=\"app:\" Severity=\"info\" Facility=\"local0\")\n\
             action(type=\"omfwd\" Target=\"{ip}\" Port=\"{port}\" {action})\n",
            file.display()
        );
        std::fs::write(net.site.path("rsyslog.conf"), configuration).unwrap();
        let modules = debian.rsyslog_modules();
        let mut command = debian.command("usr/sbin/rsyslogd");
        command.args(["-n", "-f"]).arg(net.site.path("rsyslog.conf"));
        command.arg("-i").arg(net.site.path("rsyslog.pid")).arg("-M").arg(modules);
        Self(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// Tells it to end: it closes its connections.
    fn end(mut self) {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.0.id()).unwrap(), libc::SIGTERM) }, 0);
        self.0.wait().unwrap();
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How omfwd is told to send over TLS: to whom signs as the authority in this folder has signed.
fn over_tls(folder: &Path) -> String {
    format!(
        "Protocol=\"tcp\" StreamDriver=\"ossl\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/certvalid\" \
         StreamDriver.CAFile=\"{}\"",
        folder.join("ca.pem").display()
    )
}

/// How omfwd is told to send, and how the engine listens to that.
const OMFWD: [(By, &str, &str, usize); 5] = [
    (By::Tcp, "", "Protocol=\"tcp\"", 20_000),
    (By::Tcp, "", "Protocol=\"tcp\" Template=\"RSYSLOG_SyslogProtocol23Format\"", 20_000),
    (By::Tcp, "", "Protocol=\"tcp\" TCP_Framing=\"octet-counted\"", 20_000),
    (
        By::Tcp,
        "framing = \"octet\"",
        "Protocol=\"tcp\" TCP_Framing=\"octet-counted\" Template=\"RSYSLOG_SyslogProtocol23Format\"",
        20_000,
    ),
    (By::Udp, "", "Protocol=\"udp\" Template=\"RSYSLOG_SyslogProtocol23Format\"", 500),
];

#[test]
fn rsyslog_forwards_over_tcp_both_framings_and_udp() {
    let Some(debian) = Debian::unpacked() else { return };
    for (i, (by, params, action, messages)) in OMFWD.into_iter().enumerate() {
        let params = format!("header_mode = \"parse\"\n{params}");
        let net = Net::with(BACKENDS[i % 2], by, &params, RAW);
        let texts = texts(messages);
        let file = net.site.path("texts");
        std::fs::write(&file, texts.join("\n") + "\n").unwrap();
        let rsyslog = Rsyslog::start(debian, &net, &file, action);
        until("all has come", || net.figure("records_in") >= texts.len() as u64);
        rsyslog.end();
        net.await_delivered(texts.len() as u64);
        assert_eq!((net.figure("kernel_drops"), net.figure("malformed")), (0, 0), "{action}");
        assert!(net.lines() == texts, "{action}");
    }
}

#[test]
fn rsyslog_and_loggen_over_tls() {
    let Some(debian) = Debian::unpacked() else { return };
    let certificates = Certificates::new();
    let file = |name: &str| certificates.path(name).display().to_string();
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", file("server.pem"), file("server.key"));
    for io in BACKENDS {
        let net = Net::with(io, By::Tls, &format!("header_mode = \"parse\"\n{tls}"), RAW);
        let texts = texts(20_000);
        let from = net.site.path("texts");
        std::fs::write(&from, texts.join("\n") + "\n").unwrap();
        let rsyslog = Rsyslog::start(debian, &net, &from, &over_tls(certificates.folder()));
        until("all has come", || net.figure("records_in") >= texts.len() as u64);
        rsyslog.end();
        net.await_delivered(texts.len() as u64);
        assert_eq!((net.figure("errors"), net.figure("malformed")), (0, 0));
        assert!(net.lines() == texts, "through {io}");

        let net = Net::start(io, By::Tls, &tls);
        let sent =
            count(&send(&mut loggen(debian, &net, By::Tls, "-U -r 1000000 -n 20000 --active-connections=3")));
        net.await_delivered(sent);
        in_order(&net.lines(), 0);
    }
}

// --- systemd-journald -------------------------------------------------------------------------------------------------

/// Sends as journald does with ForwardToSyslog: one message in pieces, with the credentials of whom it speaks for.
fn forward(socket: &UnixDatagram, pieces: &[&str]) {
    let mut iov: Vec<libc::iovec> = pieces
        .iter()
        .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() })
        .collect();
    // SAFETY: they ask for numbers.
    let credentials =
        unsafe { libc::ucred { pid: libc::getpid(), uid: libc::getuid(), gid: libc::getgid() } };
    let mut control = [0u64; 8];
    // SAFETY: all zeroes is a valid header of plain integers and null pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (iov.as_mut_ptr(), iov.len());
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the buffer is aligned and longer than a header with credentials; the kernel reads it within the call.
    unsafe {
        let len = size_of::<libc::ucred>() as u32;
        header.msg_controllen = libc::CMSG_SPACE(len) as usize;
        let message = &mut *libc::CMSG_FIRSTHDR(&raw const header);
        (message.cmsg_level, message.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
        message.cmsg_len = libc::CMSG_LEN(len) as usize;
        std::ptr::write_unaligned(libc::CMSG_DATA(message).cast(), credentials);
        assert!(libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) > 0);
    }
}

#[test]
fn journald_forwards_with_credentials_to_a_unix_datagram_socket() {
    for io in BACKENDS {
        let net = Net::with(io, By::UnixDatagram, "header_mode = \"parse\"", NDJSON);
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(net.socket()).unwrap();
        for i in 0..2000 {
            forward(
                &socket,
                &["<30>", "Nov 23 00:41:15 ", "systemd", "[1]: ", &format!("Started unit {i}.")],
            );
        }
        net.await_delivered(2000);
        assert_eq!((net.figure("malformed"), net.figure("truncated")), (0, 0));
        for (i, line) in net.lines().iter().enumerate() {
            let told = ["\"daemon\"", "\"info\"", "\"systemd\"", &format!("\"Started unit {i}.\"")];
            assert!(told.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}
