//! K35: topics that are there are known, those that are gone are not.
use std::collections::HashMap;

use super::bounds::Rising;
use super::eras::Spans;
use super::facts::{Facts, end_of, log_of};
use super::report::{Report, Rule};
use crate::operation::{End, Operation, What};

/// What is known of a topic's name.
#[derive(Default)]
pub(super) struct Topic<'a> {
    /// By when it was seen that there is such a topic, and since when at the latest (as a time).
    there: Rising,
    /// The number of its partitions; of use only where the name was never deleted.
    partitions: Rising,
    /// By when a deletion was answered, and when it began.
    gone: Rising,
    created: Spans,
    /// The first creation that was answered well, and the id that it told.
    first: Option<(Option<&'a str>, u32)>,
}

pub(super) struct Topics<'a> {
    topics: HashMap<&'a str, Topic<'a>>,
}

fn time(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

impl<'a> Topics<'a> {
    pub(super) fn gather(facts: &Facts<'a>) -> Self {
        let mut topics: HashMap<&str, Topic<'_>> = HashMap::new();
        for (number, operation) in (0..).zip(&facts.operations) {
            let (start, end) = (operation.start_us, end_of(operation));
            if let (What::CreateTopic { topic, .. }, End::Ok | End::Info(_)) = (&operation.what, &operation.end) {
                let over = if operation.end == End::Ok { end } else { u64::MAX };
                topics.entry(topic).or_default().created.tell(start, over);
            }
            if operation.end != End::Ok {
                continue;
            }
            match &operation.what {
                What::CreateTopic { topic, id, partitions } => {
                    let topic = topics.entry(topic).or_default();
                    topic.there.tell(end, time(start), number);
                    topic.partitions.tell(end, i64::from(*partitions), number);
                    topic.first = topic.first.or(Some((id.as_deref(), number)));
                }
                What::Grow { topic, partitions } => {
                    let topic = topics.entry(topic).or_default();
                    topic.there.tell(end, time(start), number);
                    topic.partitions.tell(end, i64::from(*partitions), number);
                }
                What::Describe { topic, found: Some((_, partitions)) } => {
                    let topic = topics.entry(topic).or_default();
                    topic.there.tell(end, time(start.saturating_sub(facts.options.poll_lag_us)), number);
                    topic.partitions.tell(end, i64::from(*partitions), number);
                }
                What::Send { log, acked: true, .. } => {
                    topics.entry(&log.topic).or_default().there.tell(end, time(start), number);
                }
                What::DeleteTopic { topic, .. } => {
                    topics.entry(topic).or_default().gone.tell(end, time(start), number);
                }
                _ => {}
            }
        }
        for topic in topics.values_mut() {
            topic.created.seal();
            [&mut topic.there, &mut topic.partitions, &mut topic.gone].into_iter().for_each(Rising::seal);
        }
        Self { topics }
    }

    /// The operation which shows that the topic, and that partition, were there all the time while `operation` ran.
    pub(super) fn certain(&self, facts: &Facts<'_>, name: &str, partition: i32, operation: &Operation) -> Option<u32> {
        let topic = self.topics.get(name)?;
        let (since, teller) = topic.there.before(operation.start_us)?;
        let deleted = facts.deletions.get(name);
        let since = u64::try_from(since).unwrap_or(0);
        if deleted.is_some_and(|deleted| deleted.touch(since, end_of(operation))) {
            return None;
        }
        // Partitions are counted by name: after a deletion there may be fewer.
        let counted = topic.partitions.before(operation.start_us).map_or(0, |(count, _)| count);
        let enough = if deleted.is_some() { partition <= 0 } else { i64::from(partition) < counted.max(1) };
        enough.then_some(teller)
    }

    /// The deletion after which the name was nobody's all the time while `operation` ran, which may rely on what is
    /// `lag_us` old.
    fn certainly_gone(&self, name: &str, operation: &Operation, lag_us: u64) -> Option<u32> {
        let topic = self.topics.get(name)?;
        let (since, deletion) = topic.gone.before(operation.start_us.saturating_sub(lag_us))?;
        let since = u64::try_from(since).unwrap_or(0);
        (!topic.created.touch(since, end_of(operation))).then_some(deletion)
    }
}

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    if !facts.options.strict_no {
        return;
    }
    let topics = Topics::gather(facts);
    for (number, operation) in (0..).zip(&facts.operations) {
        if let What::Describe { topic, found } = &operation.what
            && operation.end == End::Ok
        {
            match found {
                None => absent(facts, &topics, topic, -1, number, report),
                Some(found) => described(facts, &topics, (topic, found), number, report),
            }
        }
        let unknown = matches!(operation.end.error(), "UNKNOWN_TOPIC_OR_PARTITION" | "UNKNOWN_TOPIC_ID");
        match (log_of(&operation.what), &operation.end) {
            // A request by an id may name a topic that had the name before.
            (Some(log), _) if unknown && (log.id.is_none() || !facts.deletions.contains_key(log.topic.as_str())) => {
                absent(facts, &topics, &log.topic, log.partition, number, report);
            }
            // Nobody answered a producer that did not ask for an answer.
            (Some(log), End::Ok) if !matches!(operation.what, What::Send { acked: false, .. }) => {
                let lag = if matches!(operation.what, What::Send { .. }) { 0 } else { facts.options.poll_lag_us };
                still_there(&topics, facts, (&log.topic, lag), number, report);
            }
            _ => {}
        }
    }
}

fn absent(facts: &Facts<'_>, topics: &Topics<'_>, name: &str, partition: i32, number: u32, report: &mut Report) {
    let teller = topics.certain(facts, name, partition, facts.op(number));
    report.expect(Rule::K35, teller.is_none(), &[facts.id(teller.unwrap_or(number)), facts.id(number)], || {
        let what = if partition < 0 { name.to_owned() } else { format!("{name}-{partition}") };
        format!("{what} is said not to exist, and nobody deleted it")
    });
}

fn described(
    facts: &Facts<'_>,
    topics: &Topics<'_>,
    (name, (id, count)): (&str, &(String, i32)),
    number: u32,
    report: &mut Report,
) {
    let operation = facts.op(number);
    still_there(topics, facts, (name, facts.options.poll_lag_us), number, report);
    let Some(topic) = topics.topics.get(name) else { return };
    if facts.deletions.get(name).is_some_and(|deleted| deleted.touch(0, end_of(operation))) {
        return;
    }
    let earlier = operation.start_us.saturating_sub(facts.options.poll_lag_us);
    if let Some((counted, teller)) = topic.partitions.before(earlier) {
        report.expect(Rule::K35, i64::from(*count) >= counted, &[facts.id(teller), facts.id(number)], || {
            format!("{name} has {counted} partitions, and is said to have {count}")
        });
    }
    if let Some((Some(created), creation)) = topic.first.filter(|_| !id.is_empty()) {
        // Where a deletion came between them, the creation made another one.
        let until = end_of(facts.op(creation));
        let same = facts.deletions.get(name).is_none_or(|deleted| !deleted.touch(0, until));
        report.expect(Rule::K35, created == id || !same, &[facts.id(creation), facts.id(number)], || {
            format!("{name} was made as {created}, and is said to be {id}")
        });
    }
}

fn still_there(topics: &Topics<'_>, facts: &Facts<'_>, (name, lag): (&str, u64), number: u32, report: &mut Report) {
    if !facts.deletions.contains_key(name) {
        return;
    }
    let gone = topics.certainly_gone(name, facts.op(number), lag);
    report.expect(Rule::K35, gone.is_none(), &[facts.id(gone.unwrap_or(number)), facts.id(number)], || {
        format!("{name} answers after it was deleted")
    });
}
