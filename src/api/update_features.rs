//! UpdateFeatures (57): `strandline.version`, the feature level of the cluster's entries and snapshots, can be raised to what
//! every registered broker knows. It is not lowered again: older versions could not read what was written since. The other
//! features follow from what the brokers are told, and from nothing else.
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::propose::{code_and_message, deadline, propose_all, refusal, state};
use super::table::Offered;
use super::{Call, Context};
use crate::state::{FEATURE_LEVEL_MAX, RaiseFeatureLevel, Refusal, State};
use crate::types::KafkaError;
use crate::world::Instant;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::UpdateFeatures, 0, 2);

/// The feature level, as tools name it.
pub(super) const STRANDLINE_VERSION: &str = "strandline.version";

pub(super) async fn handle(ctx: &Context, call: &Call, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let deadline = deadline(ctx, request.timeout_ms);
    let (mut results, mut failed) = (Vec::new(), None);
    for update in &request.feature_updates {
        let result = apply(ctx, deadline, update, request.validate_only).await;
        let (code, message) = code_and_message(&result);
        if failed.is_none() && code != 0 {
            failed = Some((code, message.clone()));
        }
        let feature = UpdatableFeatureResult::default().with_feature(update.feature.clone());
        results.push(feature.with_error_code(code).with_error_message(message));
    }
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    if call.header.version <= 1 {
        return response.with_results(results);
    }
    // As in Kafka, there is one error for all from version 2 on.
    let (code, message) = failed.unwrap_or((0, None));
    response.with_error_code(code).with_error_message(message)
}

async fn apply(ctx: &Context, deadline: Instant, update: &FeatureUpdateKey, dry: bool) -> Result<(), Refusal> {
    let state = state(ctx, deadline).await?;
    let level = judge(&state, update)?;
    if dry || level == state.feature_level() {
        return Ok(());
    }
    propose_all(ctx, deadline, vec![RaiseFeatureLevel { level }.into()]).await.remove(0).map(|_| ())
}

/// Whether the update may be proposed; `apply` looks again.
fn judge(state: &State, update: &FeatureUpdateKey) -> Result<u32, Refusal> {
    let invalid = |message: String| refusal(KafkaError::InvalidUpdateVersion, message);
    if update.feature.as_str() != STRANDLINE_VERSION {
        let message = format!("{} can't be changed: it follows from the brokers' settings.", update.feature.as_str());
        return Err(invalid(message));
    }
    let level = u32::try_from(update.max_version_level).unwrap_or(0);
    let now = state.feature_level();
    if level < now {
        return Err(invalid(format!(
            "{STRANDLINE_VERSION} is {now}, and is not lowered: older versions can't read it."
        )));
    }
    if level > FEATURE_LEVEL_MAX {
        return Err(invalid(format!("This broker knows {STRANDLINE_VERSION} up to {FEATURE_LEVEL_MAX}.")));
    }
    let behind = state.brokers().find(|b| b.incarnation.is_some() && b.feature_level_max < level);
    behind.map_or(Ok(level), |broker| {
        let (id, its) = (broker.id, broker.feature_level_max);
        Err(invalid(format!("Broker {id} knows {STRANDLINE_VERSION} up to {its}.")))
    })
}
