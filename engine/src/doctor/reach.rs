//! From where a source that listens can be reached: the interfaces of this machine and their addresses.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Check, sockets};
use crate::config::types::ListenAddr;
use crate::config::{Config, SourceConfig};
use crate::diagnosis::Code;

/// Addresses that are shown of one machine.
const SHOWN_MAX: usize = 6;

/// An address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: String,
    address: IpAddr,
}

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
        .filter(|interface| !interface.address.is_loopback() && reaches(interface.address))
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

/// Every address of an interface that is up.
fn interfaces() -> Vec<Interface> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call fills the pointer with a list of its own, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: the list's entries live until it is freed.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_flags & libc::IFF_UP.cast_unsigned() == 0 {
            continue;
        }
        // SAFETY: an entry's address is null or a socket address of the family it names.
        if let Some(address) = unsafe { address(entry.ifa_addr) } {
            // SAFETY: an entry's name is a string that ends in a zero.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
            all.push(Interface { name, address });
        }
    }
    // SAFETY: the list came from getifaddrs, and nothing of it is kept.
    unsafe { libc::freeifaddrs(first) };
    all
}

/// The address in a socket address of IP.
///
/// # Safety
///
/// `at` is null, or points to a socket address of the family it names.
unsafe fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    if at.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family.
    match i32::from(unsafe { (*at).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one of these; it is copied, whatever its alignment.
            let at = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let at = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(at.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_its_loopback() {
        let all = interfaces();
        assert!(all.iter().any(|one| one.address.is_loopback() && one.name == "lo"), "{all:?}");
    }
}
