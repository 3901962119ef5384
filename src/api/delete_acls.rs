//! DeleteAcls (31): there is no authorizer yet, which clients know how to be told.
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{ApiKey, DeleteAclsRequest, DeleteAclsResponse};

use super::describe_acls::NO_AUTHORIZER;
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DeleteAcls, 1, 3);

pub(super) async fn handle(_: &Context, _: &Call, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(KafkaError::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
