//! FindCoordinator (10): which broker coordinates a group or a transactional id. Share groups are refused as by a Kafka
//! without them.
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::groups::check_group_length;
use super::propose::{refusal, text};
use super::table::Offered;
use super::transactions::has_transactions;
use super::{Call, Context};
use crate::config::HostPort;
use crate::state::Refusal;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::FindCoordinator, 0, 6);

/// Kafka's numbers for what has a coordinator (`CoordinatorType`).
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) async fn handle(ctx: &Context, call: &Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    if call.header.version < 4 {
        return one(ctx, call, &request);
    }
    let coordinator = |key: StrBytes| {
        let coordinator = Coordinator::default();
        let coordinator = match find(ctx, call, request.key_type, &key) {
            Ok((id, at)) => coordinator
                .with_node_id(BrokerId(id.0))
                .with_host(text(at.host))
                .with_port(i32::from(at.port))
                .with_error_message(Some(StrBytes::default())),
            Err(refused) => coordinator
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(refused.error.code())
                .with_error_message(Some(text(refused.message))),
        };
        coordinator.with_key(key)
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}

/// Before version 4 there is one key, and a word in any case.
fn one(ctx: &Context, call: &Call, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    let (response, message) = match find(ctx, call, request.key_type, &request.key) {
        Ok((id, at)) => {
            let response = response.with_node_id(BrokerId(id.0)).with_host(text(at.host));
            (response.with_port(i32::from(at.port)), "NONE".to_owned())
        }
        Err(refused) => {
            let response = response.with_node_id(BrokerId(-1)).with_port(-1);
            (response.with_error_code(refused.error.code()), refused.message)
        }
    };
    if call.header.version >= 1 { response.with_error_message(Some(text(message))) } else { response }
}

fn find(ctx: &Context, call: &Call, key_type: i8, key: &str) -> Result<(crate::types::BrokerId, HostPort), Refusal> {
    match key_type {
        GROUP => {
            check_group_length(ctx, key).map_err(|e| refusal(e.error, "The group id is too long."))?;
            Ok(ctx.members().coordinator_at(key, &call.entrance.listener, &call.entrance.advertised))
        }
        TRANSACTION if !has_transactions(ctx) => {
            let message = "The cluster's feature level is below that of transactions; raise it first.";
            Err(refusal(KafkaError::CoordinatorNotAvailable, message))
        }
        TRANSACTION if key.len() > ctx.config.limits.transactional_id_bytes_max => {
            Err(refusal(KafkaError::InvalidRequest, "The transactional id is too long."))
        }
        TRANSACTION => Ok(ctx.members().coordinator_at(key, &call.entrance.listener, &call.entrance.advertised)),
        _ => Err(refusal(KafkaError::InvalidRequest, "Only groups and transactional ids have a coordinator here.")),
    }
}
