//! LeaveGroup (13): from version 3 for many members at once, each with its own error.
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{ApiKey, LeaveGroupRequest, LeaveGroupResponse};

use super::groups::{check_exists, check_group_id};
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::{GroupError, LeaveReply, LeavingMember, Reply, Request};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::LeaveGroup, 0, 5);

pub(super) async fn handle(ctx: &Context, call: &Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let members = members(call.header.version, &request);
    let left = match check_group_id(ctx, &request.group_id) {
        Ok(()) => leave(ctx, &request.group_id, members.clone()).await,
        Err(refused) => Err(refused),
    };
    let left = match left {
        // Of a group that is not there, nobody is a member.
        Err(GroupError { error: KafkaError::UnknownMemberId, .. }) => {
            let unknown = |member| (member, Some(KafkaError::UnknownMemberId));
            Ok(LeaveReply { members: members.into_iter().map(unknown).collect() })
        }
        left => left,
    };
    respond(call.header.version, left)
}

/// Before version 3 it is one, and has no instance.
fn members(version: i16, request: &LeaveGroupRequest) -> Vec<LeavingMember> {
    if version < 3 {
        return vec![LeavingMember { member_id: request.member_id.to_string(), instance_id: None }];
    }
    let members = request.members.iter().map(|m| LeavingMember {
        member_id: m.member_id.to_string(),
        instance_id: m.group_instance_id.as_ref().map(ToString::to_string),
    });
    members.collect()
}

async fn leave(ctx: &Context, group: &str, members: Vec<LeavingMember>) -> Result<LeaveReply, GroupError> {
    check_exists(ctx, group).await?;
    match ctx.groups.ask(group, Request::Leave(members)).await? {
        Reply::Leave(left) => Ok(left),
        _ => Err(KafkaError::UnknownServerError.into()),
    }
}

fn respond(version: i16, left: Result<LeaveReply, GroupError>) -> LeaveGroupResponse {
    let code = |error: Option<KafkaError>| error.map_or(0, |e| e.code());
    let response = LeaveGroupResponse::default();
    match left {
        Err(refused) => response.with_error_code(refused.error.code()),
        // Kafka, too, answers with the error of the only one.
        Ok(left) if version < 3 => response.with_error_code(code(left.members.first().and_then(|(_, error)| *error))),
        Ok(left) => {
            let members = left.members.into_iter().map(|(member, error)| {
                MemberResponse::default()
                    .with_member_id(text(member.member_id))
                    .with_group_instance_id(member.instance_id.map(text))
                    .with_error_code(code(error))
            });
            response.with_members(members.collect())
        }
    }
}
