//! Real datagrams on loopback, on a ring and on epoll, inside plain tokio and inside tokio-uring.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use super::datagram::{DatagramConsumer, DatagramOptions, DatagramSocket, Datagrams};
use super::listen::Address;
use super::packets::Packets;
use super::runtime::Backend;
use super::sockopt;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum On {
    RingInTokio,
    RingInUring,
    EpollInTokio,
}

const EVERYWHERE: [On; 3] = [On::RingInTokio, On::RingInUring, On::EpollInTokio];

fn on<F: Future>(on: On, body: F) -> F::Output {
    if let On::RingInUring = on {
        return tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap().block_on(body);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, body)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Keeps what it takes; takes at most `room` more.
#[derive(Default)]
struct Taker {
    room: Cell<usize>,
    got: RefCell<Vec<(Vec<u8>, SocketAddr)>>,
    asked: Cell<usize>,
}

impl DatagramConsumer for Taker {
    fn on_packets(&self, packets: Packets<'_>) -> usize {
        self.asked.set(self.asked.get() + 1);
        assert_eq!(packets.spans.len(), packets.peers.len());
        let taken = packets.spans.len().min(self.room.get());
        self.room.set(self.room.get() - taken);
        let spans = packets.spans.iter().zip(packets.peers).take(taken);
        self.got.borrow_mut().extend(spans.map(|(span, peer)| (span.of(packets.bytes).to_vec(), *peer)));
        taken
    }
}

impl Taker {
    fn new(room: usize) -> Rc<Self> {
        Rc::new(Self { room: Cell::new(room), ..Self::default() })
    }

    fn len(&self) -> usize {
        self.got.borrow().len()
    }
}

fn backend(place: On) -> Backend {
    match place {
        On::EpollInTokio => Backend::Epoll,
        _ => Backend::Uring,
    }
}

fn open(place: On, socket: DatagramSocket, taker: &Rc<Taker>) -> Rc<Datagrams> {
    let consumer = Rc::clone(taker) as Rc<dyn DatagramConsumer>;
    Datagrams::new(backend(place), socket, consumer).unwrap()
}

fn udp(at: &str, so_rcvbuf: Option<u64>, gro: bool) -> (DatagramSocket, SocketAddr) {
    let options = DatagramOptions { address: Address::Inet(at.parse().unwrap()), so_rcvbuf, gro };
    let socket = DatagramSocket::bind(&options, 1).unwrap().pop().unwrap();
    let Address::Inet(at) = *socket.address() else { panic!("bound to a port") };
    (socket, at)
}

#[test]
fn datagrams_of_all_sizes_arrive_in_order_with_their_senders() {
    for place in EVERYWHERE {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            on(place, async {
                let (socket, to) = udp(at, Some(8 << 20), false);
                let taker = Taker::new(usize::MAX);
                let datagrams = open(place, socket, &taker);
                let run = tokio::task::spawn_local(Rc::clone(&datagrams).run());
                let sender = UdpSocket::bind(at).unwrap();
                let sizes = [0, 1, 250, 1472, 9000, 65_507].into_iter().cycle().take(600);
                let sent: Vec<Vec<u8>> = sizes.enumerate().map(|(i, n)| vec![i as u8; n]).collect();
                for (i, datagram) in sent.iter().enumerate() {
                    sender.send_to(datagram, to).unwrap();
                    if i % 30 == 29 {
                        until("thirty more", || taker.len() == i + 1).await;
                    }
                }
                datagrams.stop();
                run.await.unwrap().unwrap();
                let from = sender.local_addr().unwrap();
                let got = taker.got.borrow();
                assert!(got.iter().map(|(datagram, _)| datagram).eq(sent.iter()), "{place:?} {at}");
                assert!(got.iter().all(|(_, peer)| *peer == from));
                assert_eq!((datagrams.counters().datagrams, datagrams.counters().drops), (600, 0));
            });
        }
    }
}

/// Sends two for each that it gets.
struct Fountain {
    sender: UdpSocket,
    to: SocketAddr,
    got: Cell<u64>,
}

impl DatagramConsumer for Fountain {
    fn on_packets(&self, packets: Packets<'_>) -> usize {
        self.got.set(self.got.get() + packets.spans.len() as u64);
        for _ in 0..2 * packets.spans.len() {
            self.sender.send_to(b"more", self.to).unwrap();
        }
        packets.spans.len()
    }
}

#[test]
fn a_sender_that_goes_on_does_not_keep_one_that_stops() {
    const GRANTED: u64 = 256 << 10;
    for place in EVERYWHERE {
        on(place, async {
            let (socket, to) = udp("127.0.0.1:0", Some(GRANTED), false);
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"first", to).unwrap();
            let fountain = Rc::new(Fountain { sender, to, got: Cell::new(0) });
            let consumer = Rc::clone(&fountain) as Rc<dyn DatagramConsumer>;
            let datagrams = Datagrams::new(backend(place), socket, consumer).unwrap();
            let run = tokio::task::spawn_local(Rc::clone(&datagrams).run());
            until("there is no end of them", || fountain.got.get() > 10_000).await;
            let before = fountain.got.get();
            datagrams.stop();
            run.await.unwrap().unwrap();
            let after = fountain.got.get() - before;
            // Each takes half a KiB at least of the buffer, which is twice what is granted; and two turns more.
            assert!(after <= 2 * GRANTED / 512 + 2 * 512 + 256, "{place:?}: {after}");
        });
    }
}

#[test]
fn what_is_sent_is_received_or_counted_as_dropped() {
    for place in EVERYWHERE {
        on(place, async {
            let (socket, to) = udp("127.0.0.1:0", Some(256 << 10), false);
            let taker = Taker::new(0);
            let datagrams = open(place, socket, &taker);
            let run = tokio::task::spawn_local(Rc::clone(&datagrams).run());
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut sent = 0u64;
            let mut send = |n: u64| {
                for i in sent..sent + n {
                    sender.send_to(&i.to_ne_bytes(), to).unwrap();
                }
                sent += n;
                sent
            };
            send(10);
            until("the consumer was asked", || taker.asked.get() > 0).await;
            send(20_000);
            until("the kernel drops", || datagrams.counters().drops > 0).await;
            assert_eq!(taker.len(), 0);
            // A little at a time: what was kept back comes first and in order.
            for room in [1, 7, 300] {
                let before = taker.len();
                taker.room.set(room);
                datagrams.resume();
                until("as much as there is room for", || taker.len() == before + room).await;
                send(100);
            }
            taker.room.set(usize::MAX);
            datagrams.resume();
            let sent = send(1000);
            datagrams.stop();
            run.await.unwrap().unwrap();
            let counters = datagrams.counters();
            assert_eq!(counters.datagrams, taker.len() as u64);
            assert_eq!(counters.datagrams + counters.drops, sent, "{place:?} {counters:?}");
            assert!(!counters.drops_are_a_lower_bound);
            assert!(
                taker.got.borrow().is_sorted_by_key(|(n, _)| u64::from_ne_bytes(n[..].try_into().unwrap()))
            );
        });
    }
}

#[test]
fn merged_datagrams_are_told_apart() {
    for place in EVERYWHERE {
        on(place, async {
            let (socket, to) = udp("127.0.0.1:0", Some(8 << 20), true);
            assert!(socket.gro());
            let taker = Taker::new(usize::MAX);
            let datagrams = open(place, socket, &taker);
            let run = tokio::task::spawn_local(Rc::clone(&datagrams).run());
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sockopt::set(sender.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 250).unwrap();
            let mut all: Vec<Vec<u8>> = Vec::new();
            for i in 0..100u32 {
                let bytes: Vec<u8> = (0..250 * 40 + 17).map(|at| (at + i) as u8).collect();
                sender.send_to(&bytes, to).unwrap();
                all.extend(bytes.chunks(250).map(<[u8]>::to_vec));
                if i % 20 == 19 {
                    until("all so far", || taker.len() == all.len()).await;
                }
            }
            datagrams.stop();
            run.await.unwrap().unwrap();
            assert!(taker.got.borrow().iter().map(|(datagram, _)| datagram).eq(all.iter()), "{place:?}");
            assert!(datagrams.counters().drops_are_a_lower_bound);
        });
    }
}

#[test]
fn unix_datagrams_arrive_and_the_path_goes_with_the_socket() {
    for place in EVERYWHERE {
        on(place, async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let address = Address::Unix(path.clone());
            let options = DatagramOptions { address, so_rcvbuf: None, gro: true };
            let mut sockets = DatagramSocket::bind(&options, 4).unwrap();
            assert_eq!(sockets.len(), 1);
            assert!(DatagramSocket::bind(&options, 1).is_err(), "someone receives there");
            let taker = Taker::new(usize::MAX);
            let datagrams = open(place, sockets.pop().unwrap(), &taker);
            let run = tokio::task::spawn_local(Rc::clone(&datagrams).run());
            let sender = UnixDatagram::unbound().unwrap();
            for i in 0..300u32 {
                let line = format!("<13>message {i}");
                until("room", || {
                    sender.set_nonblocking(true).and(sender.send_to(line.as_bytes(), &path)).is_ok()
                })
                .await;
            }
            sender.set_nonblocking(false).unwrap();
            sender.send_to(&[b'x'; 100_000], &path).unwrap();
            until("all", || taker.len() == 301).await;
            assert_eq!(taker.got.borrow()[299].0, b"<13>message 299");
            assert_eq!(datagrams.counters().truncated, 1);
            datagrams.stop();
            run.await.unwrap().unwrap();
            drop(datagrams);
            assert!(!path.exists());
        });
    }
}

#[test]
fn a_taken_port_is_found_and_shards_share_theirs() {
    let options = DatagramOptions {
        address: Address::Inet(([127, 0, 0, 1], 0).into()),
        so_rcvbuf: Some(1 << 20),
        gro: false,
    };
    let sockets = DatagramSocket::bind(&options, 3).unwrap();
    let address = sockets[0].address().clone();
    assert!(sockets.iter().all(|socket| *socket.address() == address));
    assert_eq!(sockets[0].receive_buffer().granted_bytes, 1 << 20);
    let again = DatagramSocket::bind(&DatagramOptions { address: address.clone(), ..options.clone() }, 2);
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(sockets);
    DatagramSocket::bind(&DatagramOptions { address, ..options }, 2).unwrap();
}
