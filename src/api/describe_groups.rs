//! DescribeGroups (15): groups of the classic protocol; to it, one of the other protocol is not there. Rules: Kafka's
//! `GroupMetadataManager.describeGroups`.
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::groups::{GROUP_OPERATIONS, describe_all};
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::{DescribedMember, Description, GroupError, Phase};
use crate::state::GroupProtocol;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeGroups, 0, 6);

pub(super) async fn handle(ctx: &Context, call: &Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let version = call.header.version;
    let described = describe_all(ctx, request.groups).await;
    let groups = described.into_iter().map(|(name, described)| {
        let described = described.and_then(|group| only_classic(&name, group));
        let mut response = respond(version, name, described);
        if request.include_authorized_operations && response.error_code == 0 {
            response.authorized_operations = GROUP_OPERATIONS;
        }
        response
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn only_classic(name: &GroupId, group: Description) -> Result<Description, GroupError> {
    if group.protocol != GroupProtocol::Consumer {
        return Ok(group);
    }
    let message = format!("Group {} is not a classic group.", name.as_str());
    Err(GroupError::new(KafkaError::GroupIdNotFound, message))
}

fn respond(version: i16, name: GroupId, described: Result<Description, GroupError>) -> DescribedGroup {
    let response = DescribedGroup::default().with_group_id(name).with_error_message(None);
    match described {
        Ok(group) => {
            // What was chosen and assigned is known once the group has settled.
            let settled = group.phase == Phase::Stable;
            let members = group.members.into_iter().map(|m| member(version, settled, m));
            response
                .with_group_state(text(group.phase.name()))
                .with_protocol_type(text(group.protocol_type))
                .with_protocol_data(text(if settled { group.protocol_name } else { String::new() }))
                .with_members(members.collect())
        }
        Err(refused) if refused.error == KafkaError::GroupIdNotFound => {
            let response = response.with_group_state(text(Phase::Dead.name()));
            if version < 6 {
                return response;
            }
            response.with_error_code(refused.error.code()).with_error_message(refused.message.map(text))
        }
        Err(refused) => response.with_error_code(refused.error.code()),
    }
}

fn member(version: i16, settled: bool, member: DescribedMember) -> DescribedGroupMember {
    let response = DescribedGroupMember::default()
        .with_member_id(text(member.member_id))
        .with_group_instance_id(member.instance_id.filter(|_| version >= 4).map(text))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host));
    if settled {
        response.with_member_metadata(member.metadata).with_member_assignment(member.assignment_bytes)
    } else {
        response
    }
}
