//! DescribeAcls (29): there is no authorizer yet, which clients know how to be told.
use kafka_protocol::messages::{ApiKey, DescribeAclsRequest, DescribeAclsResponse};

use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeAcls, 1, 3);

/// Kafka's words for it where ACLs are made and deleted.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub(super) async fn handle(_: &Context, _: &Call, _: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(KafkaError::SecurityDisabled.code())
        .with_error_message(Some(text("No Authorizer is configured on the broker")))
}
