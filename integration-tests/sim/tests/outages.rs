//! Outages that meet all brokers at one time: nobody is given up for them (H12).
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_sim::faults::Fault;
use strandline_sim::plan::Plan;
use strandline_sim::run::run;

#[test]
fn h12_nobody_is_fenced_while_the_journal_is_away_for_all() {
    let mut struck = 0;
    for seed in 0..12 {
        let plan = Plan {
            rates: BTreeMap::new(),
            events: vec![Fault::JournalAway],
            between_events: Duration::from_secs(9),
            ..Plan::of(seed)
        };
        let ran = run(seed, &plan);
        assert_eq!(ran.troubles, [""; 0], "seed {seed}");
        assert_eq!(
            ran.membership,
            Some(plan.brokers.unsigned_abs()),
            "seed {seed}: each has come once, nobody has gone"
        );
        struck += ran.faults.get(&Fault::JournalAway).copied().unwrap_or(0);
    }
    assert!(struck > 30, "{struck} outages");
}
