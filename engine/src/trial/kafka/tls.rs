//! A handshake with a broker that tells what it was shown: the certificate's subject, its last day, and the check it
//! fails. librdkafka would say only that verification failed.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    ProtocolVersion, RootCertStore, SignatureScheme, StreamOwned,
};

use super::settings::{Own, Tls};
use crate::diagnosis::{Code, Diagnostic};
use crate::escape::escape_outside;
use crate::tls::{client, load, provider, subject, validity};

/// What a handshake came to.
pub(super) enum Shaken {
    /// A connection, and what is to be said of it.
    Done(Box<StreamOwned<ClientConnection, TcpStream>>, String),
    /// What answered spoke no TLS, or nothing at all.
    NoTls(String),
    /// The certificate, or we, were refused.
    Refused(Diagnostic),
}

/// Shakes hands with `host`.
pub(super) fn shake(host: &str, mut stream: TcpStream, tls: &Tls) -> Result<Shaken, Diagnostic> {
    let roots = if tls.verify { Some(roots(tls)?) } else { None };
    let looker = Arc::new(Looker::new(roots, tls.verify_name)?);
    let (mut session, name) = session(host, tls, Arc::clone(&looker))?;
    match session.complete_io(&mut stream) {
        Ok(_) => {
            let version = match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                _ => "TLS 1.3",
            };
            let proof = if looker.has_verified() { ", verified" } else { ", not verified by us" };
            let found = format!("{name}: {version}{proof}; {}", looker.seen());
            Ok(Shaken::Done(Box::new(StreamOwned::new(session, stream)), found))
        }
        Err(error) => Ok(why(host, &error, tls, &looker)),
    }
}

fn why(host: &str, error: &io::Error, tls: &Tls, looker: &Looker) -> Shaken {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(why)) => Shaken::Refused(refused(host, why, tls, &looker.seen())),
        Some(Error::InvalidMessage(_)) => Shaken::NoTls("what it answers is no TLS".to_owned()),
        Some(Error::AlertReceived(alert)) => Shaken::Refused(turned_away(host, *alert).note(looker.seen())),
        Some(other) => Shaken::Refused(Diagnostic::error(
            Code::WP202,
            format!("{host}: SSL handshake failed: {}", escape_outside(other.to_string().as_bytes())),
        )),
        None => Shaken::NoTls(error.to_string()),
    }
}

/// The broker has refused us, by an alert. In TLS 1.3 that comes when the handshake is done on our side: what is asked first
/// fails so.
pub(super) fn alerted(host: &str, error: &io::Error) -> Option<Diagnostic> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Some(turned_away(host, *alert)),
        _ => None,
    }
}

fn turned_away(host: &str, alert: AlertDescription) -> Diagnostic {
    let message = format!("{host}: SSL handshake failed: the broker refuses us: {alert:?}");
    Diagnostic::error(Code::WP202, message)
        .help("it may want a certificate of ours: config = { ssl_certificate_location = \"...\", ssl_key_location = \"...\" }")
}

/// Why the certificate is refused, with what it says of itself.
fn refused(host: &str, why: &CertificateError, tls: &Tls, seen: &str) -> Diagnostic {
    let finding = |why: &str| {
        Diagnostic::error(Code::WP202, format!("{host}: SSL handshake failed: {why}")).note(seen.to_owned())
    };
    let trusted =
        tls.ca.as_ref().map_or_else(|| "the system's list".to_owned(), |path| path.display().to_string());
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            finding("the broker's certificate has expired").help("renew it at the broker (ssl.keystore.location there)")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            finding("the broker's certificate is not valid yet").help("set this machine's clock, or wait")
        }
        CertificateError::UnknownIssuer => {
            finding(&format!("the broker's certificate is signed by none of the authorities in {trusted}"))
                .help("put the certificate of the one that signed it into a PEM file:\nconfig = { ssl_ca_location = \"/etc/wpgen/ca.pem\" }")
        }
        CertificateError::BadSignature => {
            finding(&format!(
                "the broker's certificate is signed by an authority that has only the name of one in {trusted}: its key is another"
            ))
            .help("put the certificate of the one that signed it, the present one, into that file: ssl_ca_location")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            finding(&format!("the broker's certificate is not for the name '{host}'"))
                .help("connect to a name that it is for: openssl x509 -noout -ext subjectAltName shows them")
                .help("or leave the name unchecked: config = { ssl_endpoint_identification_algorithm = \"none\" }")
        }
        other => finding(&format!("the broker's certificate is refused: {}", escape_outside(other.to_string().as_bytes()))),
    }
}

fn roots(tls: &Tls) -> Result<RootCertStore, Diagnostic> {
    match &tls.ca {
        Some(path) => load::authorities(path),
        None => client::system_authorities(),
    }
}

fn session(host: &str, tls: &Tls, looker: Arc<Looker>) -> Result<(ClientConnection, String), Diagnostic> {
    let plain = |error: Error| Diagnostic::plain(format!("TLS cannot begin: {error}"));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(plain)?
        .dangerous()
        .with_custom_certificate_verifier(looker);
    let config = match &tls.own {
        Own::Files(cert, key) => builder
            .with_client_auth_cert(load::certificates(cert)?, load::key(key)?)
            .map_err(|error| load::unfit(cert, key, &error))?,
        Own::Nobody | Own::Elsewhere => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        Diagnostic::error(
            Code::WP201,
            format!("no broker can be named '{}'", escape_outside(host.as_bytes())),
        )
    })?;
    Ok((ClientConnection::new(Arc::new(config), name).map_err(plain)?, host.to_owned()))
}

/// Verifies as it should be, and remembers what it was shown.
#[derive(Debug)]
struct Looker {
    /// Nothing where nothing is verified.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    verify_name: bool,
    shown: Mutex<Option<CertificateDer<'static>>>,
    /// Whether the verifier was satisfied.
    verified: AtomicBool,
}

impl Looker {
    fn new(roots: Option<RootCertStore>, verify_name: bool) -> Result<Self, Diagnostic> {
        let verifier = roots
            .map(|roots| WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build())
            .transpose()
            .map_err(|error| Diagnostic::plain(format!("TLS cannot begin: {error}")))?;
        Ok(Self { verifier, verify_name, shown: Mutex::default(), verified: AtomicBool::new(false) })
    }

    /// Whether the certificate was verified, and not only looked at.
    fn has_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    /// The certificate that was shown, in words.
    fn seen(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(certificate) = shown.as_ref() else { return "it showed no certificate".to_owned() };
        let subject = subject::of(certificate)
            .map_or_else(|| "nobody".to_owned(), |name| escape_outside(name.as_bytes()));
        let until = validity::of(certificate).map_or_else(
            || "?".to_owned(),
            |validity| validity.until.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        );
        format!("certificate of {subject}, until {until}")
    }

    /// What OpenSSL, which judges in the end, judges as we do; the rest is left to it.
    fn is_ours_to_refuse(&self, why: &CertificateError) -> bool {
        match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                self.verify_name
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::UnknownIssuer
            | CertificateError::BadSignature => true,
            _ => false,
        }
    }
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(end.clone().into_owned());
        let Some(verifier) = &self.verifier else { return Ok(ServerCertVerified::assertion()) };
        match verifier.verify_server_cert(end, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(why)) if !self.is_ours_to_refuse(&why) => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => {
                self.verified.store(verdict.is_ok(), Ordering::Relaxed);
                verdict
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
