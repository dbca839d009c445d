//! In front of a broker: passes on what clients and the broker send, frame by frame, but for the commit of a transaction that
//! a test waits for. There it strikes, before the broker has heard of it or after it has done it.
//!
//! A frame is its length in four bytes and so many bytes; a request begins with its kind, version and number, and its answer
//! with that number. The commit's request ends in a byte that says that it is none of an abort, and its answer, in the
//! versions that librdkafka speaks, in two bytes of an error.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::broker::Broker;
use crate::harness::until;

const END_TXN: [u8; 2] = [0, 26];
/// A producer that hears this of its commit is broken for good, and knows nothing of how that ended.
const INVALID_TXN_STATE: [u8; 2] = [0, 48];

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    /// Whether the broker does it.
    pub is_done: bool,
    /// Whether the client hears that it has failed; else it hears nothing.
    pub is_refused: bool,
}

/// What is to become of the next commit, and what has become of it.
#[derive(Default)]
struct Plan {
    next: Option<Blow>,
    struck: u64,
}

/// The front of the broker that most tests share.
pub struct Front {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

/// One connection of a client's.
struct Line {
    client: Mutex<TcpStream>,
    plan: Arc<Mutex<Plan>>,
    /// The number of the request whose answer is struck, and how.
    awaited: Mutex<Option<([u8; 4], Blow)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Front {
    /// It, for one test at a time.
    pub fn shared() -> Option<MutexGuard<'static, Self>> {
        static SHARED: OnceLock<Option<Mutex<Front>>> = OnceLock::new();
        let open = || Broker::shared().map(|broker| Mutex::new(Self::open(broker)));
        let front = lock(SHARED.get_or_init(open).as_ref()?);
        *lock(&front.plan) = Plan::default();
        Some(front)
    }

    fn open(broker: &Broker) -> Self {
        let (port, behind) = (broker.front(), broker.behind());
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let front = Self { port, plan: Arc::default() };
        let plan = Arc::clone(&front.plan);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, plan) = (client.unwrap(), Arc::clone(&plan));
                let broker = TcpStream::connect(&behind).unwrap();
                std::thread::spawn(move || Line::pass(client, broker, plan));
            }
        });
        front
    }

    /// Where it is.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Strikes at the next commit, and waits until that has happened.
    pub fn strike(&self, blow: Blow) {
        let before = lock(&self.plan).struck;
        lock(&self.plan).next = Some(blow);
        until(&format!("a commit is struck: {blow:?}"), || lock(&self.plan).struck > before);
    }
}

impl Line {
    fn pass(client: TcpStream, broker: TcpStream, plan: Arc<Mutex<Plan>>) {
        let (from_client, to_broker) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
        let line = Arc::new(Self { client: Mutex::new(client), plan, awaited: Mutex::default() });
        let answers = Arc::clone(&line);
        std::thread::spawn(move || {
            let ended = answers.answers(&broker);
            let _ = lock(&answers.client).shutdown(Shutdown::Both);
            ended
        });
        // Whichever side ends, the other one ends with it.
        let _ = line.requests(&from_client, &to_broker);
        let _ = to_broker.shutdown(Shutdown::Both);
    }

    fn requests(&self, mut client: &TcpStream, mut broker: &TcpStream) -> Result<()> {
        loop {
            let frame = read_frame(&mut client)?;
            match self.blow(&frame) {
                None => write_frame(&mut broker, &frame)?,
                Some(blow) if blow.is_done => {
                    *lock(&self.awaited) = Some((number(&frame[4..]), blow));
                    write_frame(&mut broker, &frame)?;
                }
                Some(blow) => self.answer_for_it(&number(&frame[4..]), blow)?,
            }
        }
    }

    /// What becomes of a request, unless it is only passed on.
    fn blow(&self, frame: &[u8]) -> Option<Blow> {
        let is_commit = frame.starts_with(&END_TXN) && frame.ends_with(&[1]);
        if is_commit { lock(&self.plan).next.take() } else { None }
    }

    fn answer_for_it(&self, number: &[u8; 4], blow: Blow) -> Result<()> {
        if blow.is_refused {
            let throttled = [0; 4];
            let answer = [&number[..], &throttled, &INVALID_TXN_STATE].concat();
            write_frame(&mut *lock(&self.client), &answer)?;
        }
        lock(&self.plan).struck += 1;
        Ok(())
    }

    fn answers(&self, mut broker: &TcpStream) -> Result<()> {
        loop {
            let frame = read_frame(&mut broker)?;
            let awaited = lock(&self.awaited).take_if(|(awaited, _)| *awaited == number(&frame));
            match awaited {
                Some((number, blow)) => {
                    assert!(frame.ends_with(&[0, 0]), "the broker has not committed: {frame:?}");
                    self.answer_for_it(&number, blow)?;
                }
                None => write_frame(&mut *lock(&self.client), &frame)?,
            }
        }
    }
}

fn number(frame: &[u8]) -> [u8; 4] {
    frame[..4].try_into().unwrap()
}

fn read_frame(from: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(to: &mut impl Write, frame: &[u8]) -> Result<()> {
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    to.write_all(&[&length[..], frame].concat())
}
