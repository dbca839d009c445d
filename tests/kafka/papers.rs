//! Certificates as openssl makes them: an authority, a server's that it signed, one that has ended, and a stranger's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const CONFIGURATION: &str = "[req]\ndistinguished_name = name\n[name]\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\n\
    [leaf]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n\
    [ca]\ndefault_ca = ours\n\
    [ours]\ndatabase = index.txt\nnew_certs_dir = .\nserial = serial\ndefault_md = sha256\npolicy = any\n\
    [any]\ncommonName = supplied\n";

/// `ca.pem`, `server.pem`, `client.pem` and `old.pem` signed by it, and two authorities that signed none of them: `stranger.pem`,
/// and `namesake.pem`, whose name is the first one's.
#[derive(Clone)]
pub struct Papers {
    folder: Arc<tempfile::TempDir>,
}

impl Papers {
    /// Makes them.
    pub fn new() -> Self {
        let this = Self { folder: Arc::new(tempfile::tempdir().unwrap()) };
        fs::write(this.path("openssl.cnf"), CONFIGURATION).unwrap();
        fs::write(this.path("index.txt"), "").unwrap();
        fs::write(this.path("serial"), "01\n").unwrap();
        this.openssl("req -x509 -days 90 -extensions authority -subj /CN=ca", "ca", "-out ca.pem");
        this.openssl(
            "req -x509 -days 90 -extensions authority -subj /CN=other",
            "other",
            "-out stranger.pem",
        );
        this.openssl(
            "req -x509 -days 90 -extensions authority -subj /CN=ca",
            "namesake",
            "-out namesake.pem",
        );
        for (name, dates) in [
            ("server", "-days 90"),
            ("client", "-days 90"),
            ("old", "-startdate 20200101000000Z -enddate 20210102000000Z"),
        ] {
            this.openssl(&format!("req -new -subj /CN={name}"), name, &format!("-out {name}.csr"));
            let signed = format!("ca -batch -notext -cert ca.pem -keyfile ca.key -extensions leaf {dates}");
            this.run(&format!("{signed} -config openssl.cnf -in {name}.csr -out {name}.pem"));
        }
        this
    }

    /// A file of these.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Key and certificate in one file, as Kafka takes them.
    pub fn keystore(&self, name: &str) -> String {
        let parts = [format!("{name}.key"), format!("{name}.pem"), "ca.pem".to_owned()];
        let text: Vec<String> =
            parts.iter().map(|part| fs::read_to_string(self.path(part)).unwrap()).collect();
        let path = self.path(&format!("{name}.store"));
        fs::write(&path, text.concat()).unwrap();
        path.display().to_string()
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn openssl(&self, request: &str, key: &str, out: &str) {
        let new = format!(
            "-config openssl.cnf -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout {key}.key"
        );
        self.run(&format!("{request} {new} {out}"));
    }

    fn run(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        let ran =
            openssl.current_dir(self.folder()).args(arguments.split(' ')).output().expect("openssl is there");
        assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}
