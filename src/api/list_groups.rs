//! ListGroups (16): all groups that this broker coordinates, or those in some states (from version 4) and of some types (from version 5), whose names
//! may be in any case.
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ApiKey, GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;

use super::groups::describe_all;
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::group::Phase;
use crate::state::GroupProtocol;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ListGroups, 0, 5);

struct Listed {
    name: GroupId,
    phase: Phase,
    protocol: GroupProtocol,
    protocol_type: String,
}

pub(super) async fn handle(ctx: &Context, call: &Call, request: ListGroupsRequest) -> ListGroupsResponse {
    let version = call.header.version;
    let Some(all) = all(ctx).await else {
        return ListGroupsResponse::default().with_error_code(KafkaError::CoordinatorNotAvailable.code());
    };
    let lower = |names: Vec<StrBytes>| names.iter().map(|n| n.to_lowercase()).collect::<BTreeSet<_>>();
    let (states, types) = (lower(request.states_filter), lower(request.types_filter));
    let wanted = |listed: &Listed| {
        (states.is_empty() || states.contains(&listed.phase.name().to_lowercase()))
            && (types.is_empty() || types.contains(type_name(listed.protocol)))
    };
    let groups = all.into_iter().filter(wanted).map(|listed| {
        let mut response =
            ListedGroup::default().with_group_id(listed.name).with_protocol_type(text(listed.protocol_type));
        if version >= 4 {
            response.group_state = text(listed.phase.name());
        }
        if version >= 5 {
            response.group_type = text(type_name(listed.protocol));
        }
        response
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

fn type_name(protocol: GroupProtocol) -> &'static str {
    if protocol == GroupProtocol::Consumer { "consumer" } else { "classic" }
}

/// What State has, and groups whose first members are still on their way; `None` while the journal does not answer.
async fn all(ctx: &Context) -> Option<Vec<Listed>> {
    let state = ctx.replica.barrier().await.ok()?;
    let fresh = ctx
        .groups
        .running()
        .into_iter()
        .filter(|(name, phase)| !matches!(phase, Phase::Empty | Phase::Dead) && state.group(name).is_none());
    let fresh = describe_all(ctx, fresh.map(|(name, _)| GroupId(text(&*name))).collect()).await;
    let fresh = fresh.into_iter().filter_map(|(name, described)| {
        let described = described.ok()?;
        let (phase, protocol, protocol_type) = (described.phase, described.protocol, described.protocol_type);
        Some(Listed { name, phase, protocol, protocol_type })
    });
    let members = ctx.members();
    let kept = state.groups().filter(|(name, _)| members.coordinates(name)).map(|(name, group)| {
        let protocol = group.protocol();
        let protocol_type = match protocol {
            GroupProtocol::Consumer => "consumer".to_owned(),
            _ => group.header.protocol_type.clone().unwrap_or_default(),
        };
        let phase = ctx.groups.phase(&state, name).unwrap_or_default();
        Listed { name: GroupId(text(&**name)), phase, protocol, protocol_type }
    });
    Some(kept.chain(fresh).collect())
}
