//! The steps to one broker: its name, TCP, TLS, the versions it knows, and how it wants to be signed in to. Each step that
//! fails says what was found; and where the listener speaks something else than is configured, what that is.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::super::{Step, Steps};
use super::settings::{Own, Settings, Tls, host_and_port};
use super::tls::{Shaken, alerted, shake};
use super::wire::{self, Question};
use crate::diagnosis::{Code, Diagnostic};
use crate::escape::escape_outside_to;
use crate::source::port::{Transport, holders};

/// How long each step may take.
const STEP_WITHIN: Duration = Duration::from_secs(3);
/// Bytes that are shown of an answer which is none.
const SHOWN_BYTES: usize = 40;
/// Codes of Kafka in answers to a handshake of SASL.
const OFFERED: i16 = 0;
const NOT_OFFERED: i16 = 33;

/// Tries one broker; whether everything went well.
pub(super) fn broker(broker: &str, settings: &Settings) -> (Vec<Step>, bool) {
    let mut steps = Steps::default();
    let well = walk(broker, settings, &mut steps).is_some();
    (steps.0, well)
}

fn walk(broker: &str, settings: &Settings, steps: &mut Steps) -> Option<()> {
    let (host, port) = host_and_port(broker);
    let addresses = steps.step("resolve", || resolve(broker, host, port))?;
    let (stream, at) = steps.step("connect", || connect(broker, &addresses))?;
    let Some(tls) = &settings.tls else {
        let mut talk = Talk { broker, stream: Box::new(stream), number: 0 };
        steps.step("versions", || talk.versions().map_err(|trouble| plain_trouble(trouble, host, at)))?;
        return steps.step("sign in", || talk.sign_in(settings));
    };
    let stream = steps.step("tls", || over_tls(host, at, stream, tls))?;
    if matches!(tls.own, Own::Elsewhere) {
        // Without our certificate the broker may hang up on us, and not on librdkafka.
        return Some(());
    }
    let mut talk = Talk { broker, stream, number: 0 };
    steps.step("versions", || talk.versions().map_err(|trouble| trouble.finding))?;
    steps.step("sign in", || talk.sign_in(settings))
}

fn failed(broker: &str, why: &str) -> Diagnostic {
    Diagnostic::error(Code::WP201, format!("{broker}: Failed to connect to Kafka cluster: {why}"))
}

fn resolve(broker: &str, host: &str, port: u16) -> Result<(Vec<SocketAddr>, String), Diagnostic> {
    let found = (host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    match found {
        Ok(addresses) if !addresses.is_empty() => {
            let ips: Vec<String> = addresses.iter().map(|at| at.ip().to_string()).collect();
            let text = format!("{broker}: {}", ips.join(", "));
            Ok((addresses, text))
        }
        Ok(_) => Err(failed(broker, &format!("the name '{host}' has no address"))),
        Err(error) => Err(failed(broker, &format!("cannot resolve '{host}': {error}"))
            .help("correct the name in 'brokers', or make it known: DNS, or a line in /etc/hosts")),
    }
}

fn connect(broker: &str, addresses: &[SocketAddr]) -> Result<((TcpStream, SocketAddr), String), Diagnostic> {
    let mut refused = None;
    for at in addresses {
        match TcpStream::connect_timeout(at, STEP_WITHIN) {
            Ok(stream) => {
                limit(&stream);
                return Ok(((stream, *at), format!("{at} answers")));
            }
            Err(error) => refused = Some((*at, error)),
        }
    }
    let Some((at, error)) = refused else { return Err(failed(broker, "it has no address")) };
    if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
        let message = format!("{broker}: Timeout while connecting to Kafka: {at} does not answer within 3 s");
        return Err(Diagnostic::error(Code::WP201, message)
            .note("nothing comes back, not even a refusal: a firewall drops it, or the address is nobody's")
            .help("open the way to the port, or correct 'brokers'"));
    }
    let mut finding = failed(broker, &format!("{at}: {error}"));
    if error.kind() == io::ErrorKind::ConnectionRefused {
        finding = finding.note(if at.ip().is_loopback() && holders(Transport::Stream, at).is_empty() {
            format!("nothing listens on port {} of this machine", at.port())
        } else {
            format!("the machine answers, but nothing listens there on port {}", at.port())
        });
    }
    Err(finding.help("start the broker, or correct the port in 'brokers'"))
}

fn over_tls(
    host: &str,
    at: SocketAddr,
    stream: TcpStream,
    tls: &Tls,
) -> Result<(Box<dyn Wire>, String), Diagnostic> {
    match shake(host, stream, tls)? {
        Shaken::Done(stream, found) => Ok((stream, found)),
        Shaken::Refused(finding) => Err(finding),
        Shaken::NoTls(why) => Err(no_tls(host, at, &why)),
    }
}

/// The listener did not speak TLS: does it speak Kafka without?
fn no_tls(host: &str, at: SocketAddr, why: &str) -> Diagnostic {
    let finding = Diagnostic::error(Code::WP202, format!("{host}: SSL handshake failed: {at}: {why}"));
    let speaks = TcpStream::connect_timeout(&at, STEP_WITHIN).is_ok_and(|stream| {
        limit(&stream);
        Talk { broker: host, stream: Box::new(stream), number: 0 }.versions().is_ok()
    });
    if speaks {
        return finding
            .note("this listener speaks Kafka without TLS")
            .help("security_protocol = \"PLAINTEXT\" or \"SASL_PLAINTEXT\"; or name the port of its TLS listener in 'brokers'");
    }
    finding.help("name the port of a Kafka listener with TLS in 'brokers'")
}

/// The listener did not answer without TLS: does it speak TLS?
fn plain_trouble(trouble: Trouble, host: &str, at: SocketAddr) -> Diagnostic {
    if !trouble.may_be_tls {
        return trouble.finding;
    }
    let look = Tls { verify: false, verify_name: false, ca: None, own: Own::Nobody };
    let stream = TcpStream::connect_timeout(&at, STEP_WITHIN).inspect(limit);
    match stream.map(|stream| shake(host, stream, &look)) {
        Ok(Ok(Shaken::Done(_, found))) => {
            let message =
                format!("{host}: SSL handshake failed: {at} speaks TLS only, and none is configured");
            Diagnostic::error(Code::WP202, message)
                .note(found)
                .help("config = { security_protocol = \"SSL\" }, or \"SASL_SSL\"; or name the port without TLS in 'brokers'")
        }
        _ => trouble.finding,
    }
}

fn limit(stream: &TcpStream) {
    // A socket that takes no limit has none; the whole trial has one of its own.
    let _ = stream.set_read_timeout(Some(STEP_WITHIN));
    let _ = stream.set_write_timeout(Some(STEP_WITHIN));
}

/// What is asked and answered over.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// Questions and answers with one broker.
struct Talk<'a> {
    broker: &'a str,
    stream: Box<dyn Wire>,
    number: i32,
}

/// Why there is no answer.
struct Trouble {
    finding: Diagnostic,
    /// Whether a listener that wants TLS would behave so.
    may_be_tls: bool,
}

impl Talk<'_> {
    fn ask(&mut self, question: Question<'_>) -> io::Result<Vec<u8>> {
        self.number += 1;
        self.stream.write_all(&question.bytes(self.number))?;
        self.stream.flush()?;
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let Some(length) = wire::length(head) else { return Ok(head.to_vec()) };
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    fn versions(&mut self) -> Result<((), String), Trouble> {
        let broker = self.broker;
        let answer = self.ask(Question::Versions).map_err(|error| {
            if let Some(finding) = alerted(broker, &error) {
                return Trouble { finding, may_be_tls: false };
            }
            let why = match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    "it hangs up when it is asked which requests it knows".to_owned()
                }
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    "it does not answer within 3 s which requests it knows".to_owned()
                }
                _ => error.to_string(),
            };
            let finding = failed(broker, &why).help("does 'brokers' name the port of a Kafka listener?");
            Trouble { finding, may_be_tls: true }
        })?;
        match wire::versions(&answer, self.number) {
            Some(count) => Ok(((), format!("Kafka, {count} kinds of requests"))),
            None => Err(Trouble {
                finding: failed(
                    broker,
                    &format!("what answers is no Kafka: \"{}\"", escape_outside_to(&answer, SHOWN_BYTES)),
                )
                .help("name the port of a Kafka listener in 'brokers'"),
                // An alert of TLS begins so.
                may_be_tls: answer.first() == Some(&0x15),
            }),
        }
    }

    /// Which mechanisms the listener takes, against the one that is set.
    fn sign_in(&mut self, settings: &Settings) -> Result<((), String), Diagnostic> {
        let broker = self.broker;
        let failed = |why: &str| {
            Diagnostic::error(Code::WP202, format!("{broker}: SASL authentication failed: {why}"))
        };
        let wanted = settings.mechanism.as_deref();
        let answer = self.ask(Question::Mechanism(wanted.unwrap_or("PLAIN")));
        let answer = answer.ok().and_then(|answer| wire::mechanisms(&answer, self.number));
        match (wanted, answer) {
            (None, Some((OFFERED | NOT_OFFERED, offered))) => {
                let protocol = if settings.tls.is_some() { "SASL_SSL" } else { "SASL_PLAINTEXT" };
                Err(failed("this listener asks who we are, and security_protocol names no SASL")
                    .note(format!("it offers {}", shown(&offered)))
                    .help(format!(
                        "config = {{ security_protocol = \"{protocol}\", sasl_mechanisms = \"{}\", sasl_username = \"...\", sasl_password = \"...\" }}",
                        offered.first().map_or("PLAIN", String::as_str)
                    )))
            }
            (None, _) => Ok(((), "not asked for".to_owned())),
            (Some(wanted), Some((OFFERED, offered))) => Ok(((), format!("{wanted} is taken, of {}", shown(&offered)))),
            (Some(wanted), Some((NOT_OFFERED, offered))) => {
                let mut finding = failed(&format!("the broker does not take the mechanism '{wanted}'"))
                    .note(format!("it offers {}", shown(&offered)));
                if !settings.mechanism_given {
                    finding = finding.note("without sasl_mechanisms librdkafka assumes GSSAPI (Kerberos)");
                }
                let first = offered.first().map(|first| format!("config = {{ sasl_mechanisms = \"{first}\" }}"));
                Err(finding.help_if(first))
            }
            (Some(_), Some(_)) => Err(failed("this listener does not ask who anybody is")
                .help("security_protocol = \"PLAINTEXT\" or \"SSL\"; or name the port of its SASL listener in 'brokers'")),
            (Some(_), None) => Err(failed("it hangs up when it is asked for mechanisms")
                .help("name the port of a Kafka listener with SASL in 'brokers'")),
        }
    }
}

fn shown(offered: &[String]) -> String {
    escape_outside_to(offered.join(", ").as_bytes(), 200)
}
