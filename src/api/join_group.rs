//! JoinGroup (11). It waits for the others, up to the rebalance time-out. What may join is the group's machine to say.
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::groups::{check_group_id, client_host, client_id};
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::{GroupError, JoinGroup, JoinReply, JoinedMember, Reply, Request};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::JoinGroup, 0, 9);

pub(super) async fn handle(ctx: &Context, call: &Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = call.header.version;
    let member_id = request.member_id.clone();
    match join(ctx, call, request).await {
        Ok(joined) => respond(version, joined),
        Err(refused) => refuse(version, member_id, refused),
    }
}

async fn join(ctx: &Context, call: &Call, request: JoinGroupRequest) -> Result<JoinReply, GroupError> {
    let version = call.header.version;
    check_group_id(ctx, &request.group_id)?;
    let rebalance_timeout_ms = if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let join = JoinGroup {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: client_id(call),
        client_host: client_host(call),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|p| (p.name.to_string(), p.metadata)).collect(),
        member_id_required: version >= 4,
        skip_assignment: version >= 9,
    };
    match ctx.groups.ask(&request.group_id, Request::Join(join)).await? {
        Reply::Join(joined) => Ok(joined),
        _ => Err(KafkaError::UnknownServerError.into()),
    }
}

fn respond(version: i16, joined: JoinReply) -> JoinGroupResponse {
    let member = |m: JoinedMember| {
        let instance_id = m.instance_id.filter(|_| version >= 5).map(text);
        JoinGroupResponseMember::default()
            .with_member_id(text(m.member_id))
            .with_group_instance_id(instance_id)
            .with_metadata(m.metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= 7).map(text))
        .with_protocol_name(protocol_name(version, joined.protocol_name.map(text)))
        .with_leader(text(joined.leader))
        .with_skip_assignment(version >= 9 && joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect())
}

fn refuse(version: i16, member_id: StrBytes, refused: GroupError) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(refused.error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol_name(version, None))
        .with_member_id(refused.member_id.map_or(member_id, text))
}

/// It can't be null before version 7.
fn protocol_name(version: i16, name: Option<StrBytes>) -> Option<StrBytes> {
    if version >= 7 { name } else { Some(name.unwrap_or_default()) }
}
