//! Random histories with keys, tombstones and transactions, cleaned many times over, some passes cut short; beside them a model
//! that never forgets anything.
use proptest::prelude::*;

use super::*;
use crate::records::{BatchBuilder, Codec, EndMarker, Level, NewRecord, empty_batch, walk};
use crate::types::{LeaderEpoch, ProducerEpoch, Sequence};

/// How long tombstones stay, in ms.
const RETENTION_MS: i64 = 100;

type Table = BTreeMap<u8, u64>;

#[derive(Clone, Debug)]
enum Step {
    /// A batch of records, each a key and whether it has a value; of a transaction of this producer, or of none.
    Write {
        producer: Option<i64>,
        records: Vec<(u8, bool)>,
        codec: Codec,
    },
    End {
        producer: i64,
        commit: bool,
    },
    Wait(i64),
    /// Room for so many keys; after so many batches it is cut short, if there are more.
    Clean {
        keys: u64,
        cut: Option<usize>,
    },
    /// A reader reads so many batches.
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let codec = prop_oneof![3 => Just(Codec::None), 1 => Just(Codec::Zstd)];
    let records = proptest::collection::vec((0..6_u8, prop::bool::weighted(0.7)), 1..5);
    let write = (proptest::option::of(0..3_i64), records, codec).prop_map(|(producer, records, codec)| Step::Write {
        producer,
        records,
        codec,
    });
    let end = (0..3_i64, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit });
    let clean =
        (3..30_u64, proptest::option::weighted(0.3, 0..12_usize)).prop_map(|(keys, cut)| Step::Clean { keys, cut });
    let step = prop_oneof![
        6 => write,
        4 => end,
        2 => (1..80_i64).prop_map(Step::Wait),
        3 => clean,
        3 => (0..4_usize).prop_map(Step::Read),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What was written at an offset.
#[derive(Clone, Copy, Debug)]
struct Written {
    producer: Option<i64>,
    key: u8,
    value: Option<u64>,
    time: i64,
}

/// A reader of committed records that began some time ago.
struct Reader {
    since: i64,
    at: i64,
    table: Table,
}

#[derive(Default)]
struct Log {
    now: i64,
    end: i64,
    /// What is stored: batches that say their offsets.
    batches: Vec<Bytes>,
    /// All that ever was written, by offset.
    written: BTreeMap<i64, Written>,
    /// Open transactions by producer: first offsets.
    open: BTreeMap<i64, i64>,
    /// All that ended: producer, first offset, marker, result.
    ended: Vec<(i64, i64, i64, bool)>,
    /// Aborted ones that State lists.
    listed: Vec<(i64, i64, i64)>,
    cleaned: i64,
    /// When an offset was cleaned first.
    first_cleaned: BTreeMap<i64, i64>,
    values: u64,
}

fn header(batch: &Bytes) -> BatchHeader {
    BatchHeader::parse(batch).unwrap()
}

impl Log {
    fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    fn write(&mut self, producer: Option<i64>, records: &[(u8, bool)], codec: Codec) {
        let mut builder = BatchBuilder::new().base_offset(Offset(self.end)).leader_epoch(LeaderEpoch(3));
        builder = builder.codec(codec, Level::Default);
        if let Some(producer) = producer {
            self.open.entry(producer).or_insert(self.end);
            builder = builder.producer(ProducerId(producer), ProducerEpoch(1), Sequence(0)).transactional();
        }
        for (key, has_value) in records {
            self.values += 1;
            let (value, time) = (has_value.then_some(self.values), self.now + i64::from(*key));
            let bytes = value.map(u64::to_be_bytes);
            let value_bytes = bytes.as_ref().map(|b| &b[..]);
            builder.push(&NewRecord {
                timestamp: TimestampMs(time),
                key: Some(&[*key]),
                value: value_bytes,
                headers: &[],
            });
            self.written.insert(self.end, Written { producer, key: *key, value, time });
            self.end += 1;
        }
        self.batches.push(builder.build().unwrap());
    }

    fn end(&mut self, producer: i64, commit: bool) {
        let Some(first) = self.open.remove(&producer) else { return };
        let marker = EndMarker {
            offset: Offset(self.end),
            leader_epoch: LeaderEpoch(3),
            producer: ProducerId(producer),
            epoch: ProducerEpoch(1),
            committed: commit,
            ended: TimestampMs(self.now),
        };
        self.batches.push(marker.batch());
        self.ended.push((producer, first, self.end, commit));
        if !commit {
            self.listed.push((producer, first, self.end));
        }
        self.end += 1;
    }

    fn clean(&mut self, keys: u64, cut: Option<usize>) {
        let aborted = self.listed.iter().map(|&(p, first, marker)| (ProducerId(p), Offset(first), Offset(marker)));
        let keys = Keys::new(Keys::bytes(keys, 1 << 20), 5);
        let mut survey = Survey::new(keys, aborted.collect(), Offset(self.cleaned));
        let stable = self.stable();
        let cleanable: Vec<Bytes> =
            self.batches.iter().filter(|b| header(b).last_offset().0 < stable).cloned().collect();
        for batch in &cleanable {
            if !survey.add(&header(batch), batch).unwrap() {
                break;
            }
        }
        let until = survey.until().0;
        if until <= self.cleaned {
            return;
        }
        let mut sieve = survey.into_sieve(TimestampMs(self.now), RETENTION_MS);
        let (count, mut kept) = (cleanable.len(), Vec::new());
        let cut = cut.filter(|cut| *cut < count);
        let mut last_dropped = None;
        for batch in &cleanable[..cut.unwrap_or(count)] {
            last_dropped = None;
            match sieve.judge(&header(batch), batch).unwrap() {
                Verdict::Keep => kept.push(batch.clone()),
                Verdict::Replace(other) => kept.push(other),
                Verdict::Drop => last_dropped = Some(empty_batch(&header(batch))),
            }
        }
        kept.extend(last_dropped);
        self.batches.splice(..cut.unwrap_or(count), kept);
        let reached = cut.map_or(until, |cut| until.min(header(&cleanable[cut]).base_offset.0));
        for offset in 0..reached {
            self.first_cleaned.entry(offset).or_insert(self.now);
        }
        if cut.is_none() {
            self.cleaned = until;
            self.listed.retain(|(_, _, marker)| *marker >= until);
        }
    }

    /// Whether a record that was written is visible to readers of committed records, and stays so.
    fn is_committed(&self, offset: i64, written: &Written) -> bool {
        let Some(producer) = written.producer else { return true };
        self.ended
            .iter()
            .any(|&(p, first, marker, commit)| p == producer && commit && (first..marker).contains(&offset))
    }

    /// What readers of committed records come to in the end.
    fn table(&self) -> Table {
        let mut table = Table::new();
        for (_, written) in self.written.range(..self.stable()).filter(|(o, w)| self.is_committed(**o, w)) {
            match written.value {
                Some(value) => table.insert(written.key, value),
                None => table.remove(&written.key),
            };
        }
        table
    }

    /// What one fetch of `count` batches from an offset does to a table, as clients do it; and where they go on.
    fn fetch(&self, at: i64, count: usize, table: &mut Table) -> i64 {
        let stable = self.stable();
        let wanted =
            self.batches.iter().filter(|b| header(b).last_offset().0 >= at && header(b).base_offset.0 < stable);
        let wanted: Vec<&Bytes> = wanted.take(count).collect();
        let Some(last) = wanted.last() else { return at };
        let end = header(last).last_offset().0 + 1;
        let mut listed: Vec<_> =
            self.listed.iter().filter(|(_, first, marker)| *marker >= at && *first < end).collect();
        listed.sort_by_key(|(_, first, _)| *first);
        let mut aborted = BTreeSet::new();
        for batch in wanted {
            let header = header(batch);
            while let Some((producer, ..)) = listed.first().filter(|(_, first, _)| *first <= header.last_offset().0) {
                aborted.insert(*producer);
                listed.remove(0);
            }
            if header.is_control() {
                aborted.remove(&header.producer_id.0);
                continue;
            }
            if header.is_transactional() && aborted.contains(&header.producer_id.0) {
                continue;
            }
            walk(batch, 1 << 20, |record| {
                if header.base_offset.0 + i64::from(record.offset_delta) < at {
                    return;
                }
                let key = record.key.unwrap()[0];
                match record.value {
                    Some(value) => table.insert(key, u64::from_be_bytes(value.try_into().unwrap())),
                    None => table.remove(&key),
                };
            })
            .unwrap();
        }
        end
    }

    fn check(&self) {
        let (mut next, mut stored) = (0, BTreeSet::new());
        for batch in &self.batches {
            let header = header(batch);
            assert!(header.base_offset.0 >= next, "batches follow each other");
            assert_eq!(crate::records::crc_of_pieces([&batch[..]]), header.crc);
            next = header.last_offset().0 + 1;
            if header.is_control() {
                continue;
            }
            walk(batch, 1 << 20, |record| {
                let offset = header.base_offset.0 + i64::from(record.offset_delta);
                let written = self.written[&offset];
                let value = record.value.map(|v| u64::from_be_bytes(v.try_into().unwrap()));
                let time = header.base_timestamp.0 + record.timestamp_delta;
                assert_eq!((record.key, value, time), (Some(&[written.key][..]), written.value, written.time));
                assert!(header.max_timestamp.0 >= time);
                assert!(stored.insert(offset), "twice");
            })
            .unwrap();
        }
        assert_eq!(next, self.end, "the log ends where it did");
        let mut last = BTreeMap::new();
        for (offset, written) in self.written.range(..self.stable()).filter(|(o, w)| self.is_committed(**o, w)) {
            last.insert(written.key, *offset);
        }
        for offset in last.values() {
            let is_over = || self.first_cleaned.get(offset).is_some_and(|at| at + RETENTION_MS <= self.now);
            let may_go = self.written[offset].value.is_none() && is_over();
            assert!(stored.contains(offset) || may_go, "the last record of a key is gone: {offset}");
        }
        for (offset, written) in self.written.range(..self.cleaned) {
            assert!(
                self.is_committed(*offset, written) || !stored.contains(offset),
                "an aborted record is left: {offset}"
            );
        }
        let mut table = Table::new();
        self.fetch(0, usize::MAX, &mut table);
        assert_eq!(table, self.table(), "a reader from the beginning");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn readers_come_to_the_table_that_nothing_was_taken_from(steps in steps()) {
        let mut log = Log::default();
        let mut reader = Reader { since: 0, at: 0, table: Table::new() };
        for step in steps {
            match step {
                Step::Write { producer, records, codec } => log.write(producer, &records, codec),
                Step::End { producer, commit } => log.end(producer, commit),
                Step::Wait(ms) => log.now += ms,
                Step::Clean { keys, cut } => {
                    log.clean(keys, cut);
                    log.check();
                }
                Step::Read(count) => {
                    // One that takes longer than tombstones stay may miss some.
                    if log.now - reader.since >= RETENTION_MS || reader.at >= log.stable() {
                        reader = Reader { since: log.now, at: 0, table: Table::new() };
                    }
                    reader.at = log.fetch(reader.at, count, &mut reader.table);
                    if reader.at >= log.stable() {
                        prop_assert_eq!(&reader.table, &log.table(), "a reader that has read meanwhile");
                    }
                }
            }
        }
        // In the end all is cleaned, and of each key that has a value one record is left, no tombstone and no transaction.
        for producer in 0..3 {
            log.end(producer, producer == 1);
        }
        for _ in 0..4 {
            log.write(None, &[(9, true)], Codec::None);
            while log.cleaned < log.end {
                let before = log.cleaned;
                log.clean(10, None);
                log.check();
                prop_assert!(log.cleaned > before);
            }
            log.now += RETENTION_MS;
        }
        let left: u32 = log.batches.iter().map(header).filter(|h| !h.is_control()).map(|h| h.records()).sum();
        prop_assert_eq!(left as usize, log.table().len());
    }
}

#[test]
fn a_tombstone_is_dated_once_and_goes_after_its_time() {
    let mut log = Log { now: 1000, ..Log::default() };
    log.write(None, &[(1, true), (2, true)], Codec::None);
    log.write(None, &[(1, false)], Codec::None);
    log.clean(10, None);
    let horizon = |log: &Log| header(&log.batches[1]).delete_horizon();
    assert_eq!((log.batches.len(), horizon(&log)), (2, Some(TimestampMs(1000 + RETENTION_MS))));
    log.now += RETENTION_MS - 1;
    log.write(None, &[(3, true)], Codec::None);
    log.clean(10, None);
    assert_eq!((log.batches.len(), horizon(&log)), (3, Some(TimestampMs(1000 + RETENTION_MS))));
    log.now += 1;
    log.write(None, &[(4, true)], Codec::None);
    log.clean(10, None);
    assert_eq!(log.batches.iter().map(|b| header(b).base_offset.0).collect::<Vec<_>>(), [0, 3, 4]);
    log.check();
}

#[test]
fn the_end_of_an_aborted_transaction_stays_while_it_is_listed() {
    let mut log = Log::default();
    log.write(Some(1), &[(1, true)], Codec::None);
    log.end(1, false);
    log.write(None, &[(2, true)], Codec::None);
    log.write(Some(1), &[(3, true)], Codec::None);
    log.end(1, true);
    for _ in 0..5 {
        // The records are gone, but no pass has come to its end.
        log.clean(10, Some(3));
        log.now += RETENTION_MS;
        log.check();
    }
    assert!(header(&log.batches[0]).is_control());
    assert_eq!(header(&log.batches[0]).delete_horizon(), None);
    for _ in 0..3 {
        log.write(None, &[(4, true)], Codec::None);
        log.clean(10, None);
        log.now += RETENTION_MS;
        log.check();
    }
    assert!(!log.batches.iter().any(|batch| header(batch).is_control() && header(batch).base_offset.0 == 1));
}
