//! DeleteGroups (42): groups without members, with their offsets; an error for each.
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::groups::{ASKED_AT_ONCE, each_once};
use super::table::Offered;
use super::{Call, Context};
use crate::group::Request;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DeleteGroups, 0, 2);

pub(super) async fn handle(ctx: &Context, _: &Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let known = ctx.replica.barrier().await;
    let delete = |name: GroupId| {
        let known = known.as_ref().map(|state| ctx.groups.phase(state, &name).is_some());
        let result = async move {
            let code = match known {
                _ if !ctx.members().coordinates(&name) => KafkaError::NotCoordinator.code(),
                Err(_) => KafkaError::CoordinatorNotAvailable.code(),
                Ok(false) => KafkaError::GroupIdNotFound.code(),
                Ok(true) => {
                    let deleted = ctx.groups.ask(&name, Request::DeleteGroup).await;
                    deleted.map_or_else(|refused| refused.error.code(), |_| 0)
                }
            };
            DeletableGroupResult::default().with_group_id(name).with_error_code(code)
        };
        result.boxed()
    };
    let results: Vec<BoxFuture<'_, DeletableGroupResult>> =
        each_once(request.groups_names).into_iter().map(delete).collect();
    let results = futures::stream::iter(results).buffered(ASKED_AT_ONCE).collect().await;
    DeleteGroupsResponse::default().with_results(results)
}
