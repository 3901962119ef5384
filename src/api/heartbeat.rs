//! Heartbeat (12) of members that speak the classic protocol.
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::groups::{check_exists, check_group_id, identity};
use super::table::Offered;
use super::{Call, Context};
use crate::group::{GroupError, Request};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::Heartbeat, 0, 4);

pub(super) async fn handle(ctx: &Context, _: &Call, request: HeartbeatRequest) -> HeartbeatResponse {
    let code = beat(ctx, &request).await.map_or_else(|refused| refused.error.code(), |()| 0);
    HeartbeatResponse::default().with_error_code(code)
}

async fn beat(ctx: &Context, request: &HeartbeatRequest) -> Result<(), GroupError> {
    check_group_id(ctx, &request.group_id)?;
    check_exists(ctx, &request.group_id).await?;
    let identity = identity(&request.member_id, request.group_instance_id.as_deref(), request.generation_id);
    ctx.groups.ask(&request.group_id, Request::Heartbeat(identity)).await.map(drop)
}
