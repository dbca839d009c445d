//! TLS, on both sides of a connection.

use std::path::PathBuf;

use super::params::{params, words};
use super::tree::Table;
use super::types::OneOrMany;
use crate::diagnosis::{Code, Diagnostic, Findings};

params! {
    /// TLS of a source: who we are, and whom we let in.
    pub struct TlsListen {
        /// PEM file of our certificate and those it was signed with.
        cert: Option<PathBuf>;
        /// PEM file of our key.
        key: Option<PathBuf>;
        /// PEM file of the authority that signs clients; with it a client without a certificate is refused, and records bear
        /// the subject of the client's as tls_subject.
        client_ca: Option<PathBuf>;
        /// Versions that are spoken.
        versions: OneOrMany<TlsVersion> = "1.2,1.3";
    }
}

impl TlsListen {
    /// Tells what is missing.
    pub fn check(&self, table: &Table, findings: &mut Findings) {
        for (name, given) in [("cert", self.cert.is_some()), ("key", self.key.is_some())] {
            if !given {
                let message = format!("'tls' needs '{name}', a PEM file");
                findings
                    .push(Diagnostic::error(Code::WP404, message).at(table.place_of("tls")).help(EXAMPLE));
            }
        }
    }
}

/// The line to paste for a source that speaks TLS.
pub const EXAMPLE: &str = "add:\ntls = { cert = \"/etc/wpgen/server.pem\", key = \"/etc/wpgen/server.key\" }";

params! {
    /// TLS of a sink: whom we trust, and who we are.
    pub struct TlsConnect {
        /// PEM file of the authorities we trust; without it those of the system.
        ca: Option<PathBuf>;
        /// PEM file of our certificate, for servers that ask.
        cert: Option<PathBuf>;
        /// PEM file of our key.
        key: Option<PathBuf>;
        /// The name the server must prove; without it the host of the address.
        server_name: Option<String>;
        /// Versions that are spoken.
        versions: OneOrMany<TlsVersion> = "1.2,1.3";
    }
}

impl TlsConnect {
    /// Tells what is missing.
    pub fn check(&self, table: &Table, findings: &mut Findings) {
        let (missing, given) = match (&self.cert, &self.key) {
            (Some(_), None) => ("key", "cert"),
            (None, Some(_)) => ("cert", "key"),
            _ => return,
        };
        let message = format!("'tls' has '{given}' and no '{missing}': a certificate goes with its key");
        let finding = Diagnostic::error(Code::WP404, message).at(table.place_of("tls"));
        findings.push(
            finding.help("add:\ntls = { cert = \"/etc/wpgen/client.pem\", key = \"/etc/wpgen/client.key\" }"),
        );
    }
}

words! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// 1.2.
        V12 = "1.2",
        /// 1.3.
        V13 = "1.3",
    }
}
