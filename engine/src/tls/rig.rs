//! Certificates for tests, made with the openssl command, and clients that trust them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion};

use super::{load, provider};
use crate::config::tls::{TlsListen, TlsVersion};
use crate::config::types::OneOrMany;

const EXTENSIONS: &str = "[req]\ndistinguished_name = name\n[name]\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\n\
    [leaf]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n";

/// A folder with certificates: `NAME.pem` and `NAME.key`.
pub(crate) struct Papers(tempfile::TempDir);

impl Papers {
    /// An authority `ca`, and `server` and `client` signed by it.
    pub(crate) fn new() -> Self {
        let papers = Self(tempfile::tempdir().unwrap());
        std::fs::write(papers.path("openssl.cnf"), EXTENSIONS).unwrap();
        papers.make("ca", "authority", None);
        papers.make("server", "leaf", Some("ca"));
        papers.make("client", "leaf", Some("ca"));
        papers
    }

    /// Makes a certificate, signed by another or by itself.
    pub(crate) fn make(&self, name: &str, extensions: &str, by: Option<&str>) {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.0.path()).args(["req", "-x509", "-config", "openssl.cnf", "-nodes"]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "90"]);
        openssl.args(["-extensions", extensions, "-subj", &format!("/CN={name}")]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        if let Some(by) = by {
            openssl.args(["-CA", &format!("{by}.pem"), "-CAkey", &format!("{by}.key")]);
        }
        let output = openssl.output().expect("openssl is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn listen(&self, client_ca: Option<&str>) -> TlsListen {
        TlsListen {
            cert: Some(self.path("server.pem")),
            key: Some(self.path("server.key")),
            client_ca: client_ca.map(|name| self.path(name)),
            versions: OneOrMany(vec![TlsVersion::V12, TlsVersion::V13]),
        }
    }

    /// A client that trusts `ca`, with a certificate of its own or without.
    pub(crate) fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        own: Option<&str>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(Arc::new(load::authorities(&self.path("ca.pem")).unwrap()));
        match own {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(load::certificates(&chain).unwrap(), load::key(&key).unwrap())
                    .unwrap()
            }
        }
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).unwrap();
    }
}
