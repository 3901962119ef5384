//! Offsets that producers are given: A6 (order of an idempotent producer), A15 and A16 (a new record lies behind all that
//! was known before).
use std::collections::HashMap;

use super::facts::{Facts, LogFacts, end_of};
use super::report::{Report, Rule};
use crate::operation::{End, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for log in &facts.logs {
        behind_all(facts, log, report);
        in_order(facts, log, report);
    }
}

fn behind_all(facts: &Facts<'_>, log: &LogFacts<'_>, report: &mut Report) {
    for &send in log.sends.iter().filter(|send| facts.op(**send).end == End::Ok) {
        let operation = facts.op(send);
        let What::Send { offset: Some(offset @ 0..), .. } = operation.what else { continue };
        let Some((end, teller)) = log.ends.before(operation.start_us) else { continue };
        let own = facts.op(teller).process == operation.process;
        let rule = if own { Rule::A15 } else { Rule::A16 };
        report.expect(rule, offset >= end, &[facts.id(teller), facts.id(send)], || {
            format!("{}: the offset {offset} was given when the log was known to end at {end}", log.name())
        });
    }
}

fn in_order(facts: &Facts<'_>, log: &LogFacts<'_>, report: &mut Report) {
    let mut last: HashMap<u32, (u32, i64)> = HashMap::new();
    for &send in log.sends.iter().filter(|send| facts.op(**send).end == End::Ok) {
        let operation = facts.op(send);
        let What::Send { once: true, offset: Some(offset @ 0..), .. } = operation.what else { continue };
        if let Some((earlier, its_offset)) = last.insert(operation.process, (send, offset)) {
            report.expect(Rule::A6, offset > its_offset, &[facts.id(earlier), facts.id(send)], || {
                let (log, process) = (log.name(), operation.process);
                let pipelined = if end_of(facts.op(earlier)) < operation.start_us { "after" } else { "behind" };
                format!("{log}: process {process} sent {pipelined} what stands at {its_offset}, and got {offset}")
            });
        }
    }
}
