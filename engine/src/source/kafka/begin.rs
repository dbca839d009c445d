//! Where assigned partitions begin: what the broker says of them is asked, and [`super::book`] decides.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::book::{Beginning, Elsewhere, Told};
use super::group::{Member, Place};

/// How long the brokers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Decides where each partition of the list begins, and says so in the list; an error of the broker's is told, and what
/// depends on it is left to librdkafka.
pub fn begin(
    member: &Member,
    consumer: &BaseConsumer<Member>,
    list: &mut TopicPartitionList,
) -> Vec<Beginning> {
    let places: Vec<Place> =
        list.elements().iter().map(|element| (element.topic().into(), element.partition())).collect();
    let known: Vec<&Place> = places.iter().filter(|place| member.book.knows(place)).collect();
    let told = told(consumer, &known).unwrap_or_else(|error| {
        member.voice.error(&error);
        HashMap::new()
    });
    let mut others: BTreeMap<Elsewhere, Vec<String>> = BTreeMap::new();
    let mut begin = |place: &Place| {
        let told = told.get(place).copied().unwrap_or_default();
        let beginning = member.book.begin(place, told);
        let offset = beginning.offset.and_then(|offset| i64::try_from(offset).ok());
        if let Some(offset) = offset.filter(|_| beginning.elsewhere.is_none())
            && let Err(error) = list.set_partition_offset(&place.0, place.1, Offset::Offset(offset))
        {
            member.voice.error(&error);
        }
        if let Some(why) = beginning.elsewhere {
            others.entry(why).or_default().push(format!("{}/{}", place.0, place.1));
        }
        beginning
    };
    let beginnings = places.iter().map(&mut begin).collect();
    for (why, places) in others {
        say(member.voice.who(), why, &places.join(", "));
    }
    beginnings
}

fn say(who: &str, why: Elsewhere, places: &str) {
    // A group of several members goes on without each of them all the time.
    let level = if why == Elsewhere::Ahead { log::Level::Info } else { log::Level::Warn };
    log::log!(
        target: "wpgen::kafka",
        level,
        "{who}: begins where the group is, and not where this engine was: {why}: {places}"
    );
}

/// What the group has committed, and where the partitions end.
fn told(consumer: &BaseConsumer<Member>, places: &[&Place]) -> KafkaResult<HashMap<Place, Told>> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let (mut asked, mut ends) = (TopicPartitionList::new(), TopicPartitionList::new());
    for (topic, number) in places {
        asked.add_partition(topic, *number);
        // In the place of a time: the latest offset.
        ends.add_partition_offset(topic, *number, Offset::End)?;
    }
    let committed = consumer.committed_offsets(asked, ANSWER_MAX)?;
    let ends = consumer.offsets_for_times(ends, ANSWER_MAX)?;
    let of = |list: &TopicPartitionList, (topic, number): &Place| {
        let found = list.find_partition(topic, *number)?;
        found.error().ok()?;
        if let Offset::Offset(offset) = found.offset() { u64::try_from(offset).ok() } else { None }
    };
    let told = |place: &Place| Told { committed: of(&committed, place), end: of(&ends, place) };
    Ok(places.iter().map(|place| ((*place).clone(), told(place))).collect())
}
