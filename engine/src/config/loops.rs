//! A source that takes in what a sink writes of it: its own records, again and again, until the disk or the machine is full.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use globset::{Glob, GlobBuilder};

use super::check::{never, overlap, written};
use super::types::ListenAddr;
use super::{Config, SinkConfig, SourceConfig};
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::sink::SinkParams;
use crate::sink::remote::with_port;
use crate::source::SourceParams;
use crate::source::file::params::FileParams;
use crate::source::syslog::Protocol;

/// Tells of each source that one of its sinks leads back to.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    for source in config.sources.iter().filter(|source| source.enable) {
        for sink in config.sinks.iter().filter(|sink| sink.enable && sink.sources.takes(&source.key)) {
            let (message, help) = if let Some(path) = read_again(source, sink) {
                (
                    format!("source '{}' reads what sink '{}' writes of it: '{path}'", source.key, sink.key),
                    "write to another folder, or leave the file out with 'exclude'",
                )
            } else if let Some(at) = sent_back(source, sink).filter(|_| !never(source, sink)) {
                (
                    format!("source '{}' receives what sink '{}' sends of it: to {at}", source.key, sink.key),
                    "send to another port, or name other sources in the sink's 'sources'",
                )
            } else {
                continue;
            };
            let finding = Diagnostic::error(Code::WP405, message).at(source.place.clone());
            findings.push(finding.other("the sink", sink.place.clone()).help(help));
        }
    }
}

/// The file that the sink writes of a source that reads it.
fn read_again(source: &SourceConfig, sink: &SinkConfig) -> Option<String> {
    let SourceParams::File(file) = &source.params else { return None };
    let pattern = file.path.as_ref()?;
    let reads = GlobBuilder::new(&pattern.text).literal_separator(true).build().ok()?.compile_matcher();
    let written = written(source, sink)?;
    let below = if pattern.folder.as_os_str().is_empty() {
        Some(&*written)
    } else {
        written.strip_prefix(&pattern.folder).ok()
    };
    let is_read = below.is_some_and(|path| reads.is_match(path)) && !is_left_out(file, &written);
    is_read.then(|| written.display().to_string())
}

fn is_left_out(file: &FileParams, path: &Path) -> bool {
    let globs = file.exclude.0.iter().filter_map(|text| Glob::new(text).ok());
    globs
        .map(|glob| glob.compile_matcher())
        .any(|glob| glob.is_match(path) || path.file_name().is_some_and(|name| glob.is_match(name)))
}

/// The address of the sink at which the source listens.
fn sent_back(source: &SourceConfig, sink: &SinkConfig) -> Option<SocketAddr> {
    let (listen, port, takes_tls) = match &source.params {
        SourceParams::Syslog(syslog) if syslog.protocol != Protocol::Udp => {
            (&syslog.addr, syslog.port, syslog.protocol == Protocol::Tls)
        }
        SourceParams::Tcp(tcp) => (&tcp.addr, tcp.port, tcp.tls.is_some()),
        _ => return None,
    };
    let ListenAddr::Ip(listen) = listen else { return None };
    let (addresses, usual_port, sends_tls) = match &sink.params {
        SinkParams::Tcp(tcp) => (&tcp.addr.0, tcp.port, tcp.tls.is_some()),
        SinkParams::Syslog(syslog) => (&syslog.addr.0, syslog.port, syslog.tls.is_some()),
        _ => return None,
    };
    let to = addresses.iter().filter_map(|address| literal(&with_port(address, usual_port)));
    let mut back = to.filter(|to| to.port() == port && takes_tls == sends_tls && covers(*listen, to.ip()));
    back.next()
}

/// An address that no resolver is asked for.
fn literal(address: &str) -> Option<SocketAddr> {
    match address.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().ok()?)),
        None => address.parse().ok(),
    }
}

/// Whether what is sent to `to` comes to who listens at `listen`. Who listens everywhere does so at this machine's addresses
/// only, of which the loopback alone is known without looking.
fn covers(listen: IpAddr, to: IpAddr) -> bool {
    let to = match to.to_canonical() {
        // Connecting to no address in particular is connecting to this machine.
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let listen = listen.to_canonical();
    if listen.is_unspecified() { to.is_loopback() && overlap(listen, to) } else { listen == to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_to_this_machine_comes_to_who_listens_there() {
        for (listen, to, comes) in [
            ("127.0.0.1", "127.0.0.1:9", true),
            ("0.0.0.0", "localhost:9", true),
            ("0.0.0.0", "127.0.0.2:9", true),
            ("127.0.0.1", "0.0.0.0:9", true),
            ("::", "127.0.0.1:9", true),
            ("::", "[::1]:9", true),
            ("10.0.0.1", "[::ffff:10.0.0.1]:9", true),
            ("0.0.0.0", "[::1]:9", false),
            ("127.0.0.1", "127.0.0.2:9", false),
            ("0.0.0.0", "10.0.0.1:9", false),
            ("0.0.0.0", "collector:9", false),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(literal(to).is_some_and(|to| covers(listen, to.ip())), comes, "{listen} {to}");
        }
    }
}
