//! What a Kafka entry's `config` says about how a broker is reached, with librdkafka's defaults.

use std::path::{Path, PathBuf};

use crate::config::kafka::ClientConfig;
use crate::diagnosis::{Code, Diagnostic, nearest};

const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const PORT: u16 = 9092;

/// How a broker is reached.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// TLS, if it is spoken.
    pub(super) tls: Option<Tls>,
    /// The mechanism of SASL, if that is spoken.
    pub(super) mechanism: Option<String>,
    /// Whether the mechanism was written, or is librdkafka's default.
    pub(super) mechanism_given: bool,
}

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    /// Whether the broker's certificate is verified,
    pub(super) verify: bool,
    /// and whether for its name as well.
    pub(super) verify_name: bool,
    /// The file of the authorities that are trusted; the system's where there is none.
    pub(super) ca: Option<PathBuf>,
    /// Our certificate and key.
    pub(super) own: Own,
}

/// Who we are in TLS.
#[derive(Clone, Debug)]
pub(super) enum Own {
    /// Nobody.
    Nobody,
    /// The holder of these PEM files: certificate, key.
    Files(PathBuf, PathBuf),
    /// Somebody whose papers only librdkafka can read: PKCS#12, a passphrase, an engine.
    Elsewhere,
}

impl Settings {
    pub(super) fn of(config: &ClientConfig) -> Result<Self, Diagnostic> {
        let value = |key: &str| config.0.get(key).map(String::as_str);
        let protocol = value("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        if !PROTOCOLS.contains(&protocol.as_str()) {
            let message = format!("wrong value for 'security.protocol': '{protocol}'");
            let near = nearest(&protocol, &PROTOCOLS).map(|near| format!("did you mean '{near}'?"));
            return Err(Diagnostic::error(Code::WP404, message)
                .help_if(near)
                .help(format!("it is one of {}", PROTOCOLS.join(", "))));
        }
        let mechanism = value("sasl.mechanisms");
        Ok(Self {
            tls: protocol.ends_with("ssl").then(|| Tls::of(config)),
            mechanism: protocol.starts_with("sasl").then(|| mechanism.unwrap_or("GSSAPI").to_owned()),
            mechanism_given: mechanism.is_some(),
        })
    }
}

impl Tls {
    fn of(config: &ClientConfig) -> Self {
        let value = |key: &str| config.0.get(key).map(String::as_str);
        let file = |key: &str| value(key).map(PathBuf::from);
        let elsewhere = ["ssl.keystore.location", "ssl.key.password", "ssl.certificate.pem", "ssl.key.pem"];
        let own = match (file("ssl.certificate.location"), file("ssl.key.location")) {
            _ if elsewhere.iter().any(|key| value(key).is_some()) => Own::Elsewhere,
            (Some(cert), Some(key)) => Own::Files(cert, key),
            _ => Own::Nobody,
        };
        // Folders and texts of authorities are OpenSSL's alone: it verifies then, we only look.
        let ca = file("ssl.ca.location").filter(|path| path != Path::new("probe"));
        let ours = value("ssl.ca.pem").is_none() && !ca.as_deref().is_some_and(Path::is_dir);
        let wanted = value("enable.ssl.certificate.verification") != Some("false");
        let named = value("ssl.endpoint.identification.algorithm") != Some("none");
        Self { verify: wanted && ours, verify_name: named, ca, own }
    }
}

/// The host and the port of a broker as it is written.
pub(super) fn host_and_port(broker: &str) -> (&str, u16) {
    let broker = broker.rsplit("://").next().unwrap_or(broker);
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(PORT)),
        _ => (broker, PORT),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, Diagnostic> {
        let map = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Settings::of(&ClientConfig(map.collect()))
    }

    #[test]
    fn the_protocol_says_what_is_spoken() {
        let plain = settings(&[]).unwrap();
        assert!(plain.tls.is_none() && plain.mechanism.is_none());
        let both = settings(&[("security.protocol", "SASL_SSL")]).unwrap();
        assert!(both.tls.is_some_and(|tls| tls.verify && tls.verify_name));
        assert_eq!((both.mechanism.as_deref(), both.mechanism_given), (Some("GSSAPI"), false));
        let wrong = settings(&[("security.protocol", "SASL_SLS")]).unwrap_err();
        assert!(wrong.help[0].contains("'sasl_ssl'"), "{wrong:?}");
    }

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        assert_eq!(host_and_port("kafka1"), ("kafka1", 9092));
        assert_eq!(host_and_port("SSL://kafka1:9093"), ("kafka1", 9093));
        assert_eq!(host_and_port("[::1]:1"), ("::1", 1));
        assert_eq!(host_and_port("[::1]"), ("::1", 9092));
    }
}
