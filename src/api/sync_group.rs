//! SyncGroup (14): the leader hands in the assignments, everybody gets its own; the others wait for the leader.
use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use super::groups::{check_exists, check_group_id, identity};
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::{GroupError, Reply, Request, SyncGroup, SyncReply};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::SyncGroup, 0, 5);

pub(super) async fn handle(ctx: &Context, call: &Call, request: SyncGroupRequest) -> SyncGroupResponse {
    match sync(ctx, call, request).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.map(text))
            .with_protocol_name(synced.protocol_name.map(text))
            .with_assignment(synced.assignment),
        Err(refused) => {
            SyncGroupResponse::default().with_error_code(refused.error.code()).with_assignment(Bytes::new())
        }
    }
}

async fn sync(ctx: &Context, call: &Call, request: SyncGroupRequest) -> Result<SyncReply, GroupError> {
    if call.header.version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return Err(KafkaError::InconsistentGroupProtocol.into());
    }
    check_group_id(ctx, &request.group_id)?;
    check_exists(ctx, &request.group_id).await?;
    let sync = SyncGroup {
        identity: identity(&request.member_id, request.group_instance_id.as_deref(), request.generation_id),
        protocol_type: request.protocol_type.map(|t| t.to_string()),
        protocol_name: request.protocol_name.map(|n| n.to_string()),
        assignments: request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect(),
    };
    match ctx.groups.ask(&request.group_id, Request::Sync(sync)).await? {
        Reply::Sync(synced) => Ok(synced),
        _ => Err(KafkaError::UnknownServerError.into()),
    }
}
