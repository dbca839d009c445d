//! What the kernel alone costs: receivers that copy, and do nothing with what they have copied.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock::{RECEIVER_CPU, SENDER_CPU, Took, on_cpu, thread_ns};
use crate::message::{MESSAGE_BYTES, Messages};
use crate::sender::{How, Sender, To, set};
use crate::table::Run;

/// Bytes of one read of a stream.
const READ_BYTES: usize = 256 << 10;
/// Datagrams of one call.
const DATAGRAMS: usize = 64;
/// Room for a datagram, or for what the kernel merged.
const SLOT_BYTES: usize = 1 << 16;
/// A full batch, and how many of them the file sink syncs at once.
const WRITE_BYTES: usize = 1 << 20;
const WRITES_A_SYNC: u64 = 4;
const PAGE_BYTES: usize = 4096;
/// The engine's own default.
const RECEIVE_BUFFER: i32 = 8 << 20;
/// Silence after which a datagram receiver ends, once all is sent.
const SILENCE: Duration = Duration::from_millis(300);

/// Reads streams until they end. `lowat`: bytes that must wait before the reader is woken.
pub fn streams(how: How, messages: u64, lowat: i32) -> Run {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let to = To::Tcp(listener.local_addr().expect("it is bound"));
    let receive = move || {
        let streams: Vec<TcpStream> = (0..how.connections)
            .map(|_| listener.accept().expect("the sender connects").0)
            .inspect(|stream| assert!(set(stream, libc::SOL_SOCKET, libc::SO_RCVLOWAT, lowat)))
            .collect();
        let cpu_ns = thread_ns();
        let bytes = if let [stream] = &streams[..] { read_one(stream) } else { read_many(&streams) };
        (bytes / MESSAGE_BYTES as u64, thread_ns() - cpu_ns)
    };
    measure(receive, move || Sender::new(Messages::new(b'\n', false), &to, how).send(messages))
}

/// Receives datagrams until there are no more, one by one or merged.
pub fn datagrams(how: How, messages: u64, gro: bool) -> Run {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    let to = To::Udp(socket.local_addr().expect("it is bound"));
    assert!(set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER));
    assert!(!gro || set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1));
    socket.set_read_timeout(Some(SILENCE)).expect("a time limit");
    let all_sent = AtomicBool::new(false);
    let receive = || {
        let cpu_ns = thread_ns();
        let bytes = receive_datagrams(&socket, &all_sent);
        (bytes / MESSAGE_BYTES as u64, thread_ns() - cpu_ns)
    };
    let send = || {
        let sent = Sender::new(Messages::new(b'.', false), &to, how).send(messages);
        all_sent.store(true, Ordering::Release);
        sent
    };
    measure(receive, send)
}

/// Writes records of a length to a file, past the page cache where that can be done; synced as often as the file sink
/// does when it is busy.
pub fn file(messages: u64, record_bytes: u64) -> Run {
    let folder = crate::receiver::folder();
    let path = folder.path().join("out");
    let open = |flags| OpenOptions::new().create(true).write(true).custom_flags(flags).open(&path);
    let mut file = open(libc::O_DIRECT).or_else(|_| open(0)).expect("a file for the bench");
    // Anonymous memory of this size begins at a page.
    let memory = vec![b'x'; WRITE_BYTES + PAGE_BYTES];
    let skip = memory.as_ptr().align_offset(PAGE_BYTES);
    let records = &memory[skip..skip + WRITE_BYTES];
    let writes = (messages * record_bytes).div_ceil(WRITE_BYTES as u64);
    let wall = Instant::now();
    let ((), cpu_ns) = on_cpu(RECEIVER_CPU, || {
        for i in 1..=writes {
            file.write_all(records).expect("room for the bench");
            if i % WRITES_A_SYNC == 0 || i == writes {
                file.sync_data().expect("a disk that syncs");
            }
        }
    });
    Run {
        took: Took { cpu_ns, wall: wall.elapsed(), waited: Duration::ZERO, stolen: 0.0 },
        messages,
        lost: 0,
    }
}

/// `receive` returns messages and CPU time, `send` messages.
fn measure(receive: impl FnOnce() -> (u64, u64) + Send, send: impl FnOnce() -> u64 + Send) -> Run {
    let wall = Instant::now();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| on_cpu(RECEIVER_CPU, receive).0);
        let sent = on_cpu(SENDER_CPU, send).0;
        let (messages, cpu_ns) = receiver.join().expect("the receiver ends well");
        let took = Took { cpu_ns, wall: wall.elapsed(), ..Took::default() };
        Run { took, messages, lost: sent - messages }
    })
}

fn read_one(mut stream: &TcpStream) -> u64 {
    let (mut buffer, mut bytes) = (vec![0; READ_BYTES], 0);
    loop {
        match stream.read(&mut buffer).expect("the stream is whole") {
            0 => return bytes,
            n => bytes += n as u64,
        }
    }
}

fn read_many(streams: &[TcpStream]) -> u64 {
    // SAFETY: a system call without pointers.
    let set = unsafe { libc::epoll_create1(0) };
    for (i, stream) in streams.iter().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: i as u64 };
        // SAFETY: the event lives through the call.
        let code = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &raw mut event) };
        assert_eq!(code, 0, "the set takes it");
    }
    let (mut buffer, mut bytes, mut open) = (vec![0; READ_BYTES], 0, streams.len());
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; streams.len()];
    while open > 0 {
        // SAFETY: the kernel fills at most the list it is given.
        let ready = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), events.len() as i32, -1) };
        for event in &events[..ready.max(0) as usize] {
            let stream = &streams[event.u64 as usize];
            match (&*stream).read(&mut buffer).expect("the stream is whole") {
                0 => {
                    // SAFETY: a deletion takes no event.
                    unsafe {
                        libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, stream.as_raw_fd(), std::ptr::null_mut())
                    };
                    open -= 1;
                }
                n => bytes += n as u64,
            }
        }
    }
    // SAFETY: it is ours and used no more.
    unsafe { libc::close(set) };
    bytes
}

fn receive_datagrams(socket: &UdpSocket, all_sent: &AtomicBool) -> u64 {
    let mut memory = vec![0u8; DATAGRAMS * SLOT_BYTES];
    let mut vectors: Vec<libc::iovec> = memory
        .chunks_exact_mut(SLOT_BYTES)
        .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT_BYTES })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: all zeroes is a valid header of plain integers and null pointers.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    let mut bytes = 0;
    loop {
        let last = all_sent.load(Ordering::Acquire);
        // SAFETY: the headers point to the vectors and these to the memory, all of which live.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                DATAGRAMS as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the socket is whole");
            if last {
                return bytes;
            }
            continue;
        }
        bytes += headers[..received as usize].iter().map(|header| u64::from(header.msg_len)).sum::<u64>();
    }
}
