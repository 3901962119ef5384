//! ConsumerGroupHeartbeat (68): all that a member of the consumer protocol (KIP-848) says and is told. From version 1
//! members choose their own ids.
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions as WirePartitions};
use kafka_protocol::messages::{ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::groups::{check_consumer_protocol, check_group_length, client_host, client_id};
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::{ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError, OwnedPartitions, Reply, Request};
use crate::types::{KafkaError, TopicId};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ConsumerGroupHeartbeat, 0, 1);

pub(super) async fn handle(
    ctx: &Context,
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    match beat(ctx, call, request).await {
        Ok(reply) => respond(reply),
        Err(refused) => {
            let message = refused.message.unwrap_or_else(|| refused.error.to_string());
            ConsumerGroupHeartbeatResponse::default()
                .with_error_code(refused.error.code())
                .with_error_message(Some(text(message)))
        }
    }
}

async fn beat(
    ctx: &Context,
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<ConsumerHeartbeatReply, GroupError> {
    check_consumer_protocol(ctx)?;
    let invalid = |message: &str| Err(GroupError::new(KafkaError::InvalidRequest, message));
    if request.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    check_group_length(ctx, &request.group_id)?;
    if call.header.version >= 1 && request.member_id.is_empty() {
        return invalid("MemberId can't be empty.");
    }
    let owned = |topic: kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions| OwnedPartitions {
        topic: TopicId(topic.topic_id),
        partitions: topic.partitions,
    };
    let heartbeat = ConsumerHeartbeat {
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(|id| id.to_string()),
        rack: request.rack_id.map(|rack| rack.to_string()),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topics: request.subscribed_topic_names.map(|names| names.iter().map(|n| n.to_string()).collect()),
        subscribed_regex: request.subscribed_topic_regex.map(|regex| regex.to_string()),
        assignor: request.server_assignor.map(|assignor| assignor.to_string()),
        owned: request.topic_partitions.map(|topics| topics.into_iter().map(owned).collect()),
        client_id: client_id(call),
        client_host: client_host(call),
    };
    match ctx.groups.ask(&request.group_id, Request::ConsumerHeartbeat(heartbeat)).await? {
        Reply::ConsumerHeartbeat(reply) => Ok(reply),
        _ => Err(KafkaError::UnknownServerError.into()),
    }
}

fn respond(reply: ConsumerHeartbeatReply) -> ConsumerGroupHeartbeatResponse {
    let assignment = |owned: Vec<OwnedPartitions>| {
        let topics = owned
            .into_iter()
            .map(|owned| WirePartitions::default().with_topic_id(owned.topic.0).with_partitions(owned.partitions));
        Assignment::default().with_topic_partitions(topics.collect())
    };
    ConsumerGroupHeartbeatResponse::default()
        .with_error_message(None)
        .with_member_id(reply.member_id.map(text))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(reply.assignment.map(assignment))
}
