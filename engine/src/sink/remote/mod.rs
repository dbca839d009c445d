//! Sinks that write to another machine: tcp and syslog, one connection a shard, in order.
//!
//! A batch is delivered when the peer's kernel has acknowledged all of it, and the peer has not hung up at once. A
//! connection that breaks before that has every batch that was not acknowledged written again, whole, on the next one: a
//! record may arrive twice, and none is left out. Without a connection batches wait, and the sources' credit with them.
//! What the peer's kernel had acknowledged and its program had not read when it died is lost: plain TCP has no answer of
//! the program, and this sink refuses to pretend one.
//!
//! - `link` makes connections, to the next address where one fails, and holds what status tells
//! - `wire` is one connection, plain or under TLS
//! - `owner` writes batches and sends them home

mod link;
mod owner;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod wire;

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::link::Link;
use crate::batch::{ShardId, SinkId};
use crate::diagnosis::Diagnostic;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::sink::stream::{Framing, SyslogParams, TcpParams};
use crate::status::{SinkState, SinkStatus};
use crate::tls::client::Client;

/// A peer that refuses us takes the connection and hangs up at once: a list of who may send, a client's certificate in
/// TLS 1.3, a balancer with nobody behind it. What it acknowledged meanwhile does not count.
const PROBATION: Duration = Duration::from_millis(250);

/// What all connections of a sink go by.
#[derive(Debug)]
struct Settings {
    key: String,
    format: Format,
    framing: Framing,
    /// Each with its port; the first that answers is taken.
    addresses: Vec<String>,
    /// How TLS is spoken, where it is.
    tls: Option<Client>,
    connect_timeout: Duration,
    pause_min: Duration,
    pause_max: Duration,
    /// For so long after the connection is made nothing counts as delivered.
    probation: Duration,
}

/// What became of what the sink was given, on all shards.
#[derive(Debug, Default)]
struct Figures {
    records: AtomicU64,
    bytes: AtomicU64,
    repeated: AtomicU64,
    batches: AtomicU64,
    errors: AtomicU64,
    /// What is in the way of the shards that cannot write.
    troubles: Mutex<BTreeMap<ShardId, String>>,
}

impl Figures {
    fn troubles(&self) -> MutexGuard<'_, BTreeMap<ShardId, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tcp or syslog sink.
pub struct Remote {
    id: SinkId,
    settings: Arc<Settings>,
    figures: Arc<Figures>,
}

/// What the parameters of a sink say: both kinds have the same ones, with other defaults.
macro_rules! settings {
    ($key:expr, $params:expr) => {
        Settings {
            key: $key.to_owned(),
            format: $params.format,
            framing: $params.framing,
            addresses: $params.addr.0.iter().map(|addr| with_port(addr, $params.port)).collect(),
            tls: $params.tls.as_ref().map(Client::open).transpose()?,
            connect_timeout: $params.connect_timeout,
            pause_min: $params.reconnect_min,
            pause_max: $params.reconnect_max,
            probation: PROBATION,
        }
    };
}

impl Remote {
    /// A tcp sink.
    ///
    /// # Errors
    /// Files of TLS that cannot be used.
    pub fn tcp(id: SinkId, key: &str, params: &TcpParams) -> Result<Arc<Self>, Diagnostic> {
        Ok(Self::new(id, settings!(key, params)))
    }

    /// A syslog sink.
    ///
    /// # Errors
    /// Files of TLS that cannot be used.
    pub fn syslog(id: SinkId, key: &str, params: &SyslogParams) -> Result<Arc<Self>, Diagnostic> {
        Ok(Self::new(id, settings!(key, params)))
    }

    fn new(id: SinkId, settings: Settings) -> Arc<Self> {
        Arc::new(Self { id, settings: Arc::new(settings), figures: Arc::default() })
    }
}

/// The address with a port, as name resolution wants it.
pub fn with_port(address: &str, port: u16) -> String {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            address.to_owned()
        }
        Err(_) => format!("{address}:{port}"),
    }
}

/// The host of `host:port`.
pub fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl Sink for Remote {
    fn id(&self) -> SinkId {
        self.id
    }

    fn format(&self) -> Option<Format> {
        Some(self.settings.format)
    }

    fn wants_ends(&self) -> bool {
        // JSON has no newline within a line.
        self.settings.framing != Framing::Newline || self.settings.format != Format::Ndjson
    }

    fn start_owner(&self, shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
        let link = Link::new(shard.id(), Arc::clone(&self.settings), Arc::clone(&self.figures));
        tokio::task::spawn_local(owner::own(Rc::clone(shard), intake, link));
    }

    fn status(&self) -> SinkStatus {
        let figures = &self.figures;
        let trouble = figures.troubles().values().next().cloned();
        SinkStatus {
            key: self.settings.key.clone(),
            records: figures.records.load(Ordering::Relaxed),
            bytes: figures.bytes.load(Ordering::Relaxed),
            repeated: figures.repeated.load(Ordering::Relaxed),
            batches_in_flight: figures.batches.load(Ordering::Relaxed),
            errors: figures.errors.load(Ordering::Relaxed),
            state: trouble.map_or(SinkState::Ready, SinkState::Waiting),
            rescue: None,
        }
    }

    fn opened(&self) -> Vec<String> {
        let Settings { addresses, format, framing, tls, .. } = &*self.settings;
        let (addresses, tls) = (addresses.join(" or "), if tls.is_some() { ", TLS" } else { "" });
        vec![format!("{addresses}, {}, {} framing{tls}", format.name(), framing.as_str())]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
