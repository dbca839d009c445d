//! NDJSON: one object a record.
//!
//! `{"time": receipt, "source": key, "data": record, "tags": {...}, "meta": {...}}`; a record that is not UTF-8 is
//! base64 and says `"encoding":"base64"`. Times are those of receipt, nanoseconds, UTC; what a record says of its
//! own time is in its metadata. Of several tags of one name the last one counts.

use std::io::Write;
use std::net::SocketAddr;

use crate::batch::{Columns, Origin, Run};
use crate::pool::Arena;
use crate::sink::messages::write_message;
use crate::sink::{json, meta};
use crate::syslog::write_rfc3339_ns;

/// What is the same for all records of a run.
pub(super) struct Frame<'a> {
    /// Up to the data's opening quote.
    prefix: Vec<u8>,
    /// From the tags to the metadata that is the same for all; to the end of the line when that is all there is.
    suffix: Vec<u8>,
    /// Whether each record has metadata of its own.
    has_meta: bool,
    /// The run's bytes, when all that is left of them is UTF-8, and where they start in the run.
    text: Option<(&'a str, usize)>,
}

const ENCODING: &[u8] = b"\",\"encoding\":\"base64";
const END: &[u8] = b"}}\n";

impl<'a> Frame<'a> {
    /// Renders the frame for the records of `run` from `from` on.
    pub(super) fn new(run: &Run<'a>, from: usize) -> Self {
        let mut prefix = Vec::with_capacity(128);
        let mut time = [0; 35];
        let time_len = write_rfc3339_ns(&mut time, run.received_ns);
        prefix.extend_from_slice(b"{\"time\":\"");
        prefix.extend_from_slice(&time[..time_len]);
        prefix.extend_from_slice(b"\",\"source\":");
        json::quote(&run.origin.source, &mut prefix);
        prefix.extend_from_slice(b",\"data\":\"");
        let mut suffix = Vec::with_capacity(256);
        suffix.extend_from_slice(b"\",\"tags\":{");
        write_tags(run.origin, &mut suffix);
        suffix.extend_from_slice(b"},\"meta\":{");
        write_origin(run, &mut suffix);
        let has_meta = !run.peers.is_empty() || !matches!(run.columns, Columns::None);
        if !has_meta {
            suffix.extend_from_slice(END);
        }
        Self { prefix, suffix, has_meta, text: text_of(run, from) }
    }

    /// Bytes that a record takes beside its own, at least.
    pub(super) fn overhead(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Appends record `i`.
    #[inline]
    pub(super) fn write(&self, run: &Run<'_>, i: usize, out: &mut Arena) {
        out.extend(&self.prefix);
        match self.text_of_record(run, i) {
            Some(text) => json::escape(text, out),
            None => write_base64(run.records[i].of(run.bytes), out),
        }
        out.extend(&self.suffix);
        if self.has_meta {
            write_meta(run, i, out);
            out.extend(END);
        }
    }

    /// Record `i` as text: looked up in the run where that is text as a whole, else checked on its own.
    #[inline]
    fn text_of_record<'r>(&'r self, run: &Run<'r>, i: usize) -> Option<&'r str> {
        let record = run.records[i];
        match self.text {
            // `get` is None where a record's border cuts a character.
            Some((text, start)) => text.get(record.start as usize - start..record.end as usize - start),
            None => simdutf8::basic::from_utf8(record.of(run.bytes)).ok(),
        }
    }
}

/// The bytes of all records from `from` on as text, with what lies between them; and where they start.
fn text_of<'a>(run: &Run<'a>, from: usize) -> Option<(&'a str, usize)> {
    let (first, last) = (run.records.get(from)?, run.records.last()?);
    let bytes = run.bytes.get(first.start as usize..last.end as usize)?;
    debug_assert!(
        run.records.is_sorted_by_key(|record| record.start),
        "records are in the order of the input"
    );
    Some((simdutf8::basic::from_utf8(bytes).ok()?, first.start as usize))
}

fn write_tags(origin: &Origin, out: &mut Vec<u8>) {
    let mut first = true;
    for (i, (name, value)) in origin.tags.iter().enumerate() {
        if origin.tags[i + 1..].iter().any(|(later, _)| later == name) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        json::quote(name, out);
        out.push(b':');
        json::quote(value, out);
    }
}

/// What the metadata of all records of a run begins with.
fn write_origin(run: &Run<'_>, out: &mut Vec<u8>) {
    let origin = run.origin;
    if let Some(protocol) = origin.protocol {
        out.extend_from_slice(b"\"protocol\":");
        json::quote(protocol, out);
    }
    let peer = origin.peer.filter(|_| run.peers.is_empty());
    if let Some(peer) = peer {
        separate(origin.protocol.is_some(), out);
        write_peer(peer, out);
    }
    if let Some(subject) = &origin.tls_subject {
        separate(origin.protocol.is_some() || peer.is_some(), out);
        out.extend_from_slice(b"\"tls_subject\":");
        json::quote(subject, out);
    }
}

fn separate(follows: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if follows { b"," } else { b"" });
}

fn write_peer(peer: SocketAddr, out: &mut impl Write) {
    // Memory takes all that is written.
    let _ = write!(out, "\"peer\":\"{peer}\"");
}

/// What is known of record `i` beyond its run.
#[inline]
fn write_meta(run: &Run<'_>, i: usize, out: &mut Arena) {
    if let Some(peer) = run.peers.get(i) {
        out.extend(if run.origin.protocol.is_some() { b"," } else { b"" });
        write_peer(*peer, out);
    }
    match run.columns {
        Columns::None => {}
        Columns::Syslog(headers) => {
            let origin = run.origin;
            let comma = origin.protocol.is_some()
                || !run.peers.is_empty()
                || origin.peer.is_some()
                || origin.tls_subject.is_some();
            meta::write_syslog(&headers[i], run.bytes, comma, out);
        }
        Columns::Kafka(messages) => write_message(&messages, i, out),
    }
}

/// Bytes that are no text.
#[cold]
fn write_base64(record: &[u8], out: &mut Arena) {
    let len = base64_simd::STANDARD.encoded_length(record.len());
    let room = out.spare(len);
    let _ = base64_simd::STANDARD.encode(record, base64_simd::Out::from_slice(&mut room[..len]));
    out.advance(len);
    out.extend(ENCODING);
}
