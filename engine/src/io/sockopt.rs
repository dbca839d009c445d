//! Options of sockets: set, read back, and the kernel's own counters of a socket.
//!
//! Each function is one system call or two; none of them keeps state. Options that a kernel may lack return its
//! error, and the caller goes on without them.

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Index of the dropped packets among the figures of SO_MEMINFO.
const SK_MEMINFO_DROPS: usize = 8;
/// Figures that SO_MEMINFO returns.
const SK_MEMINFO_VARS: usize = 9;

/// Sets an integer option.
pub(super) fn set(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let code = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an integer option.
pub(super) fn get(fd: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<i32> {
    let mut value = [0i32; 1];
    read_into(fd, level, option, &mut value)?;
    Ok(value[0])
}

fn read_into<T: Copy>(fd: BorrowedFd<'_>, level: i32, option: i32, into: &mut [T]) -> io::Result<usize> {
    let mut length = std::mem::size_of_val(into) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `into`; the kernel writes at most `length` bytes of plain integers.
    let code =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, into.as_mut_ptr().cast(), &raw mut length) };
    if code == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}

/// The least number of waiting bytes that wakes a reader (TCP).
pub(super) fn set_lowat(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes as i32)
}

/// What the kernel granted of a wished receive buffer, as it counts: payload and its own overhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveBuffer {
    /// Bytes asked for; 0 when the system's default was to stay.
    pub wished_bytes: u64,
    /// Bytes granted for payload: half of what the kernel reports, because it doubles every wish.
    pub granted_bytes: u64,
}

impl ReceiveBuffer {
    /// Whether the kernel gave less than was asked for (then `net.core.rmem_max` is what to raise).
    pub fn is_short(&self) -> bool {
        self.granted_bytes < self.wished_bytes
    }
}

/// Sets a socket's receive buffer, past `net.core.rmem_max` where that is allowed, and says what was granted.
pub(super) fn set_receive_buffer(fd: BorrowedFd<'_>, wished_bytes: Option<u64>) -> io::Result<ReceiveBuffer> {
    if let Some(bytes) = wished_bytes {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX / 2).min(i32::MAX / 2);
        if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
        }
    }
    let kernel = get(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
    Ok(ReceiveBuffer { wished_bytes: wished_bytes.unwrap_or(0), granted_bytes: kernel.max(0) as u64 / 2 })
}

/// Datagrams this socket has dropped since it was made, modulo 2^32.
pub fn drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut figures = [0u32; SK_MEMINFO_VARS];
    let length = read_into(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut figures)?;
    if length < (SK_MEMINFO_DROPS + 1) * size_of::<u32>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(figures[SK_MEMINFO_DROPS])
}

/// Lets the kernel merge datagrams of one flow and equal size into one.
pub fn set_gro(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// The other side of a connection; nothing for unix sockets and for connections that are gone already.
pub(super) fn peer(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    socket2::SockRef::from(&fd).peer_addr().ok()?.as_socket()
}

/// Ends both directions of a connection; a connection that is gone already is fine.
pub(super) fn shut_down(fd: &impl AsFd) {
    let fd = fd.as_fd();
    let _ = socket2::SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
}

/// Ends the incoming direction of a connection behind what the kernel holds; one that is gone already is fine.
pub(super) fn end_input(fd: &impl AsFd) {
    let fd = fd.as_fd();
    let _ = socket2::SockRef::from(&fd).shutdown(std::net::Shutdown::Read);
}

/// Sends what the kernel takes at once, without waiting and without SIGPIPE.
pub(super) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `bytes`, which the kernel only reads.
    let n = unsafe {
        libc::send(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if n >= 0 { Ok(n as usize) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that the kernel has taken from the peer and that nobody has read; none where it does not say.
pub(super) fn unread(fd: BorrowedFd<'_>) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one integer, into `bytes`. FIONREAD is SIOCINQ.
    let code = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if code == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether bytes wait that a receive returns.
pub(super) fn has_unread(fd: BorrowedFd<'_>) -> bool {
    let mut byte = 0u8;
    // SAFETY: the kernel writes at most one byte, into `byte`.
    let n = unsafe {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags)
    };
    n > 0
}

/// Leaves urgent bytes (MSG_OOB) where they were sent, in front of those behind them: a receive returns them like any other, and
/// [`unread`] counts what waits behind them.
pub(super) fn take_urgent_inline(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1)
}

/// Bytes written to a connection that the peer's kernel has not acknowledged, sent or not.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one integer, into `bytes`. TIOCOUTQ is SIOCOUTQ.
    let code = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if code == 0 { Ok(bytes.max(0) as u64) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel knows of a peer's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// Times the peer was asked in a row without an answer: data sent again, and probes of a closed window.
    pub asked: u32,
    /// Time since it last acknowledged anything.
    pub lasts: Duration,
}

/// How long a connection's peer has been silent.
pub(super) fn silence(fd: BorrowedFd<'_>) -> io::Result<Silence> {
    // SAFETY: tcp_info is plain integers, for which zeros are values.
    let mut info = [unsafe { std::mem::zeroed::<libc::tcp_info>() }];
    read_into(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let asked = u32::from(info[0].tcpi_retransmits) + u32::from(info[0].tcpi_probes);
    Ok(Silence { asked, lasts: Duration::from_millis(info[0].tcpi_last_ack_recv.into()) })
}

/// What the kernel knows of a peer that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Time since it last brought bytes, or since it connected.
    pub ago: Duration,
    /// Time there and back.
    pub round_trip: Duration,
}

/// When a connection's peer was heard last.
pub(super) fn heard(fd: BorrowedFd<'_>) -> io::Result<Heard> {
    // SAFETY: tcp_info is plain integers, for which zeros are values.
    let mut info = [unsafe { std::mem::zeroed::<libc::tcp_info>() }];
    read_into(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let ago = Duration::from_millis(info[0].tcpi_last_data_recv.into());
    Ok(Heard { ago, round_trip: Duration::from_micros(info[0].tcpi_rtt.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_receive_buffer_is_granted_and_reported() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let got = set_receive_buffer(socket.as_fd(), Some(100_000)).unwrap();
        assert_eq!(got, ReceiveBuffer { wished_bytes: 100_000, granted_bytes: 100_000 });
        assert!(!got.is_short());
        assert_eq!(set_receive_buffer(socket.as_fd(), None).unwrap().granted_bytes, 100_000);
    }

    #[test]
    fn the_kernel_counts_what_does_not_fit() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let granted = set_receive_buffer(socket.as_fd(), Some(4096)).unwrap().granted_bytes;
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        from.connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(drops(socket.as_fd()).unwrap(), 0);
        let sent = 4 * (granted as usize / 1000 + 1);
        for _ in 0..sent {
            from.send(&[b'x'; 1000]).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let mut held = 0;
        while socket.recv(&mut [0; 2000]).is_ok() {
            held += 1;
        }
        assert_eq!(held + drops(socket.as_fd()).unwrap() as usize, sent);
    }
}
