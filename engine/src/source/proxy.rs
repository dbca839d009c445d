//! The PROXY header (versions 1 and 2) that a load balancer writes in front of a connection: who the client is.
//!
//! Pure: bytes in, answer out. What does not begin like a header is refused at once, a line at its end, a binary header
//! when its length is known; one that says it is longer than [`HEADER_BYTES_MAX`] is not waited for. The answer to the
//! beginning of a connection never changes when more of it comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is taken: addresses and a few hundred bytes of extensions are usual.
pub const HEADER_BYTES_MAX: usize = 4096;
/// The longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The beginning of a header.
    More,
    /// A header.
    Header {
        /// Its bytes.
        len: usize,
        /// The client, where the header names one with an address and a port.
        peer: Option<SocketAddr>,
    },
    /// No header; the words say why.
    Wrong(&'static str),
}

/// Reads the header at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Proxied {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        return binary(bytes);
    }
    if begins(b"PROXY ") {
        return line(bytes);
    }
    Proxied::Wrong("the connection does not begin with a PROXY header")
}

/// A line that ends in CR LF. syslog-ng's loggen leaves the CR out, and no address holds a newline: LF alone ends it too.
fn line(bytes: &[u8]) -> Proxied {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX {
            Proxied::More
        } else {
            Proxied::Wrong("the PROXY line has no end")
        };
    };
    let line = &seen[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // Whatever follows UNKNOWN is to be ignored, be it text or not.
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Proxied::Header { len: end + 1, peer: None };
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return Proxied::Wrong("the PROXY line is not text");
    };
    let words: Vec<&str> = text.split(' ').collect();
    let peer = match words[..] {
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let (from, to) = (address(family, from), address(family, to));
            let (Some(from), Some(_), Some(port), Some(_)) = (from, to, port(from_port), port(to_port))
            else {
                return Proxied::Wrong("the PROXY line has a wrong address or port");
            };
            Some(SocketAddr::new(from, port))
        }
        _ => return Proxied::Wrong("the PROXY line is not one of version 1"),
    };
    Proxied::Header { len: end + 1, peer }
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        _ => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

/// Digits only, and no zero in front: the protocol forbids what somebody else may read as octal.
fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| is_plain)
}

fn binary(bytes: &[u8]) -> Proxied {
    if bytes.len() < FIXED_BYTES {
        return Proxied::More;
    }
    let (command, family) = (bytes[12], bytes[13]);
    let declared = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Proxied::Wrong("the PROXY header is of an unknown version or command"),
    };
    let len = FIXED_BYTES + declared;
    if len > HEADER_BYTES_MAX {
        return Proxied::Wrong("the PROXY header declares more than 4096 bytes");
    }
    let addresses = match family {
        _ if is_local => 0,
        0x11 => 12,
        0x21 => 36,
        _ => 0,
    };
    if declared < addresses {
        return Proxied::Wrong("the PROXY header is shorter than its addresses");
    }
    if bytes.len() < len {
        return Proxied::More;
    }
    let body = &bytes[FIXED_BYTES..len];
    let peer = match addresses {
        12 => ipv4(body),
        36 => ipv6(body),
        _ => None,
    };
    Proxied::Header { len, peer }
}

/// Source address, destination address, source port.
fn ipv4(body: &[u8]) -> Option<SocketAddr> {
    let (from, rest) = body.split_first_chunk::<4>()?;
    let port = rest.get(4..)?.first_chunk::<2>()?;
    Some(SocketAddr::new(Ipv4Addr::from(*from).into(), u16::from_be_bytes(*port)))
}

fn ipv6(body: &[u8]) -> Option<SocketAddr> {
    let (from, rest) = body.split_first_chunk::<16>()?;
    let port = rest.get(16..)?.first_chunk::<2>()?;
    Some(SocketAddr::new(Ipv6Addr::from(*from).into(), u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, declared: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(declared.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn header(len: usize, peer: &str) -> Proxied {
        Proxied::Header { len, peer: Some(peer.parse().unwrap()) }
    }

    #[test]
    fn both_versions_name_the_client_however_they_are_cut() {
        let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 514\r\n".to_vec();
        let mut v4 = vec![192, 0, 2, 1, 10, 0, 0, 1];
        v4.extend([4711u16.to_be_bytes(), 514u16.to_be_bytes()].concat());
        let mut v6 = [0u8; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&99u16.to_be_bytes());
        v4.extend(b"tlv");
        for (bytes, peer) in [
            (line, "192.0.2.1:4711"),
            (b"PROXY TCP6 ::1 ::2 99 514\r\n".to_vec(), "[::1]:99"),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 514\n".to_vec(), "192.0.2.1:4711"),
            (v2(0x21, 0x11, 15, &v4), "192.0.2.1:4711"),
            (v2(0x21, 0x21, 36, &v6), "[::1]:99"),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Proxied::More, "{cut} of {bytes:?}");
            }
            let whole = [&bytes[..], b"<13>hello\n"].concat();
            assert_eq!(parse(&whole), header(bytes.len(), peer));
        }
    }

    #[test]
    fn a_header_may_name_no_one() {
        assert_eq!(parse(b"PROXY UNKNOWN \xff\n"), Proxied::Header { len: 16, peer: None });
        assert_eq!(parse(b"PROXY UNKNOWN\r\nx"), Proxied::Header { len: 15, peer: None });
        assert_eq!(parse(&v2(0x20, 0, 0, b"")), Proxied::Header { len: 16, peer: None });
        assert_eq!(parse(&v2(0x21, 0x31, 3, b"abc")), Proxied::Header { len: 19, peer: None });
    }

    #[test]
    fn what_is_no_header_is_refused_without_waiting() {
        for wrong in [
            &b"<13>hello"[..],
            b"PROXX",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 01\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY \xff\r\n",
            &[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            &v2(0x11, 0x11, 12, &[0; 12]),
            &v2(0x22, 0x11, 12, &[0; 12]),
            &v2(0x21, 0x11, 11, &[0; 12]),
            &v2(0x21, 0x11, 0xffff, &[0; 12]),
        ] {
            assert!(matches!(parse(wrong), Proxied::Wrong(_)), "{wrong:?}");
        }
    }
}
