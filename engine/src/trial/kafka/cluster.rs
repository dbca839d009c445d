//! What a cluster is asked through librdkafka: whether it lets us in, its topics, our group, and what waits for us.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig as Native, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::about;
use super::settings::host_and_port;
use crate::config::kafka::ClientConfig;
use crate::diagnosis::{Code, Diagnostic, nearest_of};
use crate::escape::escape_outside;
use crate::kafka::blame;
use crate::source::kafka::Start;

/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(4);
/// librdkafka waits for its time-out also where a password is refused, so the first question is a short one.
const ASK_AGAIN: Duration = Duration::from_millis(800);
/// Between two questions to a group that has no coordinator yet.
const COORDINATOR_AGAIN: Duration = Duration::from_millis(100);
/// How long librdkafka's own words are waited for behind a failure.
const WORDS_WITHIN: Duration = Duration::from_millis(200);
/// How long an address that a broker advertises may take.
const ADVERTISED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at the lag.
const TREND_OVER: Duration = Duration::from_millis(500);
/// What is shown of a list.
const SHOWN_MAX: usize = 5;
/// Advertised addresses that are tried, and partitions whose lag is looked at.
const ADVERTISED_MAX: usize = 16;
const PARTITIONS_MAX: usize = 64;

/// librdkafka's session time-out where none is configured.
const SESSION_MS: i64 = 45_000;

/// Keeps what librdkafka reports beside its answers: they say less.
#[derive(Default)]
struct Listener {
    errors: Arc<Mutex<Vec<(RDKafkaErrorCode, String)>>>,
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push((code, reason.to_owned()));
    }
}

impl ConsumerContext for Listener {}

/// A client of a cluster that reads nothing.
pub(super) struct Cluster {
    client: BaseConsumer<Listener>,
    errors: Arc<Mutex<Vec<(RDKafkaErrorCode, String)>>>,
    native: Native,
}

/// A topic that is there, and how many partitions it has.
pub(super) type Topic = (String, i32);

/// Who makes a topic that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    /// Nobody.
    Nobody,
    /// The engine, when it starts.
    Start,
    /// The broker, for a producer, if it is configured so.
    FirstMessage,
}

impl Makes {
    /// Of a source that makes topics or does not.
    pub(super) fn when(creates: bool) -> Self {
        if creates { Self::Start } else { Self::Nobody }
    }
}

impl Cluster {
    pub(super) fn new(
        brokers: &str,
        config: &ClientConfig,
        group: &str,
    ) -> Result<(Self, String), Diagnostic> {
        let mut native = Native::new();
        for (key, value) in &config.0 {
            native.set(key, value);
        }
        native
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("allow.auto.create.topics", "false");
        // A trial is over before a refused password is tried a second time.
        native.set("enable.auto.commit", "false").set("log_level", "0");
        let context = Listener::default();
        let errors = Arc::clone(&context.errors);
        let client: BaseConsumer<Listener> =
            native.create_with_context(context).map_err(|error| blame::unmade("config", &error))?;
        let protocol = config.0.get("security.protocol").map_or("PLAINTEXT", String::as_str).to_owned();
        Ok((Self { client, errors, native }, format!("librdkafka takes it; {protocol}")))
    }

    /// Signs in and asks who is there.
    pub(super) fn metadata(&self) -> Result<String, Diagnostic> {
        let all = self.first_answer()?;
        let topics = all.topics().len();
        let brokers: Vec<String> =
            all.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
        for advertised in brokers.iter().take(ADVERTISED_MAX) {
            reachable(advertised, all.orig_broker_name())?;
        }
        let more = brokers.len().saturating_sub(SHOWN_MAX);
        let shown = brokers[..brokers.len() - more].join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Ok(format!("signed in; brokers: {shown}{more}, all reachable; {topics} topics we may see"))
    }

    /// Asks until there is an answer, or what librdkafka reports says that there will be none.
    fn first_answer(&self) -> Result<Metadata, Diagnostic> {
        let until = Instant::now() + WITHIN;
        loop {
            let error = match self.client.fetch_metadata(None, ASK_AGAIN) {
                Ok(all) => return Ok(all),
                Err(error) => error,
            };
            let why = self.why(&error);
            if why.code == Some(Code::WP202) || Instant::now() > until {
                return Err(why);
            }
        }
    }

    /// The worst of what librdkafka reported, else what it answered.
    fn why(&self, error: &KafkaError) -> Diagnostic {
        let until = Instant::now() + WORDS_WITHIN;
        while Instant::now() < until {
            // Callbacks are made in here; there is no message to come, for nothing is subscribed.
            let _ = self.client.poll(Duration::from_millis(20));
        }
        let told = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let worst = told.iter().max_by_key(|(code, text)| match blame::code(*code, text) {
            Some(Code::WP202) => 3,
            Some(Code::WP201) if *code != RDKafkaErrorCode::AllBrokersDown => 2,
            _ => 1,
        });
        match worst {
            Some((code, text)) => about(*code, text),
            None => about(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), &error.to_string()),
        }
    }

    /// Whether the topics are there.
    pub(super) fn topics(&self, names: &[String], makes: Makes) -> Result<(Vec<Topic>, String), Diagnostic> {
        let all = self.client.fetch_metadata(None, WITHIN).map_err(|error| self.why(&error))?;
        let (mut found, mut words) = (Vec::new(), Vec::new());
        for name in names {
            let (topics, text) = match name.strip_prefix('^') {
                Some(_) => matching(name, &all)?,
                None => self.topic(name, &all, makes)?,
            };
            found.extend(topics);
            words.push(text);
        }
        Ok((found, words.join("; ")))
    }

    fn topic(&self, name: &str, all: &Metadata, makes: Makes) -> Result<(Vec<Topic>, String), Diagnostic> {
        let one = self.client.fetch_metadata(Some(name), WITHIN).map_err(|error| self.why(&error))?;
        let topic = one.topics().iter().find(|topic| topic.name() == name);
        let error = topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        match (topic, error) {
            (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => Err(blame::denied_topic(&shown(name))),
            (Some(topic), None) => {
                let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
                Ok((vec![(name.to_owned(), count)], format!("{}: {count} partitions", shown(name))))
            }
            (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition) | None) => {
                self.missing(name, all, makes).map(|text| (Vec::new(), text))
            }
            (_, Some(error)) => Err(about(error, &format!("{}: {error}", shown(name)))),
        }
    }

    fn missing(&self, name: &str, all: &Metadata, makes: Makes) -> Result<String, Diagnostic> {
        if makes == Makes::Start {
            return Ok(format!("{} is not there; a start makes it", shown(name)));
        }
        let by_itself = self.broker_says(all, "auto.create.topics.enable");
        if makes == Makes::FirstMessage && by_itself.as_deref() == Some("true") {
            return Ok(format!("{} is not there; the broker makes it for the first message", shown(name)));
        }
        Err(not_found(name, all, by_itself.as_deref(), makes))
    }

    /// What a broker is configured to, as far as we may know.
    fn broker_says(&self, all: &Metadata, name: &str) -> Option<String> {
        let broker = all.brokers().first()?.id();
        let admin: AdminClient<rdkafka::client::DefaultClientContext> = self.native.create().ok()?;
        let options = AdminOptions::new().request_timeout(Some(WITHIN));
        let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
        let asked = [ResourceSpecifier::Broker(broker)];
        let answer = runtime.block_on(admin.describe_configs(&asked, &options)).ok()?;
        let found = answer.into_iter().next()?.ok()?;
        found.get(name)?.value.clone()
    }

    /// Who is in the group, and whether we may join it as we are configured.
    pub(super) fn group(&self, group: &str, config: &ClientConfig) -> Result<((), String), Diagnostic> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("wpgen", 0, Offset::Invalid).map_err(|error| self.why(&error))?;
        match coordinated(|| self.client.committed_offsets(asked.clone(), WITHIN)) {
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                return Err(blame::denied_group(&shown(group)));
            }
            Err(error) => return Err(self.why(&error)),
            Ok(_) => {}
        }
        self.session(config)?;
        let list = coordinated(|| self.client.fetch_group_list(Some(group), WITHIN))
            .map_err(|error| self.why(&error))?;
        let Some(found) = list.groups().iter().find(|found| found.name() == group) else {
            return Ok(((), format!("{} is new", shown(group))));
        };
        let members: Vec<String> = found
            .members()
            .iter()
            .map(|member| shown(&format!("{}{}", member.client_id(), member.client_host())))
            .collect();
        let state = match found.state() {
            "" | "Dead" => "new",
            state => state,
        };
        Ok((
            (),
            match members.len() {
                0 => format!("{}: {state}, no members", shown(group)),
                n => format!(
                    "{}: {state}, members {n}: {}",
                    shown(group),
                    members[..n.min(SHOWN_MAX)].join(", ")
                ),
            },
        ))
    }

    /// Whether the broker lets a member have a session as long, or as short, as ours.
    fn session(&self, config: &ClientConfig) -> Result<(), Diagnostic> {
        let ours =
            config.0.get("session.timeout.ms").and_then(|text| text.parse().ok()).unwrap_or(SESSION_MS);
        let all = self.client.fetch_metadata(None, WITHIN).map_err(|error| self.why(&error))?;
        let limit = |name: &str| self.broker_says(&all, name).and_then(|text| text.parse::<i64>().ok());
        let least = limit("group.min.session.timeout.ms").unwrap_or(0);
        let most = limit("group.max.session.timeout.ms").unwrap_or(i64::MAX);
        if (least..=most).contains(&ours) {
            return Ok(());
        }
        let message = format!(
            "Consumer group rebalance failed: session_timeout_ms = {ours}, and the broker takes {least} to {most}"
        );
        Err(Diagnostic::error(Code::WP204, message)
            .note("group.min.session.timeout.ms and group.max.session.timeout.ms of the broker say so")
            .help(format!("config = {{ session_timeout_ms = {} }}", SESSION_MS.clamp(least, most))))
    }

    /// What waits for the group, and whether it grows.
    pub(super) fn lag(&self, topics: &[Topic], start: &Start) -> Result<((), String), Diagnostic> {
        let partitions: Vec<(&str, i32)> = topics
            .iter()
            .flat_map(|(name, count)| (0..*count).map(move |partition| (name.as_str(), partition)))
            .take(PARTITIONS_MAX)
            .collect();
        if partitions.is_empty() {
            return Ok(((), "nothing to read yet".to_owned()));
        }
        let before = self.lags(&partitions, start)?;
        let sum: i64 = before.iter().sum();
        if sum == 0 {
            return Ok(((), format!("none, {} partitions", partitions.len())));
        }
        std::thread::sleep(TREND_OVER);
        let grown = self.lags(&partitions, start)?.iter().sum::<i64>() - sum;
        let a_second = grown * 1000 / i64::try_from(TREND_OVER.as_millis()).unwrap_or(1000);
        let trend = match a_second {
            0 => "steady".to_owned(),
            more @ 1.. => format!("grows by {more} a second"),
            less => format!("shrinks by {} a second", -less),
        };
        let worst = before.iter().zip(&partitions).max_by_key(|(lag, _)| **lag);
        let worst = worst.map_or_else(String::new, |(lag, (topic, partition))| {
            format!("; most on {}[{partition}]: {lag}", shown(topic))
        });
        Ok(((), format!("{sum} messages on {} partitions, {trend}{worst}", partitions.len())))
    }

    fn lags(&self, partitions: &[(&str, i32)], start: &Start) -> Result<Vec<i64>, Diagnostic> {
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in partitions {
            asked.add_partition(topic, *partition);
        }
        let committed = self.client.committed_offsets(asked, WITHIN).map_err(|error| self.why(&error))?;
        let lag = |(topic, partition): &(&str, i32)| {
            let (low, high) =
                self.client.fetch_watermarks(topic, *partition, WITHIN).map_err(|error| self.why(&error))?;
            let at = match committed.find_partition(topic, *partition).map(|found| found.offset()) {
                Some(Offset::Offset(at)) => at.max(low),
                _ if matches!(start, Start::Latest) => high,
                _ => low,
            };
            Ok((high - at).max(0))
        };
        partitions.iter().map(lag).collect()
    }
}

/// Asks until the group has a coordinator: a new cluster makes the topic of offsets for the first who asks, and one that has
/// lost a node reads it anew.
fn coordinated<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let until = Instant::now() + WITHIN;
    loop {
        let answer = ask();
        let passes = matches!(
            answer.as_ref().err().and_then(KafkaError::rdkafka_error_code),
            Some(
                RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
            )
        );
        if !passes || Instant::now() > until {
            return answer;
        }
        std::thread::sleep(COORDINATOR_AGAIN);
    }
}

/// The topic is not there, and nobody makes it.
fn not_found(name: &str, all: &Metadata, by_itself: Option<&str>, makes: Makes) -> Diagnostic {
    let names: Vec<&str> =
        all.topics().iter().map(|topic| topic.name()).filter(|n| !n.starts_with("__")).collect();
    let near = nearest_of(name, names.iter().copied());
    let message = format!("Topic not found: {} (Unknown topic or partition)", shown(name));
    let mut finding = Diagnostic::error(Code::WP203, message);
    if names.is_empty() {
        finding = finding
            .note("the broker shows us no topic at all: there is none, or we have no right to see any");
    } else if near.is_none() {
        let some: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| shown(name)).collect();
        finding = finding.note(format!("of {} topics there, the first: {}", names.len(), some.join(", ")));
    }
    finding = finding.note(match by_itself {
        Some("true") => "the broker makes topics that are asked for (auto.create.topics.enable): a producer's first message would",
        Some(_) => "the broker makes no topic by itself (auto.create.topics.enable = false)",
        None => "whether the broker makes topics by itself cannot be seen with our rights",
    });
    // A sink has no such parameter.
    let or = if makes == Makes::Nobody { ", or create_topics = true" } else { "" };
    let make = format!("make it: kafka-topics.sh --create --topic {} --partitions 3{or}", shown(name));
    finding.help_if(near.map(|near| format!("topic = \"{}\"", shown(near)))).help(make)
}

/// The topics that a regular expression is for.
fn matching(pattern: &str, all: &Metadata) -> Result<(Vec<Topic>, String), Diagnostic> {
    let regex = regex::bytes::RegexBuilder::new(pattern).unicode(false).build().map_err(|error| {
        Diagnostic::error(
            Code::WP404,
            format!("'topic' is no regular expression: {}: {error}", shown(pattern)),
        )
    })?;
    let found: Vec<Topic> = all
        .topics()
        .iter()
        .filter(|topic| regex.is_match(topic.name().as_bytes()))
        .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
        .collect();
    let text = match found.as_slice() {
        [] => format!("{} is for no topic yet", shown(pattern)),
        some => {
            let names: Vec<String> = some.iter().take(SHOWN_MAX).map(|(name, _)| shown(name)).collect();
            format!("{} is for {} topics: {}", shown(pattern), some.len(), names.join(", "))
        }
    };
    Ok((found, text))
}

/// Whether an address that the cluster gives out can be reached from here: the usual trap of containers.
fn reachable(advertised: &str, by: &str) -> Result<(), Diagnostic> {
    let (host, port) = host_and_port(advertised);
    let failed = |why: String| {
        let message = format!(
            "Failed to connect to Kafka cluster: {by} sends us to {}, and that fails: {why}",
            shown(advertised)
        );
        Diagnostic::error(Code::WP201, message)
            .note("the first connection works; a broker then names the addresses at which it wants to be talked to")
            .help("advertised.listeners of that broker must hold an address that can be reached from here")
    };
    let addresses = (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let mut last = "no address".to_owned();
    for at in addresses {
        match TcpStream::connect_timeout(&at, ADVERTISED_WITHIN) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{at}: {error}"),
        }
    }
    Err(failed(last))
}

fn shown(text: &str) -> String {
    escape_outside(text.as_bytes())
}
