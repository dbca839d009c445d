//! What the tests of sources that listen share: an engine at an address of its own, and what it made of what was sent.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::{Site, Started, fifo, status, until, until_ok};

/// Both ways to receive.
pub const BACKENDS: [&str; 2] = ["uring", "epoll"];
/// The port of every engine here; they differ in their addresses.
pub const PORT: u16 = 15_140;

/// A file sink of lines, and one of JSON.
pub const RAW: &str = "path = \"out\"\nformat = \"raw\"";
pub const NDJSON: &str = "path = \"out\"\nformat = \"ndjson\"";

/// How an engine listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// TCP over IPv4.
    Tcp,
    /// TLS over TCP.
    Tls,
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
            Self::Tls => "tls",
            Self::Udp | Self::Udp6 | Self::UnixDatagram => "udp",
        }
    }
}

/// An address of 127.0.0.0/8 that no other engine has, in this process or another: so no test finds its port taken.
pub fn own_address() -> Ipv4Addr {
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
        Self::with(io, by, &format!("header_mode = \"keep\"\n{params}"), RAW)
    }

    /// As [`Net::start`], with a sink that takes nothing until there is a [`Net::reader`].
    pub fn stalled(io: &str, by: By, params: &str) -> Self {
        let site = Site::empty();
        fifo(&site.path("out"));
        Self::at(site, io, by, &format!("header_mode = \"keep\"\n{params}"), RAW)
    }

    /// A syslog source and a file sink with these parameters.
    pub fn with(io: &str, by: By, params: &str, sink: &str) -> Self {
        Self::at(Site::empty(), io, by, params, sink)
    }

    fn at(site: Site, io: &str, by: By, params: &str, sink: &str) -> Self {
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
        let connect = if protocol == "udp" { "syslog_udp_src" } else { "syslog_tcp_src" };
        site.configure_source(io, connect, &source, sink);
        let engine = site.start();
        Self { site, engine, at }
    }

    /// The path of a unix socket.
    pub fn socket(&self) -> PathBuf {
        self.site.path("socket")
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).unwrap()
    }

    /// Reads the FIFO of a stalled sink from now on.
    pub fn reader(&self) -> Reader {
        let read: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (path, into) = (self.site.path("out"), Arc::clone(&read));
        std::thread::spawn(move || {
            let mut fifo = File::open(path).unwrap();
            let mut piece = [0; 1 << 16];
            // It ends with the engine.
            while let Ok(n @ 1..) = fifo.read(&mut piece) {
                into.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        Reader(read)
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

/// What comes out of a FIFO.
pub struct Reader(Arc<Mutex<Vec<u8>>>);

impl Reader {
    /// Waits for so many lines.
    pub fn lines(&self, n: usize) -> Vec<String> {
        until("the FIFO has them", || self.0.lock().unwrap().iter().filter(|b| **b == b'\n').count() >= n);
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}
