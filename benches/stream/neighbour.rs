//! Two sources on one shard: what the one costs while the other's sink stalls, against the same while it is idle.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::{Meter, SENDER_CPU, on_cpu};
use crate::message::Messages;
use crate::receiver::{PATIENCE, Receiver, Watch, free_port, sink, syslog_source};
use crate::sender::{How, Sender, To};
use crate::table::{Run, Table};

const QUIET: &str = "tcp, large writes, beside an idle source";
const STALLED: &str = "tcp, large writes, beside a stalled one";
/// Messages of a large write.
const LARGE: usize = 256;
/// Silence by which a source is known to be stalled.
const STALLED_AFTER: Duration = Duration::from_millis(200);
/// More than its budget, a sink's batches and the bench's pipe hold together.
const STALLED_WITHIN_BYTES: u64 = 64 << 20;

/// Measures both in alternation; the last column of the table is about the measured source alone.
pub fn measure(runs: usize, messages: u64) -> Table {
    let mut table = Table::default();
    for _ in 0..runs {
        table.add(QUIET, None, run(messages, false));
        table.add(STALLED, None, run(messages, true));
    }
    table
}

/// The difference, in percent.
pub fn print_difference(table: &Table) {
    if let (Some(quiet), Some(stalled)) = (table.ns(QUIET), table.ns(STALLED)) {
        println!("beside a stalled source: {:+.1} % (target: within 5 %)", (stalled / quiet - 1.0) * 100.0);
    }
}

fn run(messages: u64, stalled: bool) -> Run {
    let home = tempfile::tempdir().expect("a folder for the bench");
    let fifo = home.path().join("stuck");
    let pipe = make_fifo(&fifo);
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
    let flood = stalled.then(|| Flood::start(watch, stuck_at));
    let mut sender =
        Sender::new(Messages::new(b'\n', false), &To::Tcp(at), How { connections: 1, each: LARGE });
    let first = sender.send(messages / 20);
    watch.account_for(first, true);
    let meter = Meter::start(std::process::id());
    let (sent, sender_ns) = on_cpu(SENDER_CPU, || {
        let sent = sender.send(messages);
        watch.account_for(sent, true);
        sent
    });
    let took = meter.stop(sender_ns);
    drop(sender);
    if let Some(flood) = flood {
        flood.end(watch, pipe);
    }
    receiver.end();
    Run { took, messages: sent - first, lost: 0 }
}

/// A FIFO that is open for reading, so that it can be opened for writing, and that nobody reads.
fn make_fifo(path: &Path) -> File {
    let text = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: the path is a string that ends in NUL.
    let code = unsafe { libc::mkfifo(text.as_ptr(), 0o600) };
    assert_eq!(code, 0, "a FIFO can be made");
    OpenOptions::new().read(true).write(true).open(path).expect("the FIFO opens")
}

/// A sender whose messages go to the sink that stalls.
struct Flood {
    stream: TcpStream,
    thread: JoinHandle<u64>,
}

impl Flood {
    /// Sends until nothing is taken any more.
    fn start(watch: &Watch, at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).expect("the receiver takes connections");
        let mut sending = stream.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            let (messages, mut bytes) = (Messages::new(b'\n', false), 0);
            while let Ok(n) = sending.write(messages.from(0, LARGE)) {
                bytes += n as u64;
            }
            bytes
        });
        let (mut last, mut since) = (0, Instant::now());
        while last == 0 || since.elapsed() < STALLED_AFTER {
            std::thread::sleep(STALLED_AFTER / 20);
            let now = watch.bytes(1);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            assert!(last < STALLED_WITHIN_BYTES, "a source whose sink stalls is held back");
        }
        Self { stream, thread }
    }

    /// Reads the FIFO after all: everything that was sent must still arrive.
    fn end(self, watch: &Watch, mut pipe: File) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is whole");
        let sent = self.thread.join().expect("the flood ends");
        // It ends with the bench.
        std::thread::spawn(move || while pipe.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
        let start = Instant::now();
        while watch.bytes(1) < sent {
            assert!(start.elapsed() < PATIENCE, "what waited arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(watch.bytes(1), sent, "every byte, once");
    }
}
