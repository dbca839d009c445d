//! Makes records of a partition's messages, on the shard it belongs to, and hands them to the lanes.
//!
//! One task a partition: what waits for a sink's credit is this partition alone. Whole messages lie in the parcel as a raw
//! sink wants them; lines and decoded records are made in buffers of the task.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::book::Book;
use super::params::{Encode, Split};
use super::parcel::Parcel;
use super::partition::{Letter, Partition};
use crate::batch::messages::{Message, Messages};
use crate::batch::{Columns, Mark, Origin, Positions, Run, Span};
use crate::decode::{self, BadByte, OnBad};
use crate::escape::escape_outside_to;
use crate::lane::deliver;
use crate::metrics::Reason;
use crate::source::part::Surroundings;
use crate::source::seldom::Seldom;

/// Bytes of a bad record that the log shows.
const SHOWN_BYTES: usize = 80;

/// What all partitions of a source go by.
#[derive(Debug)]
pub struct Rules {
    /// The source's key.
    pub key: Arc<str>,
    /// This machine's name.
    pub host: Arc<str>,
    /// The source's tags.
    pub tags: Vec<(String, String)>,
    /// What a message is.
    pub split: Split,
    /// How records are decoded.
    pub encode: Encode,
    /// Parcels to be filled again.
    pub spare: Arc<ArrayQueue<Parcel>>,
}

impl Rules {
    fn origin(&self, partition: &Partition) -> Origin {
        let topic = &*partition.topic;
        let mut tags = self.tags.clone();
        tags.push(("source_type".to_owned(), "kafka".to_owned()));
        tags.push(("source_name".to_owned(), topic.to_owned()));
        Origin {
            source: Arc::clone(&self.key),
            host: Arc::clone(&self.host),
            tags,
            peer: None,
            tls_subject: None,
            assignment: Some(partition.assigned.for_origin()),
            protocol: None,
            mark: Mark::default(),
        }
    }
}

/// Delivers what comes of a partition, until its end; returns when every sink has what was delivered.
pub async fn deliver_all(
    partition: Arc<Partition>,
    book: Arc<Book>,
    rules: Arc<Rules>,
    around: Surroundings,
    slot: Rc<Cell<u32>>,
) {
    let mut work = Work {
        origin: rules.origin(&partition),
        rules: Arc::clone(&rules),
        around: around.clone(),
        slot: Rc::clone(&slot),
        upto: partition.begin.unwrap_or(0),
        book: Arc::clone(&book),
        made: Made::default(),
        bad: Seldom::default(),
    };
    loop {
        let mut parcel = match partition.mail.take().await {
            Letter::Parcel(parcel) => parcel,
            Letter::End => break,
        };
        let bytes = parcel.bytes();
        if !partition.is_given_up() {
            for range in stretches(&parcel.upto) {
                work.deliver(&partition, &parcel, range).await;
            }
            partition.set_durable(around.shard.settle().low(slot.get()));
        }
        partition.taken(bytes);
        if parcel.is_kept() {
            parcel.clear();
            // One too many is freed.
            let _ = rules.spare.push(parcel);
        }
    }
    work.until_idle().await;
    let low = around.shard.settle().low(slot.get());
    partition.set_durable(low);
    // What a sink has given back is another member's.
    let given_up = around.shard.settle().unsettled(slot.get());
    around.counters.drop_records(Reason::GivenUp, given_up);
    around.shard.settle().close(slot.get());
    book.left(&partition, low);
    partition.leave();
}

/// The stretches in which offsets only grow. There are two where a topic was made anew, or cut, while it was read.
fn stretches(upto: &[u64]) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = upto.get(from..).filter(|rest| !rest.is_empty())?;
        let len = rest.windows(2).position(|pair| pair[1] <= pair[0]).map_or(rest.len(), |at| at + 1);
        from += len;
        Some(from - len..from)
    })
}

struct Work {
    rules: Arc<Rules>,
    book: Arc<Book>,
    around: Surroundings,
    origin: Origin,
    /// The window; another one after offsets went back.
    slot: Rc<Cell<u32>>,
    /// Behind the last message.
    upto: u64,
    made: Made,
    bad: Seldom,
}

/// Records that do not lie in the parcel as they came. One entry in each list a record.
#[derive(Default)]
struct Made {
    /// Lines of the parcel, and for each the message it is of, by number.
    lines: Vec<Span>,
    of: Vec<u32>,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    rows: Vec<Message>,
    upto: Vec<u64>,
}

impl Work {
    async fn until_idle(&self) {
        while !self.around.shard.settle().is_idle(self.slot.get()) {
            self.around.shard.settled().await;
        }
    }

    /// Offsets went back: positions begin anew, and so does what is committed.
    #[cold]
    async fn begin_anew(&mut self, partition: &Partition) {
        self.until_idle().await;
        let mut settle = self.around.shard.settle();
        settle.close(self.slot.get());
        let id = self.book.begin_anew(partition);
        self.slot.set(settle.open(id, 0));
        partition.begin_anew(id);
    }

    async fn deliver(&mut self, partition: &Partition, parcel: &Parcel, range: Range<usize>) {
        let (Some(&first), Some(&upto)) = (parcel.upto.get(range.start), parcel.upto.get(range.end - 1))
        else {
            return;
        };
        let went_back = first <= self.upto;
        if went_back {
            self.begin_anew(partition).await;
        }
        if went_back || self.upto == 0 {
            self.book.found(partition, first - 1);
        }
        self.upto = upto;
        // What is not taken is read again: its offsets are not stored.
        let Some(entered) = self.around.lanes.enter(&self.around.stop).await else { return };
        let counters = &self.around.counters;
        counters.bytes.add(parcel.spans[range.clone()].iter().map(|span| span.len() as u64).sum());
        let as_it_is = self.rules.split == Split::None && self.rules.encode == Encode::Text;
        let (bytes, records, rows, each) = if as_it_is {
            counters.records.add(range.len() as u64);
            (&parcel.values, &parcel.spans[range.clone()], &parcel.rows[range.clone()], &parcel.upto[range])
        } else {
            self.made.lines_of(parcel, range, self.rules.split);
            counters.records.add(self.made.lines.len() as u64);
            let bad = self.made.decode(parcel, self.rules.encode);
            if let Some(bad) = bad {
                counters.drop_records(Reason::BadLine, bad.records);
                self.say(partition, parcel, &bad);
            }
            let bytes = if self.rules.encode == Encode::Text { &parcel.values } else { &self.made.bytes };
            (bytes, &*self.made.spans, &*self.made.rows, &*self.made.upto)
        };
        let run = Run {
            bytes,
            records,
            verbatim: as_it_is,
            columns: Columns::Kafka(Messages {
                topic: &partition.topic,
                partition: partition.number,
                rows,
                bytes: &parcel.extras,
            }),
            peers: &[],
            origin: &self.origin,
            received_ns: self.around.shard.now_ns(),
            positions: Positions::Each(each),
        };
        deliver(&self.around, &entered, self.slot.get(), &run, upto).await;
    }

    #[cold]
    fn say(&self, partition: &Partition, parcel: &Parcel, bad: &Bad) {
        let Some(times) = self.bad.happened(bad.records) else { return };
        let why = match bad.why.byte {
            Some(byte) => format!("byte 0x{byte:02x} at {} cannot stand there", bad.why.at),
            None => "it ends too early".to_owned(),
        };
        let offset = parcel.rows[bad.message as usize].offset;
        log::warn!(
            target: "wpgen::kafka",
            "[WP103] source '{}': Invalid {} encoding: {}/{}, offset {offset}: {why}: {}; skipped ({times} such records)",
            self.rules.key,
            self.rules.encode.as_str(),
            partition.topic,
            partition.number,
            escape_outside_to(bad.line.of(&parcel.values), SHOWN_BYTES),
        );
    }
}

/// Records that do not decode: how many, and the first.
struct Bad {
    records: u64,
    message: u32,
    line: Span,
    why: BadByte,
}

impl Made {
    /// Finds what is to be a record. A message without a byte is one record, and so is one that ends without a newline.
    fn lines_of(&mut self, parcel: &Parcel, range: Range<usize>, split: Split) {
        self.lines.clear();
        self.of.clear();
        for (number, span) in range.clone().zip(&parcel.spans[range]) {
            if split == Split::None || span.is_empty() {
                self.lines.push(*span);
            } else {
                let value = span.of(&parcel.values);
                let mut start = 0;
                for end in memchr::memchr_iter(b'\n', value).chain([value.len()]) {
                    if end < value.len() || start < end {
                        let cut =
                            end - usize::from(end > start && end < value.len() && value[end - 1] == b'\r');
                        let at = |n: usize| span.start + n as u32;
                        self.lines.push(Span { start: at(start), end: at(cut) });
                    }
                    start = end + 1;
                }
            }
            self.of.resize(self.lines.len(), number as u32);
        }
    }

    /// Decodes what was found, and puts beside each record what is known of its message.
    fn decode(&mut self, parcel: &Parcel, encode: Encode) -> Option<Bad> {
        let Self { lines, of, bytes, spans, rows, upto } = self;
        bytes.clear();
        spans.clear();
        rows.clear();
        upto.clear();
        let mut bad: Option<Bad> = None;
        let mut wrong = Vec::new();
        let encode = match encode {
            Encode::Text => None,
            Encode::Base64 => Some(decode::Encode::Base64),
            Encode::Hex => Some(decode::Encode::Hex),
        };
        match encode {
            None => spans.extend_from_slice(lines),
            Some(encode) => {
                decode::decode_run(encode, &parcel.values, lines, bytes, spans, &mut |line, why| {
                    let first = Bad { records: 0, message: of[line], line: lines[line], why };
                    bad.get_or_insert(first).records += 1;
                    wrong.push(line);
                    OnBad::Skip
                });
            }
        }
        let mut wrong = wrong.into_iter().peekable();
        for (line, number) in of.iter().enumerate() {
            if wrong.next_if_eq(&line).is_some() {
                continue;
            }
            let message = &parcel.rows[*number as usize];
            rows.push(*message);
            // All but the last line of a message leave it unfinished.
            let is_last = of.get(line + 1) != Some(number);
            upto.push(parcel.upto[*number as usize] - u64::from(!is_last));
        }
        bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(values: &[&str]) -> Parcel {
        let mut parcel = Parcel::default();
        for (offset, value) in (7..).zip(values) {
            let start = parcel.values.len() as u32;
            parcel.values.extend_from_slice(value.as_bytes());
            parcel.spans.push(Span { start, end: parcel.values.len() as u32 });
            parcel.values.push(b'\n');
            parcel.rows.push(Message { offset, ..Message::default() });
            parcel.upto.push(offset as u64 + 1);
        }
        parcel
    }

    fn texts(bytes: &[u8], spans: &[Span]) -> Vec<String> {
        spans.iter().map(|span| String::from_utf8_lossy(span.of(bytes)).into_owned()).collect()
    }

    #[test]
    fn the_lines_of_messages_are_records_and_only_the_last_one_finishes_its_message() {
        let parcel = parcel(&["a\nb\r\n", "", "\n", "c\n\nd", "e\r"]);
        let mut made = Made::default();
        made.lines_of(&parcel, 0..5, Split::Lines);
        assert!(made.decode(&parcel, Encode::Text).is_none());
        assert_eq!(texts(&parcel.values, &made.spans), ["a", "b", "", "", "c", "", "d", "e\r"]);
        let offsets: Vec<i64> = made.rows.iter().map(|row| row.offset).collect();
        assert_eq!(offsets, [7, 7, 8, 9, 10, 10, 10, 11]);
        assert_eq!(made.upto, [7, 8, 9, 10, 10, 10, 11, 12]);
    }

    #[test]
    fn a_stretch_ends_where_offsets_go_back() {
        let all = |upto: &[u64]| stretches(upto).collect::<Vec<_>>();
        assert!(all(&[]).is_empty());
        assert_eq!(all(&[3, 4, 9]).len(), 1);
        assert_eq!(all(&[8, 9, 1, 2, 2]), [0..2, 2..4, 4..5]);
    }

    #[test]
    fn what_does_not_decode_is_left_out_and_named() {
        let parcel = parcel(&["YQ==", "!", "Yg\nYw", "*"]);
        let mut made = Made::default();
        made.lines_of(&parcel, 0..4, Split::Lines);
        let bad = made.decode(&parcel, Encode::Base64).unwrap();
        assert_eq!((bad.records, bad.message, bad.why.at), (2, 1, 0));
        assert_eq!(texts(&made.bytes, &made.spans), ["a", "b", "c"]);
        assert_eq!(made.upto, [8, 9, 10]);
        made.lines_of(&parcel, 0..4, Split::None);
        assert_eq!(made.decode(&parcel, Encode::Hex).map(|bad| bad.records), Some(4));
        assert!(made.spans.is_empty());
    }
}
