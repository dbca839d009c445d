//! Offsets of consumer groups that go into a transaction: those behind the last record of each partition in it.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::producer::Reports;
use super::transactor::Held;
use crate::kafka::assigned::{Assigned, Fault, Membership};
use crate::kafka::cargo::Producer;

/// The offsets of one group.
pub(super) struct Lent {
    pub(super) membership: Arc<Membership>,
    /// Each partition, and behind which message it is.
    pub(super) offsets: Vec<(Arc<Assigned>, i64)>,
}

/// The offsets of what is held, in the order in which it came.
pub(super) fn of<'a>(held: impl Iterator<Item = &'a Held>) -> Vec<Lent> {
    let mut all: Vec<Lent> = Vec::new();
    for held in held {
        let (Some(whose), Some(batch)) = (&held.outlet.assigned, &held.batch) else { continue };
        let assigned = &whose.0;
        // Before the first message's end there is nothing to commit.
        let upto = batch.tickets.last().and_then(|ticket| i64::try_from(ticket.upto).ok());
        let Some(upto) = upto.filter(|upto| *upto > 0) else { continue };
        let at = all.iter().position(|lent| Arc::ptr_eq(&lent.membership, &assigned.membership));
        let at = at.unwrap_or_else(|| {
            all.push(Lent { membership: Arc::clone(&assigned.membership), offsets: Vec::new() });
            all.len() - 1
        });
        let offsets = &mut all[at].offsets;
        match offsets.iter_mut().find(|(of, _)| Arc::ptr_eq(of, assigned)) {
            // The last one counts: a topic that was made anew begins anew.
            Some((_, last)) => *last = upto,
            None => offsets.push((Arc::clone(assigned), upto)),
        }
    }
    all
}

impl Lent {
    /// Puts them into the transaction that is open. It blocks.
    ///
    /// # Errors
    /// Why they are not in it.
    pub(super) fn send(&self, producer: &Producer<Reports>, at_most: Duration) -> Result<(), Fault> {
        let group = &self.membership.group;
        // First who we are, then what is ours: see the invariant of `assigned`.
        let generation = self.membership.now().ok_or_else(|| {
            let text = format!("group {group}: its source is no member of it now");
            Fault::abort(RDKafkaErrorCode::UnknownMemberId, text)
        })?;
        if let Some((lost, _)) = self.offsets.iter().find(|(assigned, _)| assigned.is_lost()) {
            let text = format!("group {group}: {}/{} is ours no more", lost.topic, lost.number);
            return Err(Fault::abort(RDKafkaErrorCode::AssignmentLost, text));
        }
        let producer = NonNull::new(producer.inner().client().native_ptr());
        let producer =
            producer.ok_or_else(|| Fault::abort(RDKafkaErrorCode::Fail, "there is no producer"))?;
        generation.send(producer, &self.list()?, at_most)
    }

    /// As librdkafka has it.
    pub(super) fn list(&self) -> Result<TopicPartitionList, Fault> {
        let mut list = TopicPartitionList::new();
        for (assigned, upto) in &self.offsets {
            list.add_partition_offset(&assigned.topic, assigned.number, Offset::Offset(*upto))?;
        }
        Ok(list)
    }
}
