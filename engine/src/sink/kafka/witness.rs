//! Finds out whether a transaction was committed whose producer did not live to hear it.
//!
//! What a transaction holds beside its messages tells: offsets of a group, or positions of files. It counts as a whole, so one
//! of them is enough. To be asked when a newer producer has ended whatever the older one had open.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::lent::{self, Lent};
use super::positions::{self, Positions};
use super::transactor::Held;
use crate::config::kafka::ClientConfig;
use crate::diagnosis::Diagnostic;
use crate::kafka::blame::blame;
use crate::kafka::client;

/// How long the group's coordinator may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// See above.
pub(super) struct Witness {
    pub(super) who: String,
    pub(super) brokers: Vec<String>,
    pub(super) config: ClientConfig,
}

impl Witness {
    /// Whether the transaction of what is held is committed. One that holds nothing that could tell counts as not: its records
    /// may be there twice, as their sources promise no more.
    ///
    /// # Errors
    /// Why it cannot be told now.
    pub(super) fn is_committed(
        &self,
        held: &BTreeMap<u64, Held>,
        positions: &Positions,
    ) -> Result<bool, Diagnostic> {
        if let Some((input, upto)) = positions::of(held.values()).pop_first() {
            let read = positions.read().map_err(|unknown| unknown.finding)?;
            return Ok(read.get(&input).is_some_and(|at| *at >= upto));
        }
        match lent::of(held.values()).first() {
            Some(lent) => self.group_has(lent),
            None => Ok(false),
        }
    }

    /// Whether the group has a coordinator that answers.
    ///
    /// # Errors
    /// Why it cannot be told now.
    pub(super) fn is_coordinated(&self, lent: &Lent) -> Result<(), Diagnostic> {
        // Offsets in a transaction that is still open are not waited for.
        self.committed(lent, "read_uncommitted").map(drop)
    }

    fn group_has(&self, lent: &Lent) -> Result<bool, Diagnostic> {
        let Some((_, upto)) = lent.offsets.first() else { return Ok(false) };
        let told = self.committed(lent, "read_committed")?;
        Ok(matches!(told, Some(Offset::Offset(at)) if at >= *upto))
    }

    /// The offset that a group has in the first partition of what is lent.
    fn committed(&self, lent: &Lent, level: &str) -> Result<Option<Offset>, Diagnostic> {
        let group = &lent.membership.group;
        let of = |error: KafkaError| {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            blame(&self.who, code, &format!("asking what group {group} has committed: {error}"))
        };
        let Some((assigned, _)) = lent.offsets.first() else { return Ok(None) };
        let mut config = client::reader(&self.brokers, group, &self.config);
        let consumer: BaseConsumer = config.set("isolation.level", level).create().map_err(of)?;
        let mut asked = rdkafka::TopicPartitionList::new();
        asked.add_partition(&assigned.topic, assigned.number);
        let told = consumer.committed_offsets(asked, ANSWER_MAX).map_err(of)?;
        Ok(told.elements().first().map(|one| one.offset()))
    }
}
