//! FindCoordinator (10): there are no coordinators yet, and clients are told to try again later. It is offered all the same,
//! since librdkafka compresses with LZ4 only for brokers that list its version 0.
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::table::Offered;
use super::{Call, Context};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::FindCoordinator, 0, 6);

const MESSAGE: &str = "This version of Strandline has no consumer groups and no transactions yet.";

pub(super) async fn handle(_: &Context, call: &Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let error = KafkaError::CoordinatorNotAvailable.code();
    let message = Some(StrBytes::from_static_str(MESSAGE));
    let nobody = BrokerId(-1);
    if call.header.version < 4 {
        let response = FindCoordinatorResponse::default().with_error_code(error).with_node_id(nobody).with_port(-1);
        return if call.header.version >= 1 { response.with_error_message(message) } else { response };
    }
    let coordinator = |key: StrBytes| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(nobody)
            .with_port(-1)
            .with_error_code(error)
            .with_error_message(message.clone())
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}
