//! `[engine]`, `[log]` and `[admin]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::params::{Param, Shape, params, words, wrong_type, wrong_value};
use super::tree::Node;
use super::units::Size;
use crate::diagnosis::Findings;

params! {
    /// What the engine as a whole may be told.
    pub struct EngineConfig {
        /// Shards; 0 is one for each CPU that is available.
        workers: u16 = 0, in 0..=1024;
        /// Everything the engine buffers, together.
        memory_limit: Size = "1GiB", in 16777216..=(1 << 50);
        /// Checkpoints, rescue files and endpoint history; locked by one engine.
        data_dir: PathBuf = "./data";
        /// The longest time between checkpoints.
        checkpoint_interval: Duration = "200ms", in 10..=3_600_000;
        /// How the kernel is asked: io_uring, epoll, or io_uring where it is allowed.
        io: IoMode = "auto";
        /// How long a stop waits for the sinks. Peers that go on sending are heard for a part of it, 2 to 3 s at most.
        drain_timeout: Duration = "30s", in 0..=86_400_000;
    }
}

words! {
    /// How the kernel is asked.
    pub enum IoMode {
        /// io_uring where it is allowed, else epoll.
        Auto = "auto",
        /// io_uring, or no start.
        Uring = "uring",
        /// epoll.
        Epoll = "epoll",
    }
}

/// The log's name in its folder; those of older ones begin with it.
pub const LOG_NAME: &str = "wpgen.log";

params! {
    /// The engine's log.
    pub struct LogConfig {
        /// What is logged; RUST_LOG, when set, wins.
        level: LogLevel = "info";
        /// The folder of the log; one file in it, ten older ones packed.
        dir: PathBuf = "./logs";
    }
}

words! {
    /// The least of what is logged.
    pub enum LogLevel {
        /// Nothing.
        Off = "off",
        /// What stopped.
        Error = "error",
        /// What went wrong and goes on.
        Warn = "warn" | "warning",
        /// What happens.
        Info = "info",
        /// What explains it.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

params! {
    /// The admin API.
    pub struct AdminConfig {
        /// Where it listens; "" turns it off.
        listen: AdminListen = "127.0.0.1:8080";
        /// The file that holds the token; "" is none.
        token_file: OptionalPath = "";
    }
}

/// Where the admin API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// Nowhere.
    Off,
    /// There.
    On(SocketAddr),
}

impl Param for AdminListen {
    const SHAPE: Shape = Shape::Text("\"address:port\", or \"\" for none");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        if text.is_empty() {
            return Some(Self::Off);
        }
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = local.as_deref().unwrap_or(text).parse().ok();
        if address.is_none() {
            wrong_value(node, name, &format!("'{text}' is not {}", Self::SHAPE.words()), findings);
        }
        address.map(Self::On)
    }
}

/// A path, or nothing when it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalPath(pub Option<PathBuf>);

impl Param for OptionalPath {
    const SHAPE: Shape = Shape::Text("a path, or \"\" for none");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        if node.as_text() == Some("") {
            return Some(Self(None));
        }
        PathBuf::read(node, name, findings).map(|path| Self(Some(path)))
    }
}
