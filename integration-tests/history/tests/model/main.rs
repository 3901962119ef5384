//! A model broker's histories are legal, whatever its clients do; with a defect they are not, and the checker says so by
//! the right number.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod broker;
mod run;

use broker::Defect;
use proptest::prelude::{ProptestConfig, proptest};
use strandline_history::{Options, Rule, check};

fn options() -> Options {
    Options { poll_lag_us: 100, end_lag_us: 100, liveness_us: 1000, final_reads: true, ..Options::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_correct_broker_is_never_accused(seed: u64, busy_us in 100_u64..8000) {
        let report = check(&run::run(seed, None, busy_us), &options());
        assert!(report.is_clean(), "seed {seed}, {busy_us} us:\n{report}");
    }
}

/// Rules that a long history of the model has something to look at for: all but those of the bucket, of settings, of
/// compaction, and of transactions.
#[test]
fn little_is_vacuous() {
    let report = check(&run::run(7, None, 100_000), &options());
    let of_transactions = [Rule::A7, Rule::A10, Rule::A11, Rule::A21, Rule::A22, Rule::K13];
    let without = [of_transactions.as_slice(), &[Rule::A28, Rule::A29, Rule::A33, Rule::A34, Rule::K30]].concat();
    let vacuous: Vec<Rule> = report.vacuous().into_iter().filter(|rule| !without.contains(rule)).collect();
    assert!(report.is_clean() && vacuous.is_empty(), "{vacuous:?}\n{report}");
}

#[test]
fn every_defect_is_found() {
    use Defect::*;
    let table: &[(Defect, &[Rule])] = &[
        (AckWithoutWrite, &[Rule::A3, Rule::A2]),
        (DroppedRecord, &[Rule::A1]),
        (LostTail, &[Rule::A3, Rule::A2]),
        (DuplicateOnRetry, &[Rule::A4]),
        (OffsetZero, &[Rule::A5]),
        (Reorder, &[Rule::A6]),
        (TornBatch, &[Rule::A8]),
        (SkippedRecord, &[Rule::A12]),
        (RepeatedRecord, &[Rule::A13]),
        (HighWatermarkBack, &[Rule::A18, Rule::A31]),
        (StaleReads, &[Rule::A31]),
        (StuckStable, &[Rule::A19]),
        (LostCommit, &[Rule::A20]),
        (ForgottenCommit, &[Rule::A20]),
        (StaleGeneration, &[Rule::A23]),
        (TwoOwners, &[Rule::A24]),
        (ForeignRecord, &[Rule::A25]),
        (Damage, &[Rule::A26]),
        (ForgottenTrim, &[Rule::A27]),
        (TimeIndex, &[Rule::A30]),
        (RefusedButDone, &[Rule::A35]),
        (FalseOutOfRange, &[Rule::K27]),
        (LatestLags, &[Rule::K28]),
        (FalseUnknownTopic, &[Rule::K35]),
        (EpochEndsEarly, &[Rule::K26]),
        (ZombieTopic, &[Rule::K35]),
        (Stuck, &[Rule::A32]),
    ];
    for (defect, rules) in table {
        let found = |seed| {
            let report = check(&run::run(seed, Some(*defect), 8000), &options());
            rules.iter().all(|rule| report.broken().contains(rule))
        };
        let first = (0..40).find(|seed| found(*seed));
        println!("{defect:?}: {rules:?} by seed {first:?}");
        assert!(first.is_some(), "{defect:?} is not found under {rules:?} in 40 runs");
    }
}
