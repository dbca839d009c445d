//! Datagram sockets: bound so that a taken port is found, received in runs, with nothing lost uncounted.
//!
//! Each shard has a socket of its own, all bound to one address with SO_REUSEPORT; the kernel spreads senders over
//! them. Before that the address is bound once without the option, which fails when someone else has it. A unix path
//! has one socket.
//!
//! What a consumer does not take stays here, a bounded number of buffers; then the kernel drops, and its counter says
//! how many. With `gro` that counter counts a merged datagram once, so the number is a lower bound.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{Socket, Type};
use tokio::time::{Interval, MissedTickBehavior};

use super::alarm::Alarm;
use super::datagram_ways::{Rest, Way};
use super::listen::Address;
use super::mmsg::Layout;
use super::packets::{Arrivals, Pace, Packets};
use super::pause::Pause;
use super::runtime::{Backend, no_ring};
use super::sockopt::{self, ReceiveBuffer};

/// The longest payload of an IP datagram, and so of what the kernel merges.
const PAYLOAD_BYTES_MAX: usize = 65_535;
/// Bytes of arrivals that are handed to the consumer at the latest.
const RUN_BYTES: usize = 256 << 10;
/// How often the kernel's drop counter is read.
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// Receives of a turn, after which others on the shard have theirs.
const TURN_RECEIVES: usize = 512;
/// Turns in which a socket that is being stopped is emptied.
const LAST_TURNS: usize = 1024;
/// What a datagram takes of a receive buffer at least: the kernel's own part of it.
const KERNEL_BYTES_LEAST: u64 = 512;

/// How a socket is to be bound.
#[derive(Clone, Debug)]
pub struct DatagramOptions {
    /// Where.
    pub address: Address,
    /// The kernel's receive buffer, or the system's default.
    pub so_rcvbuf: Option<u64>,
    /// Whether the kernel may merge datagrams of one sender (UDP_GRO).
    pub gro: bool,
}

/// A bound socket on its way to its shard.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: Socket,
    address: Address,
    receive_buffer: ReceiveBuffer,
    gro: bool,
}

/// What the kernel grants here of a wished receive buffer, asked with a socket that is bound to nothing.
///
/// # Errors
/// That no socket can be made.
pub fn grants(wished_bytes: u64) -> io::Result<ReceiveBuffer> {
    let socket = Socket::new(socket2::Domain::IPV4, Type::DGRAM, None)?;
    sockopt::set_receive_buffer(socket.as_fd(), Some(wished_bytes))
}

impl DatagramSocket {
    /// Binds a socket for each of `shards` shards; a unix path has one.
    ///
    /// # Errors
    /// The kernel's, AddrInUse when any other socket has the address.
    pub fn bind(options: &DatagramOptions, shards: usize) -> io::Result<Vec<Self>> {
        let shared = shards > 1 && matches!(options.address, Address::Inet(_));
        let alone = Self::bind_one(options, false)?;
        if !shared {
            return Ok(vec![alone]);
        }
        // A port that the kernel chose stays the same for all.
        let options = DatagramOptions { address: alone.address.clone(), ..options.clone() };
        drop(alone);
        (0..shards).map(|_| Self::bind_one(&options, true)).collect()
    }

    fn bind_one(options: &DatagramOptions, shared: bool) -> io::Result<Self> {
        let socket = Socket::new(options.address.domain(), Type::DGRAM, None)?;
        socket.set_reuse_port(shared)?;
        let receive_buffer = sockopt::set_receive_buffer(socket.as_fd(), options.so_rcvbuf)?;
        let is_udp = matches!(options.address, Address::Inet(_));
        let gro = options.gro && is_udp && sockopt::set_gro(socket.as_fd()).is_ok();
        options.address.bind(&socket, Type::DGRAM)?;
        let address = options.address.as_bound(&socket)?;
        Ok(Self { socket, address, receive_buffer, gro })
    }

    /// Where it is bound, with the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the kernel granted of the wished receive buffer.
    pub fn receive_buffer(&self) -> ReceiveBuffer {
        self.receive_buffer
    }

    /// Whether the kernel merges datagrams.
    pub fn gro(&self) -> bool {
        self.gro
    }

    fn layout(&self) -> Layout {
        let is_udp = matches!(self.address, Address::Inet(_));
        Layout {
            name: if is_udp { 32 } else { 0 },
            control: if self.gro { 64 } else { 0 },
            payload: PAYLOAD_BYTES_MAX,
        }
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Who takes a socket's datagrams.
pub trait DatagramConsumer {
    /// Takes datagrams, from the first on, and says how many. If not all, it is asked again after
    /// [`Datagrams::resume`]; until then nothing more is received.
    fn on_packets(&self, packets: Packets<'_>) -> usize;
    /// All that came with this wake-up has been given out.
    fn on_turn_end(&self) {}
}

/// What happened on a socket since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams longer than [`PAYLOAD_BYTES_MAX`], which lost their end (unix only).
    pub truncated: u64,
    /// Wake-ups that found something.
    pub turns: u64,
    /// Datagrams the kernel dropped because the socket's buffer was full.
    pub drops: u64,
    /// Whether `drops` may be less than what was lost.
    pub drops_are_a_lower_bound: bool,
}

/// What a turn did.
#[derive(Clone, Copy, Debug)]
struct Turn {
    received: usize,
    /// Whether another one would receive more without waiting.
    more: bool,
}

struct State {
    way: Way,
    arrivals: Arrivals,
    pace: Pace,
    counters: DatagramCounters,
    /// The kernel's counter at the last reading; it wraps at 32 bits.
    drops_seen: u32,
}

/// A shard's datagram socket.
pub struct Datagrams {
    socket: DatagramSocket,
    state: RefCell<State>,
    consumer: Rc<dyn DatagramConsumer>,
    alarm: Alarm,
    started: Instant,
    /// Whether the consumer did not take all.
    blocked: Cell<bool>,
    stopped: Cell<bool>,
}

impl Datagrams {
    /// By this backend; on epoll where a ring is refused, as it is when the memlock limit has no room for one more.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(
        backend: Backend,
        socket: DatagramSocket,
        consumer: Rc<dyn DatagramConsumer>,
    ) -> io::Result<Rc<Self>> {
        let on_ring = match backend {
            Backend::Uring => Way::ring(&socket, socket.layout()),
            Backend::Epoll => Err(io::ErrorKind::Unsupported.into()),
        };
        let way = on_ring.or_else(|error| {
            if backend == Backend::Uring {
                no_ring(&format!("datagrams of {}", socket.address), &error);
            }
            Way::epoll(socket.layout())
        })?;
        Ok(Self::with(socket, way, consumer))
    }

    fn with(socket: DatagramSocket, way: Way, consumer: Rc<dyn DatagramConsumer>) -> Rc<Self> {
        let counters =
            DatagramCounters { drops_are_a_lower_bound: socket.gro, ..DatagramCounters::default() };
        let (arrivals, pace) = (Arrivals::default(), Pace::default());
        Rc::new(Self {
            socket,
            state: RefCell::new(State { way, arrivals, pace, counters, drops_seen: 0 }),
            consumer,
            alarm: Alarm::default(),
            started: Instant::now(),
            blocked: Cell::new(false),
            stopped: Cell::new(false),
        })
    }

    /// Receives and gives out until [`Datagrams::stop`], and then what the kernel still holds.
    ///
    /// # Errors
    /// What the kernel says when it refuses to go on.
    pub async fn run(self: Rc<Self>) -> io::Result<()> {
        let (mut rest, mut pause) = (Rest::new()?, Pause::new()?);
        let mut drops = tokio::time::interval(DROPS_EVERY);
        drops.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gathered = 0;
        while !self.stopped.get() {
            let turn = self.turn()?;
            gathered += turn.received;
            if turn.more {
                pause.give_way().await?;
                continue;
            }
            match self.rest_ns(std::mem::take(&mut gathered)) {
                0 => pause.until(std::future::poll_fn(|cx| self.poll_wake(cx, &mut drops))).await?,
                ns => pause.until(rest.wait(ns)).await?,
            }
            tokio::task::coop::consume_budget().await;
        }
        self.empty(&mut pause).await?;
        self.read_drops();
        Ok(())
    }

    /// Receives what the kernel held at this moment, and little more: who sends may go on for ever.
    async fn empty(&self, pause: &mut Pause) -> io::Result<()> {
        // The kernel sets aside twice what it grants, for its own part.
        let held_bytes = 2 * self.socket.receive_buffer().granted_bytes;
        let (mut receives, before) = (0, self.state.borrow().counters.bytes);
        for _ in 0..LAST_TURNS {
            let turn = self.turn()?;
            receives += turn.received as u64;
            let bytes = self.state.borrow().counters.bytes - before;
            let is_over = bytes >= held_bytes || receives >= held_bytes / KERNEL_BYTES_LEAST;
            if is_over || turn.received == 0 && !turn.more {
                break;
            }
            pause.give_way().await?;
        }
        Ok(())
    }

    /// Ends [`Datagrams::run`] once the socket is empty or the consumer takes no more.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.alarm.ring();
    }

    /// The consumer takes datagrams again.
    pub fn resume(&self) {
        if self.blocked.replace(false) {
            self.alarm.ring();
        }
    }

    /// What happened so far; asks the kernel for its drops.
    pub fn counters(&self) -> DatagramCounters {
        self.read_drops();
        self.state.borrow().counters
    }

    /// What of the buffers that the kernel fills was ever filled, bytes.
    pub fn touched_bytes(&self) -> usize {
        self.state.borrow().way.touched_bytes()
    }

    /// The socket.
    pub fn socket(&self) -> &DatagramSocket {
        &self.socket
    }

    fn read_drops(&self) {
        let state = &mut *self.state.borrow_mut();
        if let Ok(drops) = sockopt::drops(self.socket.as_fd()) {
            state.counters.drops += u64::from(drops.wrapping_sub(state.drops_seen));
            state.drops_seen = drops;
        }
    }

    /// How long to let datagrams gather; 0 is until the next one.
    fn rest_ns(&self, received: usize) -> u64 {
        if self.blocked.get() {
            return 0;
        }
        let state = &mut *self.state.borrow_mut();
        let now_ns = self.started.elapsed().as_nanos() as u64;
        state.pace.rest_ns(received, state.way.room(), now_ns)
    }

    fn poll_wake(&self, cx: &mut Context<'_>, drops: &mut Interval) -> Poll<io::Result<()>> {
        if self.alarm.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while drops.poll_tick(cx).is_ready() {
            self.read_drops();
        }
        if self.blocked.get() {
            return Poll::Pending;
        }
        self.state.borrow_mut().way.poll_bell(&self.socket, cx)
    }

    /// Receives what is there and gives it out.
    fn turn(&self) -> io::Result<Turn> {
        let mut turn = Turn { received: 0, more: true };
        self.blocked.set(false);
        self.offer();
        while turn.more && !self.blocked.get() && turn.received < TURN_RECEIVES {
            let pulled = self.pull()?;
            turn.received += pulled;
            self.offer();
            let way = &mut self.state.borrow_mut().way;
            way.give_back(&self.socket);
            turn.more = way.has_more();
            if pulled == 0 {
                // Whatever there may be, it is not here yet: others have their turn.
                break;
            }
        }
        turn.more &= !self.blocked.get();
        if turn.received > 0 {
            self.state.borrow_mut().counters.turns += 1;
            self.consumer.on_turn_end();
        }
        Ok(turn)
    }

    /// Moves received datagrams to the arrivals, up to a run's worth of bytes; how many receives that were.
    fn pull(&self) -> io::Result<usize> {
        let State { way, arrivals, counters, .. } = &mut *self.state.borrow_mut();
        way.pull(&self.socket, |message| {
            counters.datagrams += arrivals.add(message.payload, message.name, message.control) as u64;
            counters.bytes += message.payload.len() as u64;
            counters.truncated += u64::from(message.truncated);
            arrivals.run_bytes() < RUN_BYTES
        })
    }

    /// Gives the arrivals to the consumer.
    fn offer(&self) {
        let mut arrivals = std::mem::take(&mut self.state.borrow_mut().arrivals);
        if !arrivals.is_empty() {
            let taken = self.consumer.on_packets(arrivals.packets());
            arrivals.take(taken);
            self.blocked.set(!arrivals.is_empty());
        }
        self.state.borrow_mut().arrivals = arrivals;
    }
}

/// The peer of a datagram whose socket has no such addresses.
pub fn is_nowhere(peer: &SocketAddr) -> bool {
    peer.ip().is_unspecified() && peer.port() == 0
}
