//! How much the checker takes: `cargo test --release -p strandline-history --test size -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement, whose failed step fails it")]
use strandline_history::{Commit, End, History, Log, Operation, Options, Seen, Value, What, check};

const OPERATIONS: u64 = 1_000_000;
const LOGS: u64 = 100;

/// Half are sends of two records, the others read them (twice each), commit and look offsets up.
fn history() -> History {
    let mut history = History { run: 1, healed_us: Some(OPERATIONS * 9), ..History::default() };
    let log = |number: u64| Log { topic: format!("topic-{}", number / 10), id: None, partition: (number % 10) as i32 };
    let value = |number: u64, counter: u64| {
        let Log { topic, partition, .. } = log(number);
        Value {
            run: 1,
            process: number as u32,
            counter,
            topic,
            partition,
            timestamp_ms: counter as i64,
            source: None,
            deletes: false,
        }
    };
    for id in 0..OPERATIONS {
        let (number, round, turn) = (id / 8 % LOGS, id / 8 / LOGS, id % 8);
        let (start_us, base) = (id * 10, (round * 8) as i64);
        let what = match turn {
            0..4 => {
                let first = round * 8 + turn * 2;
                let (log, offset) = (log(number), Some(first as i64));
                let values = vec![value(number, first), value(number, first + 1)];
                What::Send { log, values, once: true, acked: true, offset, transaction: None }
            }
            4 | 5 => {
                let seen = |offset: u64| {
                    let value = value(number, offset);
                    Seen {
                        offset: offset as i64,
                        timestamp_ms: value.timestamp_ms,
                        leader_epoch: None,
                        value: Ok(value),
                    }
                };
                What::Poll {
                    log: log(number),
                    position_of: turn,
                    from: base,
                    next: base + 8,
                    records: (round * 8..round * 8 + 8).map(seen).collect(),
                    high_watermark: base + 8,
                    last_stable_offset: base + 8,
                    log_start_offset: 0,
                    read_committed: false,
                }
            }
            6 => {
                let offsets = vec![Commit { log: log(number), offset: Some(base), metadata: None }];
                What::Commit { group: format!("g{number}"), member: String::new(), generation: -1, offsets }
            }
            _ => What::ListOffsets { log: log(number), timestamp: base, offset: base, found_timestamp: base },
        };
        let (process, end_us) = (number as u32, Some(start_us + 5));
        history.operations.push(Operation { id, process, start_us, end_us, broker: Some(1), end: End::Ok, what });
    }
    history
}

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "for measuring: 10^6 operations"]
fn a_million_operations() {
    let history = history();
    let before = memory_mib();
    let begun = std::time::Instant::now();
    let report = check(&history, &Options::default());
    let took = begun.elapsed();
    println!("{report}\nhistory {before} MiB, with the checker {} MiB, {took:?}", memory_mib());
    assert!(report.is_clean() && memory_mib() < 2048);
}
