//! DescribeLogDirs (35): how large partitions are. There is one log directory, the bucket, without a known
//! size; as each partition is one broker's replica, each broker shows those that it leads.
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use std::collections::{BTreeMap, BTreeSet};

use super::propose::{default_deadline, state, text};
use super::table::Offered;
use super::{Call, Context};
use crate::state::{State, Topic};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeLogDirs, 1, 4);

pub(super) async fn handle(ctx: &Context, call: &Call, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let response = DescribeLogDirsResponse::default();
    let state = match state(ctx, default_deadline(ctx)).await {
        Ok(state) => state,
        Err(refused) => {
            let code = refused.error.code();
            let dir =
                DescribeLogDirsResult::default().with_error_code(code).with_log_dir(text(ctx.config.bucket_url()));
            return response.with_results(vec![dir]);
        }
    };
    let topics = match request.topics {
        None => state.topics().map(|topic| describe(ctx, &state, topic, |_| true)).collect(),
        Some(asked) => {
            let mut wanted = BTreeMap::<String, BTreeSet<i32>>::new();
            asked.into_iter().for_each(|t| wanted.entry(t.topic.to_string()).or_default().extend(t.partitions));
            // As in Kafka, what does not exist is left out.
            let known = wanted.iter().filter_map(|(name, partitions)| Some((state.topic_by_name(name)?, partitions)));
            known.map(|(topic, wanted)| describe(ctx, &state, topic, |index| wanted.contains(&index))).collect()
        }
    };
    let mut dir = DescribeLogDirsResult::default().with_log_dir(text(ctx.config.bucket_url())).with_topics(topics);
    if call.header.version >= 4 {
        (dir.total_bytes, dir.usable_bytes) = (-1, -1);
    }
    response.with_results(vec![dir])
}

fn describe(ctx: &Context, state: &State, topic: &Topic, wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let partitions = topic.slots.iter().filter_map(|slot| state.partition(*slot));
    let members = ctx.members();
    let seen = members.seen_from(None);
    let led = |index| seen.leader(topic.id, index).leader == members.me();
    let partitions = partitions.filter(|p| wanted(p.index.0) && led(p.index));
    let partitions = partitions.map(|partition| {
        DescribeLogDirsPartition::default()
            .with_partition_index(partition.index.0)
            .with_partition_size(i64::try_from(partition.bytes).unwrap_or(i64::MAX))
    });
    DescribeLogDirsTopic::default().with_name(TopicName(text(&*topic.name))).with_partitions(partitions.collect())
}
