//! Datagrams of one wake-up, side by side: what the kernel wrote is taken apart here, and nothing is waited for.
//!
//! Payloads are copied into one run of bytes, each with a newline behind it that belongs to nobody: a run of whole
//! lines costs a sink one copy, and the kernel gets its buffers back before anyone parses. Merged datagrams (UDP_GRO)
//! are separated by the segment size that came with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::batch::Span;

/// Where a datagram came from when its socket has no such address (unix).
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Datagrams in the order of their arrival.
#[derive(Clone, Copy, Debug)]
pub struct Packets<'a> {
    /// What the spans point into. A newline stands behind each datagram.
    pub bytes: &'a [u8],
    /// Where each datagram lies.
    pub spans: &'a [Span],
    /// Who sent each; 0.0.0.0:0 on unix sockets.
    pub peers: &'a [SocketAddr],
}

/// Datagrams that were received and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    peers: Vec<SocketAddr>,
    /// Datagrams at the front that are taken.
    taken: usize,
}

impl Arrivals {
    /// Adds what one receive brought; how many datagrams that was.
    #[inline]
    pub(super) fn add(&mut self, payload: &[u8], name: &[u8], control: &[u8]) -> usize {
        let peer = peer(name).unwrap_or(NOWHERE);
        match segment_bytes(control) {
            Some(segment) if segment < payload.len() => {
                payload.chunks(segment).for_each(|datagram| self.push(datagram, peer));
                payload.len().div_ceil(segment)
            }
            _ => {
                self.push(payload, peer);
                1
            }
        }
    }

    #[inline]
    fn push(&mut self, datagram: &[u8], peer: SocketAddr) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(datagram);
        self.spans.push(Span { start, end: self.bytes.len() as u32 });
        self.bytes.push(b'\n');
        self.peers.push(peer);
    }

    /// Bytes in the run, taken ones included.
    pub(super) fn run_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all datagrams are taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.spans.len()
    }

    /// The datagrams that are not taken.
    pub(super) fn packets(&self) -> Packets<'_> {
        Packets { bytes: &self.bytes, spans: &self.spans[self.taken..], peers: &self.peers[self.taken..] }
    }

    /// The first `n` of [`Arrivals::packets`] are taken; memory is used again once all are.
    pub(super) fn take(&mut self, n: usize) {
        self.taken += n;
        assert!(self.taken <= self.spans.len(), "a consumer takes at most what it is given");
        if self.is_empty() {
            self.bytes.clear();
            self.spans.clear();
            self.peers.clear();
            self.taken = 0;
        }
    }
}

/// Reads a kernel address of an IPv4 or IPv6 socket; an IPv4 peer of an IPv6 socket is shown as IPv4.
#[inline]
pub(super) fn peer(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let ip = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        // Four bytes of flow information are between the port and the address.
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// The size of the datagrams that were merged into one, from its control messages.
#[inline]
fn segment_bytes(mut control: &[u8]) -> Option<usize> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    while control.len() > HEADER {
        let length = usize::from_ne_bytes(*control.first_chunk::<{ size_of::<usize>() }>()?);
        let level = i32::from_ne_bytes(*control.get(HEADER - 8..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*control.get(HEADER - 4..)?.first_chunk()?);
        if level == libc::SOL_UDP && kind == libc::UDP_GRO {
            let size = u16::from_ne_bytes(*control.get(HEADER..)?.first_chunk()?);
            return (size > 0).then_some(usize::from(size));
        }
        control = control.get(length.max(HEADER).checked_next_multiple_of(size_of::<usize>())?..)?;
    }
    None
}

/// How long to leave datagrams to gather before the next receive: at most 1 ms, and only under load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    last_ns: u64,
}

/// The longest rest.
const REST_NS_MAX: u64 = 1_000_000;
/// Rests shorter than this are not worth a timer.
const REST_NS_MIN: u64 = 200_000;
/// Datagrams that make a rest worth its latency.
const GATHER_MIN: u64 = 8;

impl Pace {
    /// A receive at `now_ns` brought `datagrams`; of `room` the next one may fill half. The rest until then, or 0.
    pub(super) fn rest_ns(&mut self, datagrams: usize, room: usize, now_ns: u64) -> u64 {
        let elapsed_ns = now_ns.saturating_sub(self.last_ns).max(1);
        self.last_ns = now_ns;
        let datagrams = datagrams as u64;
        if datagrams * REST_NS_MAX < GATHER_MIN * elapsed_ns {
            return 0;
        }
        let fill_ns = elapsed_ns.saturating_mul(room as u64 / 2) / datagrams.max(1);
        if fill_ns < REST_NS_MIN { 0 } else { fill_ns.min(REST_NS_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gro(size: u16) -> Vec<u8> {
        let mut control = Vec::new();
        // A control message of another kind comes first.
        for (level, kind, data) in [(libc::SOL_SOCKET, 77, 5), (libc::SOL_UDP, libc::UDP_GRO, size)] {
            control.extend_from_slice(&(size_of::<libc::cmsghdr>() + 4).to_ne_bytes());
            control.extend_from_slice(&level.to_ne_bytes());
            control.extend_from_slice(&kind.to_ne_bytes());
            control.extend_from_slice(&u32::from(data).to_ne_bytes());
            control.extend_from_slice(&[0; 4]);
        }
        control
    }

    #[test]
    fn merged_datagrams_come_apart() {
        for (size, expected) in [(4, &["aaaa", "bbbb", "c"][..]), (9, &["aaaabbbbc"]), (0, &["aaaabbbbc"])] {
            let mut arrivals = Arrivals::default();
            assert_eq!(arrivals.add(b"aaaabbbbc", &[], &gro(size)), expected.len());
            let packets = arrivals.packets();
            let got: Vec<&[u8]> = packets.spans.iter().map(|span| span.of(packets.bytes)).collect();
            assert_eq!(got, expected.iter().map(|s| s.as_bytes()).collect::<Vec<_>>());
            assert!(packets.spans.iter().all(|span| packets.bytes[span.end as usize] == b'\n'));
        }
    }

    #[test]
    fn what_is_not_taken_stays() {
        let mut arrivals = Arrivals::default();
        for payload in [&b"one"[..], b"", b"three"] {
            arrivals.add(payload, &[], &[]);
        }
        arrivals.take(2);
        assert_eq!(arrivals.packets().spans[0].of(arrivals.packets().bytes), b"three");
        assert!(!arrivals.is_empty());
        arrivals.take(1);
        assert!(arrivals.is_empty() && arrivals.run_bytes() == 0);
    }

    #[test]
    fn broken_control_messages_and_names_are_survived() {
        let whole = gro(7);
        let cut: Vec<Option<usize>> = (0..whole.len() - 6).map(|n| segment_bytes(&whole[..n])).collect();
        assert!(cut[..cut.len() - 1].iter().all(Option::is_none), "{cut:?}");
        assert_eq!(segment_bytes(&whole), Some(7));
        assert_eq!(segment_bytes(&[0; 64]), None);
        assert_eq!(segment_bytes(&[255; 64]), None);
        for at in ["192.0.2.7:514", "[2001:db8::1]:65535"] {
            let at: SocketAddr = at.parse().unwrap();
            let kernel = socket2::SockAddr::from(at);
            // SAFETY: the address is as long as it says.
            let name =
                unsafe { std::slice::from_raw_parts(kernel.as_ptr().cast::<u8>(), kernel.len() as usize) };
            assert_eq!(peer(name), Some(at));
            (0..8).for_each(|n| assert_eq!(peer(&name[..n]), None));
        }
    }

    #[test]
    fn rests_only_under_load_and_never_past_the_room() {
        let mut pace = Pace::default();
        assert_eq!(pace.rest_ns(1, 256, 10_000_000), 0, "a lone datagram");
        assert_eq!(pace.rest_ns(50, 256, 11_000_000), REST_NS_MAX, "50 000 a second");
        assert_eq!(
            pace.rest_ns(400, 256, 12_000_000),
            320_000,
            "400 000 a second: until half the room is full"
        );
        assert_eq!(pace.rest_ns(1000, 256, 13_000_000), 0, "a million: at once");
    }
}
