//! What the kernel holds for a port: bytes that wait, datagrams that it dropped, and whether anybody listens.
//!
//! Read from `/proc/net`, so that it works for any program. All addresses of a port are taken together.

use std::fs;

/// The state of a TCP socket that listens.
const LISTEN: &str = "0A";

/// Which sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn tables(self) -> String {
        let paths = match self {
            Self::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
            Self::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        };
        paths.map(|path| fs::read_to_string(path).unwrap_or_default()).concat()
    }
}

/// Whether somebody takes what is sent to the port.
pub fn is_open(protocol: Protocol, port: u16) -> bool {
    protocol
        .tables()
        .lines()
        .filter_map(Row::read)
        .any(|row| row.local == port && (protocol == Protocol::Udp || row.state == LISTEN))
}

/// Bytes that were sent to the port and not read yet.
pub fn waiting(protocol: Protocol, port: u16) -> u64 {
    let bytes = |row: Row<'_>| {
        u64::from(row.local == port) * row.to_read + u64::from(row.remote == port) * row.to_send
    };
    protocol.tables().lines().filter_map(Row::read).map(bytes).sum()
}

/// Datagrams to the port that the kernel dropped because a socket's buffer was full; gone when the socket is closed.
pub fn drops(port: u16) -> u64 {
    let table = Protocol::Udp.tables();
    table.lines().filter_map(Row::read).filter(|row| row.local == port).map(|row| row.drops).sum()
}

/// One socket.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    local: u16,
    remote: u16,
    state: &'a str,
    to_send: u64,
    to_read: u64,
    drops: u64,
}

impl<'a> Row<'a> {
    /// `4386: 0100007F:0203 00000000:0000 07 00000000:00000000 ...`, of datagram sockets with the drops at the end.
    fn read(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, queues, ..] = fields[..] else { return None };
        let (to_send, to_read) = queues.split_once(':')?;
        let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
        Some(Self {
            local: port(local)?,
            remote: port(remote)?,
            state,
            to_send: u64::from_str_radix(to_send, 16).ok()?,
            to_read: u64::from_str_radix(to_read, 16).ok()?,
            drops: fields.last()?.parse().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn rows_are_read_and_headings_are_not() {
        let line =
            " 43: 0100007F:0203 00000000:0001 07 0000000A:00000010 00:00000000 00000000 0 0 14121 2 0 37";
        let row = Row { local: 0x203, remote: 1, state: "07", to_send: 10, to_read: 16, drops: 37 };
        assert_eq!(Row::read(line), Some(row));
        assert_eq!(Row::read("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when"), None);
    }

    #[test]
    fn what_nobody_reads_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_open(Protocol::Tcp, port) && !is_open(Protocol::Udp, port));
        let mut to = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut to, b"12345").unwrap();
        assert_eq!(waiting(Protocol::Tcp, port), 5);
        std::io::Read::read_exact(&mut from, &mut [0; 5]).unwrap();
        assert_eq!(waiting(Protocol::Tcp, port), 0);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(is_open(Protocol::Udp, address.port()));
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        while drops(address.port()) < 10 {
            from.send_to(&[0; 9000], address).unwrap();
        }
    }
}
