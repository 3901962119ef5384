//! ApiVersions (18): what is offered. A feature is finalised with the capability that it stands for, since clients change
//! their behaviour by it: `group.version` is the consumer protocol; `transaction.version` 2 is KIP-890, from feature level
//! 4 on; `strandline.version` is the cluster's feature level.
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::groups::check_consumer_protocol;
use super::table::{OFFERED as ALL, Offered};
use super::transactions::has_transactions;
use super::update_features::STRANDLINE_VERSION;
use super::{Call, Context};
use crate::state::FEATURE_LEVEL_MAX;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ApiVersions, 0, 4);

/// Clients use the consumer protocol (KIP-848) where this is 1.
const GROUP_VERSION: StrBytes = StrBytes::from_static_str("group.version");

/// Producers send no AddPartitionsToTxn and get another epoch with each transaction where this is 2 (KIP-890).
const TRANSACTION_VERSION: StrBytes = StrBytes::from_static_str("transaction.version");

/// What is not served below the feature level of transactions.
const NEED_TRANSACTIONS: [ApiKey; 7] = [
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::EndTxn,
    ApiKey::WriteTxnMarkers,
    ApiKey::TxnOffsetCommit,
    ApiKey::DescribeTransactions,
    ApiKey::ListTransactions,
];

pub(super) async fn handle(ctx: &Context, call: &Call, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = call.header.version < 3
        || (is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version));
    if !named {
        return ApiVersionsResponse::default().with_error_code(KafkaError::InvalidRequest.code());
    }
    let transactions = has_transactions(ctx);
    let keys = ALL.iter().filter(|o| transactions || !NEED_TRANSACTIONS.contains(&o.key)).map(|o| {
        ApiVersion::default().with_api_key(o.key as i16).with_min_version(o.shown_min).with_max_version(o.max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(keys.collect()).with_finalized_features_epoch(-1);
    if call.header.version < 3 { response } else { with_features(ctx, call.header.version, response) }
}

fn with_features(ctx: &Context, version: i16, response: ApiVersionsResponse) -> ApiVersionsResponse {
    // Clients forget what they know when the epoch rises, and ignore answers in which it falls; it never does.
    let state = ctx.replica.state();
    let epoch = i64::try_from(state.head().position.0).unwrap_or(i64::MAX);
    let level = |level: u32| i16::try_from(level).unwrap_or(i16::MAX);
    let group_version = check_consumer_protocol(ctx).is_ok().then_some((GROUP_VERSION, (0, 1), 1));
    let transaction_version = has_transactions(ctx).then_some((TRANSACTION_VERSION, (0, 2), 2));
    let ours = StrBytes::from_static_str(STRANDLINE_VERSION);
    let features: Vec<_> = group_version
        .into_iter()
        .chain(transaction_version)
        .chain([(ours, (1, level(FEATURE_LEVEL_MAX)), level(state.feature_level()))])
        .collect();
    let finalized = |(name, _, now): &(StrBytes, (i16, i16), i16)| {
        FinalizedFeatureKey::default().with_name(name.clone()).with_min_version_level(1).with_max_version_level(*now)
    };
    let finalized = features.iter().map(finalized).collect();
    let response = response.with_finalized_features_epoch(epoch).with_finalized_features(finalized);
    if version < 4 {
        // Clients of version 3 can't read a range that begins with 0 (KIP-1022).
        return response;
    }
    let supported = |(name, (min, max), _): &(StrBytes, (i16, i16), i16)| {
        SupportedFeatureKey::default().with_name(name.clone()).with_min_version(*min).with_max_version(*max)
    };
    response.with_supported_features(features.iter().map(supported).collect())
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}
