//! Where messages go to and come from, as typed: `tcp://10.0.0.1:514`, `unix:/run/in`, `file:out.log`.
//!
//! Pure: names are not looked up here. What cannot be reached yet is refused with the reason.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Datagrams to a host and port.
    Udp(String),
    /// A connection to a host and port.
    Tcp(String),
    /// A connection with TLS to a host and port.
    Tls(String),
    /// A unix socket, stream or datagram.
    Unix(PathBuf),
    /// The end of a file.
    File(PathBuf),
    /// A topic of Kafka.
    Kafka {
        /// `host:port`, more than one with commas between.
        brokers: String,
        /// The topic.
        topic: String,
    },
}

const FORMS: &str =
    "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT, unix:PATH, file:PATH or kafka://BROKERS/TOPIC";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("expected {FORMS}"));
        };
        match scheme {
            "udp" => host_port(rest).map(Self::Udp),
            "tcp" => host_port(rest).map(Self::Tcp),
            "tls" => host_port(rest).map(Self::Tls),
            "unix" => path(rest).map(Self::Unix),
            "file" => path(rest).map(Self::File),
            "kafka" if !cfg!(feature = "kafka") => Err("this build is without Kafka".to_owned()),
            "kafka" => kafka(rest),
            "mqtt" => Err(format!("mqtt:// is not built yet: wpgen has no mqtt source so far; {FORMS} work")),
            _ => Err(format!("'{scheme}' is not known; expected {FORMS}")),
        }
    }
}

/// `//host:port`
fn host_port(rest: &str) -> Result<String, String> {
    let address = rest.strip_prefix("//").unwrap_or(rest);
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.map(u16::from_str) {
        Some(Ok(_)) => Ok(address.to_owned()),
        Some(Err(_)) => Err("the port is no number from 0 to 65535".to_owned()),
        None => Err("a host and a port are needed, for example tcp://127.0.0.1:9000".to_owned()),
    }
}

impl Target {
    /// Whether it takes each message for itself, so that none needs an end of its own.
    pub fn keeps_apart(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Kafka { .. })
    }
}

/// `//host:port,host:port/topic`
fn kafka(rest: &str) -> Result<Target, String> {
    let place = rest.strip_prefix("//").unwrap_or(rest);
    let parts = place.rsplit_once('/').filter(|(brokers, topic)| {
        !topic.is_empty() && brokers.split(',').all(|broker| host_port(broker).is_ok())
    });
    let (brokers, topic) = parts.ok_or(
        "a topic is needed, and a host and a port of each broker, for example kafka://127.0.0.1:9092/logs",
    )?;
    Ok(Target::Kafka { brokers: brokers.to_owned(), topic: topic.to_owned() })
}

/// `path`, `//path` and `///path`: one to three slashes all mean what they look like.
fn path(rest: &str) -> Result<PathBuf, String> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() { Err("a path is needed".to_owned()) } else { Ok(PathBuf::from(path)) }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(out, "udp://{address}"),
            Self::Tcp(address) => write!(out, "tcp://{address}"),
            Self::Tls(address) => write!(out, "tls://{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Kafka { brokers, topic } => write!(out, "kafka://{brokers}/{topic}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_is_read() {
        for (text, target) in [
            ("udp://127.0.0.1:514", Target::Udp("127.0.0.1:514".into())),
            ("tcp://[::1]:9000", Target::Tcp("[::1]:9000".into())),
            ("tcp:localhost:1", Target::Tcp("localhost:1".into())),
            ("tls://localhost:6514", Target::Tls("localhost:6514".into())),
            ("unix:/run/x", Target::Unix("/run/x".into())),
            ("unix:///run/x", Target::Unix("/run/x".into())),
            ("file:out.log", Target::File("out.log".into())),
            #[cfg(feature = "kafka")]
            ("kafka://a:9092,b:9093/t", Target::Kafka { brokers: "a:9092,b:9093".into(), topic: "t".into() }),
        ] {
            let read: Target = text.parse().unwrap();
            assert_eq!(read, target, "{text}");
            assert_eq!(read.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn what_does_not_is_refused_with_the_reason() {
        for (text, reason) in [
            ("127.0.0.1", "expected udp://"),
            ("tcp://127.0.0.1", "a host and a port"),
            ("tcp://:9", "a host and a port"),
            ("tcp://h:99999", "port"),
            ("file:", "path"),
            ("http://h:1", "'http' is not known"),
            #[cfg(feature = "kafka")]
            ("kafka://b/t", "a host and a port of each broker"),
            #[cfg(feature = "kafka")]
            ("kafka://b:9092", "a topic is needed"),
            ("mqtt://h:1883/t", "no mqtt source so far"),
            ("tls://h", "a host and a port"),
        ] {
            let refused = text.parse::<Target>().unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
