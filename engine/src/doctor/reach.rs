//! From where a source that listens can be reached: the interfaces of this machine and their addresses.

use std::net::IpAddr;

use super::{Check, sockets};
use crate::config::types::ListenAddr;
use crate::config::{Config, SourceConfig};
use crate::diagnosis::Code;
use crate::io::interfaces::{Interface, interfaces};

/// Addresses that are shown of one machine.
const SHOWN_MAX: usize = 6;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let listening: Vec<(&SourceConfig, IpAddr)> =
        config.sources.iter().filter(|source| source.enable).filter_map(at).collect();
    if listening.is_empty() {
        return Vec::new();
    }
    let interfaces = interfaces();
    listening.into_iter().map(|(source, ip)| check(source, ip, &interfaces)).collect()
}

fn at(source: &SourceConfig) -> Option<(&SourceConfig, IpAddr)> {
    match sockets::listens(source)?.1 {
        ListenAddr::Ip(ip) => Some((source, *ip)),
        ListenAddr::Unix(_) => None,
    }
}

fn check(source: &SourceConfig, ip: IpAddr, interfaces: &[Interface]) -> Check {
    let subject = format!("reach of '{}'", source.key);
    if ip.is_loopback() {
        return Check::ok(
            subject,
            format!("{ip} is reached from this machine only; addr = \"0.0.0.0\" is for all"),
        );
    }
    // An IPv6 socket for all addresses takes IPv4 as well.
    let reaches =
        |address: IpAddr| address == ip || (ip.is_unspecified() && (ip.is_ipv6() || address.is_ipv4()));
    let reached: Vec<String> = interfaces
        .iter()
        .filter(|interface| interface.is_up && !interface.address.is_loopback() && reaches(interface.address))
        .map(|interface| format!("{} ({})", interface.address, interface.name))
        .collect();
    if reached.is_empty() {
        let mut check = Check::warn(subject, format!("no interface that is up has an address for {ip}"))
            .code(Code::WP303)
            .note("from other machines this looks like Connection refused or Network unreachable")
            .help("ip address: shows the interfaces; ip link set NAME up: switches one on");
        check.place = Some(source.place.clone());
        return check;
    }
    let more = reached.len().saturating_sub(SHOWN_MAX);
    let shown = reached[..reached.len() - more].join(", ");
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    Check::ok(subject, format!("at {shown}{more}, where firewalls let it pass"))
}
