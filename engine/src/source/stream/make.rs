//! From parameters to a running stream source: what the configuration says, in the words of framing and receiving.

use std::sync::Arc;

use super::{StreamRules, StreamSource};
use crate::assemble::Making;
use crate::config::tls::TlsListen;
use crate::config::types::Permissions;
use crate::diagnosis::Diagnostic;
use crate::frame::{Framing, Oversize, Rules};
use crate::io::listen::{Address, Listening};
use crate::io::stream::StreamOptions;
use crate::source::headers::{HeaderRules, zone};
use crate::source::inlet::InletRules;
use crate::source::part::Source;
use crate::source::port::{Transport, address, explain, open_to, patiently, protocol};
use crate::source::rate::Rate;
use crate::source::syslog::{self, SyslogParams};
use crate::source::tcp::{self, TcpParams};
use crate::syslog::YearPolicy;
use crate::tls::server::Server;

/// A syslog source over TCP or a unix stream.
///
/// # Errors
/// An address that cannot be bound, or files of TLS that cannot be used.
pub fn syslog(making: &Making<'_>, params: &SyslogParams) -> Result<Arc<dyn Source>, Diagnostic> {
    let framing = Rules {
        framing: match params.framing {
            syslog::Framing::Auto => Framing::Auto,
            syslog::Framing::Newline => Framing::Newline,
            syslog::Framing::Octet => Framing::Octet,
            syslog::Framing::Nul => Framing::Nul,
        },
        prefer_newline: params.prefer_newline,
        oversize: match params.oversize {
            syslog::Oversize::Truncate => Oversize::Truncate,
            syslog::Oversize::Drop => Oversize::Drop,
        },
        record_bytes_max: bytes(params.max_message_bytes.0),
    };
    let at = address(&params.addr, params.port);
    let is_tls = params.protocol == syslog::Protocol::Tls;
    let protocol = protocol(&at, Transport::Stream, is_tls);
    let rules = StreamRules {
        inlet: InletRules { framing: Some(framing), protocol, ..syslog_inlet(making, params) },
        framing,
        options: StreamOptions {
            budget_bytes: bytes(params.tcp_recv_bytes.0),
            connections_max: params.max_connections,
            idle: Some(params.idle_timeout).filter(|idle| !idle.is_zero()),
            bundle_wakes: true,
        },
        allow: params.allow.0.clone(),
        proxied: params.proxy_protocol,
        tls: tls(making, params.tls.as_ref().filter(|_| is_tls))?,
    };
    bind(making, rules, (&at, params.permissions), params.so_rcvbuf.map(|size| size.0))
}

/// A tcp source.
///
/// # Errors
/// An address that cannot be bound, or files of TLS that cannot be used.
pub fn tcp(making: &Making<'_>, params: &TcpParams) -> Result<Arc<dyn Source>, Diagnostic> {
    let at = address(&params.addr, params.port);
    let protocol = protocol(&at, Transport::Stream, params.tls.is_some());
    let rules = StreamRules {
        inlet: InletRules { protocol, ..inlet(making, "tcp", params.rate_limit) },
        framing: Rules {
            framing: match params.framing {
                tcp::Framing::Newline => Framing::Newline,
                tcp::Framing::Octet => Framing::Octet,
                tcp::Framing::Nul => Framing::Nul,
                tcp::Framing::Len32 => Framing::Len32,
            },
            prefer_newline: false,
            oversize: match params.oversize {
                tcp::Oversize::Truncate => Oversize::Truncate,
                tcp::Oversize::Drop => Oversize::Drop,
            },
            record_bytes_max: bytes(params.max_message_bytes.0),
        },
        options: StreamOptions {
            budget_bytes: bytes(params.tcp_recv_bytes.0),
            connections_max: params.max_connections,
            idle: Some(params.idle_timeout).filter(|idle| !idle.is_zero()),
            bundle_wakes: true,
        },
        allow: params.allow.0.clone(),
        proxied: params.proxy_protocol,
        tls: tls(making, params.tls.as_ref())?,
    };
    bind(making, rules, (&at, params.permissions), params.so_rcvbuf.map(|size| size.0))
}

fn tls(making: &Making<'_>, listen: Option<&TlsListen>) -> Result<Option<Arc<Server>>, Diagnostic> {
    let key = &making.config.key;
    let opened = listen.map(Server::open).transpose();
    opened.map_err(|mut finding| {
        finding.message.insert_str(0, &format!("source '{key}': "));
        finding.at(making.config.place.clone())
    })
}

/// How records of a syslog source enter, whatever brings them.
pub fn syslog_inlet(making: &Making<'_>, params: &SyslogParams) -> InletRules {
    let headers = HeaderRules {
        mode: params.header_mode,
        on_bad: params.on_bad_message,
        zone: zone(&params.timezone),
        year: match params.year {
            syslog::Year::Inferred => YearPolicy::Inferred,
            syslog::Year::Fixed(year) => YearPolicy::Fixed(year.into()),
        },
    };
    InletRules { headers: Some(headers), ..inlet(making, "syslog", params.rate_limit) }
}

fn inlet(making: &Making<'_>, kind: &str, rate_limit: u64) -> InletRules {
    let mut tags: Vec<_> = making.config.tags.iter().map(|t| (t.key.clone(), t.value.clone())).collect();
    tags.push(("source_type".to_owned(), kind.to_owned()));
    InletRules {
        key: Arc::clone(&making.config.key),
        host: Arc::clone(making.host),
        tags,
        headers: None,
        framing: None,
        protocol: "",
        rate: Rate::new(rate_limit).map(Arc::new),
    }
}

fn bind(
    making: &Making<'_>,
    rules: StreamRules,
    (at, permissions): (&Address, Permissions),
    so_rcvbuf: Option<u64>,
) -> Result<Arc<dyn Source>, Diagnostic> {
    let key = &making.config.key;
    let bind = || {
        let listening = Listening::bind(at, making.shards, so_rcvbuf)?;
        open_to(at, permissions).map(|()| listening)
    };
    let listening = patiently(Transport::Stream, at, bind).map_err(|error| {
        explain(&format!("source '{key}'"), Transport::Stream, at, &error).at(making.config.place.clone())
    })?;
    warn_if_short(key, listening.receive_buffer());
    Ok(Arc::new(StreamSource::new(rules, listening)))
}

/// Says it when the kernel grants less than was asked for, and what to raise.
pub fn warn_if_short(key: &str, granted: crate::io::sockopt::ReceiveBuffer) {
    if granted.is_short() {
        log::warn!(
            target: "wpgen::net",
            "source '{key}': so_rcvbuf = {} was wished, the kernel grants {}; sysctl -w net.core.rmem_max={} grants it",
            granted.wished_bytes, granted.granted_bytes, granted.wished_bytes
        );
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
