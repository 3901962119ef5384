//! CreateAcls (30): there is no authorizer yet, which clients know how to be told.
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{ApiKey, CreateAclsRequest, CreateAclsResponse};

use super::describe_acls::NO_AUTHORIZER;
use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::CreateAcls, 1, 3);

pub(super) async fn handle(_: &Context, _: &Call, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult::default()
        .with_error_code(KafkaError::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}
