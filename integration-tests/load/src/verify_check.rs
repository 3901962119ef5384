//! `verify-check`: reads everything and holds it against the acknowledgements that `verify-load` noted.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::Target;
use crate::admin::{self, EARLIEST, LATEST};
use crate::batch::next_batch;
use crate::fetch::{Appetite, Fetcher, Place};
use crate::identity::Identity;

/// How many violations are told; the rest are counted.
const TOLD_MAX: usize = 20;

#[derive(Args)]
pub struct VerifyCheck {
    #[command(flatten)]
    target: Target,
    /// The files that `verify-load` wrote.
    #[arg(long, required = true, num_args = 1..)]
    acks: Vec<PathBuf>,
    /// How long to wait for the broker to answer.
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
}

/// One producer's records in one partition.
type Stream = (u64, u32, Place);

/// An acknowledged batch: its first counter, records, and base offset (-1: only known to be there).
#[derive(Clone, Copy)]
struct Ack {
    first: u64,
    records: u64,
    offset: i64,
}

#[derive(Default)]
struct Expected {
    acks: Vec<Ack>,
    /// The acknowledgement that is being looked for.
    at: usize,
    /// The counter that must come next.
    next: u64,
}

#[derive(Default)]
pub struct Checker {
    streams: BTreeMap<Stream, Expected>,
    /// Where each partition was read up to.
    positions: BTreeMap<Place, i64>,
    records: u64,
    acked: u64,
    violations: Vec<String>,
    violations_count: u64,
}

pub async fn run(args: VerifyCheck) -> Result<Value> {
    let mut checker = Checker::default();
    for file in &args.acks {
        let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        checker.load(&text).with_context(|| format!("{}", file.display()))?;
    }
    let deadline = Instant::now() + Duration::from_secs_f64(args.patience);
    while let Err(error) = read_all(&args, &mut checker).await {
        ensure!(Instant::now() < deadline, "could not read everything: {error:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(checker.finish())
}

/// Reads every partition to its end of now, from where the checker stands.
async fn read_all(args: &VerifyCheck, checker: &mut Checker) -> Result<()> {
    let target = &args.target;
    let mut wire = target.connect(0).await?;
    let (mut positions, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for topic in target.names() {
        let starts = admin::list_offsets(&mut wire, &topic, target.partitions, EARLIEST).await?;
        for (partition, end) in admin::list_offsets(&mut wire, &topic, target.partitions, LATEST).await? {
            let place = (topic.clone(), partition);
            let start = starts.get(&partition).copied().unwrap_or(0);
            let position = *checker.positions.entry(place.clone()).or_insert(start);
            if position < end {
                positions.insert(place.clone(), position);
                ends.insert(place, end);
            }
        }
    }
    let appetite = Appetite { max_wait_ms: 500, min_bytes: 1, max_bytes: 16 << 20, partition_bytes: 1 << 20 };
    let mut fetcher = Fetcher::new(wire, appetite, positions, false);
    let mut progress = Instant::now();
    while !ends.is_empty() {
        ensure!(progress.elapsed().as_secs_f64() < args.patience, "nothing more comes of {:?}", ends.keys());
        for portion in fetcher.fetch().await? {
            admin::check(&format!("fetch {:?}", portion.place), portion.error)?;
            let next = checker.take(&portion.place, &portion.records)?;
            if !portion.records.is_empty() {
                progress = Instant::now();
            }
            fetcher.advance(&portion.place, next);
            if ends.get(&portion.place).is_some_and(|end| next >= *end) {
                ends.remove(&portion.place);
                fetcher.forget(&portion.place);
            }
        }
    }
    Ok(())
}

impl Checker {
    /// Takes in the text of one file of acknowledgements.
    fn load(&mut self, text: &str) -> Result<()> {
        let mut lines = text.lines();
        let run = lines.next().and_then(|line| line.strip_prefix("run ")).context("no line `run N` at the top")?;
        let run: u64 = run.parse()?;
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let [producer, topic, partition, first, records, offset] = words[..] else {
                // The last line may be cut off when the writer was killed.
                continue;
            };
            let stream = (run, producer.parse()?, (topic.to_owned(), partition.parse()?));
            let ack = Ack { first: first.parse()?, records: records.parse()?, offset: offset.parse()? };
            self.acked += ack.records;
            self.streams.entry(stream).or_default().acks.push(ack);
        }
        for expected in self.streams.values_mut() {
            expected.acks.sort_by_key(|ack| ack.first);
        }
        Ok(())
    }

    /// Checks record bytes of a partition, and gives the offset to read next.
    fn take(&mut self, place: &Place, mut records: &[u8]) -> Result<i64> {
        let mut position = self.positions.get(place).copied().unwrap_or(0);
        while let Some(batch) = next_batch(&mut records)? {
            if batch.last_offset < position {
                continue;
            }
            if batch.base_offset != position {
                self.violation(format!("{place:?}: offset {position} is followed by {}", batch.base_offset));
            }
            let count = batch.last_offset - batch.base_offset + 1;
            if count != i64::from(batch.records) {
                self.violation(format!("{place:?}: {} records over {count} offsets", batch.records));
            }
            match batch.values() {
                _ if batch.control => {}
                Ok(values) => {
                    for (offset, value) in (batch.base_offset..).zip(values) {
                        self.record(place, offset, value);
                    }
                }
                Err(error) => self.violation(format!("{place:?}: {error:#}")),
            }
            position = batch.last_offset + 1;
            self.positions.insert(place.clone(), position);
        }
        Ok(position)
    }

    fn record(&mut self, place: &Place, offset: i64, value: &[u8]) {
        self.records += 1;
        let identity = match Identity::decode(value) {
            Ok(identity) => identity,
            Err(error) => return self.violation(format!("{place:?} offset {offset}: {error:#}")),
        };
        let written_to = (identity.topic, identity.partition);
        if written_to != *place {
            return self.violation(format!("{place:?} offset {offset}: was written to {written_to:?}"));
        }
        let expected = self.streams.entry((identity.run, identity.producer, written_to)).or_default();
        let who = || format!("{place:?} offset {offset}: producer {} of run {}", identity.producer, identity.run);
        let counter = identity.counter;
        if counter != expected.next {
            let kind = if counter < expected.next { "again or out of order" } else { "with a gap before it" };
            let told = format!("{}: record {counter} {kind}, {} was due", who(), expected.next);
            expected.next = expected.next.max(counter + 1);
            return self.violation(told);
        }
        expected.next = counter + 1;
        while expected.acks.get(expected.at).is_some_and(|ack| ack.first + ack.records <= counter) {
            expected.at += 1;
        }
        if let Some(ack) = expected.acks.get(expected.at).filter(|ack| ack.first <= counter && ack.offset >= 0) {
            let promised = ack.offset.saturating_add_unsigned(counter - ack.first);
            if promised != offset {
                let told = format!("{}: record {counter} was acknowledged at offset {promised}", who());
                self.violation(told);
            }
        }
    }

    /// Everything was read: what was acknowledged and is not there is lost.
    fn finish(mut self) -> Value {
        let mut lost = Vec::new();
        for ((run, producer, place), expected) in &self.streams {
            let promised = expected.acks.iter().map(|ack| ack.first + ack.records).max().unwrap_or(0);
            if promised > expected.next {
                let (from, to) = (expected.next, promised - 1);
                lost.push(format!(
                    "{place:?}: producer {producer} of run {run}: acknowledged records up to {to} lost from {from}"
                ));
            }
        }
        for told in lost {
            self.violation(told);
        }
        json!({
            "partitions": self.positions.len(), "records": self.records, "acked_records": self.acked,
            "violations_count": self.violations_count, "violations": self.violations,
        })
    }

    fn violation(&mut self, told: String) {
        self.violations_count += 1;
        if self.violations.len() < TOLD_MAX {
            self.violations.push(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Producer, build};

    /// A batch: its base offset, and a producer's counters.
    type Written = (i64, u32, &'static [u64]);

    /// A log of one partition.
    fn log(batches: &[Written]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, producer, counters) in batches {
            let identity = |counter| Identity { run: 1, producer: *producer, topic: "t".into(), partition: 0, counter };
            let values: Vec<_> = counters.iter().map(|counter| identity(*counter).encode(50)).collect();
            let mut batch = build(&values, 0, Some(Producer { id: 1, epoch: 0 }), 0);
            batch[..8].copy_from_slice(&offset.to_be_bytes());
            bytes.extend(batch);
        }
        bytes
    }

    fn violations(acks: &str, log: &[u8]) -> String {
        let mut checker = Checker::default();
        checker.load(acks).unwrap();
        checker.take(&("t".to_owned(), 0), log).unwrap();
        checker.finish()["violations"].to_string()
    }

    const ACKS: &str = "run 1\n0 t 0 0 2 0\n1 t 0 0 1 2\n0 t 0 2 1 3\n0 t";

    #[test]
    fn a_log_that_keeps_its_promises_passes() {
        let kept = log(&[(0, 0, &[0, 1]), (2, 1, &[0]), (3, 0, &[2]), (4, 1, &[1])]);
        assert_eq!(violations(ACKS, &kept), "[]", "a record that was never acknowledged may be there");
    }

    #[test]
    fn each_kind_of_damage_is_told() {
        let cases: [(&str, &[Written]); 6] = [
            ("lost from 2", &[(0, 0, &[0, 1]), (2, 1, &[0])]),
            ("lost from 0", &[(0, 0, &[0, 1]), (2, 0, &[2])]),
            ("again or out of order", &[(0, 0, &[0, 1]), (2, 1, &[0]), (3, 0, &[2]), (4, 0, &[2])]),
            ("with a gap before it", &[(0, 0, &[0, 1]), (2, 1, &[0]), (3, 0, &[3])]),
            ("is followed by 3", &[(0, 0, &[0, 1]), (3, 1, &[0])]),
            ("acknowledged at offset 3", &[(0, 0, &[0, 1]), (2, 0, &[2]), (3, 1, &[0])]),
        ];
        for (told, batches) in cases {
            let found = violations(ACKS, &log(batches));
            assert!(found.contains(told), "{told} is not in {found}");
        }
    }

    #[test]
    fn a_damaged_byte_is_told() {
        let mut damaged = log(&[(0, 0, &[0, 1])]);
        let last = damaged.len() - 10;
        damaged[last] ^= 4;
        assert!(violations("run 1", &damaged).contains("CRC"));
    }
}
