//! What the sinks that write to a stream may be told: tcp and syslog.

use std::time::Duration;

use crate::config::kinds::Check;
use crate::config::params::{params, words};
use crate::config::tls::TlsConnect;
use crate::config::tree::Table;
use crate::config::types::OneOrMany;
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::sink::format::Format;

params! {
    /// The parameters of a tcp sink.
    pub struct TcpParams {
        /// Where to connect to, as "host:port"; of several, the next one while one fails, then the first again.
        addr: OneOrMany<String>;
        /// The port of addresses that name none.
        port: u16 = 9000, in 1..=65535;
        /// Where a record ends.
        framing: Framing = "newline";
        /// How a record is written.
        format: Format = "raw";
        /// TLS, with the server's name verified.
        tls: Option<TlsConnect>;
        /// How long a connection may take to open.
        connect_timeout: Duration = "10s", in 1..=600_000;
        /// The first pause before another try; it doubles, with jitter.
        reconnect_min: Duration = "100ms", in 1..=600_000;
        /// The longest pause before another try.
        reconnect_max: Duration = "30s", in 1..=3_600_000;
    }
}

params! {
    /// The parameters of a syslog sink.
    pub struct SyslogParams {
        /// Where to connect to, as "host:port"; of several, the next one while one fails, then the first again.
        addr: OneOrMany<String>;
        /// The port of addresses that name none.
        port: u16 = 514, in 1..=65535;
        /// Where a message ends.
        framing: Framing = "octet";
        /// How a record is written.
        format: Format = "syslog5424";
        /// TLS, with the server's name verified.
        tls: Option<TlsConnect>;
        /// How long a connection may take to open.
        connect_timeout: Duration = "10s", in 1..=600_000;
        /// The first pause before another try; it doubles, with jitter.
        reconnect_min: Duration = "100ms", in 1..=600_000;
        /// The longest pause before another try.
        reconnect_max: Duration = "30s", in 1..=3_600_000;
    }
}

words! {
    /// Where a record ends.
    pub enum Framing {
        /// At a newline; one within a record is written as #012.
        Newline = "newline",
        /// After the bytes that are counted in front of it in digits (RFC 6587); an empty record is left out.
        Octet = "octet",
        /// At a NUL; one within a record is written as #000.
        Nul = "nul",
        /// After the bytes that are counted in front of it in 32 bits, big end first.
        Len32 = "len32",
    }
}

impl Check for TcpParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        check_addresses(&self.addr.0, "a tcp sink", table, findings);
        if let Some(tls) = &self.tls {
            tls.check(table, findings);
        }
    }
}

impl Check for SyslogParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        check_addresses(&self.addr.0, "a syslog sink", table, findings);
        if let Some(tls) = &self.tls {
            tls.check(table, findings);
        }
    }
}

fn check_addresses(addresses: &[String], of: &str, table: &Table, findings: &mut Findings) {
    if addresses.is_empty() {
        let finding = Diagnostic::error(Code::WP404, format!("{of} needs 'addr'")).at(table.place());
        findings.push(finding.help("name where it connects to:\naddr = \"logs.example.org:6514\""));
    }
    for address in addresses {
        let port = address.rsplit_once(':').map(|(_, port)| port).filter(|_| !address.ends_with(']'));
        let several = address.matches(':').count() > 1 && !address.starts_with('[');
        if !several && port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            let message = format!("wrong value for 'addr': '{address}' is not \"host:port\"");
            findings.push(Diagnostic::error(Code::WP404, message).at(table.place_of("addr")));
        }
    }
}
