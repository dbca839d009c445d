//! Syslog over UDP, TCP, TLS and unix sockets.

use std::time::Duration;

use crate::config::kinds::Check;
use crate::config::params::{Param, Shape, params, words, wrong_type};
use crate::config::tls::{self, TlsListen};
use crate::config::tree::{Node, Table};
use crate::config::types::{Cidr, ListenAddr, OneOrMany, Permissions};
use crate::config::units::Size;
use crate::diagnosis::{Code, Diagnostic, Findings};

params! {
    /// The parameters of a syslog source.
    pub struct SyslogParams {
        /// The address to listen on; `unix:/path` is a unix socket.
        addr: ListenAddr = "0.0.0.0";
        /// The port to listen on.
        port: u16 = 1514, in 1..=65535;
        /// Permissions of a unix socket, in octal: who may write may send.
        permissions: Permissions = "0666";
        /// How messages come.
        protocol: Protocol = "udp";
        /// What becomes of the header: its fields become metadata, it is cut off, or it stays.
        header_mode: HeaderMode = "parse";
        /// Where a message ends in a stream.
        framing: Framing = "auto";
        /// With auto framing: newline first, though never inside an octet frame that has begun.
        prefer_newline: bool = false;
        /// The source's receive memory on each shard, shared by its connections.
        tcp_recv_bytes: Size = "10485760", in 65536..=(1 << 30);
        /// The kernel's receive buffer; without it 8MiB for UDP and the system's own for streams.
        so_rcvbuf: Option<Size>, in 2304..=(1 << 30);
        /// UDP_GRO: far cheaper for senders that segment; drops are then a lower bound.
        gro: bool = false;
        /// Networks whose peers may send; empty allows all.
        allow: OneOrMany<Cidr>;
        /// Records a second for the source; 0 is no limit. A stop takes what has come and is on its way without it.
        rate_limit: u64 = 0;
        /// The longest message; a longer one is handled by `oversize`.
        max_message_bytes: Size = "1MiB", in 480..=(1 << 30);
        /// What happens to a message that is too long.
        oversize: Oversize = "truncate";
        /// Open connections at most; the newest is refused.
        max_connections: u32 = 10000, in 1..=1_000_000;
        /// A connection silent for this long is closed; 0 never.
        idle_timeout: Duration = "0", in 0..=604_800_000;
        /// Certificate and key for protocol = "tls".
        tls: Option<TlsListen>;
        /// Whether each connection begins with a PROXY header (v1 or v2).
        proxy_protocol: bool = false;
        /// What happens to a message that is not syslog.
        on_bad_message: OnBadMessage = "pass";
        /// The zone of times that name none (RFC 3164): local, a name as Europe/Berlin, or an offset as +08:00.
        timezone: String = "local";
        /// The year of times that name none.
        year: Year = "inferred";
    }
}

words! {
    /// How messages come.
    pub enum Protocol {
        /// One message a datagram.
        Udp = "udp",
        /// A stream.
        Tcp = "tcp",
        /// A stream under TLS.
        Tls = "tls",
    }
}

words! {
    /// What becomes of the header.
    pub enum HeaderMode {
        /// Its fields become metadata; the message alone is the record.
        Parse = "parse" | "tag",
        /// The message alone is the record.
        Strip = "strip" | "skip",
        /// The record is untouched.
        Keep = "keep" | "raw",
    }
}

words! {
    /// Where a message ends in a stream.
    pub enum Framing {
        /// Each frame says by its first bytes.
        Auto = "auto",
        /// At a newline.
        Newline = "newline",
        /// After the bytes that are counted in front of it (RFC 6587).
        Octet = "octet",
        /// At a NUL.
        Nul = "nul",
    }
}

words! {
    /// What happens to a message that is too long.
    pub enum Oversize {
        /// Its first bytes are the record.
        Truncate = "truncate",
        /// It is left out.
        Drop = "drop",
    }
}

words! {
    /// What happens to a message that is not syslog.
    pub enum OnBadMessage {
        /// It passes untouched, with the tag syslog_malformed:true.
        Pass = "pass",
        /// It is left out.
        Drop = "drop",
    }
}

/// The year of a time that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Year {
    /// The one that makes the time the nearest to now.
    Inferred,
    /// This one.
    Fixed(u16),
}

impl Param for Year {
    const SHAPE: Shape = Shape::Either(&Shape::Word(&["inferred"]), &Shape::Integer);

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        match (node.as_text(), node.as_integer()) {
            (Some("inferred"), _) => Some(Self::Inferred),
            (_, Some(year @ 1970..=9999)) => Some(Self::Fixed(year as u16)),
            _ => {
                wrong_type(node, name, &Self::SHAPE, findings);
                None
            }
        }
    }
}

impl Check for SyslogParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        if let Some(tls) = &self.tls {
            tls.check(table, findings);
        }
        let is_unix = matches!(self.addr, ListenAddr::Unix(_));
        if self.protocol == Protocol::Tls && self.tls.is_none() {
            let finding =
                Diagnostic::error(Code::WP404, "protocol = \"tls\" needs a certificate and its key");
            findings.push(finding.at(table.place_of("protocol")).help(tls::EXAMPLE));
        }
        if self.protocol == Protocol::Tls && is_unix {
            let finding = Diagnostic::error(Code::WP404, "a unix socket does not speak TLS");
            findings.push(finding.at(table.place_of("addr")).help("protocol = \"tcp\" is its stream"));
        }
        if self.protocol != Protocol::Tls && self.tls.is_some() {
            let message = format!("'tls' is not used with protocol = \"{}\"", self.protocol.as_str());
            let finding = Diagnostic::warning(Some(Code::WP404), message).at(table.place_of("tls"));
            findings.push(finding.help("protocol = \"tls\""));
        }
        if self.gro && self.protocol != Protocol::Udp {
            let message = format!("'gro' is not used with protocol = \"{}\"", self.protocol.as_str());
            findings.push(Diagnostic::warning(Some(Code::WP404), message).at(table.place_of("gro")));
        }
        if self.timezone != "local" && !is_zone(&self.timezone) {
            let message = format!("unknown time zone '{}'", self.timezone);
            let finding = Diagnostic::error(Code::WP404, message).at(table.place_of("timezone"));
            findings.push(
                finding.help("timezone = \"local\", a name as \"Europe/Berlin\", or an offset as \"+08:00\""),
            );
        }
    }
}

fn is_zone(name: &str) -> bool {
    let offset = || jiff::fmt::strtime::parse("%:z", name).is_ok();
    name.eq_ignore_ascii_case("utc") || offset() || jiff::tz::TimeZone::get(name).is_ok()
}
