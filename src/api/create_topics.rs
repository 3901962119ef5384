//! CreateTopics (19): any replication factor is accepted, assignments only count partitions. Auto-creation for Metadata
//! is here too.
use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::Context;
use super::table::Offered;
use crate::state::{CreateTopic, Outcome};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::CreateTopics, 2, 7);

/// Creates a topic that a client asked metadata for, with the broker's defaults.
pub(super) async fn auto_create(ctx: &Context, name: &str) -> Result<(), KafkaError> {
    let command = CreateTopic {
        name: name.to_owned(),
        id: fresh_topic_id(ctx),
        partitions: u32::try_from(ctx.config.kafka.num_partitions).unwrap_or(1),
        replication_factor: u32::try_from(ctx.config.kafka.default_replication_factor).unwrap_or(1),
        configs: Vec::new(),
    };
    match ctx.replica.propose(command).await {
        // Another request may have been faster.
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::Refused(refusal)) if refusal.error == KafkaError::TopicAlreadyExists => Ok(()),
        Ok(Outcome::Refused(refusal)) => Err(refusal.error),
        Ok(_) | Err(_) => Err(KafkaError::LeaderNotAvailable),
    }
}

/// 16 random bytes in the form of a version 4 UUID, never nil.
pub(super) fn fresh_topic_id(ctx: &Context) -> Bytes {
    let mut bytes = [0; 16];
    ctx.world.fill(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Bytes::copy_from_slice(id.as_bytes())
}
