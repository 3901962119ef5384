//! DescribeTopicPartitions (75): what Metadata says of topics, a page at a time. Rules: Kafka's
//! `DescribeTopicPartitionsRequestHandler`.
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::metadata::TOPIC_OPERATIONS;
use super::propose::{default_deadline, state, text};
use super::resolve::{check_topic_name, is_internal};
use super::table::Offered;
use super::{Call, Context};
use crate::cluster::Seen;
use crate::state::{State, Topic};
use crate::types::{KafkaError, PartitionIndex};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeTopicPartitions, 0, 0);

pub(super) async fn handle(
    ctx: &Context,
    call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let asked: BTreeSet<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let (from, first) = request.cursor.map_or((String::new(), 0), |c| (c.topic_name.to_string(), c.partition_index));
    // As in Kafka, a page has one partition at least.
    let limit = request.response_partition_limit.clamp(1, ctx.config.kafka.max_request_partition_size_limit.max(1));
    let limit = usize::try_from(limit).unwrap_or(1);
    let fail = |error: KafkaError| {
        let topic = |name: &String| missing(name, error).with_topic_authorized_operations(i32::MIN);
        DescribeTopicPartitionsResponse::default().with_topics(asked.iter().map(topic).collect())
    };
    let Ok(first) = usize::try_from(first) else { return fail(KafkaError::InvalidRequest) };
    if !asked.is_empty() && !from.is_empty() && !asked.contains(&from) {
        // As in Kafka, the cursor's topic has to be among those asked for.
        return fail(KafkaError::InvalidRequest);
    }
    let state = match state(ctx, default_deadline(ctx)).await {
        Ok(state) => state,
        // There is no place for an error when all topics are asked for.
        Err(_) if asked.is_empty() => ctx.replica.state(),
        Err(error) => return fail(error.error),
    };
    let members = ctx.members();
    let page = Page { seen: members.seen_from(ctx.zone_of(call)), from: &from, first };
    if asked.is_empty() {
        let known = state.topics().filter(|topic| *topic.name >= *from);
        page.fill(limit, known.map(|topic| Ok(topic.clone())))
    } else {
        let found = |name: &String| find(&state, name);
        page.fill(limit, asked.range(from.clone()..).map(found))
    }
}

type Found = Result<Arc<Topic>, (String, KafkaError)>;

fn find(state: &State, name: &str) -> Found {
    state.topic_by_name(name).cloned().ok_or_else(|| {
        let valid = check_topic_name(name).is_ok();
        let error = if valid { KafkaError::UnknownTopicOrPartition } else { KafkaError::InvalidTopicException };
        (name.to_owned(), error)
    })
}

/// Where a page begins: at partition `first` of topic `from`.
struct Page<'a> {
    seen: Seen<'a>,
    from: &'a str,
    first: usize,
}

impl Page<'_> {
    /// Topics in order until the page has `limit` partitions, and where the next page begins.
    fn fill(&self, limit: usize, topics: impl Iterator<Item = Found>) -> DescribeTopicPartitionsResponse {
        let mut response = DescribeTopicPartitionsResponse::default().with_next_cursor(None);
        let mut left = limit;
        for found in topics {
            let name = match &found {
                Ok(topic) => &*topic.name,
                Err((name, _)) => name,
            };
            if left == 0 {
                return response.with_next_cursor(Some(cursor(name, 0)));
            }
            let topic = match found {
                Ok(topic) => topic,
                Err((name, error)) => {
                    response.topics.push(missing(&name, error));
                    continue;
                }
            };
            let start = if *topic.name == *self.from { self.first.min(topic.slots.len()) } else { 0 };
            let end = topic.slots.len().min(start.saturating_add(left));
            response.topics.push(self.describe(&topic, start..end));
            left -= end - start;
            if end < topic.slots.len() {
                return response.with_next_cursor(Some(cursor(&topic.name, end)));
            }
        }
        response
    }

    fn describe(&self, topic: &Topic, partitions: std::ops::Range<usize>) -> DescribeTopicPartitionsResponseTopic {
        let partition = |at: usize| {
            let led = self.seen.leader(topic.id, PartitionIndex(index(at)));
            let replicas = self.seen.replicas(topic.id, PartitionIndex(index(at)));
            let replicas: Vec<BrokerId> = replicas.into_iter().map(|id| BrokerId(id.0)).collect();
            DescribeTopicPartitionsResponsePartition::default()
                .with_partition_index(index(at))
                .with_leader_id(BrokerId(led.leader.0))
                .with_leader_epoch(led.epoch.0)
                .with_replica_nodes(replicas.clone())
                .with_isr_nodes(replicas)
                .with_eligible_leader_replicas(Some(Vec::new()))
                .with_last_known_elr(Some(Vec::new()))
        };
        DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id.0)
            .with_is_internal(is_internal(&topic.name))
            .with_topic_authorized_operations(TOPIC_OPERATIONS)
            .with_partitions(partitions.map(partition).collect())
    }
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(index(partition))
}

fn index(partition: usize) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn missing(name: &str, error: KafkaError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}
