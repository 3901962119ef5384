//! ConsumerGroupDescribe (69): groups of the consumer protocol. Tools ask it first and DescribeGroups for what it does not
//! find.
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions as WirePartitions,
};
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName,
};
use std::sync::Arc;

use super::groups::{GROUP_OPERATIONS, check_consumer_protocol, describe_all};
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::{DescribedMember, Description, GroupError};
use crate::state::{GroupProtocol, State, TopicPartitions};
use crate::types::{KafkaError, TopicId, Uuid};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ConsumerGroupDescribe, 0, 1);

/// Kafka's numbers for what a member speaks.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

pub(super) async fn handle(
    ctx: &Context,
    call: &Call,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let described = match check_consumer_protocol(ctx) {
        Ok(()) => describe_all(ctx, request.group_ids).await,
        Err(error) => request.group_ids.into_iter().map(|name| (name, Err(error.clone()))).collect(),
    };
    let state = ctx.replica.state();
    let groups = described.into_iter().map(|(name, described)| {
        let described = described.and_then(|group| only_consumer(&name, group));
        let mut response = respond(&state, call.header.version, name, described);
        if request.include_authorized_operations && response.error_code == 0 {
            response.authorized_operations = GROUP_OPERATIONS;
        }
        response
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn only_consumer(name: &GroupId, group: Description) -> Result<Description, GroupError> {
    if name.is_empty() {
        return Err(KafkaError::InvalidGroupId.into());
    }
    if group.protocol == GroupProtocol::Consumer {
        return Ok(group);
    }
    let message = format!("Group {} is not a consumer group.", name.as_str());
    Err(GroupError::new(KafkaError::GroupIdNotFound, message))
}

fn respond(
    state: &Arc<State>,
    version: i16,
    name: GroupId,
    described: Result<Description, GroupError>,
) -> DescribedGroup {
    let response = DescribedGroup::default().with_group_id(name).with_error_message(None);
    match described {
        Ok(group) => {
            let members = group.members.into_iter().map(|m| member(state, version, m));
            response
                .with_group_state(text(group.phase.name()))
                .with_group_epoch(group.epoch)
                .with_assignment_epoch(group.assignment_epoch)
                .with_assignor_name(text(group.protocol_name))
                .with_members(members.collect())
        }
        Err(refused) => response.with_error_code(refused.error.code()).with_error_message(refused.message.map(text)),
    }
}

fn member(state: &State, version: i16, member: DescribedMember) -> Member {
    let kind = if member.is_classic { CLASSIC } else { CONSUMER };
    Member::default()
        .with_member_id(text(member.member_id))
        .with_instance_id(member.instance_id.map(text))
        .with_rack_id(member.rack.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.subscribed_topics.into_iter().map(|t| TopicName(text(t))).collect())
        .with_subscribed_topic_regex(member.subscribed_regex.map(text))
        .with_assignment(assignment(state, &member.assigned))
        .with_target_assignment(assignment(state, &member.target))
        .with_member_type(if version >= 1 { kind } else { -1 })
}

/// Topics that were deleted meanwhile are left out: they have no name.
fn assignment(state: &State, owned: &[TopicPartitions]) -> Assignment {
    let named = owned.iter().filter_map(|owned| {
        let id = Uuid::from_slice(&owned.topic_id).ok()?;
        let topic = state.topic(TopicId(id))?;
        Some(
            WirePartitions::default()
                .with_topic_id(id)
                .with_topic_name(TopicName(text(&*topic.name)))
                .with_partitions(owned.partitions.clone()),
        )
    });
    Assignment::default().with_topic_partitions(named.collect())
}
