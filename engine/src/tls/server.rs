//! What a listening source needs to speak TLS: made of its files, and made anew when they change.
//!
//! Connections that are open keep the certificate they began with. Files that change are read once they have rested
//! for a look, so that a certificate is not met without its key; a pair that cannot be used leaves the old one in use.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use super::session::{Fault, Session};
use super::{load, provider, versions};
use crate::config::tls::{EXAMPLE, TlsListen, TlsVersion};
use crate::diagnosis::{Code, Diagnostic};

/// The files of a listening source, and what it speaks.
#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    versions: Vec<TlsVersion>,
}

/// Reads and checks everything that a source names; what is good to know of it.
///
/// # Errors
/// Why it cannot be used.
pub fn check(listen: &TlsListen) -> Result<Vec<Diagnostic>, Diagnostic> {
    let files = Files::new(listen)?;
    files.load()?;
    let certificates = load::certificates(&files.cert)?;
    let dates = certificates.first().and_then(|c| load::warn_of_dates(&files.cert, c, Timestamp::now()));
    Ok(dates.into_iter().chain(load::warn_of_mode(&files.key)).collect())
}

impl Files {
    fn new(listen: &TlsListen) -> Result<Self, Diagnostic> {
        let (Some(cert), Some(key)) = (listen.cert.clone(), listen.key.clone()) else {
            return Err(Diagnostic::error(Code::WP404, "'tls' needs 'cert' and 'key'").help(EXAMPLE));
        };
        Ok(Self { cert, key, client_ca: listen.client_ca.clone(), versions: listen.versions.0.clone() })
    }

    fn load(&self) -> Result<Arc<ServerConfig>, Diagnostic> {
        let chain = load::certificates(&self.cert)?;
        let key = load::key(&self.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(&self.versions))
            .map_err(|error| Diagnostic::error(Code::WP404, format!("'versions' of 'tls': {error}")))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(load::authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| {
                    let message = format!("{} cannot verify clients: {error}", path.display());
                    Diagnostic::error(Code::WP404, message)
                })?)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| load::unfit(&self.cert, &self.key, &error))?;
        // Senders of logs do not read. One that closes with our tickets unread makes its kernel answer with a reset in
        // place of an end, and a reset discards what it has sent and we have not received: loggen lost messages so.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let paths = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        paths.into_iter().flatten().map(|path| Stamp::of(path)).collect()
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

/// What a look at the files has brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewed {
    /// Nothing new.
    Same,
    /// The next handshakes use what the files hold now.
    Taken,
    /// What the files hold now cannot be used; what was in use stays so.
    Refused(Diagnostic),
}

/// TLS of a listening source, shared by its shards.
#[derive(Debug)]
pub struct Server {
    files: Files,
    used: Mutex<Arc<ServerConfig>>,
    looks: Mutex<Looks>,
}

#[derive(Debug)]
struct Looks {
    /// The files as they were when they were read.
    read: Vec<Option<Stamp>>,
    /// And as they were at the last look.
    last: Vec<Option<Stamp>>,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn open(listen: &TlsListen) -> Result<Arc<Self>, Diagnostic> {
        let files = Files::new(listen)?;
        // In front of the reading: what changes meanwhile is found by the next look.
        let read = files.stamps();
        let used = Mutex::new(files.load()?);
        Ok(Arc::new(Self { files, used, looks: Mutex::new(Looks { last: read.clone(), read }) }))
    }

    /// Begins a connection with what is in use now.
    ///
    /// # Errors
    /// What the system lacks.
    pub fn session(&self) -> Result<Session, Fault> {
        let config = Arc::clone(&self.used.lock().unwrap_or_else(PoisonError::into_inner));
        Session::new(config)
    }

    /// Looks whether the files have changed. Reads files, so it is no work for a shard's thread.
    pub fn look(&self) -> Renewed {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.files.stamps();
        let rested = now == looks.last;
        looks.last.clone_from(&now);
        if now == looks.read || !rested {
            return Renewed::Same;
        }
        looks.read = now;
        match self.files.load() {
            Ok(config) => {
                *self.used.lock().unwrap_or_else(PoisonError::into_inner) = config;
                Renewed::Taken
            }
            Err(finding) => Renewed::Refused(finding),
        }
    }
}
