//! What the APIs of transactions share: which transactional ids are taken, whose they are to coordinate, and how a command
//! about one is appended. There is no owner in memory: what a transaction is, State has, and `apply` decides (H14).
use super::propose::{default_deadline, propose_all};
use super::{Call, Context};
use crate::state::{Command, Outcome, ProducerStamp, TRANSACTIONS_LEVEL};
use crate::types::KafkaError;

/// Whether this broker takes requests about the transactional id. Any could; that one does keeps their appends together.
///
/// # Errors
/// `INVALID_REQUEST` for an id that is empty or too long, `NOT_COORDINATOR`, `COORDINATOR_NOT_AVAILABLE` below the
/// feature level.
pub(super) fn check_transactional_id(ctx: &Context, id: &str) -> Result<(), KafkaError> {
    if id.is_empty() || id.len() > ctx.config.limits.transactional_id_bytes_max {
        return Err(KafkaError::InvalidRequest);
    }
    if !has_transactions(ctx) {
        return Err(KafkaError::CoordinatorNotAvailable);
    }
    if ctx.members().coordinates(id) { Ok(()) } else { Err(KafkaError::NotCoordinator) }
}

/// Whether the cluster has the feature level, and has been told the limits that belong to it.
pub(super) fn has_transactions(ctx: &Context) -> bool {
    let state = ctx.replica.state();
    state.feature_level() >= TRANSACTIONS_LEVEL && state.settings().transactional_ids_max > 0
}

/// Appends a command about a transactional id. Each may be sent again, so clients are asked to where nothing is known.
pub(super) async fn propose(ctx: &Context, command: impl Into<Command>) -> Result<Outcome, KafkaError> {
    ctx.transactions.go().await;
    let outcome = propose_all(ctx, default_deadline(ctx), vec![command.into()]).await.remove(0);
    outcome.map_err(|refusal| match refusal.error {
        KafkaError::NotController | KafkaError::RequestTimedOut => KafkaError::CoordinatorNotAvailable,
        error => error,
    })
}

/// A producer id and its epoch as commands have them.
pub(super) fn stamp(id: i64, epoch: i16) -> ProducerStamp {
    ProducerStamp { id, epoch: i32::from(epoch) }
}

/// Something is not part of the transaction. From version `first` on clients are told so by an error after which they may
/// abort; for older ones it is fatal (KIP-890).
pub(super) fn abortable_in_version(version: i16, first: i16, error: KafkaError) -> KafkaError {
    match error {
        KafkaError::InvalidTxnState if version >= first => KafkaError::TransactionAbortable,
        error => error,
    }
}

/// Clients of versions below `first` know only the error of idempotent producers.
pub(super) fn fenced_in_version(call: &Call, first: i16, error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ProducerFenced if call.header.version < first => KafkaError::InvalidProducerEpoch,
        error => error,
    }
}
