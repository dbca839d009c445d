//! TLS: certificates and keys from files, checked and renewed, and connections as bytes in and bytes out.
//!
//! [`load`] reads PEM files and says what is wrong with them; [`server`] makes and renews what a listening source needs;
//! [`session`] is one of its connections; [`client`] is what a sink needs. Sockets are the caller's: nothing here reads
//! or writes one. Certificates are verified against the system's clock.

pub mod client;
mod der;
pub mod load;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
pub(crate) mod rig;
pub mod server;
pub mod session;
#[cfg(test)]
mod session_tests;
pub(crate) mod subject;
pub(crate) mod validity;
pub mod words;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;

use crate::config::tls::TlsVersion;

/// The cryptography that is used.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The versions that a configuration names.
pub fn versions(named: &[TlsVersion]) -> Vec<&'static SupportedProtocolVersion> {
    let version = |named: &TlsVersion| match named {
        TlsVersion::V12 => &rustls::version::TLS12,
        TlsVersion::V13 => &rustls::version::TLS13,
    };
    named.iter().map(version).collect()
}
