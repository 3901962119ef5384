//! Refusals that can be seen to be false: K27 (offsets out of range), K30 (batches too large), K36 (errors that have no
//! reason). K35 and K15 are in `topics` and `groups`.
use std::collections::HashMap;

use super::facts::{Facts, end_of};
use super::report::{Report, Rule};
use crate::operation::{End, Operation, What};

/// What well-formed requests of plain and idempotent clients never get.
const NEVER: &[&str] =
    &["CORRUPT_MESSAGE", "INVALID_RECORD", "INVALID_REQUEST", "UNKNOWN_SERVER_ERROR", "UNSUPPORTED_VERSION"];
/// What only producers with transactions get, when another has taken their transactional id or a time-out has aborted
/// what they were at.
const FENCED: &[&str] =
    &["INVALID_PRODUCER_ID_MAPPING", "INVALID_TXN_STATE", "PRODUCER_FENCED", "TRANSACTION_ABORTABLE"];
const AUTHORIZATION: &[&str] = &[
    "CLUSTER_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
];

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    out_of_range(facts, report);
    out_of_order(facts, report);
    too_large(facts, report);
    for (number, operation) in (0..).zip(&facts.operations) {
        let error = operation.end.error();
        let fenced = FENCED.contains(&error) && facts.transactions.has_no_reason(facts, number);
        let lies = NEVER.contains(&error) || fenced || (!facts.options.authorization && AUTHORIZATION.contains(&error));
        report.expect(Rule::K36, !lies, &[operation.id], || {
            format!("process {} is told {error}, which nothing here is a reason for", operation.process)
        });
    }
}

fn out_of_range(facts: &Facts<'_>, report: &mut Report) {
    if !facts.options.strict_no {
        return;
    }
    for log in &facts.logs {
        for &number in [&log.polls, &log.trims].into_iter().flatten() {
            let operation = facts.op(number);
            if operation.end.error() != "OFFSET_OUT_OF_RANGE" {
                continue;
            }
            let (asked, start) = match operation.what {
                What::Poll { from, .. } => (from, log.start_possible(end_of(operation), facts.options)),
                What::DeleteRecords { before, .. } => (before, 0),
                _ => continue,
            };
            let (end, teller) = log.ends.before(operation.start_us).unwrap_or((0, number));
            report.expect(Rule::K27, !(start..=end).contains(&asked), &[facts.id(teller), facts.id(number)], || {
                format!("{}: the offset {asked} is said to be out of range, and {start}..{end} is there", log.name())
            });
        }
    }
}

/// Smaller than any batch, and larger than any that a client makes.
const SMALLER_BYTES: i64 = 61;
const LARGER_BYTES: i64 = 1 << 20;

/// Where `max.message.bytes` is certain on a broker, because it was changed there last.
fn too_large(facts: &Facts<'_>, report: &mut Report) {
    let mut changes: HashMap<&str, Vec<(&Operation, i64)>> = HashMap::new();
    for operation in &facts.operations {
        if let What::AlterConfig { name, key, value } = &operation.what
            && key == "max.message.bytes"
            && !matches!(operation.end, End::Fail(_))
        {
            changes.entry(name).or_default().push((operation, value.parse().unwrap_or(0)));
        }
    }
    for log in &facts.logs {
        let Some(changes) = changes.get(log.topic) else { continue };
        for &send in &log.sends {
            let operation = facts.op(send);
            let Some((change, bytes)) = last_certain(changes, operation) else { continue };
            let made_anew = facts.deletions.get(log.topic);
            let made_anew =
                made_anew.is_some_and(|gone| gone.touch(change.start_us, operation.end_us.unwrap_or(u64::MAX)));
            if made_anew || change.broker.is_none() || change.broker != operation.broker {
                continue;
            }
            let well = matches!((&operation.what, &operation.end), (What::Send { acked: true, .. }, End::Ok));
            let lies =
                bytes < SMALLER_BYTES && well || bytes >= LARGER_BYTES && operation.end.error() == "MESSAGE_TOO_LARGE";
            report.expect(Rule::K30, !lies, &[change.id, operation.id], || {
                let (log, end) = (log.name(), &operation.end);
                format!("{log}: max.message.bytes was set to {bytes}, and a batch ends with {end:?}")
            });
        }
    }
}

/// The change that was over before `operation` began, if no other can have come after it and before the end of that.
fn last_certain<'a>(changes: &[(&'a Operation, i64)], operation: &Operation) -> Option<(&'a Operation, i64)> {
    let until = operation.end_us?;
    let (last, earlier) = changes[..changes.partition_point(|(change, _)| change.start_us <= until)].split_last()?;
    let over = earlier.iter().all(|(change, _)| end_of(change) < last.0.start_us);
    (over && end_of(last.0) < operation.start_us).then_some(*last)
}

/// A sequence is out of order only behind one that failed: where all that a producer sent before was acknowledged, and
/// the topic is the same, there is no reason. Records that were taken from objects after a fork may be later ones than those
/// that had not come so far.
fn out_of_order(facts: &Facts<'_>, report: &mut Report) {
    if facts.options.salvaged {
        return;
    }
    for log in facts.logs.iter().filter(|log| !facts.deletions.contains_key(log.topic)) {
        let mut all_well: HashMap<u32, bool> = HashMap::new();
        for &send in &log.sends {
            let operation = facts.op(send);
            let What::Send { once: true, .. } = operation.what else { continue };
            let well = all_well.entry(operation.process).or_insert(true);
            let out_of_order = operation.end.error() == "OUT_OF_ORDER_SEQUENCE_NUMBER";
            report.expect(Rule::K36, !(*well && out_of_order), &[facts.id(send)], || {
                let (log, process) = (log.name(), operation.process);
                format!("{log}: process {process} is told {}, and all before was acknowledged", operation.end.error())
            });
            *well &= operation.end == End::Ok;
        }
    }
}
