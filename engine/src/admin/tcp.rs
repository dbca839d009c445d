//! `admin.listen`: the admin API at an address, for Prometheus, balancers and people far away.
//!
//! Invariants: whoever may change something has a token, or is on this machine; a port that is taken is told with who
//! has it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use super::Control;
use super::serve::Desk;
use crate::diagnosis::{Code, Diagnostic};
use crate::io::listen::Address;
use crate::source::file::blame;
use crate::source::port::{Transport, explain};

/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 4096;

/// A bound address at which nobody is answered yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    token: Option<String>,
}

/// The address in service; dropping it ends that.
#[derive(Debug)]
pub struct Served {
    at: SocketAddr,
    _desk: Desk<TcpListener>,
}

impl Bound {
    /// Binds, and reads the token.
    ///
    /// # Errors
    /// An address that cannot be had, or a token file that holds none.
    pub fn bind(at: SocketAddr, token_file: Option<&Path>) -> Result<Self, Diagnostic> {
        let token = token_file.map(token).transpose()?;
        let listener = TcpListener::bind(at).map_err(|e| {
            as_listen(explain("the admin API", Transport::Stream, &Address::Inet(at), &e), at)
        })?;
        Ok(Self { listener, token })
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// A thread that cannot be made.
    pub fn serve(self, engine: Arc<dyn Control>) -> io::Result<Served> {
        let at = self.listener.local_addr()?;
        Ok(Served { at, _desk: Desk::open("admin.listen", engine, self.token, self.listener)? })
    }
}

impl Served {
    /// Where it answers, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.at
    }
}

/// A mend that names a source's parameter, as `[admin]` has it.
fn as_listen(mut finding: Diagnostic, at: SocketAddr) -> Diagnostic {
    for help in &mut finding.help {
        if let Some(port) = help.strip_prefix("port = ").and_then(|port| port.parse().ok()) {
            *help = format!("listen = \"{}\"", SocketAddr::new(at.ip(), port));
        }
    }
    finding
}

/// Reads the token.
///
/// # Errors
/// A file that is not there or holds no token.
pub fn token(file: &Path) -> Result<String, Diagnostic> {
    let wrong = |code, why: String| {
        Diagnostic::error(code, format!("token_file {}: {why}", file.display()))
            .help(format!("openssl rand -hex 32 > {0} && chmod 600 {0}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => blame::denied(file).into_diagnostic(),
        io::ErrorKind::NotFound => wrong(Code::WP101, e.to_string()),
        _ => wrong(Code::WP404, e.to_string()),
    })?;
    match text.trim() {
        "" => Err(wrong(Code::WP404, "it holds no token".to_owned())),
        token if token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(wrong(Code::WP404, "a token is one word of letters, digits and signs".to_owned()))
        }
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::admin::serve::Quiet;

    fn ask(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn nothing_is_told_without_the_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Bound::bind(any(), Some(file.path())).is_err(), "it is empty");
        std::fs::write(file.path(), "secret\n").unwrap();
        let served = Bound::bind(any(), Some(file.path())).unwrap().serve(Arc::new(Quiet)).unwrap();
        let code = |header: &str| {
            let text = ask(served.address(), &format!("GET /metrics HTTP/1.1\r\n{header}\r\n"));
            text.split(' ').nth(1).unwrap().to_owned()
        };
        let wrong = [
            "",
            "Authorization: Bearer secre\r\n",
            "Authorization: Bearer secret2\r\n",
            "Authorization: Basic secret\r\n",
            // user:secre, secret, and secret: alone.
            "Authorization: Basic dXNlcjpzZWNyZQ==\r\n",
            "Authorization: Basic c2VjcmV0\r\n",
            "Authorization: Basic c2VjcmV0Og==\r\n",
        ];
        for header in wrong {
            assert_eq!(code(header), "401", "{header}");
        }
        assert_eq!(code("Authorization: Bearer secret\r\n"), "200");
        assert_eq!(code("Authorization: Basic eDpzZWNyZXQ=\r\n"), "200", "x:secret");
        assert_eq!(code("authorization: basic  OnNlY3JldA==\r\n"), "200", ":secret");
        let refused = ask(served.address(), "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(refused.contains("WWW-Authenticate: Basic realm=\"wpgen\"\r\n"), "{refused}");
    }

    #[test]
    fn garbage_and_slow_clients_are_survived_and_the_port_is_free_afterwards() {
        let served = Bound::bind(any(), None).unwrap().serve(Arc::new(Quiet)).unwrap();
        let at = served.address();
        let mut slow: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(at).unwrap()).collect();
        for stream in &mut slow {
            stream.write_all(b"GET /met").unwrap();
        }
        assert!(ask(at, "\x16\x03\x01\x02\0\x01\0\x01\x7f\x03\x03\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask(at, &"a".repeat(1 << 20)).starts_with("HTTP/1.1 431 "), "a head without an end");
        let text = ask(at, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(
            text.contains("Content-Type: text/plain; version=0.0.4")
                && text.contains("\nwpgen_uptime_seconds ")
        );
        let taken = Bound::bind(at, None).unwrap_err();
        assert_eq!(taken.code, Some(Code::WP301));
        assert!(taken.help.iter().any(|help| help.starts_with("listen = \"127.0.0.1:")), "{taken:?}");
        drop(served);
        assert!(TcpStream::connect(at).is_err());
    }
}
