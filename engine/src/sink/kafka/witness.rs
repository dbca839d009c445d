//! Finds out whether a transaction was committed whose producer did not live to hear it.
//!
//! What a transaction holds beside its messages tells: offsets of a group, or positions of files. It counts as a whole, so one
//! of them is enough; but none of a partition that is another member's by now, which may have committed it itself. To be asked
//! when a newer producer has ended whatever the older one had open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::lent::{self, Lent};
use super::positions::{self, Positions};
use super::transactor::Held;
use crate::config::kafka::ClientConfig;
use crate::diagnosis::Diagnostic;
use crate::kafka::assigned::Assigned;
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
        for Lent { membership, offsets } in lent::of(held.values()) {
            let ask = |assigned: &Assigned| self.committed(&membership.group, assigned, "read_committed");
            if let Some(is_committed) = judge(&offsets, ask)? {
                return Ok(is_committed);
            }
        }
        // Whatever became of it, those who have its partitions now go on behind it, or read it again.
        Ok(false)
    }

    /// Whether the group has a coordinator that answers.
    ///
    /// # Errors
    /// Why it cannot be told now.
    pub(super) fn is_coordinated(&self, lent: &Lent) -> Result<(), Diagnostic> {
        let Some((assigned, _)) = lent.offsets.first() else { return Ok(()) };
        // Offsets in a transaction that is still open are not waited for.
        self.committed(&lent.membership.group, assigned, "read_uncommitted").map(drop)
    }

    /// The offset that a group has in a partition.
    fn committed(&self, group: &str, assigned: &Assigned, level: &str) -> Result<Option<Offset>, Diagnostic> {
        let of = |error: KafkaError| {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            blame(&self.who, code, &format!("asking what group {group} has committed: {error}"))
        };
        let mut config = client::reader(&self.brokers, group, &self.config);
        let consumer: BaseConsumer = config.set("isolation.level", level).create().map_err(of)?;
        let mut asked = rdkafka::TopicPartitionList::new();
        asked.add_partition(&assigned.topic, assigned.number);
        let told = consumer.committed_offsets(asked, ANSWER_MAX).map_err(of)?;
        Ok(told.elements().first().map(|one| one.offset()))
    }
}

/// Whether a group has the offsets of a transaction, by one that is ours also when its answer is there; none where no such one
/// is.
fn judge<E>(
    offsets: &[(Arc<Assigned>, i64)],
    ask: impl Fn(&Assigned) -> Result<Option<Offset>, E>,
) -> Result<Option<bool>, E> {
    for (assigned, upto) in offsets.iter().filter(|(assigned, _)| !assigned.is_lost()) {
        let told = ask(assigned)?;
        if !assigned.is_lost() {
            return Ok(Some(matches!(told, Some(Offset::Offset(at)) if at >= *upto)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::assigned::Membership;

    #[test]
    fn a_partition_that_is_lost_is_no_witness_also_when_it_is_lost_meanwhile() {
        let membership = Membership::new("g".to_owned());
        let assigned = |number| Assigned::new("t".into(), number, Arc::clone(&membership));
        let offsets: Vec<(Arc<Assigned>, i64)> = (0..3).map(|number| (assigned(number), 50)).collect();
        offsets[0].0.lose();
        // Another member reads and commits what it has taken over; the transaction was aborted.
        let told = |one: &Assigned| {
            if one.number == 1 {
                one.lose();
            }
            Ok::<_, ()>(Some(Offset::Offset(if one.number == 2 { 20 } else { 100 })))
        };
        assert_eq!(judge(&offsets, told), Ok(Some(false)));
        assert_eq!(judge(&offsets[..2], told), Ok(None));
        assert_eq!(judge(&offsets[2..], |_| Ok::<_, ()>(Some(Offset::Offset(50)))), Ok(Some(true)));
        assert_eq!(judge(&offsets[2..], |_| Ok::<_, ()>(None)), Ok(Some(false)));
    }
}
