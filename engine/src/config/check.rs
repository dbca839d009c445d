//! What no single entry can tell: two sources on one port, memory that does not fit, patterns that match nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::tree::{Node, Table};
use super::types::ListenAddr;
use super::{AdminListen, Config, SinkConfig, SourceConfig};
use super::{loops, memory, transactions};
use crate::admin::tcp;
use crate::batch::{Mark, Origin};
use crate::diagnosis::{Code, Diagnostic, Findings, Place, nearest};
use crate::sink::SinkParams;
use crate::sink::file::params::PathTemplate;
use crate::sink::format::Format;
use crate::source::SourceParams;
use crate::source::syslog::{HeaderMode, Protocol};
use crate::tls;

/// Tells what is wrong with the whole.
///
/// `sources` are the keys that are written, those of sources with mistakes too; none where some key cannot be known.
pub fn all(config: &Config, sources: Option<&[String]>, cpus: usize, root: &Table, findings: &mut Findings) {
    check_any(config, root, findings);
    check_admin(config, root, findings);
    check_data_dir(config, root, findings);
    check_ports(config, root, findings);
    memory::check(config, cpus, root, findings);
    for sink in &config.sinks {
        check_selection(sources, sink, findings);
        check_raw(config, sink, findings);
        check_rescue(sink, findings);
    }
    check_taken(config, findings);
    check_where(config, findings);
    check_outputs(config, findings);
    loops::check(config, findings);
    transactions::check(config, findings);
    check_tags(config, findings);
    check_built(config, findings);
}

fn check_any(config: &Config, root: &Table, findings: &mut Findings) {
    if config.sources.iter().any(|source| source.enable) || findings.errors() > 0 {
        return;
    }
    let finding = Diagnostic::warning(None, "there is no source to run").at(root.place());
    findings.push(finding.help("add one:\n[[sources]]\nkey = \"file_1\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"/var/log/app.log\""));
}

/// Whoever reaches the admin API can stop the engine: beyond this machine that takes a token.
fn check_admin(config: &Config, root: &Table, findings: &mut Findings) {
    let AdminListen::On(at) = config.admin.listen else { return };
    if let Some(file) = &config.admin.token_file.0 {
        if let Err(finding) = tcp::token(file) {
            findings.push(finding.at(place_in(root, "admin", "token_file")));
        }
        return;
    }
    if at.ip().is_loopback() {
        return;
    }
    let place = root.get("admin").map_or_else(|| root.place(), |node| node.place());
    let message = format!("admin.listen = \"{at}\" is open to other machines, and there is no token_file");
    findings.push(
        Diagnostic::error(Code::WP404, message)
            .at(place)
            .help("[admin]\ntoken_file = \"/etc/wpgen/token\"")
            .help(format!("or, for this machine alone: listen = \"127.0.0.1:{}\"", at.port())),
    );
}

/// A data folder that cannot be made because something else is in its way.
fn check_data_dir(config: &Config, root: &Table, findings: &mut Findings) {
    let data_dir = &config.engine.data_dir;
    let Some(there) = data_dir.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) else {
        return;
    };
    let message = format!("data_dir {}: {} is not a folder", data_dir.display(), there.display());
    findings.push(
        Diagnostic::error(Code::WP404, message)
            .at(place_in(root, "engine", "data_dir"))
            .help("name a folder, which is made when it is missing: [engine] data_dir = \"./data\""),
    );
}

/// Where a key of a table stands.
fn place_in(root: &Table, table: &str, key: &str) -> Place {
    let table = root.get(table).and_then(Node::as_table);
    table.map_or_else(|| root.place(), |table| table.place_of(key))
}

/// A port that is listened on.
struct Listener<'a> {
    what: String,
    datagram: bool,
    address: &'a ListenAddr,
    port: u16,
    place: Place,
}

fn check_ports(config: &Config, root: &Table, findings: &mut Findings) {
    let admin = match config.admin.listen {
        AdminListen::On(address) => Some((ListenAddr::Ip(address.ip()), address.port())),
        AdminListen::Off => None,
    };
    let mut taken: Vec<Listener<'_>> = Vec::new();
    // The port of the admin API is checked only where it was chosen: the default gives way with a warning.
    if let Some((address, port)) = admin.as_ref().filter(|_| config.admin_listen_given) {
        let place = root.get("admin").map_or_else(|| root.place(), |node| node.place());
        taken.push(Listener { what: "the admin API".into(), datagram: false, address, port: *port, place });
    }
    for listener in config.sources.iter().filter(|source| source.enable).filter_map(listener) {
        if let Some(first) = taken.iter().find(|first| collide(first, &listener)) {
            let port = match listener.address {
                ListenAddr::Ip(_) => format!("port {}", listener.port),
                ListenAddr::Unix(path) => path.display().to_string(),
            };
            let message =
                format!("two sources on one port: {} and {} listen on {port}", first.what, listener.what);
            let finding = Diagnostic::error(Code::WP405, message).at(listener.place.clone());
            findings.push(
                finding.other("the other one", first.place.clone()).help("give one of them another port"),
            );
        }
        taken.push(listener);
    }
}

fn listener(source: &SourceConfig) -> Option<Listener<'_>> {
    let (datagram, address, port) = match &source.params {
        SourceParams::Syslog(syslog) => (syslog.protocol == Protocol::Udp, &syslog.addr, syslog.port),
        SourceParams::Tcp(tcp) => (false, &tcp.addr, tcp.port),
        SourceParams::Mqtt(mqtt) => (false, &mqtt.addr, mqtt.port),
        SourceParams::File(_) | SourceParams::Kafka(_) => return None,
    };
    Some(Listener {
        what: format!("source '{}'", source.key),
        datagram,
        address,
        port,
        place: source.place.clone(),
    })
}

/// Whether two sources listen where only one can.
pub fn share_address(a: &SourceConfig, b: &SourceConfig) -> bool {
    listener(a).zip(listener(b)).is_some_and(|(a, b)| collide(&a, &b))
}

fn collide(a: &Listener<'_>, b: &Listener<'_>) -> bool {
    match (a.address, b.address) {
        (ListenAddr::Unix(a), ListenAddr::Unix(b)) => a == b,
        (ListenAddr::Ip(x), ListenAddr::Ip(y)) => {
            a.datagram == b.datagram && a.port == b.port && overlap(*x, *y)
        }
        _ => false,
    }
}

/// Whether two sockets on one port would meet. `::` takes IPv4 as well.
pub(super) fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let any = |x: IpAddr, other: IpAddr| x.is_unspecified() && (x.is_ipv6() || other.is_ipv4());
    a == b || any(a, b) || any(b, a)
}

fn check_selection(sources: Option<&[String]>, sink: &SinkConfig, findings: &mut Findings) {
    if sink.sources.is_empty() {
        let message = format!("sink '{}' takes nothing: its 'sources' names none", sink.key);
        let finding = Diagnostic::warning(None, message).at(sink.place.clone());
        findings.push(finding.help("take all of them: sources = [\"*\"]"));
        return;
    }
    // No source at all is told on its own.
    let Some(keys) = sources.filter(|keys| !keys.is_empty()) else { return };
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (pattern, node) in sink.sources.unmatched(&keys) {
        let message = format!("'{pattern}' matches no source: sink '{}' takes nothing by it", sink.key);
        let near = nearest(pattern, &keys).map(|near| format!("did you mean '{near}'?"));
        findings.push(Diagnostic::warning(None, message).at(node.place()).help_if(near));
    }
}

/// Tags that a source attaches by itself, each with another value.
const OWN_TAGS: [&str; 5] = ["source_type", "source_name", "source_path", "host", "syslog_malformed"];

/// A source whose records go nowhere.
fn check_taken(config: &Config, findings: &mut Findings) {
    // A sink with mistakes is not in the list.
    if findings.errors() > 0 {
        return;
    }
    for source in config.sources.iter().filter(|source| source.enable) {
        let takes = |sink: &&SinkConfig| sink.enable && sink.sources.takes(&source.key);
        let mut sinks = config.sinks.iter().filter(takes).peekable();
        let message =
            format!("no sink takes the records of source '{}': they are read and dropped", source.key);
        let finding = Diagnostic::warning(None, message).at(source.place.clone());
        if sinks.peek().is_none() {
            let help = format!("name it in a sink: sources = [\"{}\"]", source.key);
            findings.push(finding.help(help).help("or leave the source out: enable = false"));
            continue;
        }
        if let Some(first) = config.sinks.iter().find(takes).filter(|_| sinks.all(|sink| never(source, sink)))
        {
            findings.push(
                finding
                    .other("it takes other tags", first.place.clone())
                    .help("give the source the tags of the sink's 'where', or change that"),
            );
        }
    }
}

/// A sink whose `where` is for no source, where others take them: a slip in a name, which is the name of a tag then.
fn check_where(config: &Config, findings: &mut Findings) {
    let enabled = || config.sinks.iter().filter(|sink| sink.enable);
    for sink in enabled() {
        let its = |source: &&SourceConfig| source.enable && sink.sources.takes(&source.key);
        let mut sources = config.sources.iter().filter(its).peekable();
        // What no sink at all takes is told with its source.
        let gets_on = |source: &SourceConfig| {
            enabled().any(|other| other.sources.takes(&source.key) && !never(source, other))
        };
        if sources.peek().is_none() || !sources.all(|source| never(source, sink) && gets_on(source)) {
            continue;
        }
        let names = || sink.condition.tags.iter().map(|(name, _)| name.as_str());
        let has =
            |name: &str| config.sources.iter().any(|source| source.tags.iter().any(|tag| tag.key == name));
        let unknown = names().filter(|name| !has(name)).find_map(|name| nearest(name, &["severity"]));
        let message = format!("sink '{}' takes nothing: no source has the tags of its 'where'", sink.key);
        findings.push(
            Diagnostic::warning(None, message)
                .at(sink.place.clone())
                .help_if(unknown.map(|near| format!("did you mean '{near}'?")))
                .help("give a source these tags: tags = [\"name:value\"], or change 'where'"),
        );
    }
}

/// Whether what a sink takes is decided by the source's tags, and is nothing of it.
pub(super) fn never(source: &SourceConfig, sink: &SinkConfig) -> bool {
    let of = |name: &str| source.tags.iter().rev().find(|tag| tag.key == name).map(|tag| &*tag.value);
    let mut tags = sink.condition.tags.iter().filter(|(name, _)| !OWN_TAGS.contains(&name.as_str()));
    tags.any(|(name, value)| of(name) != Some(value.as_str()))
}

/// A raw file keeps the message alone: what `header_mode = "parse"` took off it is nowhere. One warning a sink.
fn check_raw(config: &Config, sink: &SinkConfig, findings: &mut Findings) {
    let SinkParams::File(file) = &sink.params else { return };
    if file.format != Format::Raw || !sink.enable {
        return;
    }
    let parses = |source: &&SourceConfig| {
        let parse = matches!(&source.params, SourceParams::Syslog(s) if s.header_mode == HeaderMode::Parse);
        parse && source.enable && sink.sources.takes(&source.key)
    };
    let mut losing = config.sources.iter().filter(parses);
    let Some(first) = losing.next() else { return };
    let others = match losing.count() {
        0 => String::new(),
        count => format!(" (and of {count} more)"),
    };
    let message = format!(
        "header_mode = \"parse\" of source '{}'{others} into the raw file of sink '{}' loses host and time",
        first.key, sink.key
    );
    findings.push(
        Diagnostic::warning(None, message)
            .at(first.place.clone())
            .help("keep the header: header_mode = \"keep\"")
            .help("or keep its fields: format = \"ndjson\" in the sink"),
    );
}

/// Sinks that do not wait for anyone, or know no way back, have no rescue.
fn check_rescue(sink: &SinkConfig, findings: &mut Findings) {
    let kind = sink.params.kind().name;
    if !sink.common.rescue || ["file", "tcp", "syslog"].contains(&kind) {
        return;
    }
    if let SinkParams::Kafka(kafka) = &sink.params {
        if kafka.transactional {
            findings.push(rescue_of_transactions(sink));
        }
        return;
    }
    let message = format!("rescue = true does nothing for sink '{}': the kind '{kind}' has none", sink.key);
    findings.push(
        Diagnostic::warning(None, message)
            .at(sink.place.clone())
            .help("sinks of the kinds file, tcp, syslog and kafka have a rescue"),
    );
}

fn rescue_of_transactions(sink: &SinkConfig) -> Diagnostic {
    let message = format!("sink '{}': rescue = true cannot be with transactional = true", sink.key);
    Diagnostic::error(Code::WP404, message)
        .at(sink.place.clone())
        .note("what is on disk counts as delivered, so its positions cannot be in the transaction that sends it later")
        .help("exactly once: leave out rescue; the sources wait while Kafka is down")
        .help("at least once, and the sources go on: leave out transactional")
}

/// A file that a sink will write of a source; what is known only when records come is there by its name, `<host>`.
pub(super) fn written(source: &SourceConfig, sink: &SinkConfig) -> Option<PathBuf> {
    let SinkParams::File(file) = &sink.params else { return None };
    // The configuration's come behind, and count.
    let known = source.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone()));
    let tags = OWN_TAGS.iter().map(|name| ((*name).to_owned(), format!("<{name}>"))).chain(known).collect();
    let origin = Origin {
        source: Arc::clone(&source.key),
        host: Arc::from("<host>"),
        tags,
        peer: None,
        tls_subject: None,
        assignment: None,
        protocol: None,
        mark: Mark::default(),
    };
    Some(PathBuf::from(file.path.as_ref()?.template.outlet(&origin).path(0, &TimeZone::UTC)))
}

/// What validates and yet will not start here.
fn check_built(config: &Config, findings: &mut Findings) {
    check_tls(config, findings);
    let sources =
        config.sources.iter().filter(|s| s.enable).map(|s| ("source", &s.key, s.params.kind(), &s.place));
    let sinks = config.sinks.iter().filter(|s| s.enable).map(|s| ("sink", &s.key, s.params.kind(), &s.place));
    for (what, key, kind, place) in sources.chain(sinks).filter(|(_, _, kind, _)| !kind.available) {
        let message = format!(
            "{what} '{key}': this build does not have the kind '{}' yet, and will not start",
            kind.name
        );
        findings
            .push(Diagnostic::warning(None, message).at(place.clone()).help("until then: enable = false"));
    }
}

/// Tags that look like one that acts, and are only attached.
fn check_tags(config: &Config, findings: &mut Findings) {
    for source in &config.sources {
        for (tag, near) in source.tags.iter().filter_map(|tag| tag.near_acting().map(|near| (tag, near))) {
            let message = format!("tag '{}' of source '{}' does nothing", tag.key, source.key);
            let finding = Diagnostic::warning(None, message).at(source.place.clone());
            findings.push(finding.help(format!("did you mean '{near}'?")));
        }
    }
}

fn check_outputs(config: &Config, findings: &mut Findings) {
    let sinks: Vec<&SinkConfig> = config.sinks.iter().filter(|sink| sink.enable).collect();
    let mut taken: HashMap<PathBuf, &SinkConfig> = HashMap::new();
    let mut told: Vec<&Arc<str>> = Vec::new();
    let mut tell = |first: &SinkConfig, sink: &SinkConfig, file: &str| {
        let message = format!("two sinks on one file: '{}' and '{}' write '{file}'", first.key, sink.key);
        let finding = Diagnostic::error(Code::WP405, message).at(sink.place.clone());
        findings
            .push(finding.other("the other one", first.place.clone()).help("give one of them another path"));
    };
    for (at, &sink) in sinks.iter().enumerate() {
        let Some(path) = file_path(sink) else { continue };
        let same = |other: &&&SinkConfig| file_path(other).is_some_and(|p| p.template == path.template);
        if let Some(first) = sinks[..at].iter().find(same) {
            tell(first, sink, &path.text);
            told.push(&sink.key);
        }
    }
    // Texts that differ may be one path for a source: `a.log` and `{source}.log`.
    for source in config.sources.iter().filter(|source| source.enable) {
        for &sink in sinks.iter().filter(|sink| sink.sources.takes(&source.key) && !never(source, sink)) {
            if told.contains(&&sink.key) {
                continue;
            }
            let Some(path) = written(source, sink) else { continue };
            let first = *taken.entry(path.clone()).or_insert(sink);
            if first.key != sink.key {
                tell(first, sink, &path.display().to_string());
                told.push(&sink.key);
            }
        }
    }
}

fn file_path(sink: &SinkConfig) -> Option<&PathTemplate> {
    let SinkParams::File(file) = &sink.params else { return None };
    file.path.as_ref()
}

/// The files of TLS, as they are now.
fn check_tls(config: &Config, findings: &mut Findings) {
    for source in config.sources.iter().filter(|source| source.enable) {
        let listen = match &source.params {
            SourceParams::Syslog(syslog) if syslog.protocol == Protocol::Tls => syslog.tls.as_ref(),
            SourceParams::Tcp(tcp) => tcp.tls.as_ref(),
            _ => None,
        };
        // That a name is missing was told where it is missing.
        let Some(listen) = listen.filter(|listen| listen.cert.is_some() && listen.key.is_some()) else {
            continue;
        };
        let found = tls::server::check(listen).unwrap_or_else(|finding| vec![finding]);
        for mut finding in found {
            finding.message.insert_str(0, &format!("source '{}': ", source.key));
            findings.push(finding.at(source.place.clone()));
        }
    }
    for sink in config.sinks.iter().filter(|sink| sink.enable) {
        let connect = match &sink.params {
            SinkParams::Syslog(syslog) => syslog.tls.as_ref(),
            SinkParams::Tcp(tcp) => tcp.tls.as_ref(),
            _ => None,
        };
        // That one of a pair is missing was told where it is missing.
        let Some(connect) = connect.filter(|tls| tls.cert.is_some() == tls.key.is_some()) else { continue };
        if let Err(mut finding) = tls::client::Client::open(connect) {
            finding.message.insert_str(0, &format!("sink '{}': ", sink.key));
            findings.push(finding.at(sink.place.clone()));
        }
    }
}
