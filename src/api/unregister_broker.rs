//! UnregisterBroker (64), as `strandline broker drain` and `kafka-cluster unregister` ask it: the broker hands over what it
//! leads and coordinates, and ends. One that does not live any more is fenced for its silence after a while.
use kafka_protocol::messages::{ApiKey, UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::propose::{code_and_message, default_deadline, propose_all};
use super::table::Offered;
use super::{Call, Context};
use crate::state::DrainBroker;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::UnregisterBroker, 0, 0);

pub(super) async fn handle(ctx: &Context, _: &Call, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let drain = DrainBroker { broker: request.broker_id.0 };
    let result = propose_all(ctx, default_deadline(ctx), vec![drain.into()]).await.remove(0);
    let (code, message) = code_and_message(&result);
    UnregisterBrokerResponse::default().with_error_code(code).with_error_message(message)
}
