//! PROXY headers: one answer however much of a connection has come, no byte read behind the header, and a client that
//! comes back from any header that is written for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use engine::source::proxy::{HEADER_BYTES_MAX, Proxied, parse};

use super::dial::Dial;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Any bytes, bytes behind the beginning of either version, or a header that is right.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    match dial.below(4) {
        0 => one_answer(dial.rest()),
        1 => one_answer(&[b"PROXY ", dial.rest()].concat()),
        2 => one_answer(&[SIGNATURE, dial.rest()].concat()),
        _ => comes_back(dial),
    }
}

/// The answer of the model, which is also the answer to every beginning that is long enough for one.
fn one_answer(bytes: &[u8]) {
    let whole = parse(bytes);
    agrees(whole, model(bytes), bytes);
    let mut decided = None;
    for end in 0..=bytes.len() {
        let now = parse(&bytes[..end]);
        match decided {
            Some(before) => assert_eq!(now, before, "it was decided before byte {end}"),
            None if now != Proxied::More => decided = Some(now),
            None => {}
        }
    }
    match whole {
        Proxied::Header { len, .. } => {
            assert!(len <= bytes.len() && len <= HEADER_BYTES_MAX);
            assert_eq!(parse(&bytes[..len]), whole, "what is behind a header is not read");
            assert_eq!(parse(&bytes[..len - 1]), Proxied::More, "a header is one when all of it is there");
        }
        Proxied::More => assert!(bytes.len() < HEADER_BYTES_MAX, "{} bytes are waited for", bytes.len()),
        Proxied::Wrong(_) => {}
    }
}

fn agrees(got: Proxied, want: Option<Option<(usize, Option<SocketAddr>)>>, bytes: &[u8]) {
    let got = match got {
        Proxied::More => None,
        Proxied::Wrong(_) => Some(None),
        Proxied::Header { len, peer } => Some(Some((len, peer))),
    };
    assert_eq!(got, want, "{}", bytes.escape_ascii());
}

/// Nothing yet, or a refusal, or a length and a client: the protocol's text, with all of the bytes at once.
fn model(bytes: &[u8]) -> Option<Option<(usize, Option<SocketAddr>)>> {
    let shorter = |with: &[u8]| bytes.len() < with.len() && with.starts_with(bytes);
    if shorter(SIGNATURE) || shorter(b"PROXY ") {
        None
    } else if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        version_2(rest)
    } else if bytes.starts_with(b"PROXY ") {
        version_1(bytes)
    } else {
        Some(None)
    }
}

fn version_1(bytes: &[u8]) -> Option<Option<(usize, Option<SocketAddr>)>> {
    let Some(newline) = bytes.iter().take(107).position(|&byte| byte == b'\n') else {
        return (bytes.len() >= 107).then_some(None);
    };
    let line = bytes[..newline].strip_suffix(b"\r").unwrap_or(&bytes[..newline]);
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    if words[1] == b"UNKNOWN" {
        return Some(Some((newline + 1, None)));
    }
    let texts: Vec<&str> = words.iter().map_while(|word| std::str::from_utf8(word).ok()).collect();
    let &[_, family, from, to, from_port, to_port] = &texts[..] else { return Some(None) };
    if texts.len() < words.len() {
        return Some(None);
    }
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    // A number is written in one way only: without a sign and without zeros in front.
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let client = match (address(from), address(to), port(from_port), port(to_port)) {
        (Some(from), Some(_), Some(port), Some(_)) => SocketAddr::new(from, port),
        _ => return Some(None),
    };
    Some(Some((newline + 1, Some(client))))
}

fn version_2(rest: &[u8]) -> Option<Option<(usize, Option<SocketAddr>)>> {
    let (&[command, family, high, low], body) = rest.split_first_chunk::<4>()?;
    let declared = usize::from(high) << 8 | usize::from(low);
    let needed = match (command, family) {
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        _ => 0,
    };
    if !matches!(command, 0x20 | 0x21) || declared < needed || 16 + declared > HEADER_BYTES_MAX {
        return Some(None);
    }
    let body = body.get(..declared)?;
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let client = match needed {
        12 => Some(SocketAddr::new(IpAddr::from([body[0], body[1], body[2], body[3]]), port(8))),
        36 => {
            let address: [u8; 16] = std::array::from_fn(|at| body[at]);
            Some(SocketAddr::new(IpAddr::from(address), port(32)))
        }
        _ => None,
    };
    Some(Some((16 + declared, client)))
}

/// Headers written as load balancers write them, with anything behind them.
fn comes_back(mut dial: Dial<'_>) {
    let (is_text, is_wide, extension) = (dial.flag(), dial.flag(), dial.below(64));
    let mut address = || -> [u8; 16] { std::array::from_fn(|_| dial.byte()) };
    let (from, to) = (address(), address());
    let port = u16::from_be_bytes([dial.byte(), dial.byte()]);
    let narrow = |bytes: [u8; 16]| IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (client, server) = if is_wide { (from.into(), to.into()) } else { (narrow(from), narrow(to)) };
    let mut header = match (is_text, is_wide) {
        (true, false) => format!("PROXY TCP4 {client} {server} {port} 514\r\n").into_bytes(),
        (true, true) => format!("PROXY TCP6 {client} {server} {port} 514\r\n").into_bytes(),
        (false, _) => {
            let addresses = if is_wide { [from, to].concat() } else { [&from[..4], &to[..4]].concat() };
            let declared = (addresses.len() + 4 + extension) as u16;
            let family = if is_wide { 0x21 } else { 0x11 };
            let fixed = [SIGNATURE, &[0x21, family], &declared.to_be_bytes()].concat();
            let ports = [port, 514].map(u16::to_be_bytes).concat();
            [fixed, addresses, ports, vec![0xee; extension]].concat()
        }
    };
    let len = header.len();
    header.extend_from_slice(dial.rest());
    assert_eq!(parse(&header), Proxied::Header { len, peer: Some(SocketAddr::new(client, port)) });
    one_answer(&header);
}
