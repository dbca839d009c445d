//! Opens what messages go to.
//!
//! It blocks, and is done before the first message is due. A failure says what was attempted.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use engine::config::tls::TlsConnect;

use super::outbox::{Opened, Wire};
use super::tls::Tls;
use super::way::Door;
use crate::bench::target::Target;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The send buffer of a datagram socket, so that a burst waits here rather than being lost.
const SEND_BUFFER: usize = 4 << 20;

/// Messages that the kernel cuts from one buffer at most (UDP_MAX_SEGMENTS), and the bytes of such a buffer.
const SEGMENTS_MAX: usize = 64;
const SEGMENTED_BYTES_MAX: usize = 65_000;

/// Opens the line of a connection. `segment` is the size of each message, when the kernel is to cut them apart.
pub fn open(
    target: &Target,
    connection: u16,
    trust: &TlsConnect,
    segment: Option<u16>,
) -> Result<Door, String> {
    let opened = match target {
        Target::Udp(address) => udp(address, segment).map(Opened::plain),
        Target::Tcp(address) => tcp(address).map(|socket| Opened::plain((socket.into(), Wire::Stream))),
        Target::Tls(address) => tls(address, trust),
        Target::Unix(path) => unix(path).map(Opened::plain),
        Target::File(path) => append(path).map(Opened::plain),
        #[cfg(feature = "kafka")]
        Target::Kafka { brokers, topic } => return super::topic::open(target, brokers, topic, connection),
        #[cfg(not(feature = "kafka"))]
        Target::Kafka { .. } => {
            let _ = connection;
            Err(io::Error::new(io::ErrorKind::Unsupported, "this build is without Kafka"))
        }
    };
    opened.map(Door::Wire).map_err(|e| format!("cannot send to {target}: {e}"))
}

fn udp(address: &str, segment: Option<u16>) -> io::Result<(File, Wire)> {
    let address = resolve(address)?;
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    // The system's limit may be lower; then that is what it is.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.connect(&address.into())?;
    let together = match segment {
        Some(size) => {
            set_segment(&socket, size)?;
            (SEGMENTED_BYTES_MAX / usize::from(size)).clamp(1, SEGMENTS_MAX)
        }
        None => 1,
    };
    Ok((OwnedFd::from(socket).into(), Wire::Datagrams(together)))
}

fn tcp(address: &str) -> io::Result<OwnedFd> {
    let address = resolve(address)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.connect_timeout(&address.into(), CONNECT_MAX)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn tls(address: &str, trust: &TlsConnect) -> io::Result<Opened> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let tls = Tls::shake(tcp(address)?.into(), name, trust, CONNECT_MAX)?;
    Ok(Opened { file: tls.file()?, wire: Wire::Stream, tls: Some(Box::new(tls)) })
}

/// A stream socket, or a datagram socket where that is what listens.
fn unix(path: &Path) -> io::Result<(File, Wire)> {
    let address = SockAddr::unix(path)?;
    let connect = |kind| {
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        socket.connect(&address)?;
        Ok::<File, io::Error>(OwnedFd::from(socket).into())
    };
    match connect(Type::STREAM) {
        Err(e) if e.raw_os_error() == Some(libc::EPROTOTYPE) => {
            connect(Type::DGRAM).map(|socket| (socket, Wire::Datagrams(1)))
        }
        stream => stream.map(|socket| (socket, Wire::Stream)),
    }
}

fn append(path: &Path) -> io::Result<(File, Wire)> {
    OpenOptions::new().create(true).append(true).open(path).map(|file| (file, Wire::File))
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}

/// UDP_SEGMENT: the kernel cuts each buffer into datagrams of this size.
fn set_segment(socket: &Socket, size: u16) -> io::Result<()> {
    let size = libc::c_int::from(size);
    // SAFETY: the option is an int, which lives for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
