//! ApiVersions (18): what is offered. No feature is finalised yet: each becomes so with the capability that it stands
//! for (`transaction.version`, `group.version`), since clients change their behaviour by it.
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::table::{OFFERED as ALL, Offered};
use super::{Call, Context};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ApiVersions, 0, 4);

pub(super) async fn handle(_: &Context, call: &Call, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = call.header.version < 3
        || (is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version));
    if !named {
        return ApiVersionsResponse::default().with_error_code(KafkaError::InvalidRequest.code());
    }
    let keys = ALL.iter().map(|o| {
        ApiVersion::default().with_api_key(o.key as i16).with_min_version(o.shown_min).with_max_version(o.max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect()).with_finalized_features_epoch(-1)
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}
