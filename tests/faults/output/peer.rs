//! A receiver over TCP that can stand still, reset its connections, and go away.
//!
//! What its kernel has acknowledged it reads to the last byte, also when it resets a connection: else a loss would be
//! its own and not the engine's. So before it resets, it has the kernel drop what comes, unacknowledged, and reads what
//! is there.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::{Output, text};
use crate::input::Place;
use crate::oracle::{Passage, Seen};
use crate::plan::{Format, Framing, OutputPlan};

/// How often its threads look what they are to do.
const LOOK: Duration = Duration::from_millis(5);

/// A receiver.
pub(super) struct PeerOutput {
    number: u8,
    format: Format,
    framing: Framing,
    params: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    at: SocketAddr,
    /// Nothing is read.
    stalls: AtomicBool,
    /// Nobody listens, and what is connected is reset.
    is_away: AtomicBool,
    /// Whether the acceptor has let go of its listener.
    has_left: AtomicBool,
    /// Connections of an older number are reset.
    resets: AtomicU64,
    ending: AtomicBool,
    clock: AtomicU64,
    connections: Mutex<Vec<Arc<Mutex<Connection>>>>,
}

/// What came over one connection.
#[derive(Default)]
struct Connection {
    begun: u64,
    ended: u64,
    bytes: Vec<u8>,
}

impl PeerOutput {
    pub(super) fn new(number: u8, plan: &OutputPlan, framing: Framing, place: &Place) -> Self {
        let at: SocketAddr = (place.address, Place::port(100 + number)).into();
        let shared = Arc::new(Shared {
            at,
            stalls: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            clock: AtomicU64::new(1),
            connections: Mutex::default(),
        });
        let format = plan.format;
        let params = format!(
            "addr = \"{at}\"\nframing = \"{}\"\nformat = \"{}\"\nreconnect_min = \"5ms\"\nreconnect_max = \"50ms\"\n",
            framing.name(),
            format.name()
        );
        let listener = shared.listen();
        let its = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept(listener, &its)));
        Self { number, format, framing, params, shared, acceptor }
    }
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A listener whose connections have a small buffer, so that a peer that does not read is felt soon.
    fn listen(&self) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind(&self.at.into()).unwrap();
        socket.listen(16).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    }

    fn connected(self: &Arc<Self>, stream: TcpStream) {
        let connection = Arc::new(Mutex::new(Connection { begun: self.tick(), ..Connection::default() }));
        self.connections.lock().unwrap().push(Arc::clone(&connection));
        let (shared, resets) = (Arc::clone(self), self.resets.load(Ordering::SeqCst));
        std::thread::spawn(move || {
            read(stream, &shared, resets, &connection);
            connection.lock().unwrap().ended = shared.tick();
        });
    }
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    while !shared.ending.load(Ordering::SeqCst) {
        while let Some((stream, _)) = listener.as_ref().and_then(|listener| listener.accept().ok()) {
            shared.connected(stream);
        }
        if shared.is_away.load(Ordering::SeqCst) {
            listener = None;
            shared.has_left.store(true, Ordering::SeqCst);
        } else if listener.is_none() {
            listener = Some(shared.listen());
            shared.has_left.store(false, Ordering::SeqCst);
        }
        std::thread::sleep(LOOK); // how often it looks
    }
}

/// Reads until the connection ends, or is to be reset.
fn read(mut stream: TcpStream, shared: &Shared, resets: u64, connection: &Mutex<Connection>) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LOOK)).unwrap();
    let mut piece = vec![0; 32 << 10];
    loop {
        if shared.resets.load(Ordering::SeqCst) != resets {
            return reset(&mut stream, connection);
        }
        if shared.stalls.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK); // it does nothing
            continue;
        }
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(n) => connection.lock().unwrap().bytes.extend_from_slice(&piece[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// Resets a connection of which nothing more is acknowledged than is read.
fn reset(stream: &mut TcpStream, connection: &Mutex<Connection>) {
    drop_all(stream);
    std::thread::sleep(Duration::from_millis(2)); // what passed the filter before it was there arrives
    stream.set_nonblocking(true).unwrap();
    let mut piece = vec![0; 32 << 10];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        connection.lock().unwrap().bytes.extend_from_slice(&piece[..n]);
    }
    SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Has the kernel drop every further segment.
fn drop_all(stream: &TcpStream) {
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    let len = libc::socklen_t::try_from(size_of_val(&program)).unwrap();
    // SAFETY: the option is a program that lives for the call; the kernel copies it.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            len,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

impl Output for PeerOutput {
    fn number(&self) -> u8 {
        self.number
    }

    fn sink(&self) -> String {
        format!("connect = \"tcp_sink\"\n[sinks.params_override]\n{}", self.params)
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for connection in self.shared.connections.lock().unwrap().iter() {
            let connection = connection.lock().unwrap();
            let ended = if connection.ended == 0 { u64::MAX } else { connection.ended };
            let mut passage = Passage { begun: connection.begun, ended, records: Vec::new() };
            self.framing.read(&connection.bytes, |record| {
                text::take(record, self.format, &mut passage.records, &mut seen);
            });
            seen.passages.push(passage);
        }
        seen
    }

    fn may_repeat(&self) -> bool {
        true
    }

    fn stall(&mut self, stalls: bool) -> bool {
        self.shared.stalls.store(stalls, Ordering::SeqCst);
        true
    }

    fn reset(&mut self) -> bool {
        let open = self.shared.connections.lock().unwrap().clone();
        self.shared.resets.fetch_add(1, Ordering::SeqCst);
        while open.iter().any(|connection| connection.lock().unwrap().ended == 0) {
            std::thread::sleep(LOOK); // until they are
        }
        true
    }

    fn leave(&mut self, is_away: bool) -> bool {
        self.shared.is_away.store(is_away, Ordering::SeqCst);
        while self.shared.has_left.load(Ordering::SeqCst) != is_away {
            std::thread::sleep(LOOK); // until it has
        }
        if is_away {
            self.reset();
        }
        true
    }
}

impl Drop for PeerOutput {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.resets.fetch_add(1, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
