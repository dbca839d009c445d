//! Reads `/metrics` all the time, holds each page to the law of conservation, and remembers what it said.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::engine::ask;

/// Between two scrapes.
const EVERY: Duration = Duration::from_millis(10);

/// The samples of a page, by name and labels as they are written.
pub type Samples = BTreeMap<String, f64>;

/// What a page says of one source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Records it received in this life of the engine.
    pub received: u64,
    /// Records that all sinks have.
    pub delivered: u64,
    /// Records received and not yet out.
    pub in_flight: u64,
    /// Datagrams that the kernel dropped.
    pub kernel_drops: u64,
    /// Bytes that are there and not read.
    pub lag: u64,
}

/// One look.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// When it was asked for.
    pub at: Instant,
    /// What of the checkpoint on disk was up to date, at the latest.
    pub checkpointed: Instant,
    /// The sources by key.
    pub sources: HashMap<String, Figures>,
}

/// What is seen of one life of the engine.
#[derive(Default)]
struct Seen {
    scrapes: Vec<Scrape>,
    before: Samples,
    wrong: Vec<String>,
    count: u64,
}

/// A thread that scrapes.
pub struct Scraper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Odd while an engine is up; another number for each life.
    life: AtomicU64,
    ending: AtomicBool,
    seen: Mutex<Seen>,
}

impl Scraper {
    /// Begins; there is no engine yet.
    pub fn start(folder: &Path) -> Self {
        let shared = Arc::new(Shared {
            life: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        let (its, folder) = (Arc::clone(&shared), folder.to_owned());
        let thread = std::thread::spawn(move || {
            while !its.ending.load(Ordering::Acquire) {
                look(&its, &folder);
                std::thread::sleep(EVERY); // the scraper's pace
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// An engine is up: its counters begin at zero.
    pub fn up(&self) {
        let mut seen = self.shared.seen.lock().unwrap();
        seen.scrapes.clear();
        seen.before.clear();
        self.shared.life.fetch_add(1, Ordering::AcqRel);
    }

    /// The engine is about to end. Returns what was seen of its life.
    pub fn down(&self) -> Vec<Scrape> {
        let mut seen = self.shared.seen.lock().unwrap();
        self.shared.life.fetch_add(1, Ordering::AcqRel);
        std::mem::take(&mut seen.scrapes)
    }

    /// The last look at this life.
    pub fn last(&self) -> Option<Scrape> {
        self.shared.seen.lock().unwrap().scrapes.last().cloned()
    }

    /// Forgets what was seen so far of a life that goes on.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().scrapes.clear();
    }

    /// How many scrapes there were, and which broke the law.
    pub fn outcome(&self) -> (u64, Vec<String>) {
        let seen = self.shared.seen.lock().unwrap();
        (seen.count, seen.wrong.clone())
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(shared: &Shared, folder: &Path) {
    let life = shared.life.load(Ordering::Acquire);
    if life.is_multiple_of(2) {
        return;
    }
    let at = Instant::now();
    let Ok((200, text)) = ask(folder, "GET", "/metrics") else { return };
    let samples = parse(&text);
    let mut seen = shared.seen.lock().unwrap();
    if shared.life.load(Ordering::Acquire) != life {
        return;
    }
    let wrong = law(&samples, &seen.before);
    seen.wrong.extend(wrong);
    seen.count += 1;
    let age = samples.get("wpgen_checkpoint_age_seconds").copied().unwrap_or(f64::MAX).min(1e6);
    let checkpointed = at.checked_sub(Duration::from_secs_f64(age)).unwrap_or(at);
    // Nothing was up to date before the engine was.
    let checkpointed = if age >= 1e6 { seen.scrapes.first().map_or(at, |s| s.at) } else { checkpointed };
    seen.scrapes.push(Scrape { at, checkpointed, sources: sources(&samples) });
    seen.before = samples;
}

fn parse(text: &str) -> Samples {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// The samples of a family that have one label `source`, and of those with more the sum.
fn by_source<'a>(samples: &'a Samples, family: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    samples.iter().filter_map(move |(name, value)| {
        let labels = name.strip_prefix(family)?.strip_prefix("{source=\"")?;
        Some((labels.split_once('"')?.0, *value))
    })
}

fn sources(samples: &Samples) -> HashMap<String, Figures> {
    let mut sources: HashMap<String, Figures> = HashMap::new();
    let mut fill = |family: &str, set: fn(&mut Figures, u64)| {
        for (source, value) in by_source(samples, family) {
            set(sources.entry(source.to_owned()).or_default(), value as u64);
        }
    };
    fill("wpgen_source_received_records_total", |f, n| f.received = n);
    fill("wpgen_source_delivered_records_total", |f, n| f.delivered = n);
    fill("wpgen_source_in_flight_records", |f, n| f.in_flight = n);
    fill("wpgen_udp_kernel_drops_total", |f, n| f.kernel_drops = n);
    fill("wpgen_source_lag_bytes", |f, n| f.lag = n);
    sources
}

/// What a page has that breaks the law: in = delivered + rejected + dropped + in flight, nothing is rejected or dropped
/// of messages that are all sound, and no counter goes back.
fn law(samples: &Samples, before: &Samples) -> Vec<String> {
    let mut wrong = Vec::new();
    let sum = |family: &str, source: &str| -> f64 {
        by_source(samples, family).filter(|(other, _)| *other == source).map(|(_, n)| n).sum()
    };
    for (source, received) in by_source(samples, "wpgen_source_received_records_total") {
        let delivered = sum("wpgen_source_delivered_records_total", source);
        let rejected = sum("wpgen_source_rejected_records_total", source);
        let dropped = sum("wpgen_source_dropped_records_total", source);
        let in_flight = sum("wpgen_source_in_flight_records", source);
        if received != delivered + rejected + dropped + in_flight || delivered > received {
            wrong.push(format!(
                "the law: {source} received {received}, delivered {delivered}, rejected {rejected}, dropped {dropped}, in flight {in_flight}"
            ));
        }
        if rejected + dropped > 0.0 {
            wrong.push(format!("{source} rejected {rejected} and dropped {dropped} sound messages"));
        }
    }
    // A sink that a reload makes anew begins at zero.
    let counters =
        samples.iter().filter(|(name, _)| name.contains("_total") && !name.starts_with("wpgen_sink_"));
    for (name, value) in counters {
        if before.get(name).is_some_and(|before| before > value) {
            wrong.push(format!("{name} went back to {value}"));
        }
    }
    wrong
}
