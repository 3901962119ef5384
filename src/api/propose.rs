//! What the admin APIs share: State after a read barrier, and the outcome of a command as Kafka's error, each within
//! the time that the client gave.
use kafka_protocol::protocol::StrBytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::metadata::ProposeError;
use crate::state::{Command, Outcome, Refusal, State};
use crate::types::KafkaError;
use crate::world::Instant;

/// What clients are told of a journal that does not answer, or does not take something. Why is for the log alone: the text
/// of a database or a bucket names hosts, paths and keys.
const JOURNAL_AWAY: &str = "The journal does not answer; the broker's log says why. Try again.";
const JOURNAL_REFUSED: &str = "The journal did not take it; the broker's log says why. Try again.";

/// No admin request waits longer for the journal: what Java clients wait for an answer (`request.timeout.ms`).
const WAIT_MAX_MS: i32 = 30_000;
/// However little a client gives, a healthy journal answers within this.
const WAIT_MIN_MS: i32 = 1_000;

/// When an admin request with this time-out is answered at the latest.
pub(super) fn deadline(ctx: &Context, timeout_ms: i32) -> Instant {
    let ms = timeout_ms.clamp(WAIT_MIN_MS, WAIT_MAX_MS).unsigned_abs();
    ctx.world.now() + Duration::from_millis(u64::from(ms))
}

/// The deadline of requests that name none.
pub(super) fn default_deadline(ctx: &Context) -> Instant {
    deadline(ctx, WAIT_MAX_MS)
}

/// State after a read barrier: what is not in it does not exist (invariant 5).
///
/// # Errors
/// A retriable one, while the journal does not answer.
pub(super) async fn state(ctx: &Context, deadline: Instant) -> Result<Arc<State>, Refusal> {
    let unavailable = |_| refusal(KafkaError::RequestTimedOut, JOURNAL_AWAY);
    within(ctx, deadline, ctx.replica.barrier()).await?.map_err(unavailable)
}

/// Appends `commands` in their order, together where there is room, and gives an outcome for each; a refusal is an
/// error. `NOT_CONTROLLER`, which clients retry, says that it certainly did not happen; `REQUEST_TIMED_OUT` that nobody
/// knows yet.
pub(super) async fn propose_all(
    ctx: &Context,
    deadline: Instant,
    commands: Vec<Command>,
) -> Vec<Result<Outcome, Refusal>> {
    let mut waiting = Vec::with_capacity(commands.len());
    for command in commands {
        waiting.push(within(ctx, deadline, ctx.replica.submit(command)).await);
    }
    let mut outcomes = Vec::with_capacity(waiting.len());
    for submitted in waiting {
        outcomes.push(match submitted {
            Err(late) => Err(late),
            Ok(Err(stopped)) => settled(Err(stopped)),
            Ok(Ok(reply)) => match within(ctx, deadline, reply).await {
                Ok(outcome) => settled(outcome.unwrap_or(Err(ProposeError::Stopped))),
                Err(late) => Err(late),
            },
        });
    }
    outcomes
}

async fn within<T>(ctx: &Context, deadline: Instant, future: impl Future<Output = T>) -> Result<T, Refusal> {
    let left = deadline.saturating_duration_since(ctx.world.now());
    ctx.world.timeout(left, future).await.ok_or_else(|| {
        refusal(KafkaError::RequestTimedOut, "The journal did not answer in time; it may still be done.")
    })
}

fn settled(outcome: Result<Outcome, ProposeError>) -> Result<Outcome, Refusal> {
    match outcome {
        Ok(Outcome::Refused(refusal)) => Err(refusal),
        Ok(Outcome::Fenced) => Err(refusal(KafkaError::NotController, "This broker is not registered any more.")),
        Ok(outcome) => Ok(outcome),
        Err(ProposeError::NotDone(_)) => Err(refusal(KafkaError::NotController, JOURNAL_REFUSED)),
        Err(error @ ProposeError::Stopped) => Err(refusal(KafkaError::RequestTimedOut, error.to_string())),
    }
}

/// An error with its message.
pub(super) fn refusal(error: KafkaError, message: impl Into<String>) -> Refusal {
    Refusal { error, message: message.into() }
}

/// A text for a response.
pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Error code and message of what went well or was refused, as responses carry them; an empty message is null.
pub(super) fn code_and_message<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (0, None),
        Err(refusal) => {
            let message = Some(text(refusal.message.clone())).filter(|message| !message.is_empty());
            (refusal.error.code(), message)
        }
    }
}
