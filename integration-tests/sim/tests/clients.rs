//! Clients of the simulation without faults: they do enough, all goes well at the end, and one seed is one history.
use std::collections::BTreeMap;
use strandline_history::{End, History, Operation, What};
use strandline_sim::clients::UNNAMED;
use strandline_sim::plan::Plan;
use strandline_sim::run::{Ran, run};

fn calm(seed: u64) -> Ran {
    run(seed, &Plan::calm(seed))
}

/// How often each kind of operation ended how, for people who look at a failure.
fn summary(history: &History) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for operation in &history.operations {
        let end = match &operation.end {
            End::Ok => "ok".to_owned(),
            End::Fail(why) => format!("fail {why}"),
            End::Info(why) => format!("info {why}"),
        };
        *counts.entry(format!("{} {end}", operation.what.name())).or_insert(0) += 1;
    }
    counts
}

fn is_broken(operation: &Operation) -> bool {
    match &operation.what {
        What::Poll { records, .. } => records.iter().any(|record| record.value.is_err()),
        What::Note(text) => text.starts_with("protocol"),
        _ => false,
    }
}

#[test]
fn without_faults_clients_do_much_and_all_is_well_at_the_end() {
    for seed in 0..5 {
        let ran = calm(seed);
        let history = &ran.history;
        println!("seed {seed}: {:#?}", summary(history));
        assert_eq!(ran.troubles, [""; 0], "seed {seed}");
        assert!(history.operations.len() >= 2_000, "seed {seed}: {} operations", history.operations.len());
        let broken = history.operations.iter().find(|operation| is_broken(operation));
        assert_eq!(broken, None, "seed {seed}");
        let healed = history.healed_us.unwrap();
        let late = |end: &End| matches!(end, End::Info(why) if why == UNNAMED);
        let mut final_reads = history.operations.iter().filter(|o| o.process >= 1_000_000 && o.start_us >= healed);
        let bad = final_reads.find(|o| o.end != End::Ok && !late(&o.end));
        assert_eq!(bad, None, "seed {seed}");
        assert!(history.operations.iter().any(|o| o.process >= 1_000_000), "seed {seed} was read back");
    }
}
