//! Where framed records of a socket source enter the engine: headers, limits, counters, runs, lanes.
//!
//! One inlet a source and shard. Its inputs cannot repeat, so they share one window, and positions are a running count
//! of bytes. An inlet waits while a sink has no credit or the source's rate is used up, and with it only its source.
//! What differs between records of a run (a bad message bears a tag) is told by two origins that live as long as the
//! inlet: a lane knows an origin by its address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Columns, Mark, Origin, Positions, Run, Span};
use crate::diagnosis::HELP;
use crate::escape::escape_outside_to;
use crate::frame::Rules;
use crate::lane::deliver;
use crate::metrics::Reason;
use crate::source::headers::{Bad, HeaderRules, Headers, message_len};
use crate::source::limited::Limited;
use crate::source::part::Surroundings;
use crate::source::rate::Rate;
use crate::source::remedy;
use crate::source::seldom::Seldom;
use crate::source::syslog::HeaderMode;

/// Bytes of a bad message that the log shows.
const SHOWN_BYTES: usize = 80;
/// A rate of streams is looked at again after this time at the latest.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What all inlets of a source go by.
#[derive(Clone, Debug)]
pub struct InletRules {
    /// The source's key.
    pub key: Arc<str>,
    /// This machine's name.
    pub host: Arc<str>,
    /// The source's tags, those of its kind included.
    pub tags: Vec<(String, String)>,
    /// What becomes of syslog headers; none for records without.
    pub headers: Option<HeaderRules>,
    /// How a stream is framed; none for datagrams.
    pub framing: Option<Rules>,
    /// How its records come: see [`Origin::protocol`]; empty for none.
    pub protocol: &'static str,
    /// The limit of records a second.
    pub rate: Option<Arc<Rate>>,
}

/// Who sent records, as far as it is known and the same for all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'a> {
    /// The other side of the connection.
    pub peer: Option<SocketAddr>,
    /// Whom its certificate names, where it was verified.
    pub subject: Option<&'a Arc<str>>,
}

/// Records as framing made them.
#[derive(Debug)]
pub struct Framed<'a> {
    /// What they lie in.
    pub bytes: &'a [u8],
    /// Where; changed in place.
    pub records: &'a mut Vec<Span>,
    /// Who sent each, where they differ; else empty.
    pub peers: &'a mut Vec<SocketAddr>,
    /// Who sent all of them.
    pub sender: Sender<'a>,
    /// See [`Run::verbatim`].
    pub verbatim: bool,
    /// The position of the first of the bytes.
    pub base: u64,
    /// The position behind the records.
    pub upto: u64,
}

/// The way of a source's records into the engine, on one shard.
pub struct Inlet {
    around: Surroundings,
    slot: u32,
    key: Arc<str>,
    plain: Origin,
    marked: Origin,
    headers: Option<Headers>,
    framing: Option<Rules>,
    rate: Option<Arc<Rate>>,
    started: Instant,
    bad: Seldom,
    lost: Seldom,
    limited: Limited,
}

impl Inlet {
    /// Opens the window.
    pub fn new(around: Surroundings, rules: &InletRules) -> Self {
        let slot = around.shard.settle().open(0, 0);
        let origin = |tags| Origin {
            source: Arc::clone(&rules.key),
            host: Arc::clone(&rules.host),
            tags,
            peer: None,
            tls_subject: None,
            assignment: None,
            protocol: Some(rules.protocol).filter(|name| !name.is_empty()),
            mark: Mark::default(),
        };
        let mut marked = rules.tags.clone();
        marked.push(("syslog_malformed".to_owned(), "true".to_owned()));
        Self {
            slot,
            key: Arc::clone(&rules.key),
            plain: origin(rules.tags.clone()),
            marked: origin(marked),
            headers: rules.headers.clone().map(Headers::new),
            framing: rules.framing,
            rate: rules.rate.clone(),
            started: Instant::now(),
            bad: Seldom::default(),
            lost: Seldom::default(),
            limited: Limited::new(&rules.key, &around.counters),
            around,
        }
    }

    /// Where it is.
    pub fn around(&self) -> &Surroundings {
        &self.around
    }

    /// The source's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether its records are messages of syslog.
    pub fn is_syslog(&self) -> bool {
        self.headers.is_some()
    }

    /// Nanoseconds on the clock that rates go by.
    fn elapsed_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// How many of `n` records the rate admits; the others are counted as dropped. For senders that cannot be slowed.
    pub fn admit(&self, n: u64) -> u64 {
        let Some(rate) = &self.rate else { return n };
        let admitted = rate.admit(n, self.elapsed_ns());
        self.limited.too_many(n - admitted);
        admitted
    }

    /// Where what its settings leave out is counted.
    pub fn limited(&self) -> &Limited {
        &self.limited
    }

    /// How many records to give at a time: see [`Rate::at_once`].
    pub fn at_once(&self) -> usize {
        self.rate.as_ref().map_or(usize::MAX, |rate| rate.at_once())
    }

    /// Waits until the rate admits what [`Inlet::give`] took. For streams: the senders' windows close meanwhile.
    pub async fn pace(&mut self, records: u64) {
        let Some(rate) = self.rate.clone() else { return };
        let mut wait_ns = rate.take(records, self.elapsed_ns());
        while wait_ns > 0 && !self.around.stop.is_raised() {
            let pause = PAUSE_MAX.min(Duration::from_nanos(wait_ns));
            tokio::time::sleep(pause).await;
            wait_ns = rate.take(0, self.elapsed_ns());
        }
    }

    /// Hands records to every lane; waits while one has no credit.
    pub async fn give(&mut self, framed: Framed<'_>) {
        let Framed { bytes, records, peers, sender: Sender { peer, subject }, mut verbatim, base, upto } =
            framed;
        let Some(entered) = self.around.lanes.enter(&self.around.stop).await else {
            return self.lose(records.len() as u64);
        };
        let received_ns = self.around.shard.now_ns();
        self.around.counters.records.add(records.len() as u64);
        if let Some(headers) = &mut self.headers {
            headers.want(self.around.lanes.wants_headers());
            // Where lines lie one behind the other, no record ends in a newline.
            if !verbatim {
                records.iter_mut().for_each(|r| r.end = r.start + message_len(r.of(bytes)) as u32);
            }
            let bad = headers.read(bytes, records, peers, received_ns);
            verbatim &= headers.keeps() && bad.dropped == 0;
            if bad.records > 0 {
                self.count_bad(bytes, peer.or_else(|| peers.first().copied()), base, &bad);
            }
        }
        for origin in [&mut self.plain, &mut self.marked] {
            origin.peer = peer;
            origin.tls_subject = subject.cloned();
        }
        let mut from = 0;
        while from < records.len() {
            let (to, marked) = match &self.headers {
                Some(headers) => headers.alike(from, records.len()),
                None => (records.len(), false),
            };
            let whole = to - from == records.len();
            let upto = records.get(to).map_or(upto, |next| base + u64::from(next.start));
            let run = Run {
                bytes,
                records: &records[from..to],
                verbatim: verbatim && whole,
                columns: self.headers.as_ref().map_or(Columns::None, |headers| headers.column(from, to)),
                peers: if peers.is_empty() { &[] } else { &peers[from..to] },
                origin: if marked { &self.marked } else { &self.plain },
                received_ns,
                positions: Positions::Linear { base, upto },
            };
            deliver(&self.around, &entered, self.slot, &run, upto).await;
            from = to;
        }
    }

    /// The source was stopped while a sink of it did not run, and nobody can send these once more.
    #[cold]
    fn lose(&self, records: u64) {
        self.around.counters.records.add(records);
        self.around.counters.drop_records(Reason::SinkNotOpen, records);
        let Some(times) = self.lost.happened(records) else { return };
        log::error!(
            target: "wpgen::source",
            "source '{}' was stopped while it waited for a sink that does not run: what it had received is lost ({times} \
             records so far); the log says why that sink was not opened",
            self.key
        );
    }

    #[cold]
    fn count_bad(&self, bytes: &[u8], peer: Option<SocketAddr>, base: u64, bad: &Bad) {
        let counters = &self.around.counters;
        counters.malformed.add(bad.records);
        counters.drop_records(Reason::Malformed, bad.dropped);
        let (Some(times), Some((record, fault))) = (self.bad.happened(bad.records), bad.first) else {
            return;
        };
        let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
        let shown = escape_outside_to(record.of(bytes), SHOWN_BYTES);
        let fate = if bad.dropped > 0 { "dropped" } else { "passed on as it came" };
        let mode = self.headers.as_ref().map_or(HeaderMode::Keep, Headers::mode);
        let remedy = remedy::of_message(bytes, record, self.framing, mode);
        log::warn!(
            target: "wpgen::syslog",
            "source '{}': [WP304] Invalid syslog format{from}: {} at byte {} of the message at byte {}: {shown}; {fate} \
             ({times} such messages){HELP}{remedy}",
            self.key,
            fault.fault.words(),
            fault.position,
            base + u64::from(record.start),
        );
    }

    /// Gives the window back once everything is settled; the inlet takes no more.
    pub fn close(self) {
        self.around.shard.settle().close(self.slot);
    }
}
