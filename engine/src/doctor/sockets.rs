//! The addresses that are listened on: free, held by whom, or held by our engine; and what waits in its sockets.

use std::fs;
use std::net::TcpListener;

use super::{Check, Verdict, bytes};
use crate::config::types::ListenAddr;
use crate::config::{AdminListen, Config, SourceConfig};
use crate::io::listen::Address;
use crate::source::SourceParams;
use crate::source::port::{self, Transport};
use crate::source::syslog::Protocol;

/// Where a source listens, if it does.
pub(super) fn listens(source: &SourceConfig) -> Option<(Transport, &ListenAddr, u16)> {
    match &source.params {
        SourceParams::Syslog(syslog) if syslog.protocol == Protocol::Udp => {
            Some((Transport::Datagram, &syslog.addr, syslog.port))
        }
        SourceParams::Syslog(syslog) => Some((Transport::Stream, &syslog.addr, syslog.port)),
        SourceParams::Tcp(tcp) => Some((Transport::Stream, &tcp.addr, tcp.port)),
        SourceParams::File(_) | SourceParams::Kafka(_) | SourceParams::Mqtt(_) => None,
    }
}

/// Whether the engine `pid` has the address that a source of its configuration names.
pub(super) fn held(source: &SourceConfig, pid: u32) -> Option<Check> {
    let (transport, addr, number) = listens(source)?;
    let subject = format!("source '{}'", source.key);
    let at = port::address(addr, number);
    let what = format!("{} {at}", transport.name(&at));
    let Address::Inet(inet) = at else {
        let there = matches!(&at, Address::Unix(path) if path.exists());
        let found = if there { format!("{what} is there") } else { format!("{what} is not there") };
        return Some(Check::new(if there { Verdict::Ok } else { Verdict::Fail }, subject, found));
    };
    let holders = port::holders(transport, inet);
    let ours = holders.iter().any(|(holder, _)| *holder == pid);
    Some(match holders.first() {
        _ if ours => {
            Check::ok(subject, format!("the engine listens on {what}{}", waiting(transport, number)))
        }
        None => Check::warn(subject, format!("who listens on {what} cannot be seen"))
            .note("the sockets of other users' processes are seen by root only"),
        Some((pid, name)) => {
            let mut check = Check::fail(
                subject,
                format!("the engine does not listen on {what}: {name} (PID {pid}) does"),
            )
            .help("wpgen source reload, once the port is free; or give the source another port");
            check.place = Some(source.place.clone());
            check
        }
    })
}

/// What waits in the sockets of a port, and what they dropped, as the kernel counts it.
fn waiting(transport: Transport, number: u16) -> String {
    if transport == Transport::Stream {
        return String::new();
    }
    let tables =
        ["/proc/net/udp", "/proc/net/udp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let (waits, drops) = lines
        .filter_map(|line| queue(line, number))
        .fold((0, 0), |(w, d), (waits, drops)| (w + waits, d + drops));
    format!("; {} wait in its sockets, the kernel dropped {drops}", bytes(waits))
}

/// Bytes that wait in a socket of the port, and datagrams it dropped: a line of /proc/net/udp.
fn queue(line: &str, number: u16) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let here = u16::from_str_radix(words.get(1)?.rsplit_once(':')?.1, 16).ok()? == number;
    let waits = u64::from_str_radix(words.get(4)?.rsplit_once(':')?.1, 16).ok()?;
    here.then_some((waits, words.last()?.parse().ok()?))
}

/// Whether the admin API can have its address. The default one gives way with a warning; one that is written does not.
pub(super) fn admin(config: &Config) -> Option<Check> {
    let AdminListen::On(at) = config.admin.listen else { return None };
    let subject = "admin.listen";
    let error = match TcpListener::bind(at) {
        Ok(_) => return Some(Check::ok(subject, format!("tcp {at} is free"))),
        Err(error) => error,
    };
    let finding = port::explain("the admin API", Transport::Stream, &Address::Inet(at), &error);
    let mut check = Check::of(subject, finding);
    if !config.admin_listen_given {
        check.verdict = Verdict::Warn;
        check = check.note("the default address gives way: without it the engine runs without an admin API");
    }
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line =
            " 2301: 0100007F:0202 00000000:0000 07 00000000:00000D00 00:00000000 00000000  0 0 4711 2 0 12";
        assert_eq!(queue(line, 514), Some((0xd00, 12)));
        assert_eq!(queue(line, 515), None);
        assert_eq!(queue("sl local_address", 514), None);
    }
}
