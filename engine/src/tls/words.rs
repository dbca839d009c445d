//! Why a TLS connection failed, in words for who runs it.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::escape::escape_outside;

/// What went wrong, and at whose end it is mended, where that is known.
pub fn explain(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => refused_by_peer(*alert),
        Error::NoCertificatesPresented => {
            "it presents no certificate, which 'client_ca' demands; the client needs a certificate and its key".into()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by none of the authorities in 'client_ca'".into()
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "its certificate is signed by an authority that has only the name of one in 'client_ca': its key is another".into()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".into()
        }
        Error::InvalidCertificate(why) => {
            format!("its certificate is refused: {}", escape_outside(why.to_string().as_bytes()))
        }
        Error::PeerIncompatible(why) => incompatible(why),
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => {
            "what it sends is not TLS, or was changed on the way".into()
        }
        Error::DecryptError => "a record cannot be decrypted: it was changed on the way".into(),
        other => escape_outside(other.to_string().as_bytes()),
    }
}

fn refused_by_peer(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA => "it does not trust who signed our certificate",
        AlertDescription::CertificateExpired => "our certificate has expired",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not accept our certificate; is it for the name the client connects to?"
        }
        _ => "it gave up",
    };
    format!("{why} (alert {alert:?})")
}

fn incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            format!("it speaks none of the versions in 'versions' ({why:?})")
        }
        _ => format!("it and we have no way in common: {why:?}"),
    }
}
