//! Refusals that can be seen to be false: K27 (offsets out of range), K36 (errors that have no reason). K35 and K15 are
//! in `topics` and `groups`.
use std::collections::HashMap;

use super::facts::{Facts, end_of};
use super::report::{Report, Rule};
use crate::operation::{End, What};

/// What well-formed requests of plain and idempotent clients never get.
const NEVER: &[&str] = &[
    "CORRUPT_MESSAGE",
    "INVALID_RECORD",
    "INVALID_REQUEST",
    "INVALID_TXN_STATE",
    "PRODUCER_FENCED",
    "UNKNOWN_SERVER_ERROR",
    "UNSUPPORTED_VERSION",
];
const AUTHORIZATION: &[&str] = &[
    "CLUSTER_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
];

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    out_of_range(facts, report);
    out_of_order(facts, report);
    let transactions =
        facts.operations.iter().any(|o| matches!(&o.what, What::InitProducer { transactional_id: Some(_), .. }));
    for operation in &facts.operations {
        let error = operation.end.error();
        let of_transactions = matches!(error, "PRODUCER_FENCED" | "INVALID_TXN_STATE");
        let never = NEVER.contains(&error) && !(transactions && of_transactions);
        let lies = never || (!facts.options.authorization && AUTHORIZATION.contains(&error));
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

/// A sequence is out of order only behind one that failed: where all that a producer sent before was acknowledged, and
/// the topic is the same, there is no reason.
fn out_of_order(facts: &Facts<'_>, report: &mut Report) {
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
