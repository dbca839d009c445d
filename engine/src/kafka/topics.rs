//! Topics that do not exist are made, with the broker's own number of partitions and replicas.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use super::voice::Voice;

/// How long the controller may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// As many as the broker makes by itself.
const AS_THE_BROKER: i32 = -1;

/// Makes each of `topics` that is a name and not a pattern. What fails is told; those that are there already are left alone.
pub fn create(voice: &Voice, config: &ClientConfig, topics: &[&str]) {
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .filter(|topic| !topic.starts_with('^'))
        .map(|topic| NewTopic::new(topic, AS_THE_BROKER, TopicReplication::Fixed(AS_THE_BROKER)))
        .collect();
    let admin: AdminClient<DefaultClientContext> = match config.create() {
        Ok(admin) => admin,
        Err(error) => return voice.error(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => return voice.failed(RDKafkaErrorCode::Fail, &format!("creating topics: {error}")),
    };
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
    match runtime.block_on(admin.create_topics(&new, &options)) {
        Err(error) => voice.error(&error),
        Ok(answers) => {
            for answer in answers {
                match answer {
                    Ok(topic) => {
                        log::info!(target: "wpgen::kafka", "{}: made topic {topic}", voice.who());
                    }
                    Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((topic, code)) => voice.failed(code, &format!("creating topic {topic}: {code}")),
                }
            }
        }
    }
}
