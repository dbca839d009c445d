//! A trial of sockets: whether an address can be listened on, and whether a peer answers.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{Step, Steps, Trouble};
use crate::config::types::ListenAddr;
use crate::diagnosis::Diagnostic;
use crate::io::datagram::{DatagramOptions, DatagramSocket};
use crate::io::listen::{Address, Listening};
use crate::sink::remote::with_port;
use crate::source::port::{Transport, address, explain};

/// How long name resolution and a connection may take; the whole trial has a limit of its own.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Binds and lets go.
pub(super) fn listener(transport: Transport, addr: &ListenAddr, port: u16) -> Vec<Step> {
    let mut steps = Steps::default();
    let at = address(addr, port);
    steps.step("bind", || match bind(transport, &at) {
        Ok(()) => Ok(((), format!("{} {at} is free", transport.name(&at)))),
        Err(error) => Err(trouble(explain("this source", transport, &at, &error))),
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

fn trouble(finding: Diagnostic) -> Trouble {
    let message = match finding.code {
        Some(code) => format!("[{code}] {}", finding.message),
        None => finding.message,
    };
    Trouble { message, help: finding.notes.into_iter().chain(finding.help).collect() }
}

/// Connects to each address and lets go: all of them have to answer, for any of them may be needed.
pub(super) fn peers(addresses: &[String], port: u16) -> Vec<Step> {
    let mut steps = Steps::default();
    for peer in addresses.iter().map(|peer| with_port(peer, port)) {
        if steps.step("connect", || connect(&peer)).is_none() {
            break;
        }
    }
    steps.0
}

fn connect(peer: &str) -> Result<((), String), Trouble> {
    let found =
        peer.to_socket_addrs().map_err(|error| Trouble::new(format!("cannot resolve {peer}: {error}")))?;
    let mut refused = None;
    for at in found {
        match TcpStream::connect_timeout(&at, CONNECT_WITHIN) {
            Ok(_) => return Ok(((), format!("{at} answers"))),
            Err(error) => refused = Some((at, error)),
        }
    }
    let Some((at, error)) = refused else { return Err(Trouble::new(format!("{peer} has no address"))) };
    let mut trouble = Trouble::new(format!("[WP303] cannot connect to {at}: {error}"));
    trouble
        .help
        .push("whoever listens there must listen on that address, and firewalls must pass it".to_owned());
    Err(trouble)
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
        assert!(steps[0].outcome.as_ref().is_err_and(|t| t.message.starts_with("[WP301] ")), "{steps:?}");
        assert!(listener(Transport::Datagram, &here, port)[0].outcome.is_ok());
        let addresses = ["127.0.0.1".to_owned()];
        assert!(peers(&addresses, port)[0].outcome.is_ok());
        drop(taken);
        let steps = peers(&addresses, port);
        assert!(steps[0].outcome.as_ref().is_err_and(|t| t.message.starts_with("[WP303] ")), "{steps:?}");
    }
}
