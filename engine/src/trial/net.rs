//! A trial of sockets: whether an address can be listened on, whether a peer answers, and whether it proves its name.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustls::ProtocolVersion;

use super::{Step, Steps};
use crate::config::tls::TlsConnect;
use crate::config::types::ListenAddr;
use crate::diagnosis::{Code, Diagnostic};
use crate::io::datagram::{DatagramOptions, DatagramSocket};
use crate::io::interfaces::interfaces;
use crate::io::listen::{Address, Listening};
use crate::sink::remote::{host_of, with_port};
use crate::source::port::{Transport, address, explain, holders};
use crate::tls::client::Client;

/// How long name resolution and a connection may take; the whole trial has a limit of its own.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a server may take to refuse our certificate: in TLS 1.3 it does so behind the handshake.
const AFTERWORD_WITHIN: Duration = Duration::from_millis(300);

/// Binds and lets go.
pub(super) fn listener(transport: Transport, addr: &ListenAddr, port: u16) -> Vec<Step> {
    let mut steps = Steps::default();
    let at = address(addr, port);
    steps.step("bind", || match bind(transport, &at) {
        Ok(()) => Ok(((), format!("{} {at} is free", transport.name(&at)))),
        Err(error) => Err(explain("this source", transport, &at, &error)),
    });
    steps.0
}

fn bind(transport: Transport, at: &Address) -> std::io::Result<()> {
    match transport {
        Transport::Stream => Listening::bind(at, 1, None).map(drop),
        Transport::Datagram => {
            let options = DatagramOptions { address: at.clone(), so_rcvbuf: None, gro: false };
            DatagramSocket::bind(&options, 1).map(drop)
        }
    }
}

/// Connects to each address and lets go: all of them have to answer, for any of them may be needed.
pub(super) fn peers(addresses: &[String], port: u16, tls: Option<&TlsConnect>) -> Vec<Step> {
    let mut steps = Steps::default();
    for peer in addresses.iter().map(|peer| with_port(peer, port)) {
        let Some(stream) = steps.step("connect", || connect(&peer)) else { break };
        let shaken = tls.map(|tls| steps.step("tls", || shake(host_of(&peer), stream, tls)));
        if shaken == Some(None) {
            break;
        }
    }
    steps.0
}

fn shake(host: &str, mut stream: TcpStream, tls: &TlsConnect) -> Result<((), String), Diagnostic> {
    let client = Client::open(tls)?;
    let mut session = client.session(host)?;
    let in_words = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => Diagnostic::plain(format!("{host} does not answer in TLS")),
        _ => Diagnostic::plain(client.in_words(host, error).to_string()),
    };
    let within = |stream: &TcpStream, limit| stream.set_read_timeout(Some(limit)).map_err(in_words);
    within(&stream, CONNECT_WITHIN)?;
    session.complete_io(&mut stream).map_err(in_words)?;
    within(&stream, AFTERWORD_WITHIN)?;
    if session.read_tls(&mut stream).is_ok() {
        session.process_new_packets().map_err(|error| in_words(io::Error::other(error)))?;
    }
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    Ok(((), format!("{version}, the name is proven")))
}

fn connect(peer: &str) -> Result<(TcpStream, String), Diagnostic> {
    let found = peer.to_socket_addrs().map_err(|error| unresolved(peer, &error))?;
    let mut refused = None;
    for at in found {
        match TcpStream::connect_timeout(&at, CONNECT_WITHIN) {
            Ok(stream) => return Ok((stream, format!("{at} answers"))),
            Err(error) => refused = Some((at, error)),
        }
    }
    let Some((at, error)) = refused else { return Err(Diagnostic::plain(format!("{peer} has no address"))) };
    let finding = Diagnostic::error(Code::WP303, format!("cannot connect to {at}: {error}"));
    let elsewhere = "whoever listens there must listen on that address, and firewalls must pass it";
    let port = at.port();
    Err(match holders_here(at).as_deref() {
        None => finding.help(elsewhere),
        Some([]) => finding
            .note(format!("nothing that we see listens on tcp port {port} of this machine"))
            .help(format!("start what is to listen at {at}, or correct the address")),
        Some([(pid, name), ..]) => finding
            .note(format!(
                "{name} (PID {pid}) listens on port {port}, but on another address of this machine"
            ))
            .help(elsewhere),
    })
}

fn unresolved(peer: &str, error: &io::Error) -> Diagnostic {
    Diagnostic::plain(format!("cannot resolve {peer}: {error}"))
        .help(format!("getent hosts {}   (asks as wpgen does); or write its IP address", host_of(peer)))
}

/// Who listens on the port, where the address is one of this machine's: elsewhere it cannot be seen.
fn holders_here(at: SocketAddr) -> Option<Vec<(u32, String)>> {
    let is_here = at.ip().is_loopback() || interfaces().iter().any(|one| one.address == at.ip());
    is_here.then(|| holders(Transport::Stream, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_taken_port_and_a_silent_peer_are_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let here = ListenAddr::Ip([127, 0, 0, 1].into());
        let steps = listener(Transport::Stream, &here, port);
        assert!(steps[0].outcome.as_ref().is_err_and(|found| found.code == Some(Code::WP301)), "{steps:?}");
        assert!(listener(Transport::Datagram, &here, port)[0].outcome.is_ok());
        let addresses = ["127.0.0.1".to_owned()];
        assert!(peers(&addresses, port, None)[0].outcome.is_ok());
        drop(taken);
        let steps = peers(&addresses, port, None);
        let silent = steps[0].outcome.as_ref().unwrap_err();
        assert_eq!(silent.code, Some(Code::WP303));
        assert_eq!(
            silent.help,
            [format!("start what is to listen at 127.0.0.1:{port}, or correct the address")]
        );
    }
}
