//! Two sources on one shard: what the one costs while the other's sink stalls, against the same while it is idle.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::{Meter, SENDER_CPU, on_cpu};
use crate::message::Messages;
use crate::receiver::{PATIENCE, Receiver, Watch, free_port, sink, syslog_source};
use crate::sender::{How, Sender, To};
use crate::table::{Run, Table, quarter};

const QUIET: &str = "tcp, large writes, beside an idle source";
const STALLED: &str = "tcp, large writes, beside a stalled one";
/// Messages of a large write.
const LARGE: usize = 256;
/// Silence by which a source is known to be stalled.
const STALLED_AFTER: Duration = Duration::from_millis(200);
/// More than its budget, a sink's batches and the bench's pipe hold together.
const STALLED_WITHIN_BYTES: u64 = 64 << 20;

/// Both, in pairs.
pub struct Pairs {
    pub table: Table,
    /// What the stalled source cost in each pair, percent.
    more: Vec<f64>,
}

/// Measures both in alternation, in one engine and over one connection, so that a pair differs in nothing else.
pub fn measure(pairs: usize, messages: u64) -> Pairs {
    let home = tempfile::tempdir().expect("a folder for the bench");
    let fifo = home.path().join("stuck");
    let mut pipe = make_fifo(&fifo);
    let (at, stuck_at) = (free_port(false), free_port(false));
    let receiver = Receiver::start_in(
        home,
        &[
            syslog_source("quick", at, "tcp", ""),
            syslog_source("stuck", stuck_at, "tcp", ""),
            sink("b", "blackhole_sink", "quick", ""),
            sink("f", "file_sink", "stuck", &format!("path = \"{}\"", fifo.display())),
        ]
        .concat(),
    );
    let watch = &receiver.watch;
    let mut sender = Sender::new(Messages::new(b'\n', false), &To::Tcp(at), How::new(1, LARGE));
    let mut all = Pairs { table: Table::default(), more: Vec::new() };
    for _ in 0..pairs {
        // Before the other there is as much silence.
        std::thread::sleep(STALLED_AFTER);
        let quiet = run(watch, &mut sender, messages);
        let flood = Flood::start(watch, stuck_at);
        let stalled = run(watch, &mut sender, messages);
        flood.end(watch, &mut pipe);
        all.more.push((stalled.ns() / quiet.ns() - 1.0) * 100.0);
        all.table.add(QUIET, None, quiet);
        all.table.add(STALLED, None, stalled);
    }
    drop(sender);
    receiver.end();
    all
}

/// The difference, in percent.
pub fn print_difference(all: &Pairs) {
    let [low, middle, high] = [1, 2, 3].map(|quarters| quarter(all.more.iter().copied(), quarters));
    println!(
        "beside a stalled source: {middle:+.1} %, the median of {} pairs; half of them {low:+.1} to {high:+.1} % (target: within 5 %)",
        all.more.len()
    );
}

/// Measures what comes after the first twentieth.
fn run(watch: &Watch, sender: &mut Sender, messages: u64) -> Run {
    let before = sender.send(messages / 20);
    watch.account_for(before, true);
    let meter = Meter::start(std::process::id());
    let (sent, sender_ns) = on_cpu(SENDER_CPU, || {
        let sent = sender.send(messages);
        watch.account_for(sent, true);
        sent
    });
    Run { took: meter.stop(sender_ns), messages: sent - before, lost: 0 }
}

/// A FIFO that is open for reading, so that it can be opened for writing, and that nobody reads.
fn make_fifo(path: &Path) -> File {
    let text = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: the path is a string that ends in NUL.
    let code = unsafe { libc::mkfifo(text.as_ptr(), 0o600) };
    assert_eq!(code, 0, "a FIFO can be made");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).expect("the FIFO opens")
}

/// A sender whose messages go to the sink that stalls.
struct Flood {
    stream: TcpStream,
    thread: JoinHandle<u64>,
    /// Bytes of the source before.
    first: u64,
}

impl Flood {
    /// Sends until nothing is taken any more.
    fn start(watch: &Watch, at: SocketAddr) -> Self {
        let first = watch.bytes(1);
        let stream = TcpStream::connect(at).expect("the receiver takes connections");
        let mut sending = stream.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            let (messages, mut bytes) = (Messages::new(b'\n', false), 0);
            while let Ok(n) = sending.write(messages.from(0, LARGE)) {
                bytes += n as u64;
            }
            bytes
        });
        let (mut last, mut since) = (first, Instant::now());
        while last == first || since.elapsed() < STALLED_AFTER {
            std::thread::sleep(STALLED_AFTER / 20);
            let now = watch.bytes(1);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            assert!(last - first < STALLED_WITHIN_BYTES, "a source whose sink stalls is held back");
        }
        Self { stream, thread, first }
    }

    /// Reads the FIFO after all: everything that was sent must still arrive, and all of it be delivered.
    fn end(self, watch: &Watch, pipe: &mut File) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is whole");
        let sent = self.thread.join().expect("the flood ends");
        let (start, mut buffer) = (Instant::now(), vec![0; 1 << 16]);
        while watch.bytes(1) - self.first < sent || !watch.is_delivered(1) {
            assert!(start.elapsed() < PATIENCE, "what waited arrives");
            if !pipe.read(&mut buffer).is_ok_and(|n| n > 0) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(watch.bytes(1) - self.first, sent, "every byte, once");
    }
}
