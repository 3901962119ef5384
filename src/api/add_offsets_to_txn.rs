//! AddOffsetsToTxn (25): a group joins a transaction (version 1 of transactions; with version 2 it joins with its offsets).
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ApiKey};

use super::groups::check_group_id;
use super::table::Offered;
use super::transactions::{check_transactional_id, fenced_in_version, propose, stamp};
use super::{Call, Context};
use crate::state::AddToTransaction;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::AddOffsetsToTxn, 0, 4);

pub(super) async fn handle(ctx: &Context, call: &Call, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let added = add(ctx, &request).await.map_err(|error| fenced_in_version(call, 2, error).code());
    AddOffsetsToTxnResponse::default().with_error_code(added.err().unwrap_or(0))
}

async fn add(ctx: &Context, request: &AddOffsetsToTxnRequest) -> Result<(), KafkaError> {
    check_transactional_id(ctx, &request.transactional_id)?;
    check_group_id(ctx, &request.group_id).map_err(|refused| refused.error)?;
    let add = AddToTransaction {
        transactional_id: request.transactional_id.to_string(),
        producer: stamp(request.producer_id.0, request.producer_epoch),
        slots: Vec::new(),
        groups: vec![request.group_id.to_string()],
    };
    propose(ctx, add).await.map(|_| ())
}
