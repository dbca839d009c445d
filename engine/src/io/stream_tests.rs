//! Real connections on loopback, on a ring and on epoll, inside plain tokio and inside tokio-uring.
//!
//! Tests wait for conditions and fail after [`PATIENCE`]; none waits for a time to pass.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use super::bufring::{BUFFER_BYTES, Lease};
use super::listen::{Address, Listening};
use super::poller::{Kind, Token};
use super::stream::{Closed, Conn, StreamConsumer, StreamOptions, StreamSource, Streams};
use crate::memory::Memory;

const PATIENCE: Duration = Duration::from_secs(60);

/// Where the streams run and on what.
#[derive(Clone, Copy, Debug)]
enum On {
    RingInTokio,
    RingInUring,
    EpollInTokio,
}

const EVERYWHERE: [On; 3] = [On::RingInTokio, On::RingInUring, On::EpollInTokio];

fn on<F: Future>(on: On, test: impl FnOnce(Rc<Streams>) -> F) -> F::Output {
    let body = async {
        let streams = match on {
            On::EpollInTokio => Streams::with_epoll(&Memory::unlimited()),
            _ => Streams::with_ring(&Memory::unlimited()),
        };
        let streams = streams.unwrap();
        let run = tokio::task::spawn_local(Rc::clone(&streams).run());
        let out = test(Rc::clone(&streams)).await;
        streams.stop();
        run.await.unwrap().unwrap();
        out
    };
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

/// Checks that each connection's bytes are the sequence that [`pattern`] makes, and keeps leases when told to.
#[derive(Default)]
struct Checker {
    pattern: OnceCell<Vec<u8>>,
    at: RefCell<HashMap<Conn, u64>>,
    keeping: Cell<bool>,
    kept: RefCell<Vec<(Conn, Lease)>>,
    bytes: Cell<u64>,
    closed: RefCell<Vec<Closed>>,
    arrivals: RefCell<Vec<(Instant, usize)>>,
}

impl Checker {
    fn check(&self, conn: Conn, bytes: &[u8]) {
        let mut all = self.at.borrow_mut();
        let at = all.get_mut(&conn).expect("bytes come between open and close");
        let expected = self.pattern.get_or_init(|| patterned(2 * PERIOD as usize));
        for part in bytes.chunks(PERIOD as usize) {
            let from = (*at % PERIOD) as usize;
            assert!(
                *part == expected[from..from + part.len()],
                "in {} bytes at {at} of {conn:?}",
                part.len()
            );
            *at += part.len() as u64;
        }
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
    }

    fn give_back(&self) {
        self.keeping.set(false);
        for (conn, lease) in self.kept.take() {
            self.check(conn, &lease);
        }
    }
}

impl StreamConsumer for Checker {
    fn on_open(&self, conn: Conn, _peer: Option<SocketAddr>) -> bool {
        assert!(self.at.borrow_mut().insert(conn, 0).is_none(), "{conn:?} opened twice");
        true
    }

    fn on_bytes(&self, conn: Conn, lease: Lease) {
        assert!(!lease.is_empty());
        self.arrivals.borrow_mut().push((Instant::now(), lease.len()));
        if self.keeping.get() {
            self.kept.borrow_mut().push((conn, lease));
        } else {
            self.check(conn, &lease);
        }
    }

    fn on_close(&self, conn: Conn, how: Closed) {
        if !self.keeping.get() {
            assert!(self.at.borrow_mut().remove(&conn).is_some(), "{conn:?} closed twice");
        }
        self.closed.borrow_mut().push(how);
    }
}

/// No power of two, so that swapped buffers show.
const PERIOD: u64 = 251 * 241;

/// Byte `i` of every test stream.
fn pattern(i: u64) -> u8 {
    (i % 251) as u8 ^ (i / 251 % 241) as u8
}

fn patterned(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(pattern).collect()
}

/// The kernel's own buffers are small, so that it is the shard that holds back.
fn listening(seats: usize) -> (Arc<Listening>, SocketAddr) {
    let anywhere = Address::Inet(([127, 0, 0, 1], 0).into());
    let listening = Listening::bind(&anywhere, seats, Some(256 << 10)).unwrap();
    let Address::Inet(at) = *listening.address() else { panic!("bound to a port") };
    (listening, at)
}

fn checked(streams: &Streams, options: StreamOptions) -> (Rc<Checker>, StreamSource, SocketAddr) {
    let checker = Rc::new(Checker::default());
    let source = streams.add(options, Rc::clone(&checker) as Rc<dyn StreamConsumer>);
    let (listening, at) = listening(1);
    streams.listen(source, listening, 0).unwrap();
    (checker, source, at)
}

/// Connections of one thread: each writes the pattern in pieces and closes right after.
fn send(to: SocketAddr, connections: usize, bytes: usize, piece: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let all = patterned(bytes);
        let mut sockets: Vec<TcpStream> = (0..connections).map(|_| TcpStream::connect(to).unwrap()).collect();
        for part in all.chunks(piece) {
            for socket in &mut sockets {
                socket.write_all(part).unwrap();
            }
        }
    })
}

#[test]
fn everything_arrives_whenever_the_sender_closes() {
    for place in EVERYWHERE {
        for (connections, bytes, piece) in [
            (1, 40_000_000, 1_000_000),
            (64, 1_000_000, 65_536),
            (64, 100_000, 250),
            (1, 3_000, 1),
            (200, 17, 17),
        ] {
            on(place, |streams| async move {
                let (checker, source, at) = checked(&streams, StreamOptions::default());
                let sender = send(at, connections, bytes, piece);
                until("all closed", || checker.closed.borrow().len() == connections).await;
                sender.join().unwrap();
                assert_eq!(checker.bytes.get(), (connections * bytes) as u64, "{place:?} {piece}");
                assert!(checker.closed.borrow().iter().all(|how| *how == Closed::ByPeer));
                assert_eq!(streams.connections(source), 0);
                assert_eq!(streams.held_bytes(source), 0);
            });
        }
    }
}

#[test]
fn one_connection_after_the_other_is_served() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (checker, _, at) = checked(&streams, StreamOptions::default());
            for i in 1..=100 {
                let sender = send(at, 1 + i % 3, 1000, 300);
                until("closed", || sender.is_finished() && checker.at.borrow().is_empty()).await;
                until("opened and closed", || {
                    checker.closed.borrow().len() == (1..=i).map(|i| 1 + i % 3).sum::<usize>()
                })
                .await;
            }
            assert_eq!(checker.bytes.get(), 200_000, "{place:?}");
        });
    }
}

#[test]
fn withheld_buffers_stop_the_sender_and_given_back_let_everything_through() {
    for place in EVERYWHERE {
        for (connections, budget_bytes) in [(1, 8 << 20), (8, 8 << 20), (4, 64 << 10)] {
            on(place, |streams| async move {
                let options = StreamOptions { budget_bytes, ..StreamOptions::default() };
                let (checker, source, at) = checked(&streams, options);
                checker.keeping.set(true);
                let bytes = 120_000_000 / connections;
                let sender = send(at, connections, bytes, 100_000);
                until("the budget is held", || streams.held_bytes(source) >= budget_bytes).await;
                let sum = || checker.kept.borrow().iter().map(|(_, lease)| lease.len()).sum::<usize>();
                // What the kernel had published when the source became full may still come; then nothing may.
                let mut before = streams.counters();
                let mut same = 0;
                until("nothing more comes", || {
                    same = if streams.counters() == before { same + 1 } else { 0 };
                    before = streams.counters();
                    same > 10
                })
                .await;
                assert!(sum() < connections * bytes, "the sender had to wait");
                assert!(streams.held_bytes(source) <= budget_bytes + 2 * 128 * BUFFER_BYTES);
                assert!(!sender.is_finished());
                checker.give_back();
                until("all closed", || checker.closed.borrow().len() == connections).await;
                sender.join().unwrap();
                assert_eq!(checker.bytes.get(), (connections * bytes) as u64, "{place:?}");
            });
        }
    }
}

#[test]
fn a_source_that_holds_everything_does_not_stop_another() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let options = StreamOptions { budget_bytes: 4 << 20, ..StreamOptions::default() };
            let (stalled, slow, at_slow) = checked(&streams, options);
            let (free, _, at_free) = checked(&streams, options);
            stalled.keeping.set(true);
            let held_back = send(at_slow, 4, 20_000_000, 65_536);
            until("one source is full", || streams.held_bytes(slow) >= 4 << 20).await;
            let sender = send(at_free, 8, 5_000_000, 65_536);
            until("the other is done", || free.closed.borrow().len() == 8).await;
            sender.join().unwrap();
            assert_eq!(free.bytes.get(), 40_000_000);
            assert!(!held_back.is_finished());
            stalled.give_back();
            until("the first is done", || stalled.closed.borrow().len() == 4).await;
            held_back.join().unwrap();
            assert_eq!(stalled.bytes.get(), 80_000_000);
        });
    }
}

#[test]
fn a_paused_source_receives_nothing_and_a_resumed_one_everything() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (checker, source, at) = checked(&streams, StreamOptions::default());
            let (other, _, at_other) = checked(&streams, StreamOptions::default());
            streams.pause(source);
            let sender = send(at, 3, 2_000_000, 10_000);
            until("connected", || streams.connections(source) == 3).await;
            let others = send(at_other, 3, 2_000_000, 10_000);
            until("the other source is done", || other.closed.borrow().len() == 3).await;
            assert_eq!((checker.bytes.get(), other.bytes.get()), (0, 6_000_000));
            // Paused and resumed in the middle, many times.
            let start = Instant::now();
            while checker.closed.borrow().len() < 3 {
                assert!(start.elapsed() < PATIENCE, "never: all closed");
                streams.resume(source);
                tokio::task::yield_now().await;
                streams.pause(source);
                tokio::task::yield_now().await;
                streams.resume(source);
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            assert_eq!(checker.bytes.get(), 6_000_000, "{place:?}");
            [sender, others].into_iter().for_each(|sender| sender.join().unwrap());
        });
    }
}

#[test]
fn a_few_small_messages_arrive_soon_though_wakes_are_bundled() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (checker, _, at) = checked(&streams, StreamOptions::default());
            let mut sender = TcpStream::connect(at).unwrap();
            sender.set_nodelay(true).unwrap();
            let all = patterned(16 << 20);
            let mut sent = 0;
            // Small messages as fast as they are taken, until the mark is raised.
            while streams.counters().marks_set == 0 {
                assert!(sent + 100 < all.len(), "{place:?}: many small messages raise the mark");
                sender.write_all(&all[sent..sent + 100]).unwrap();
                sent += 100;
                tokio::task::yield_now().await;
            }
            let mut waits = Vec::new();
            for _ in 0..20 {
                // A burst that ends with a message that no later one pushes out.
                for _ in 0..30 {
                    sender.write_all(&all[sent..sent + 100]).unwrap();
                    sent += 100;
                }
                let start = Instant::now();
                until("the last message", || checker.bytes.get() == sent as u64).await;
                waits.push(start.elapsed());
            }
            // A tick of 5 ms and the timers' grain; a busy test machine delays it by more than that.
            waits.sort();
            assert!(waits[5] < Duration::from_millis(40), "{place:?}: {waits:?}");
        });
    }
}

#[test]
fn what_ticks_and_marks_bring_by_turns_comes_in_order_and_whole() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (checker, _, at) = checked(&streams, StreamOptions::default());
            let mut sender = TcpStream::connect(at).unwrap();
            sender.set_nodelay(true).unwrap();
            let all = patterned(1 << 20);
            let (mut sent, mut i) = (0, 0);
            while i < 800 || streams.counters().marks_set == 0 {
                assert!(i < 100_000, "{place:?}: many small messages raise the mark");
                i += 1;
                // Messages on their own, bursts below the mark, and seldom one beyond it.
                let (pieces, bytes) =
                    if i % 40 == 39 { (12, 1500) } else { [(1, 100), (20, 100), (1, 40), (3, 7)][i % 4] };
                for _ in 0..pieces {
                    sender.write_all(&all[sent % PERIOD as usize..][..bytes]).unwrap();
                    sent += bytes;
                }
                match i % 7 {
                    0 => until("all so far", || checker.bytes.get() == sent as u64).await,
                    1..5 => tokio::task::yield_now().await,
                    _ => {}
                }
            }
            drop(sender);
            until("closed", || !checker.closed.borrow().is_empty()).await;
            assert_eq!(
                (checker.bytes.get(), &checker.closed.borrow()[..]),
                (sent as u64, &[Closed::ByPeer][..])
            );
        });
    }
}

#[test]
fn limits_idle_times_and_deadlines_close_and_say_so() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let options = StreamOptions {
                connections_max: 2,
                idle: Some(Duration::from_millis(300)),
                ..StreamOptions::default()
            };
            let (checker, source, at) = checked(&streams, options);
            let mut sockets: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
            until("the third is refused", || streams.counters().refused == 1).await;
            assert_eq!(streams.connections(source), 2);
            let first = *checker.at.borrow().keys().min_by_key(|conn| conn.slot()).unwrap();
            streams.set_deadline(first, Some(Duration::ZERO));
            until("one is late", || checker.closed.borrow().contains(&Closed::Late)).await;
            until("one is idle", || checker.closed.borrow().contains(&Closed::Idle)).await;
            for socket in &mut sockets {
                assert!(matches!(socket.read(&mut [0; 1]), Ok(0) | Err(_)));
            }
        });
    }
}

/// Takes long over the first bytes that come.
struct Slow {
    checker: Rc<Checker>,
    takes: Cell<Duration>,
}

impl StreamConsumer for Slow {
    fn on_open(&self, conn: Conn, peer: Option<SocketAddr>) -> bool {
        self.checker.on_open(conn, peer)
    }

    fn on_bytes(&self, conn: Conn, lease: Lease) {
        self.checker.on_bytes(conn, lease);
        let (start, takes) = (Instant::now(), self.takes.take());
        while start.elapsed() < takes {
            std::hint::spin_loop();
        }
    }

    fn on_close(&self, conn: Conn, how: Closed) {
        self.checker.on_close(conn, how);
    }
}

#[test]
fn connections_whose_bytes_wait_for_a_shard_are_not_idle() {
    const IDLE: Duration = Duration::from_millis(300);
    // More than one turn sees.
    const CONNECTIONS: usize = 600;
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (listening, at) = listening(1);
            let checker = Rc::new(Checker::default());
            let slow = Slow { checker: Rc::clone(&checker), takes: Cell::new(2 * IDLE) };
            let options = StreamOptions { idle: Some(IDLE), ..StreamOptions::default() };
            let source = streams.add(options, Rc::new(slow));
            streams.listen(source, listening, 0).unwrap();
            streams.pause(source);
            let mut senders: Vec<TcpStream> =
                (0..CONNECTIONS).map(|_| TcpStream::connect(at).unwrap()).collect();
            senders.iter_mut().for_each(|sender| sender.write_all(&patterned(10)).unwrap());
            until("all are there", || streams.connections(source) == CONNECTIONS).await;
            streams.resume(source);
            until("all have brought what they had", || checker.bytes.get() == 10 * CONNECTIONS as u64).await;
            until("all are idle then", || checker.closed.borrow().len() == CONNECTIONS).await;
        });
    }
}

#[test]
fn a_source_that_is_held_back_keeps_those_whose_bytes_wait_and_no_others() {
    let idle = Some(Duration::from_millis(300));
    for (place, idle) in EVERYWHERE.into_iter().flat_map(|place| [(place, idle), (place, None)]) {
        on(place, move |streams| async move {
            let (checker, source, at) = checked(&streams, StreamOptions { idle, ..StreamOptions::default() });
            let mut sockets: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(at).unwrap()).collect();
            until("both are there", || streams.connections(source) == 2).await;
            streams.pause(source);
            sockets[0].write_all(&patterned(10)).unwrap();
            let how = if idle.is_some() { Closed::Idle } else { Closed::Late };
            if idle.is_none() {
                let both: Vec<Conn> = checker.at.borrow().keys().copied().collect();
                both.into_iter().for_each(|conn| streams.set_deadline(conn, Some(Duration::ZERO)));
            }
            until("the silent one is closed", || checker.closed.borrow()[..] == [how]).await;
            let resumed = Instant::now();
            streams.resume(source);
            until("the other has brought what it had", || checker.bytes.get() == 10).await;
            until("it is closed then", || checker.closed.borrow()[..] == [how, how]).await;
            let least = if idle.is_some() { 300 } else { 1000 };
            assert!(resumed.elapsed() >= Duration::from_millis(least), "it had time to answer, {place:?}");
        });
    }
}

#[test]
fn answers_arrive_and_a_peer_that_does_not_read_them_is_closed() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (checker, _, at) = checked(&streams, StreamOptions::default());
            let answer = patterned(400_000);
            let reader = std::thread::spawn(move || {
                let mut socket = TcpStream::connect(at).unwrap();
                let mut all = vec![0; 800_000];
                socket.read_exact(&mut all).unwrap();
                all
            });
            until("connected", || checker.at.borrow().len() == 1).await;
            let conn = *checker.at.borrow().keys().next().unwrap();
            streams.send(conn, &answer);
            streams.send(conn, &answer);
            until("closed", || checker.closed.borrow().len() == 1).await;
            let got = reader.join().unwrap();
            assert!(got[..400_000] == answer[..] && got[400_000..] == answer[..]);

            let _deaf = TcpStream::connect(at).unwrap();
            until("connected", || checker.at.borrow().len() == 1).await;
            let conn = *checker.at.borrow().keys().next().unwrap();
            for _ in 0..40 {
                streams.send(conn, &answer);
            }
            until("closed", || checker.closed.borrow().len() == 2).await;
            assert_eq!(checker.closed.borrow()[1], Closed::Unread, "{place:?}");
        });
    }
}

#[test]
fn unix_streams_and_removed_sources() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let listening = Listening::bind(&Address::Unix(path.clone()), 1, None).unwrap();
            let checker = Rc::new(Checker::default());
            let consumer = Rc::clone(&checker) as Rc<dyn StreamConsumer>;
            let source = streams.add(StreamOptions::default(), consumer);
            streams.listen(source, listening, 0).unwrap();
            let mut sender = UnixStream::connect(&path).unwrap();
            sender.write_all(&patterned(50_000)).unwrap();
            until("all came", || checker.bytes.get() == 50_000).await;
            streams.remove(source);
            until("closed by us", || *checker.closed.borrow() == [Closed::ByUs]).await;
            until("the peer sees it", || sender.write_all(b"x").is_err()).await;
            until("no one listens", || UnixStream::connect(&path).is_err()).await;
        });
    }
}

#[test]
fn what_the_kernel_refuses_to_go_on_with_is_let_go() {
    for place in EVERYWHERE {
        on(place, |streams| async move {
            let (checker, source, at) = checked(&streams, StreamOptions::default());
            let mut sender = TcpStream::connect(at).unwrap();
            sender.write_all(&patterned(50_000)).unwrap();
            until("all came", || checker.bytes.get() == 50_000).await;
            streams.abandon(source);
            assert_eq!(*checker.closed.borrow(), [Closed::Failed(std::io::ErrorKind::Other)]);
            until("the peer sees it", || sender.write_all(b"x").is_err()).await;
            assert_eq!((streams.connections(source), streams.is_deaf(source)), (0, true));
        });
    }
}

#[test]
fn a_listener_whose_last_word_is_a_connection_lets_go_of_its_port() {
    for place in [On::RingInTokio, On::RingInUring] {
        on(place, |streams| async move {
            let (_checker, source, at) = checked(&streams, StreamOptions::default());
            streams.stop_listening(source);
            let (slot, generation) = {
                let core = streams.core.borrow();
                let (slot, listener) = core.listeners.iter().next().expect("its request is still out");
                (slot as u32, listener.generation)
            };
            let token = Token { kind: Kind::Accept, slot, generation };
            let fd = std::fs::File::open("/dev/null").unwrap().into();
            streams.accepted(token, fd, false);
            assert!(streams.core.borrow().listeners.is_empty());
            until("nobody has the port", || TcpStream::connect(at).is_err()).await;
        });
    }
}

#[test]
fn connections_are_shared_out_between_shards() {
    let (listening, at) = listening(2);
    for place in EVERYWHERE {
        let shards: Vec<JoinHandle<u64>> = (0..2)
            .map(|seat| {
                let listening = Arc::clone(&listening);
                std::thread::spawn(move || {
                    on(place, |streams| async move {
                        let checker = Rc::new(Checker::default());
                        let consumer = Rc::clone(&checker) as Rc<dyn StreamConsumer>;
                        let source = streams.add(StreamOptions::default(), consumer);
                        streams.listen(source, Arc::clone(&listening), seat).unwrap();
                        until("all", || {
                            listening.connections() == 0
                                && checker.at.borrow().is_empty()
                                && checker.bytes.get() > 0
                        })
                        .await;
                        checker.bytes.get()
                    })
                })
            })
            .collect();
        // All stay open until all are there, so that each shard gets half.
        while !(0..2).all(|seat| listening.is_taken(seat)) {
            std::thread::yield_now();
        }
        let mut sockets: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
        let start = Instant::now();
        while listening.connections() < 20 {
            assert!(start.elapsed() < PATIENCE, "never: twenty connections");
            std::thread::yield_now();
        }
        sockets.iter_mut().for_each(|socket| socket.write_all(&patterned(1000)).unwrap());
        drop(sockets);
        let bytes: Vec<u64> = shards.into_iter().map(|shard| shard.join().unwrap()).collect();
        // Two shards that look at the same moment may both take one.
        assert_eq!(bytes[0] + bytes[1], 20_000, "{place:?}");
        assert!(bytes[0].abs_diff(bytes[1]) <= 4_000, "{place:?} {bytes:?}");
    }
}
