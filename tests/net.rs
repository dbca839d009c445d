//! What the tests of sources that listen share: an engine at an address of its own, and what it made of what was sent.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use crate::harness::{Site, Started, status, until_ok};

/// Both ways to receive.
pub const BACKENDS: [&str; 2] = ["uring", "epoll"];
/// The port of every engine here; they differ in their addresses.
pub const PORT: u16 = 15_140;

/// How an engine listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp,
    /// UDP over IPv6.
    Udp6,
    /// A unix stream socket.
    UnixStream,
    /// A unix datagram socket.
    UnixDatagram,
}

impl By {
    fn protocol(self) -> &'static str {
        match self {
            Self::Tcp | Self::Tcp6 | Self::UnixStream => "tcp",
            Self::Udp | Self::Udp6 | Self::UnixDatagram => "udp",
        }
    }
}

/// An address of 127.0.0.0/8 that no other engine has, in this process or another: so no test finds its port taken.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, a, b, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A running engine with one source that listens.
pub struct Net {
    /// Its folder; records are in the file `out`.
    pub site: Site,
    /// The engine.
    pub engine: Started,
    /// Its address, where it is one of IP.
    pub at: SocketAddr,
}

impl Net {
    /// A syslog source that keeps records as they are, and raw lines; `params` are further lines of TOML.
    pub fn start(io: &str, by: By, params: &str) -> Self {
        Self::with(io, by, &format!("header_mode = \"keep\"\n{params}"), "path = \"out\"\nformat = \"raw\"")
    }

    /// A syslog source and a file sink with these parameters.
    pub fn with(io: &str, by: By, params: &str, sink: &str) -> Self {
        let site = Site::empty();
        let at: SocketAddr = match by {
            // Loopback has one address of IPv6: its ports are looked for.
            By::Tcp6 => TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap(),
            By::Udp6 => UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap(),
            _ => (own_address(), PORT).into(),
        };
        let addr = match by {
            By::UnixStream | By::UnixDatagram => format!("unix:{}", site.path("socket").display()),
            _ => at.ip().to_string(),
        };
        let (port, protocol) = (at.port(), by.protocol());
        let source = format!("addr = \"{addr}\"\nport = {port}\nprotocol = \"{protocol}\"\n{params}");
        site.configure_source(io, &format!("syslog_{protocol}_src"), &source, sink);
        let engine = site.start();
        Self { site, engine, at }
    }

    /// The path of a unix socket.
    pub fn socket(&self) -> PathBuf {
        self.site.path("socket")
    }

    /// How the source is.
    pub fn source(&self) -> Value {
        status(self.site.folder())["sources"][0].take()
    }

    /// A figure of the source.
    pub fn figure(&self, name: &str) -> u64 {
        self.source()[name].as_u64().unwrap_or(0)
    }

    /// Waits until so many records were received and are in the file.
    pub fn await_delivered(&self, records: u64) {
        until_ok(&format!("{records} records are delivered"), || {
            let source = self.source();
            let done = source["delivered"] == records && source["records_in"] == records;
            if done { Ok(()) } else { Err(source) }
        });
    }

    /// Ends the engine; the lines it wrote.
    pub fn lines(self) -> Vec<String> {
        self.engine.stop();
        let text = String::from_utf8(self.site.read("out")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}
