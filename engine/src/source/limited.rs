//! What a network source leaves out or cuts because its settings say so: counted each time, and said seldom.

use std::sync::Arc;

use crate::metrics::{Reason, SourceCounters};
use crate::source::seldom::Seldom;

/// Of one source on one shard.
pub struct Limited {
    key: Arc<str>,
    counters: Arc<SourceCounters>,
    cut: Seldom,
    too_long: Seldom,
    too_many: Seldom,
    refused: Seldom,
}

impl Limited {
    /// Nothing yet.
    pub fn new(key: &Arc<str>, counters: &Arc<SourceCounters>) -> Self {
        let [cut, too_long, too_many, refused] = std::array::from_fn(|_| Seldom::default());
        Self { key: Arc::clone(key), counters: Arc::clone(counters), cut, too_long, too_many, refused }
    }

    /// `n` messages are longer than they may be: their first bytes are the record.
    pub fn cut(&self, n: u64) {
        if n > 0 {
            self.counters.truncated.add(n);
            self.say(&self.cut, n, "cut: longer than max_message_bytes; the rest is lost");
        }
    }

    /// `n` messages are longer than they may be, and left out.
    pub fn too_long(&self, n: u64) {
        self.drop(
            Reason::TooLong,
            n,
            &self.too_long,
            "dropped: longer than max_message_bytes (oversize = \"drop\")",
        );
    }

    /// `n` messages are more than `rate_limit` a second, on a transport that cannot slow its sender.
    pub fn too_many(&self, n: u64) {
        self.drop(Reason::RateLimit, n, &self.too_many, "dropped: more a second than rate_limit");
    }

    /// `n` messages are from senders outside `allow`.
    pub fn refused(&self, n: u64) {
        self.drop(Reason::NotAllowed, n, &self.refused, "dropped: their senders are not in allow");
    }

    fn drop(&self, reason: Reason, n: u64, seldom: &Seldom, fate: &str) {
        if n > 0 {
            self.counters.records.add(n);
            self.counters.drop_records(reason, n);
            self.say(seldom, n, fate);
        }
    }

    #[cold]
    fn say(&self, seldom: &Seldom, n: u64, fate: &str) {
        if let Some(times) = seldom.happened(n) {
            let plural = if times == 1 { "message" } else { "messages" };
            log::warn!(
                target: "wpgen::net",
                "source '{}': {times} {plural} {fate} (said at most once a minute; `wpgen source status` counts)",
                self.key
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_received_and_dropped_and_what_is_cut_is_neither() {
        let counters = Arc::new(SourceCounters::default());
        let limited = Limited::new(&"app".into(), &counters);
        limited.cut(2);
        limited.too_long(3);
        limited.too_many(4);
        limited.refused(0);
        let dropped = |reason| counters.dropped[reason as usize].get();
        assert_eq!((counters.records.get(), counters.truncated.get()), (7, 2));
        assert_eq!([Reason::TooLong, Reason::RateLimit, Reason::NotAllowed].map(dropped), [3, 4, 0]);
    }
}
