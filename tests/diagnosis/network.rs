//! WP301 to WP306.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use super::{as_nobody, examine, is_root, line_with, of_code, run_as_nobody, texts};
use crate::cli::{Ran, run, wpgen};
use crate::harness::{Site, Started, until, until_ok};
use crate::net::{By, NDJSON, Net, PORT, RAW, own_address};

#[test]
fn wp301_a_taken_port_names_its_process_and_the_free_one_that_is_named_works() {
    let holder = Net::start("auto", By::Tcp, "");
    let (ip, taken) = (holder.at.ip(), holder.at.port());
    let site = Site::empty();
    let configure = |port: &str| {
        let source = format!("addr = \"{ip}\"\n{port}\nprotocol = \"tcp\"");
        site.configure_source("auto", "syslog_tcp_src", &source, RAW);
    };
    configure(&format!("port = {taken}"));
    let ran = run(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1));
    let by = format!("held by wpgen (PID {})", holder.engine.pid());
    for part in ["error[WP301]", "Address already in use", &by] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    let (code, checks) = examine(site.folder());
    let found = of_code(&checks, "WP301").unwrap();
    assert_eq!(code, Some(2));
    assert!(texts(found, "notes").contains(&by), "{found}");
    configure(line_with(&texts(found, "help"), "port = "));
    let engine = Started::in_folder(site.folder());
    let (_, checks) = examine(site.folder());
    assert!(of_code(&checks, "WP301").is_none(), "{checks:?}");
    let listens = checks.iter().find(|check| check["subject"] == "source 'app'").unwrap();
    assert!(listens["found"].as_str().unwrap().starts_with("the engine listens on tcp "), "{listens}");
    engine.stop();
    holder.engine.stop();
}

#[test]
fn wp302_a_low_port_names_the_capability_and_the_port_that_is_named_works() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if !is_root() || first.trim().parse::<u16>().unwrap() <= 514 {
        return;
    }
    let site = Site::empty();
    fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
    let addr = format!("addr = \"{}\"", own_address());
    site.configure_source("auto", "syslog_tcp_src", &format!("{addr}\nport = 514"), RAW);
    let ran = run_as_nobody(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1));
    for part in [
        "error[WP302]",
        "Permission denied",
        "net.ipv4.ip_unprivileged_port_start",
        "CAP_NET_BIND_SERVICE is not there",
        "setcap cap_net_bind_service=+ep",
    ] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    let port = line_with(&ran.err, "port = ");
    site.configure_source("auto", "syslog_tcp_src", &format!("{addr}\n{port}"), RAW);
    let tried = run_as_nobody(site.folder(), &["source", "test"]);
    assert_eq!(tried.code, Some(0), "{}", tried.out);
}

#[test]
fn wp303_a_peer_that_refuses_is_named_with_its_address_and_answers_once_it_listens() {
    let site = Site::empty();
    fs::write(site.path("in/app.log"), "").unwrap();
    let at = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let config = format!(
        "[admin]\nlisten = \"\"\n[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nparams = {{ path = \"in/app.log\" }}\n\
         [[sinks]]\nkey = \"peer\"\nconnect = \"tcp_sink\"\nparams = {{ addr = \"{at}\" }}\n"
    );
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    let (code, checks) = examine(site.folder());
    let found = of_code(&checks, "WP303").unwrap();
    let said = found["found"].as_str().unwrap();
    assert!(said.contains(&at.to_string()) && said.contains("Connection refused"), "{said}");
    let nobody = format!("nothing that we see listens on tcp port {} of this machine", at.port());
    assert!(texts(found, "notes").contains(&nobody), "{found}");
    assert_eq!((code, &found["place"]["line"]), (Some(2), &8.into()));
    let _listens = TcpListener::bind(at).unwrap();
    assert!(of_code(&examine(site.folder()).1, "WP303").is_none());
}

#[test]
fn wp304_a_message_that_is_none_is_shown_with_peer_and_bytes_and_passes_with_the_mend() {
    let net = Net::with("auto", By::Tcp, "", NDJSON);
    let mut peer = net.connect();
    let from = peer.local_addr().unwrap();
    peer.write_all(b"<999>no \x1bpriority\n").unwrap();
    until("it is counted", || net.figure("malformed") == 1);
    let log = || String::from_utf8(net.site.read("logs/wpgen.log")).unwrap();
    until("it is told", || log().contains("WP304"));
    for part in [
        "Invalid syslog format",
        &from.to_string(),
        "PRI is greater than 191 at byte 1 of the message at byte 0: <999>no \\x1bpriority",
        "help: header_mode = \"keep\"",
    ] {
        assert!(log().contains(part), "{part} in {}", log());
    }
    let (code, checks) = examine(net.site.folder());
    let found = of_code(&checks, "WP304").unwrap();
    assert!(code != Some(0) && texts(found, "help").contains("header_mode = \"keep\""), "{found}");
    let config = fs::read_to_string(net.site.path("wpsrc.toml")).unwrap();
    let mended = config.replace("protocol = ", "header_mode = \"keep\"\nprotocol = ");
    fs::write(net.site.path("wpsrc.toml"), mended).unwrap();
    assert_eq!(run(net.site.folder(), &["source", "reload"]).code, Some(0));
    let mut peer = net.connect();
    peer.write_all(b"<999>no priority\n").unwrap();
    until("it passes", || net.site.read("out").iter().filter(|byte| **byte == b'\n').count() == 2);
    assert_eq!(log().matches("[WP304]").count(), 1, "the second one is none to complain of");
    net.engine.stop();
}

/// What a TCP source in a framing makes of the bytes: the finding, the line that is named, and the records with that.
fn mended_by_its_line(framing: &str, bytes: &[u8], parts: &[&str], line: &str, records: &[&str]) {
    let net = Net::with("auto", By::Tcp, &format!("framing = \"{framing}\""), RAW);
    let mut peer = net.connect();
    let from = peer.local_addr().unwrap().to_string();
    peer.write_all(bytes).unwrap();
    let log = || String::from_utf8(net.site.read("logs/wpgen.log")).unwrap();
    until("it is told", || log().contains("[WP304]"));
    for part in parts.iter().chain([&&*from]) {
        assert!(log().contains(part), "{part} in {}", log());
    }
    assert_eq!(line_with(&log(), line).split("   (").next(), Some(line), "{}", log());
    drop(peer);
    let config = fs::read_to_string(net.site.path("wpsrc.toml")).unwrap();
    let mended = config.replace(&format!("framing = \"{framing}\""), line);
    fs::write(net.site.path("wpsrc.toml"), mended).unwrap();
    assert_eq!(run(net.site.folder(), &["source", "reload"]).code, Some(0));
    let before = net.site.read("out").len();
    net.connect().write_all(bytes).unwrap();
    let wanted: String = records.iter().map(|record| format!("{record}\n")).collect();
    until_ok("they pass", || {
        let out = net.site.read("out");
        let passed = String::from_utf8_lossy(&out[before..]).into_owned();
        if passed == wanted { Ok(()) } else { Err(passed) }
    });
    net.engine.stop();
}

#[test]
fn wp304_counts_that_are_read_as_lines_name_the_framing_that_takes_them() {
    let said = [
        "Invalid syslog format",
        "neither a PRI nor a time begins the record at byte 0",
        ": 7 <34>one7 <34>two",
    ];
    mended_by_its_line("newline", b"7 <34>one7 <34>two\n", &said, "framing = \"octet\"", &["one", "two"]);
}

#[test]
fn wp304_lines_where_counts_are_demanded_name_the_framing_that_takes_them() {
    let said = [
        "Parse error in syslog message",
        "the frame at byte 0 does not begin with an octet count",
        ": <34>one",
    ];
    mended_by_its_line("octet", b"<34>one\n<34>two\n", &said, "framing = \"newline\"", &["one", "two"]);
}

#[test]
fn wp304_a_proxy_header_names_the_parameter_that_takes_it() {
    let bytes = b"PROXY TCP4 127.0.0.7 127.0.0.8 5000 514\r\n<34>one\n";
    let said = ["Invalid syslog format", "PROXY TCP4 127.0.0.7"];
    mended_by_its_line("auto", bytes, &said, "proxy_protocol = true", &["one"]);
}

#[test]
fn wp305_datagrams_the_kernel_drops_are_told_with_their_number_and_the_sysctl() {
    let net = Net::stalled("auto", By::Udp, "so_rcvbuf = \"64KiB\"\ntcp_recv_bytes = \"1MiB\"");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let message = format!("<34>{}", "x".repeat(1000));
    until("the kernel drops", || {
        (0..2000).for_each(|_| drop(socket.send_to(message.as_bytes(), net.at)));
        net.figure("kernel_drops") > 0
    });
    let (code, checks) = examine(net.site.folder());
    let found = of_code(&checks, "WP305").unwrap();
    let said = found["found"].as_str().unwrap();
    assert!(said.contains("messages lost on UDP") && said.contains("source 'app'"), "{said}");
    assert!(code != Some(0) && texts(found, "help").contains("sysctl -w net.core.rmem_max="), "{found}");
    let listens = checks.iter().find(|check| check["subject"] == "source 'app'").unwrap();
    let listens = listens["found"].as_str().unwrap();
    assert!(listens.contains("wait in its sockets") && !listens.ends_with("dropped 0"), "{listens}");
    drop(net.engine);
}

#[test]
fn wp305_a_buffer_the_kernel_does_not_grant_is_told_before_anything_is_lost() {
    if !is_root() {
        return;
    }
    let site = Site::empty();
    fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
    let source = format!("addr = \"{}\"\nport = {PORT}\nso_rcvbuf = \"1GiB\"", own_address());
    site.configure_source("auto", "syslog_udp_src", &source, RAW);
    let ran = Ran::from(as_nobody(wpgen(site.folder(), &["doctor", "--json"])).output().unwrap());
    let checks = super::checks(&ran);
    let found = of_code(&checks, "WP305").unwrap();
    let most = fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    assert!(found["found"].as_str().unwrap().contains(" of 1 GiB"), "{found}");
    assert!(texts(found, "notes").contains("net.core.rmem_max is "), "{found} {most}");
    assert!(texts(found, "help").contains("sysctl -w net.core.rmem_max=1073741824"), "{found}");
}

#[test]
fn wp306_unfinished_records_that_fill_the_budget_are_told_with_the_parameter() {
    let net = Net::start("auto", By::Tcp, "tcp_recv_bytes = 65536\nframing = \"newline\"");
    let mut peers: Vec<_> = (0..4).map(|_| net.connect()).collect();
    let log = || String::from_utf8(net.site.read("logs/wpgen.log")).unwrap();
    until("the overflow is told", || {
        peers.iter_mut().for_each(|peer| peer.write_all(&[b'x'; 32 << 10]).unwrap());
        log().contains("[WP306] buffer overflow at high traffic")
    });
    assert!(log().contains("raise tcp_recv_bytes"), "{}", log());
    net.engine.stop();
}

/// A port that nobody has on any address.
fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn wp502_an_address_of_nobody_lists_ours_and_the_one_that_is_named_works() {
    // TEST-NET-1 belongs to no machine; where the kernel binds it all the same, nothing can be shown.
    if TcpListener::bind("192.0.2.77:0").is_ok() {
        return;
    }
    let site = Site::empty();
    let port = free_port();
    let configure = |addr: &str| {
        let source = format!("{addr}\nport = {port}\nprotocol = \"tcp\"");
        site.configure_source("auto", "syslog_tcp_src", &source, RAW);
    };
    configure("addr = \"192.0.2.77\"");
    let ran = run(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1));
    let failed = format!("Failed to bind to address 192.0.2.77:{port}");
    for part in ["error[WP502]", &failed, "wpsrc.toml:", "127.0.0.1 (lo)", "addr = \"0.0.0.0\""] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    let tried = run(site.folder(), &["source", "test"]);
    assert!(tried.code == Some(1) && tried.out.contains(&failed), "{}", tried.out);
    let (code, checks) = examine(site.folder());
    let found = of_code(&checks, "WP502").unwrap();
    assert!(code == Some(2) && texts(found, "notes").contains("127.0.0.1 (lo)"), "{found}");
    let line =
        line_with(&texts(found, "help"), "addr = \"0.0.0.0\"").split("   (").next().unwrap().to_owned();
    configure(&line);
    let engine = Started::in_folder(site.folder());
    assert!(of_code(&examine(site.folder()).1, "WP502").is_none());
    engine.stop();
}
