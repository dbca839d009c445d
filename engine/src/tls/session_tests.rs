//! Sessions against rustls' own client, in memory, cut in every way.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};

use super::rig::Papers;
use super::server::Server;
use super::session::{CARRY_BYTES_MAX, Fault, Session, speaks_tls};

/// Both ends of a connection.
struct Pair {
    client: ClientConnection,
    session: Session,
    plaintext: Vec<u8>,
}

impl Pair {
    fn new(server: &Server, client: ClientConfig) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(client), name).unwrap();
        Self { client, session: server.session().unwrap(), plaintext: Vec::new() }
    }

    /// What the client has to send.
    fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn answer(&mut self, reply: &[u8]) {
        let mut reply = reply;
        while !reply.is_empty() {
            self.client.read_tls(&mut reply).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    /// Shakes hands, and gives what the client sent behind it.
    fn shake(&mut self, mut cut: impl FnMut() -> usize) -> Result<(), Fault> {
        loop {
            let bytes = self.outgoing();
            assert!(!bytes.is_empty(), "the handshake rests");
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(cut().clamp(1, rest.len()));
                let (mut piece, mut reply) = (piece.to_vec(), Vec::new());
                let shaken = self.session.shake(&mut piece, &mut reply);
                if let Err(fault) = shaken {
                    let mut reply = &reply[..];
                    while self.client.read_tls(&mut reply).unwrap() > 0 {}
                    assert!(self.client.process_new_packets().is_err(), "the client is told");
                    return Err(fault);
                }
                self.answer(&reply);
                rest = behind;
                if let Some(used) = shaken? {
                    self.read(&piece[used..], &mut cut)?;
                    return self.read(rest, &mut cut);
                }
            }
        }
    }

    fn read(&mut self, bytes: &[u8], mut cut: impl FnMut() -> usize) -> Result<(), Fault> {
        let mut rest = bytes;
        loop {
            let (piece, behind) = rest.split_at(cut().clamp(0, rest.len()));
            let mut piece = piece.to_vec();
            let mut used = 0;
            loop {
                let mut reply = Vec::new();
                let step = self.session.read(&mut piece[used..], &mut self.plaintext, &mut reply);
                self.answer(&reply);
                used += step?;
                assert!(self.session.unread() <= CARRY_BYTES_MAX);
                if used == piece.len() {
                    break;
                }
            }
            rest = behind;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

struct Stage {
    papers: Papers,
    server: Arc<Server>,
    mutual: Arc<Server>,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let papers = Papers::new();
    let server = Server::open(&papers.listen(None)).unwrap();
    let mutual = Server::open(&papers.listen(Some("ca.pem"))).unwrap();
    Stage { papers, server, mutual }
});

fn pair(version: &'static SupportedProtocolVersion) -> Pair {
    Pair::new(&STAGE.server, STAGE.papers.client(version, None))
}

fn whole() -> usize {
    usize::MAX
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ciphertext_cut_anywhere_is_the_same_plaintext(
        is_new in any::<bool>(),
        messages in prop::collection::vec((1usize..60_000, any::<u8>()), 1..6),
        cuts in prop::collection::vec(prop_oneof![1usize..40, 1usize..5000, 10_000usize..200_000], 1..60),
        update in any::<bool>(),
    ) {
        let mut pair = pair(if is_new { &TLS13 } else { &TLS12 });
        let mut cuts = cuts.into_iter().cycle();
        let mut cut = || cuts.next().unwrap();
        pair.shake(&mut cut).unwrap();
        let mut sent = Vec::new();
        for (bytes, with) in messages {
            let message: Vec<u8> = (0..bytes).map(|i| with.wrapping_add((i / 7) as u8)).collect();
            pair.client.writer().write_all(&message).unwrap();
            sent.extend(message);
            let ciphertext = pair.outgoing();
            pair.read(&ciphertext, &mut cut).unwrap();
            if update && is_new {
                pair.client.refresh_traffic_keys().unwrap();
            }
        }
        pair.client.send_close_notify();
        let goodbye = pair.outgoing();
        pair.read(&goodbye, &mut cut).unwrap();
        prop_assert!(pair.plaintext == sent);
        prop_assert!(pair.session.is_ended() && pair.session.unread() == 0);
        // It answers with its own goodbye.
        prop_assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn nonsense_is_refused_and_breaks_nothing(mut bytes in prop::collection::vec(any::<u8>(), 1..40_000), at in 1usize..50) {
        bytes[0] = 22;
        let mut session = STAGE.server.session().unwrap();
        let at = at.min(bytes.len());
        let (first, second) = bytes.split_at_mut(at);
        if session.shake(first, &mut Vec::new()).is_ok() {
            let _ = session.shake(second, &mut Vec::new());
        }
    }
}

#[test]
fn data_in_the_same_bytes_as_the_end_of_the_handshake_is_there() {
    for version in [&TLS12, &TLS13] {
        let mut pair = pair(version);
        pair.client.writer().write_all(b"at once").unwrap();
        pair.shake(whole).unwrap();
        let rest = pair.outgoing();
        pair.read(&rest, whole).unwrap();
        assert_eq!(pair.plaintext, b"at once", "{version:?}");
    }
}

#[test]
fn a_changed_record_ends_the_connection_behind_what_came_before_it() {
    let mut pair = pair(&TLS13);
    pair.shake(whole).unwrap();
    for message in [b"one", b"two", b"six"] {
        pair.client.writer().write_all(message).unwrap();
    }
    let mut ciphertext = pair.outgoing();
    *ciphertext.last_mut().unwrap() ^= 1;
    let mut reply = Vec::new();
    let fault = pair.session.read(&mut ciphertext, &mut pair.plaintext, &mut reply).unwrap_err();
    assert_eq!(pair.plaintext, b"onetwo");
    assert!(fault.to_string().contains("cannot be decrypted"), "{fault}");
    assert!(!reply.is_empty(), "the client is told");
}

#[test]
fn clients_prove_who_they_are_where_that_is_demanded() {
    let Stage { papers, mutual, .. } = &*STAGE;
    papers.make("stranger", "leaf", None);
    // A chain of many records.
    let long = std::fs::read(papers.path("client.pem")).unwrap().repeat(60);
    std::fs::write(papers.path("long.pem"), long).unwrap();
    papers.copy("client.key", "long.key");
    for version in [&TLS12, &TLS13] {
        for own in ["client", "long"] {
            let mut cuts = [1usize, 7000, 30_000].into_iter().cycle();
            let mut known = Pair::new(mutual, papers.client(version, Some(own)));
            known.client.writer().write_all(b"hello").unwrap();
            known.shake(|| cuts.next().unwrap()).unwrap();
            let rest = known.outgoing();
            known.read(&rest, whole).unwrap();
            assert_eq!(known.plaintext, b"hello");
        }
        let refused =
            |own| Pair::new(mutual, papers.client(version, own)).shake(whole).unwrap_err().to_string();
        assert!(refused(None).contains("presents no certificate"), "{}", refused(None));
        assert!(
            refused(Some("stranger")).contains("none of the authorities"),
            "{}",
            refused(Some("stranger"))
        );
    }
}

#[test]
fn a_client_without_tls_is_told_from_one_with_it() {
    let mut session = STAGE.server.session().unwrap();
    let fault =
        session.shake(&mut b"<34>Oct 11 22:14:15 host su: \x1b[2J".to_vec(), &mut Vec::new()).unwrap_err();
    assert!(matches!(&fault, Fault::Plain(_)), "{fault:?}");
    assert!(fault.to_string().contains("begins with <34>Oct 11"), "{fault}");
    assert!(!speaks_tls(b"<34>") && !speaks_tls(&[22]) && !speaks_tls(&[22, 3, 9]));
    assert!(speaks_tls(&pair(&TLS13).outgoing()) && speaks_tls(&pair(&TLS12).outgoing()));
}

#[test]
fn a_record_longer_than_allowed_is_not_waited_for() {
    let mut session = STAGE.server.session().unwrap();
    let fault = session.shake(&mut [22, 3, 1, 0xff, 0xff, 1, 0], &mut Vec::new()).unwrap_err();
    assert!(fault.to_string().contains("is not TLS"), "{fault}");
}

#[test]
fn after_our_farewell_the_client_is_still_read_and_none_is_said_twice() {
    for version in [&TLS12, &TLS13] {
        let mut pair = pair(version);
        pair.shake(whole).unwrap();
        let mut said = Vec::new();
        pair.session.farewell(&mut said);
        assert!(!said.is_empty(), "{version:?}");
        let len = said.len();
        pair.session.farewell(&mut said);
        assert_eq!(said.len(), len, "{version:?}");
        pair.client.writer().write_all(b"last words").unwrap();
        let rest = pair.outgoing();
        pair.read(&rest, whole).unwrap();
        assert_eq!(pair.plaintext, b"last words", "{version:?}");
        pair.client.send_close_notify();
        let goodbye = pair.outgoing();
        let (mut bytes, mut reply) = (goodbye.clone(), Vec::new());
        pair.session.read(&mut bytes, &mut pair.plaintext, &mut reply).unwrap();
        assert!(pair.session.is_ended() && reply.is_empty(), "{version:?}");
        assert_eq!(pair.client.read_tls(&mut &said[..]).unwrap(), len);
        pair.client.process_new_packets().unwrap();
        assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0, "it knows that nothing follows");
    }
}
