//! What a sink needs to speak TLS: whom it trusts and who it is, read from files for each connection, so that files
//! that were renewed are used by the next one.
//!
//! The server's certificate is always verified: signed by an authority that is trusted, in its time, and for the name
//! that was connected to. There is no way to leave that out.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, RootCertStore};

use super::{load, provider, versions};
use crate::config::tls::TlsConnect;
use crate::diagnosis::{Code, Diagnostic};
use crate::escape::escape_outside;

/// Where Linux distributions keep the authorities that the whole system trusts; the first that is there is read.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Bytes of a page, of memory and of what the processor compares of addresses.
const PAGE_BYTES: usize = 4096;
/// What is encrypted first of what lies badly: so few that no copy of them takes `rep movsb`.
const ASIDE_BYTES: usize = 1024;

/// How many of `plaintext`'s bytes are best encrypted next, `at_most` of them.
///
/// rustls copies a record to where its header, five bytes, leaves off in a fresh allocation, which begins a page. Where the
/// destination of a copy is 1 to 15 bytes ahead of its source, modulo a page, `rep movsb` takes each load for one that
/// depends on the store before it, and does 3.5 GB/s in place of 108 (Zen 4). Plaintext at the beginning of a page lies
/// just so, and so does all that follows in whole records; a small record first moves it.
pub fn portion(plaintext: &[u8], at_most: usize) -> usize {
    let into_page = plaintext.as_ptr().addr() % PAGE_BYTES;
    let lies_badly = (into_page + 10) % PAGE_BYTES < 15;
    plaintext.len().min(if lies_badly { ASIDE_BYTES } else { at_most })
}

/// TLS of a sink.
#[derive(Clone, Debug)]
pub struct Client {
    connect: TlsConnect,
}

impl Client {
    /// Reads and checks the files once.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn open(connect: &TlsConnect) -> Result<Self, Diagnostic> {
        let client = Self { connect: connect.clone() };
        client.config()?;
        if let Some(name) = &connect.server_name {
            server_name(name)?;
        }
        Ok(client)
    }

    /// Begins a connection to `host`. Reads files, so it is no work for a shard's thread.
    ///
    /// # Errors
    /// Why the files cannot be used, or that a server cannot have that name.
    pub fn session(&self, host: &str) -> Result<ClientConnection, Diagnostic> {
        let name = server_name(self.connect.server_name.as_deref().unwrap_or(host))?;
        ClientConnection::new(Arc::new(self.config()?), name)
            .map_err(|error| Diagnostic::plain(format!("TLS cannot begin: {error}")))
    }

    fn config(&self) -> Result<ClientConfig, Diagnostic> {
        let TlsConnect { ca, cert, key, versions: named, .. } = &self.connect;
        let roots = match ca {
            Some(path) => load::authorities(path)?,
            None => system_authorities()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(&named.0))
            .map_err(|error| Diagnostic::error(Code::WP404, format!("'versions' of 'tls': {error}")))?
            .with_root_certificates(roots);
        let mut config = match (cert, key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(load::certificates(cert)?, load::key(key)?)
                .map_err(|error| load::unfit(cert, key, &error))?,
            _ => builder.with_no_client_auth(),
        };
        // Each connection has a configuration of its own.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Why a connection to `host` failed, and what mends it.
    pub fn explain(&self, host: &str, error: &Error) -> String {
        match error {
            Error::InvalidCertificate(why) => self.refused(host, why),
            Error::AlertReceived(alert) => self.refused_us(*alert),
            Error::PeerIncompatible(why) => {
                format!("the server and we have no way in common: {why:?}; see 'versions' of both ends")
            }
            Error::InvalidMessage(_) => {
                "what the server answers is not TLS; is this its port for TLS?".to_owned()
            }
            other => escape_outside(other.to_string().as_bytes()),
        }
    }

    /// Why we refuse the server.
    fn refused(&self, host: &str, why: &CertificateError) -> String {
        let said = |text: String| escape_outside(text.as_bytes());
        match why {
            CertificateError::NotValidForName => format!("the server's certificate is not for {host}"),
            CertificateError::NotValidForNameContext { expected, presented } => {
                let expected = expected.to_str();
                let names: Vec<&str> = presented.iter().map(|shown| bare(shown)).collect();
                let names = if names.is_empty() { "no name".to_owned() } else { said(names.join(", ")) };
                format!(
                    "the server's certificate is not for {expected}, but for {names}; connect to such a name, or \
                     say which one is right: tls.server_name"
                )
            }
            CertificateError::UnknownIssuer => format!(
                "the server's certificate is signed by none of the authorities in {}; put the one that signed it into \
                 a file: tls.ca",
                self.trusted()
            ),
            CertificateError::BadSignature => format!(
                "the server's certificate is signed by an authority that has only the name of one in {}: its key is \
                 another; put the present one into that file: tls.ca",
                self.trusted()
            ),
            CertificateError::Expired => "the server's certificate has expired; renew it there".to_owned(),
            CertificateError::ExpiredContext { not_after, .. } => {
                let until =
                    jiff::Timestamp::from_second(i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX));
                let until = until.map_or_else(
                    |_| "long ago".to_owned(),
                    |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
                );
                format!("the server's certificate has expired on {until}; renew it there")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet; is this machine's clock right?".to_owned()
            }
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the server presents the certificate of an authority; it needs one of its own, signed by it"
                    .to_owned()
            }
            other => format!("the server's certificate is refused: {}", said(other.to_string())),
        }
    }

    /// Why the server refuses us.
    fn refused_us(&self, alert: AlertDescription) -> String {
        let own = self.connect.cert.as_deref().map(Path::display);
        let why = match (alert, own) {
            (AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure, None) => {
                "the server wants a certificate of ours: tls.cert and tls.key".to_owned()
            }
            (AlertDescription::UnknownCA, Some(own)) => {
                format!("the server does not trust who signed our certificate, {own}")
            }
            (AlertDescription::CertificateExpired, Some(own)) => {
                format!("the server finds our certificate expired, {own}; renew it")
            }
            (AlertDescription::ProtocolVersion, _) => {
                "the server speaks none of the versions in tls.versions".to_owned()
            }
            (_, Some(own)) => format!("the server hung up; it may not accept our certificate, {own}"),
            (_, None) => "the server hung up".to_owned(),
        };
        format!("{why} (alert {alert:?})")
    }

    fn trusted(&self) -> String {
        match &self.connect.ca {
            Some(path) => path.display().to_string(),
            None => "the system's list".to_owned(),
        }
    }
}

/// Ends a handshake in words: what the connection said, or TLS itself.
impl Client {
    /// The error of a step of a connection to `host`, with TLS's own explained.
    pub fn in_words(&self, host: &str, error: io::Error) -> io::Error {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(tls) => io::Error::new(io::ErrorKind::InvalidData, self.explain(host, tls)),
            None => error,
        }
    }
}

/// A name as rustls shows it, `DnsName("localhost")`, without what is around it.
fn bare(shown: &str) -> &str {
    let inner = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(shown);
    inner.trim_matches('"')
}

fn server_name(name: &str) -> Result<ServerName<'static>, Diagnostic> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let message = format!("no server can prove that it is '{}'", escape_outside(name.as_bytes()));
        Diagnostic::error(Code::WP404, message)
            .help("tls.server_name takes a host name or an IP address, as in the server's certificate")
    })
}

/// The authorities that the whole system trusts.
///
/// # Errors
/// That it has no list of them, or why that cannot be used.
pub fn system_authorities() -> Result<RootCertStore, Diagnostic> {
    let Some(path) = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists()) else {
        let message = "this system has no list of trusted authorities";
        return Err(Diagnostic::error(Code::WP404, message)
            .help("name the one that signed the server's certificate: tls.ca = \"/etc/wpgen/ca.pem\"")
            .help("or install the list: apt-get install ca-certificates"));
    };
    let mut roots = RootCertStore::empty();
    // Old authorities that cannot be used are nobody's loss.
    roots.add_parsable_certificates(load::certificates(path)?);
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{ALIGN, Arena};

    #[test]
    fn what_begins_a_page_is_moved_off_it_and_nothing_is_left_out() {
        let mut arena = Arena::new(100_000);
        arena.extend(&[1; 100_000]);
        let bytes = arena.filled();
        assert_eq!((bytes.as_ptr().addr() % ALIGN, portion(bytes, 16 << 10)), (0, ASIDE_BYTES));
        assert_eq!((portion(&bytes[..9], 16 << 10), portion(&[], 16 << 10)), (9, 0));
        for start in [0, 4, 5, 77, ALIGN - 11, ALIGN - 10, ALIGN - 1] {
            let (mut at, mut portions) = (start, 0);
            while at < bytes.len() {
                let next = portion(&bytes[at..], 16 << 10);
                // A record's copy lies five bytes into a page.
                let ahead = 5usize.wrapping_sub(at) % ALIGN;
                assert!(!(1..16).contains(&ahead) || next <= ASIDE_BYTES, "{start} {at}");
                (at, portions) = (at + next, portions + 1);
            }
            assert!(at == bytes.len() && portions <= 8);
        }
    }
}
