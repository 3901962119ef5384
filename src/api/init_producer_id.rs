//! InitProducerId (22): ids for idempotent producers, from blocks that the journal gives; for transactional ones the
//! epoch that fences the instance before, whose open transaction is aborted in the same entry. Version 6, which can keep a
//! prepared transaction, is unstable in Kafka and not offered. Rules: `TransactionCoordinator.handleInitProducerId`.
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId};
use tokio::sync::{mpsc, oneshot};

use super::table::Offered;
use super::transactions::{check_transactional_id, fenced_in_version, propose, stamp};
use super::{Call, Context};
use crate::metadata::Replica;
use crate::state::{AllocateProducerIds, InitProducer, Outcome, Producing};
use crate::types::{KafkaError, ProducerId};
use crate::world::World;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::InitProducerId, 0, 5);

/// Ids that one entry gives; those that a stopping broker has left are never used.
const BLOCK: u32 = 1000;

/// Requests that may wait for a block.
const WAITING_MAX: usize = 1024;

/// Gives out ids, one journal entry per block.
#[derive(Clone)]
pub struct ProducerIds(mpsc::Sender<oneshot::Sender<Option<ProducerId>>>);

impl ProducerIds {
    /// Starts the task that owns the block.
    #[must_use]
    pub fn start(world: &World, replica: Replica) -> Self {
        let (asked, mut waiting) = mpsc::channel::<oneshot::Sender<Option<ProducerId>>>(WAITING_MAX);
        world.spawn("producer ids", async move {
            let mut block = 0..0;
            while let Some(reply) = waiting.recv().await {
                if block.is_empty()
                    && let Ok(Outcome::ProducerIds { first }) =
                        replica.propose(AllocateProducerIds { count: BLOCK }).await
                {
                    block = first.0..first.0 + i64::from(BLOCK);
                }
                // A client that hung up loses the id.
                let _ = reply.send(block.next().map(ProducerId));
            }
        });
        Self(asked)
    }

    /// A fresh id; `None` while the journal gives none.
    pub async fn next(&self) -> Option<ProducerId> {
        let (reply, id) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        id.await.ok()?
    }
}

pub(super) async fn handle(ctx: &Context, call: &Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default().with_producer_id(WireProducerId(-1)).with_producer_epoch(-1);
    if let Some(id) = &request.transactional_id {
        return match init(ctx, id, &request).await {
            Ok(Producing { id, epoch }) => response.with_producer_id(WireProducerId(id.0)).with_producer_epoch(epoch.0),
            Err(error) => response.with_error_code(fenced_in_version(call, 4, error).code()),
        };
    }
    match ctx.producer_ids.next().await {
        Some(id) => response.with_producer_id(WireProducerId(id.0)).with_producer_epoch(0),
        None => response.with_error_code(KafkaError::CoordinatorNotAvailable.code()),
    }
}

async fn init(ctx: &Context, id: &str, request: &InitProducerIdRequest) -> Result<Producing, KafkaError> {
    check_transactional_id(ctx, id)?;
    if !(1..=ctx.config.kafka.transaction_max_timeout_ms).contains(&request.transaction_timeout_ms) {
        return Err(KafkaError::InvalidTransactionTimeout);
    }
    // From version 3 on clients say which epoch they had.
    let exchanged = match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Err(KafkaError::InvalidRequest),
        (id, epoch) => Some(stamp(id, epoch)),
    };
    let timeout_ms = request.transaction_timeout_ms;
    match propose(ctx, InitProducer { transactional_id: id.to_owned(), timeout_ms, exchanged }).await? {
        Outcome::Producer { producer, .. } => Ok(producer),
        _ => Err(KafkaError::UnknownServerError),
    }
}
