//! EndTxn (26): commits or aborts a transaction, in one entry. From version 5 on the producer goes on with another epoch
//! (KIP-890). Rules: Kafka's `TransactionCoordinator.endTransaction`; nothing is half ended, so CONCURRENT_TRANSACTIONS
//! is never the answer.
use kafka_protocol::messages::{ApiKey, EndTxnRequest, EndTxnResponse, ProducerId as WireProducerId};

use super::table::Offered;
use super::transactions::{check_transactional_id, fenced_in_version, propose, stamp};
use super::{Call, Context};
use crate::state::{EndTransaction, Outcome, Producing};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::EndTxn, 0, 5);

/// The first version of transactions version 2.
const BUMPS: i16 = 5;

pub(super) async fn handle(ctx: &Context, call: &Call, request: EndTxnRequest) -> EndTxnResponse {
    let response = EndTxnResponse::default().with_producer_id(WireProducerId(-1)).with_producer_epoch(-1);
    match end(ctx, call, &request).await {
        Ok(next) if call.header.version >= BUMPS => {
            response.with_producer_id(WireProducerId(next.id.0)).with_producer_epoch(next.epoch.0)
        }
        Ok(_) => response,
        Err(error) => response.with_error_code(fenced_in_version(call, 2, error).code()),
    }
}

async fn end(ctx: &Context, call: &Call, request: &EndTxnRequest) -> Result<Producing, KafkaError> {
    check_transactional_id(ctx, &request.transactional_id)?;
    let end = EndTransaction {
        transactional_id: request.transactional_id.to_string(),
        producer: stamp(request.producer_id.0, request.producer_epoch),
        commit: request.committed,
        bump: call.header.version >= BUMPS,
    };
    match propose(ctx, end).await? {
        Outcome::Producer { producer, .. } => {
            if !request.committed {
                ctx.metrics.transactions.aborted("client");
            } else {
                ctx.metrics.transactions.committed.inc();
            }
            Ok(producer)
        }
        _ => Err(KafkaError::UnknownServerError),
    }
}
