//! The receiver as a user has it: a configuration, one worker, defaults where nothing is said.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::engine::{Engine, Observer};

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the engine's counters.
const LOOK: Duration = Duration::from_millis(1);

/// A running engine, in a folder of its own.
pub struct Receiver {
    engine: Engine,
    /// What it has, for any thread.
    pub watch: Watch,
    _folder: tempfile::TempDir,
}

impl Receiver {
    /// An engine with these sources and sinks; relative paths are below its folder.
    pub fn start(parts: &str) -> Self {
        Self::start_in(folder(), parts)
    }

    /// The same in a folder that is there.
    pub fn start_in(folder: tempfile::TempDir, parts: &str) -> Self {
        let file = folder.path().join("wpsrc.toml");
        let text = format!("[engine]\nworkers = 1\ndata_dir = \"./data\"\n{parts}");
        std::fs::write(&file, text).expect("room for a configuration");
        let environment = engine::config::Environment { var: &|_| None, cpus: 1 };
        let loaded = engine::config::load(&file, &environment)
            .map_err(|found| format!("{found:?}"))
            .expect("it loads");
        let engine =
            engine::assemble::start(&loaded.config).map_err(|e| e[0].to_string()).expect("the engine starts");
        let watch = Watch(engine.observer());
        Self { engine, watch, _folder: folder }
    }

    /// Ends it; all that was received must have been delivered.
    pub fn end(self) {
        let (settled, status) = self.engine.drain(PATIENCE);
        assert!(settled, "the engine drains: {status:?}");
        for source in &status.sources {
            assert_eq!(source.records_in, source.delivered, "every message is delivered");
        }
    }
}

/// A new folder on the disk that the bench is to use.
pub fn folder() -> tempfile::TempDir {
    let home = std::env::var_os("WPGEN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(home).expect("a folder for the bench")
}

/// What an engine has received.
pub struct Watch(Observer);

impl Watch {
    /// Messages of the first source: received, and dropped by the kernel.
    pub fn received(&self) -> (u64, u64) {
        let status = self.0.status();
        let source = &status.sources[0];
        (source.records_in, source.kernel_drops)
    }

    /// Bytes that a source has received.
    pub fn bytes(&self, source: usize) -> u64 {
        self.0.status().sources[source].bytes_in
    }

    /// Whether all that a source has received is delivered.
    pub fn is_delivered(&self, source: usize) -> bool {
        let status = self.0.status();
        status.sources[source].records_in == status.sources[source].delivered
    }

    /// Waits until `sent` messages of the first source are received or known to be lost; the lost ones.
    pub fn account_for(&self, sent: u64, exactly: bool) -> u64 {
        let start = Instant::now();
        let mut last = ((0, 0), Instant::now());
        loop {
            let now = self.received();
            if now.0 + now.1 >= sent {
                assert_eq!(now.0 + now.1, sent, "no message twice");
                return now.1;
            }
            if now != last.0 {
                last = (now, Instant::now());
            }
            // Of merged datagrams the kernel counts one.
            if !exactly && now.1 > 0 && last.1.elapsed() > Duration::from_secs(1) {
                return sent - now.0;
            }
            assert!(start.elapsed() < PATIENCE, "{sent} messages sent, {now:?} received and lost");
            std::thread::sleep(LOOK);
        }
    }
}

/// A port at which no one listens.
pub fn free_port(udp: bool) -> SocketAddr {
    let at = ("127.0.0.1", 0);
    if udp {
        UdpSocket::bind(at).and_then(|socket| socket.local_addr()).expect("a free port")
    } else {
        TcpListener::bind(at).and_then(|socket| socket.local_addr()).expect("a free port")
    }
}

/// A syslog source at an address, with what else is to be said of it.
pub fn syslog_source(key: &str, at: SocketAddr, protocol: &str, more: &str) -> String {
    let (connect, ip, port) = (format!("syslog_{protocol}_src"), at.ip(), at.port());
    format!(
        "[[sources]]\nkey = \"{key}\"\nconnect = \"{connect}\"\nparams = {{ addr = \"{ip}\", port = {port}{more} }}\n"
    )
}

/// A sink of a kind, fed by the sources that `sources` names.
pub fn sink(key: &str, connect: &str, sources: &str, params: &str) -> String {
    format!(
        "[[sinks]]\nkey = \"{key}\"\nconnect = \"{connect}\"\nsources = [\"{sources}\"]\nparams = {{ {params} }}\n"
    )
}
