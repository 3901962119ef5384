//! Version ranges, as ApiVersions tells them.
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};

use super::response::{Frame, Splices, encode_response};
use super::{EncodeError, verify};
use crate::types::KafkaError;

/// Whether requests of this version can be decoded and answered; what the listener offers lies within.
pub fn is_decodable(api_key: ApiKey, version: i16) -> bool {
    verify::api(api_key as i16).is_some_and(|api| api.has(version))
}

/// The answer to an ApiVersions request of a version that the broker does not know: as in Kafka (KIP-511) version 0
/// of the response, with error 35 and one entry, the range of ApiVersions itself. The client tries again with that.
pub fn unsupported_api_versions(correlation_id: i32, first: i16, last: i16) -> Result<Frame, EncodeError> {
    let own =
        ApiVersion::default().with_api_key(ApiKey::ApiVersions as i16).with_min_version(first).with_max_version(last);
    let response =
        ApiVersionsResponse::default().with_error_code(KafkaError::UnsupportedVersion.code()).with_api_keys(vec![own]);
    encode_response(ApiKey::ApiVersions, 0, correlation_id, &response, Splices::default())
}
