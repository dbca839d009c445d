//! Batches between two threads and home again: the engine's mailbox beside crossbeam's channel and `rtrb`; time a batch.
//!
//! Sixteen boxes go round: the sender numbers them, the receiver checks each number and sends the box home, so nothing is
//! allocated while it is timed. All three are told to wait as their kind does: the mailbox with its wake, the channel with
//! its own, `rtrb`, which knows no wake, by leaving the CPU.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::queue::Mailbox;

/// What goes round: a box, as a batch is.
type Letter = Box<u64>;

const LETTERS: usize = 16;
/// Letters of an iteration.
const EACH: u64 = 1024;

/// One way of a pair of queues, as a thread sees it.
trait End: Send {
    fn put(&mut self, letter: Letter);
    fn take(&mut self) -> Letter;
}

/// Here and there.
type Ends = [Box<dyn End>; 2];

struct Mail {
    to: Arc<Mailbox<Letter>>,
    from: Arc<Mailbox<Letter>>,
    runtime: tokio::runtime::Runtime,
}

impl End for Mail {
    fn put(&mut self, letter: Letter) {
        self.to.put(letter).expect("credit bounds the mail");
    }

    fn take(&mut self) -> Letter {
        self.from.try_take().unwrap_or_else(|| self.runtime.block_on(self.from.take()))
    }
}

fn mailboxes() -> Ends {
    let (out, home) = (Arc::new(Mailbox::new(LETTERS)), Arc::new(Mailbox::new(LETTERS)));
    let end = |to: &Arc<Mailbox<Letter>>, from: &Arc<Mailbox<Letter>>| -> Box<dyn End> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Box::new(Mail { to: Arc::clone(to), from: Arc::clone(from), runtime })
    };
    [end(&out, &home), end(&home, &out)]
}

struct Channel(crossbeam_channel::Sender<Letter>, crossbeam_channel::Receiver<Letter>);

impl End for Channel {
    fn put(&mut self, letter: Letter) {
        self.0.send(letter).expect("the other end is there");
    }

    fn take(&mut self) -> Letter {
        self.1.recv().expect("the other end is there")
    }
}

fn channels() -> Ends {
    let ((to, out), (back, home)) =
        (crossbeam_channel::bounded(LETTERS), crossbeam_channel::bounded(LETTERS));
    [Box::new(Channel(to, home)), Box::new(Channel(back, out))]
}

struct Ring(rtrb::Producer<Letter>, rtrb::Consumer<Letter>);

impl End for Ring {
    fn put(&mut self, letter: Letter) {
        self.0.push(letter).expect("there are as many places as letters");
    }

    fn take(&mut self) -> Letter {
        loop {
            if let Ok(letter) = self.1.pop() {
                return letter;
            }
            std::thread::yield_now();
        }
    }
}

fn rings() -> Ends {
    let ((to, out), (back, home)) = (rtrb::RingBuffer::new(LETTERS), rtrb::RingBuffer::new(LETTERS));
    [Box::new(Ring(to, home)), Box::new(Ring(back, out))]
}

/// Sends so many letters round; every one must arrive once and in order.
fn round(ends: Ends, letters: u64) -> Duration {
    let [mut here, mut there] = ends;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..letters {
                let letter = there.take();
                assert_eq!(*letter, n, "a letter is missing, or out of order");
                there.put(letter);
            }
        });
        let began = Instant::now();
        let mut spare: Vec<Letter> = (0..LETTERS).map(|_| Letter::default()).collect();
        for n in 0..letters {
            let mut letter = spare.pop().unwrap_or_else(|| here.take());
            *letter = n;
            here.put(letter);
        }
        let out = LETTERS.min(usize::try_from(letters).unwrap_or(LETTERS));
        (0..out.saturating_sub(spare.len())).for_each(|_| drop(here.take()));
        began.elapsed()
    })
}

fn hand_off(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand-off");
    group.throughput(Throughput::Elements(EACH));
    let kinds = [("mailbox", mailboxes as fn() -> Ends), ("crossbeam channel", channels), ("rtrb", rings)];
    for (name, ends) in kinds {
        group.bench_function(name, |b| b.iter_custom(|iterations| round(ends(), iterations * EACH)));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = hand_off
}
criterion_main!(benches);
