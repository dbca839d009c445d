//! Batches on their way into sockets and files, through io_uring; where that is refused, through plain writes.
//!
//! Owns the descriptors and every buffer that the kernel reads. Invariants: a line has at most one batch under way, so its
//! bytes stay in order; a batch goes out once and comes home once, whole or not; a buffer is neither changed nor freed
//! while the kernel may read it.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::tls::{Sealed, Tls};
use super::way::{Io, Way};

/// Submissions that are collected before the ring is entered.
const SUBMISSIONS: u32 = 256;
/// Requests that may be under way on all lines together.
pub const REQUESTS_MAX: usize = 4096;
/// How long a ring that goes away waits for its requests to end.
const CANCEL_WAIT: Duration = Duration::from_secs(1);
/// The position that means a file's end, or where the last write ended.
const APPEND: u64 = u64::MAX;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Bytes in a row, into a socket.
    Stream,
    /// So many messages a call; more than one only where the kernel cuts them apart.
    Datagrams(usize),
    /// Bytes in a row, into a file.
    File,
}

/// Messages, one behind the other, and where each ends.
#[derive(Debug, Default)]
pub struct Batch {
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<u32>,
}

/// A batch that came home.
#[derive(Debug)]
pub struct Home {
    /// Its line.
    pub line: usize,
    /// The batch, to be filled again.
    pub batch: Batch,
    /// Messages of it that the kernel took.
    pub sent: usize,
    /// Bytes of it that the kernel took.
    pub sent_bytes: usize,
    /// Why it took no more.
    pub error: Option<io::Error>,
}

/// What messages go into.
#[derive(Debug)]
pub struct Opened {
    /// The socket or file.
    pub file: File,
    /// How it is written to.
    pub wire: Wire,
    /// What encrypts a stream.
    pub tls: Option<Box<Tls>>,
}

impl Opened {
    /// Messages go as they are.
    pub fn plain((file, wire): (File, Wire)) -> Self {
        Self { file, wire, tls: None }
    }
}

#[derive(Debug)]
struct Line {
    file: File,
    wire: Wire,
    tls: Option<Box<Tls>>,
    under_way: Option<UnderWay>,
    /// It broke: there is nobody to say goodbye to.
    broken: bool,
}

/// Invariant: what the kernel reads, `batch` or `sealed`, stays as it is until all requests are completed.
#[derive(Debug)]
struct UnderWay {
    batch: Batch,
    /// The batch as it goes over the wire, under TLS.
    sealed: Option<Sealed>,
    /// Requests that are not completed.
    open: usize,
    sent: usize,
    sent_bytes: usize,
    error: Option<io::Error>,
}

/// The lines of one thread.
pub struct Outbox {
    ring: Option<IoUring>,
    lines: Vec<Line>,
    homes: Vec<Home>,
    /// Completions that are being looked at: line and request, and the result.
    done: Vec<(u64, i32)>,
    /// Requests that are not completed, of all lines.
    open: usize,
    /// What is under way is given up.
    cancelled: bool,
}

impl Outbox {
    /// An outbox for the calling thread.
    pub fn new(opened: Vec<Opened>) -> Self {
        let line = |Opened { file, wire, tls }| Line { file, wire, tls, under_way: None, broken: false };
        let lines = opened.into_iter().map(line).collect();
        Self { ring: set_up(), lines, homes: Vec::new(), done: Vec::new(), open: 0, cancelled: false }
    }
}

impl Way for Outbox {
    fn io(&self) -> Io {
        if self.ring.is_some() { Io::Uring } else { Io::Plain }
    }

    fn is_empty(&self) -> bool {
        self.open == 0
    }

    fn put(&mut self, line: usize, batch: Batch) {
        assert!(self.lines[line].under_way.is_none(), "a line has one batch under way");
        let under_way = self.lines[line].begin(batch);
        if self.ring.is_none() || under_way.error.is_some() {
            let home = self.lines[line].write(line, under_way);
            self.homes.push(home);
            return;
        }
        let requests = match self.lines[line].wire {
            Wire::Datagrams(together) => under_way.batch.ends.len().div_ceil(together),
            Wire::Stream | Wire::File => 1,
        };
        self.lines[line].under_way = Some(under_way);
        self.make_room(requests);
        for request in 0..requests {
            self.push(line, request, request + 1 < requests);
        }
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        if self.ring.is_none() {
            if self.homes.is_empty() {
                std::thread::sleep(wait);
            }
            return Ok(());
        }
        self.enter(wait)?;
        self.collect();
        Ok(())
    }

    fn homes(&mut self) -> std::vec::Drain<'_, Home> {
        self.homes.drain(..)
    }

    fn close(&mut self) {
        for line in &mut self.lines {
            if let Some(tls) = line.tls.take_if(|_| !line.broken) {
                // All was sent; a receiver that does not listen to the end changes nothing.
                let _ = tls.close();
            }
        }
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        if let Some(ring) = &self.ring {
            // Whatever this says, what follows waits for the completions themselves.
            let _ = ring.submitter().register_sync_cancel(Some(CANCEL_WAIT.into()), CancelBuilder::any());
        }
    }
}

impl Outbox {
    fn enter(&mut self, wait: Duration) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        let time = Timespec::from(wait);
        match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time)) {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn collect(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        let mut done = std::mem::take(&mut self.done);
        done.extend(ring.completion().map(|c| (c.user_data(), c.result())));
        for (token, result) in done.drain(..) {
            let (line, request) = ((token >> 32) as usize, (token & 0xffff_ffff) as usize);
            self.open -= 1;
            let goes_on = self.lines[line].completed(request, result);
            if goes_on && !self.cancelled {
                self.push(line, 0, false);
            } else if let Some(home) = self.lines[line].home(line) {
                self.homes.push(home);
            }
        }
        self.done = done;
    }

    /// Room for requests that are linked: a chain must be submitted as a whole.
    fn make_room(&mut self, requests: usize) {
        if let Some(ring) = &mut self.ring {
            let queue = ring.submission();
            let room = queue.capacity() - queue.len();
            drop(queue);
            if room < requests {
                // A lasting failure shows when the ring is entered.
                let _ = ring.submit();
            }
        }
    }

    /// Queues a request. One that is `linked` ends before the next one begins, whatever becomes of it.
    fn push(&mut self, line: usize, request: usize, linked: bool) {
        let (Some(ring), Some(entry)) = (&mut self.ring, self.lines[line].request(request)) else { return };
        let link = if linked { squeue::Flags::IO_HARDLINK } else { squeue::Flags::empty() };
        let entry = entry.user_data((line as u64) << 32 | request as u64).flags(link);
        // SAFETY: the request reads a batch that stays in `under_way`, untouched, until all its requests completed; the
        // descriptor is the line's own; dropping the outbox waits for the requests, or leaks what they read.
        while unsafe { ring.submission().push(&entry) }.is_err() {
            // A full queue empties by being submitted; a lasting failure shows when the ring is entered.
            if let Err(error) = ring.submit()
                && !is_passing(&error)
            {
                return;
            }
        }
        self.open += 1;
        if let Some(under_way) = &mut self.lines[line].under_way {
            under_way.open += 1;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if self.open > 0 {
            self.cancel();
            let _ = self.enter(CANCEL_WAIT);
            self.collect();
        }
        for line in &mut self.lines {
            if let Some(under_way) = line.under_way.take() {
                // The kernel still reads it, so it must never be freed.
                std::mem::forget(under_way);
            }
        }
    }
}

impl Line {
    /// The bytes that request `n` of the batch under way has to send.
    fn part(under_way: &UnderWay, wire: Wire, n: usize) -> &[u8] {
        match wire {
            Wire::Stream | Wire::File => &under_way.bytes()[under_way.sent_bytes..],
            Wire::Datagrams(together) => {
                let batch = &under_way.batch;
                let first = n * together;
                let last = (first + together).min(batch.ends.len());
                let start = first.checked_sub(1).map_or(0, |before| batch.ends[before] as usize);
                &batch.bytes[start..batch.ends[last - 1] as usize]
            }
        }
    }

    fn request(&self, n: usize) -> Option<squeue::Entry> {
        let under_way = self.under_way.as_ref()?;
        let part = Self::part(under_way, self.wire, n);
        let (fd, start, length) = (Fd(self.file.as_raw_fd()), part.as_ptr(), part.len() as u32);
        Some(match self.wire {
            Wire::Stream => {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                opcode::Send::new(fd, start, length).flags(flags).build()
            }
            Wire::Datagrams(_) => opcode::Send::new(fd, start, length).flags(libc::MSG_NOSIGNAL).build(),
            Wire::File => opcode::Write::new(fd, start, length).offset(APPEND).build(),
        })
    }

    /// Takes the result of a request; true when the rest of a stream is to be sent.
    fn completed(&mut self, n: usize, result: i32) -> bool {
        let Some(under_way) = &mut self.under_way else { return false };
        under_way.open -= 1;
        if result < 0 {
            under_way.error = Some(io::Error::from_raw_os_error(-result));
            return false;
        }
        under_way.sent_bytes += result as usize;
        match self.wire {
            Wire::Datagrams(together) => {
                under_way.sent += together.min(under_way.batch.ends.len() - n * together);
                false
            }
            Wire::Stream | Wire::File if result == 0 => {
                under_way.error = Some(ErrorKind::WriteZero.into());
                false
            }
            Wire::Stream | Wire::File => under_way.sent_bytes < under_way.bytes().len(),
        }
    }

    /// The batch, once none of its requests is open.
    fn home(&mut self, line: usize) -> Option<Home> {
        let done = self.under_way.take_if(|u| u.open == 0)?;
        Some(self.come_home(line, done))
    }

    fn come_home(&mut self, line: usize, done: UnderWay) -> Home {
        let UnderWay { batch, sealed, sent, sent_bytes: on_the_wire, mut error, .. } = done;
        let sent_bytes = sealed.as_ref().map_or(on_the_wire, |sealed| sealed.plain_bytes(on_the_wire));
        let sent = match self.wire {
            Wire::Datagrams(_) => sent,
            Wire::Stream | Wire::File => batch.ends.partition_point(|end| *end as usize <= sent_bytes),
        };
        self.broken |= error.is_some();
        if let Some(tls) = &mut self.tls {
            error = error.map(|error| tls.explain(error));
            sealed.into_iter().for_each(|sealed| tls.reuse(sealed));
        }
        Home { line, batch, sent, sent_bytes, error }
    }

    /// A batch at its beginning, encrypted where that is the line's way.
    fn begin(&mut self, batch: Batch) -> UnderWay {
        let sealed = self.tls.as_mut().map(|tls| tls.seal(&batch.bytes)).transpose();
        let (sealed, error) = sealed.map_or_else(|error| (None, Some(error)), |sealed| (sealed, None));
        UnderWay { batch, sealed, open: 0, sent: 0, sent_bytes: 0, error }
    }

    /// Sends a batch with plain writes, which wait for the receiver.
    fn write(&mut self, line: usize, mut under_way: UnderWay) -> Home {
        while under_way.sent_bytes < under_way.bytes().len() && under_way.error.is_none() {
            let request = match self.wire {
                Wire::Datagrams(together) => under_way.sent / together,
                Wire::Stream | Wire::File => 0,
            };
            match self.file.write(Self::part(&under_way, self.wire, request)) {
                Ok(0) => under_way.error = Some(ErrorKind::WriteZero.into()),
                Ok(n) => under_way.sent_bytes += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => under_way.error = Some(e),
            }
            let sent_bytes = under_way.sent_bytes;
            under_way.sent = under_way.batch.ends.partition_point(|end| *end as usize <= sent_bytes);
        }
        self.come_home(line, under_way)
    }
}

impl UnderWay {
    /// What goes over the wire.
    fn bytes(&self) -> &[u8] {
        self.sealed.as_ref().map_or(&self.batch.bytes, |sealed| &sealed.bytes)
    }
}

/// The cheapest ring that this kernel makes; none where io_uring is refused.
fn set_up() -> Option<IoUring> {
    let completions = 2 * REQUESTS_MAX as u32;
    let deferred = IoUring::builder()
        .setup_cqsize(completions)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(SUBMISSIONS);
    let ring = deferred.or_else(|_| IoUring::builder().setup_cqsize(completions).build(SUBMISSIONS)).ok()?;
    ring.params().is_feature_ext_arg().then_some(ring)
}

/// What only says to try again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn batch(messages: &[&[u8]]) -> Batch {
        let mut batch = Batch::default();
        for message in messages {
            batch.bytes.extend_from_slice(message);
            batch.ends.push(batch.bytes.len() as u32);
        }
        batch
    }

    fn file(fd: impl Into<OwnedFd>) -> File {
        File::from(fd.into())
    }

    fn plain(mut outbox: Outbox) -> Outbox {
        outbox.ring = None;
        outbox
    }

    fn come_home(outbox: &mut Outbox) -> Home {
        for _ in 0..1000 {
            outbox.turn(Duration::from_millis(20)).unwrap();
            if let Some(home) = outbox.homes().next() {
                return home;
            }
        }
        panic!("it never comes home");
    }

    #[test]
    fn a_stream_gets_its_bytes_in_order_also_when_it_is_full_for_a_while() {
        for make in [|o| o, plain as fn(Outbox) -> Outbox] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let message: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
            let expected = message.clone();
            let reader = std::thread::spawn(move || {
                let mut bytes = vec![0; expected.len()];
                theirs.read_exact(&mut bytes).unwrap();
                assert!(bytes == expected);
            });
            let mut outbox = make(Outbox::new(vec![Opened::plain((file(ours), Wire::Stream))]));
            outbox.put(0, batch(&[&message]));
            let home = come_home(&mut outbox);
            assert_eq!((home.sent, home.sent_bytes, home.error.is_none()), (1, message.len(), true));
            reader.join().unwrap();
        }
    }

    #[test]
    fn datagrams_are_one_each() {
        for make in [|o| o, plain as fn(Outbox) -> Outbox] {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut outbox = make(Outbox::new(vec![Opened::plain((file(ours), Wire::Datagrams(1)))]));
            outbox.put(0, batch(&[b"one", b"2", b"three"]));
            let mut buffer = [0; 9];
            for expected in [&b"one"[..], b"2", b"three"] {
                outbox.turn(Duration::from_millis(1)).unwrap();
                let n = theirs.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..n], expected);
            }
            assert_eq!(come_home(&mut outbox).sent, 3);
        }
    }

    #[test]
    fn what_a_peer_that_left_did_not_take_comes_home_with_the_reason() {
        for make in [|o| o, plain as fn(Outbox) -> Outbox] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            drop(theirs);
            let mut outbox = make(Outbox::new(vec![Opened::plain((file(ours), Wire::Stream))]));
            outbox.put(0, batch(&[b"a", b"b"]));
            let home = come_home(&mut outbox);
            assert_eq!((home.sent, home.error.map(|e| e.kind())), (0, Some(ErrorKind::BrokenPipe)));
        }
    }

    #[test]
    fn what_nobody_reads_can_be_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new(vec![Opened::plain((file(ours), Wire::Stream))]);
        if outbox.io() == Io::Plain {
            return;
        }
        outbox.put(0, batch(&[&[b'x'; 10], &[b'y'; 4_000_000]]));
        outbox.turn(Duration::from_millis(1)).unwrap();
        outbox.cancel();
        let home = come_home(&mut outbox);
        assert!(home.sent < 2 && home.sent_bytes < 4_000_000 && outbox.is_empty());
    }
}
