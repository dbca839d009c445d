//! However a stream is cut on its way, its records are those that the framer makes of it in one piece.
//!
//! Each piece is sent, and the next one waits until the engine has received it: so the cuts are real ones.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::prop_assert_eq;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::tests::{rules, source};
use crate::frame::tests::{FRAMINGS, chunks, input};
use crate::frame::{Framer, Rules};
use crate::sink::format::Format;
use crate::source::part::Source;
use crate::source::playground::{BACKENDS, Keep, drain, start, until};

/// Streams of each framing and backend.
const STREAMS: u32 = 24;
/// Short, so that many records are cut by policy.
const RECORD_BYTES_MAX: usize = 48;

fn in_one_piece(rules: Rules, input: &[u8]) -> Vec<Vec<u8>> {
    let (mut framer, mut spans, mut records) = (Framer::new(rules), Vec::new(), Vec::new());
    let mut from = 0;
    while from < input.len() {
        let step = framer.feed(input, from, &mut spans);
        records.extend(step.carried.map(|carried| carried.span.of(framer.carry()).to_vec()));
        records.extend(spans.iter().map(|span| span.of(input).to_vec()));
        from = step.next;
    }
    while let Some(carried) = framer.finish() {
        records.push(carried.span.of(framer.carry()).to_vec());
    }
    records
}

/// Sends pieces; `received` says how many bytes have been received.
fn send(at: SocketAddr, pieces: &[&[u8]], received: impl Fn() -> u64) {
    let mut sent = received();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).unwrap();
        sent += piece.len() as u64;
        until("the piece is received", || received() == sent);
    }
}

#[test]
fn cuts_do_not_matter() {
    for backend in BACKENDS {
        let mut listening = Vec::new();
        let mut pairs: Vec<(Arc<dyn Source>, Arc<Keep>)> = Vec::new();
        for (id, framing) in FRAMINGS.into_iter().enumerate() {
            let mut rules = rules(framing);
            // Sources of one key are one source to the status.
            rules.inlet.key = format!("s{id}").into();
            rules.framing.record_bytes_max = RECORD_BYTES_MAX;
            let framing = rules.framing;
            let (source, at) = source(rules);
            let sink = Keep::new(id as u16, Format::Raw);
            listening.push((at, framing, Arc::clone(&sink)));
            pairs.push((source, sink));
        }
        let engine = start(backend, &pairs);
        let config =
            Config { cases: STREAMS, failure_persistence: None, max_shrink_iters: 50, ..Config::default() };
        for (i, (at, framing, sink)) in listening.iter().enumerate() {
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            let mut runner = TestRunner::new_with_rng(config.clone(), rng);
            let streams = (input(), vec(any::<Index>(), 0..6));
            let done = runner.run(&streams, |(input, cuts)| {
                let before = sink.len();
                let want = in_one_piece(*framing, &input);
                send(*at, &chunks(&input, &cuts), || engine.status().sources[i].bytes_in);
                until("as many records", || sink.len() >= before + want.len());
                prop_assert_eq!(&sink.bytes()[before..], &want);
                Ok(())
            });
            assert!(done.is_ok(), "{backend:?} {framing:?}: {}", done.unwrap_err());
        }
        let records: usize = listening.iter().map(|(.., sink)| sink.len()).sum();
        let figures = drain(engine);
        assert_eq!(figures.iter().map(|source| source.records_in).sum::<u64>(), records as u64);
    }
}
