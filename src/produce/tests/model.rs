//! Random clients against random PUTs and a random journal: whatever was acknowledged is in the log once, at its
//! offset; whatever failed is not; and what one client sent to one partition is in the order in which it sent it.
use super::*;
use crate::metadata::tests::seeds;
use std::collections::{BTreeMap, VecDeque};

const IN_FLIGHT: usize = 5;
const RECORDS: usize = 30;

/// What a client saw: the offset of each value, per partition in the order of sending; `None` for what failed.
type Seen = [Vec<(String, Option<i64>)>; 2];

#[derive(Clone)]
struct Client {
    world: World,
    producer: Producer,
    id: u64,
    topic: TopicId,
    slots: [Slot; 2],
}

impl Client {
    fn batch(&self, partition: usize, value: &str, producer: Option<(ProducerId, Sequence)>) -> PartBatch {
        let mut builder = BatchBuilder::new();
        if let Some((id, first)) = producer {
            builder = builder.producer(id, ProducerEpoch(0), first);
        }
        let record = NewRecord { timestamp: TimestampMs(7), value: Some(value.as_bytes()), ..Default::default() };
        let bytes = builder.with(&record).build().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let (slot, partition) = (self.slots[partition], PartitionIndex(partition as i32));
        PartBatch {
            slot,
            topic: self.topic,
            partition,
            header,
            bytes: BatchBytes::whole(bytes),
            awaits: None,
            joins: false,
        }
    }

    async fn submit(&self, connection: u64, batches: Vec<PartBatch>) -> Results {
        let submission = Submission { connection: ConnectionId(connection), batches, permit: None, frame_bytes: 500 };
        let results = self.producer.submit(submission).await.unwrap();
        // Mostly back to back, sometimes with a pause that lets a flush leave in between.
        if self.world.random_below(3) == 0 {
            self.world.sleep(Duration::from_millis(self.world.random_below(400))).await;
        }
        results
    }

    /// Which partitions the next request goes to.
    fn parts(&self) -> Vec<usize> {
        [&[0][..], &[1], &[0, 1], &[1, 0]][self.world.random_below(4) as usize].to_vec()
    }

    /// Sends each value once, however the ones before fare.
    async fn plain(self) -> Seen {
        let (mut seen, mut waiting) = (Seen::default(), VecDeque::new());
        // When each value was sent, and when its answer came; and whether the request held nothing else, so that its
        // answer did not wait for another batch's.
        let mut times = [Vec::new(), Vec::new()];
        for n in 0..RECORDS {
            let parts = self.parts();
            let value = |p: usize| format!("plain {} {p} {n}", self.id);
            let mut places = Vec::new();
            for &p in &parts {
                places.push((p, seen[p].len()));
                seen[p].push((value(p), None));
                times[p].push((self.world.now(), self.world.now(), parts.len() == 1));
            }
            let batches = parts.iter().map(|p| self.batch(*p, &value(*p), None)).collect();
            let (results, world) = (self.submit(self.id, batches).await, self.world.clone());
            let answer = self.world.spawn("answer", async move { (results.await.unwrap(), world.now()) });
            waiting.push_back((places, answer));
            while waiting.len() >= IN_FLIGHT || (n == RECORDS - 1 && !waiting.is_empty()) {
                let (places, answer) = waiting.pop_front().unwrap();
                let (results, at) = answer.await.unwrap();
                for ((p, index), result) in places.into_iter().zip(results) {
                    seen[p][index].1 = result.ok().map(|placed| placed.base_offset.0);
                    times[p][index].1 = at;
                }
            }
        }
        for (seen, times) in seen.iter().zip(&times) {
            for (i, _) in seen.iter().enumerate().filter(|(i, (_, offset))| offset.is_none() && times[*i].2) {
                // H7: what was behind it when it failed failed too.
                let behind = (i + 1..seen.len()).take_while(|j| times[*j].0 < times[i].1);
                behind.for_each(|j| assert!(seen[j].1.is_none(), "{:?} is there without {:?}", seen[j], seen[i]));
            }
        }
        seen
    }

    /// Sends each value until it is acknowledged, five requests in flight, as idempotent producers do; hangs up at
    /// times and goes on over another connection.
    async fn idempotent(self, first: i32) -> Seen {
        let (mut acked, mut next) = ([BTreeMap::new(), BTreeMap::new()], [0, 0]);
        let missing = |acked: &BTreeMap<usize, i64>, from: usize| (from..).find(|n| !acked.contains_key(n)).unwrap();
        let mut waiting: VecDeque<(Vec<(usize, usize)>, Results)> = VecDeque::new();
        let (mut connection, mut behind_failure) = (self.id, false);
        let id = ProducerId(self.id as i64);
        let value = |p: usize, n: usize| format!("idempotent {} {p} {n}", self.id);
        while acked.iter().any(|acked| acked.len() < RECORDS) {
            let parts: Vec<usize> = self.parts().into_iter().filter(|p| next[*p] < RECORDS).collect();
            if !behind_failure && waiting.len() < IN_FLIGHT && !parts.is_empty() {
                let places: Vec<(usize, usize)> = parts.iter().map(|p| (*p, next[*p])).collect();
                parts.iter().for_each(|p| next[*p] = missing(&acked[*p], next[*p] + 1));
                let batch = |(p, n): &(usize, usize)| {
                    let sequence = ((i64::from(first) + *n as i64) % (1 << 31)) as i32;
                    self.batch(*p, &value(*p, *n), Some((id, Sequence(sequence))))
                };
                let batches = places.iter().map(batch).collect();
                waiting.push_back((places, self.submit(connection, batches).await));
                if self.world.random_below(40) == 0 {
                    // Hang up: nobody hears those answers.
                    waiting.clear();
                    connection += 1000;
                    next = acked.each_ref().map(|acked| missing(acked, 0));
                }
                continue;
            }
            if let Some((places, results)) = waiting.pop_front() {
                for ((p, n), result) in places.into_iter().zip(results.await.unwrap()) {
                    match result {
                        Ok(placed) => {
                            // After a hang-up an attempt over the old connection may be what went before this.
                            assert!(n == acked[p].len() || connection != self.id, "acknowledged in order");
                            let before = acked[p].insert(n, placed.base_offset.0);
                            assert!(before.is_none_or(|offset| offset == placed.base_offset.0 || offset == -1));
                        }
                        // It is there, and its offset is not known any more.
                        Err(error) if error.error == KafkaError::DuplicateSequenceNumber => {
                            acked[p].entry(n).or_insert(-1);
                        }
                        Err(error) => {
                            use KafkaError::{NotLeaderOrFollower, OutOfOrderSequenceNumber, RequestTimedOut};
                            let retriable = [RequestTimedOut, OutOfOrderSequenceNumber, NotLeaderOrFollower];
                            assert!(retriable.contains(&error.error), "{error:?}");
                            behind_failure = true;
                        }
                    }
                }
            }
            if waiting.is_empty() {
                behind_failure = false;
                next = acked.each_ref().map(|acked| missing(acked, 0));
            }
        }
        let seen = |p: usize| acked[p].iter().map(|(n, offset)| (value(p, *n), Some(*offset))).collect();
        [seen(0), seen(1)]
    }
}

async fn run(seed: u64) -> (Vec<String>, usize) {
    let flush = FlushRule {
        interval: Duration::from_millis(if seed.is_multiple_of(3) { 0 } else { 100 }),
        object_bytes: 2_000,
        puts_max: 1 + (seed % 8) as usize,
        puts_unfull_max: 2,
    };
    let put = PutPolicy { deadline: Duration::from_secs(5), hedge: seed.is_multiple_of(2) };
    let rig = Rig::with(seed, flush, put).await;
    let begun_ms = rig.world.wall_ms().0;
    rig.bucket.by_chance(true);
    rig.journal.by_chance(seed % 4 > 1);
    if seed % 4 == 3 {
        rig.journal.script([crate::metadata::tests::troubled::End::NotDone; 25]);
    }
    let state = rig.state();
    let topic = state.topic_by_name("t").unwrap();
    let mut clients = Vec::new();
    for id in 1..=6_u64 {
        let (world, producer) = (rig.world.clone(), rig.producer.clone());
        let client = Client { world, producer, id, topic: topic.id, slots: [topic.slots[0], topic.slots[1]] };
        let first = [0, 77, i32::MAX - 10][(seed % 3) as usize];
        clients.push(match id {
            1..=2 => rig.world.spawn("client", client.plain()),
            _ => rig.world.spawn("client", client.idempotent(first)),
        });
    }
    let mut failed = 0;
    let mut logs = [Vec::new(), Vec::new()];
    let mut all = Vec::new();
    for client in clients {
        all.push(client.await.unwrap_or_else(|e| panic!("seed {seed}: {e}")));
    }
    for (p, log) in logs.iter_mut().enumerate() {
        *log = rig.log(p as i32).await;
        let mut expected: Vec<(i64, String)> = Vec::new();
        for seen in &all {
            let at = |value: &String| log.iter().position(|v| v == value).map(|at| at as i64);
            let known = |(value, offset): &(String, Option<i64>)| if *offset == Some(-1) { at(value) } else { *offset };
            let offsets: Vec<i64> = seen[p].iter().filter_map(known).collect();
            assert!(offsets.is_sorted(), "seed {seed}: the order of sending is lost: {:?}", seen[p]);
            failed += seen[p].len() - offsets.len();
            expected.extend(seen[p].iter().filter_map(|one| Some((known(one)?, one.0.clone()))));
        }
        expected.sort_unstable();
        let found: Vec<(i64, String)> = (0..).zip(log.iter().cloned()).collect();
        assert_eq!(found, expected, "seed {seed}: the log is what was acknowledged, each once, at its offset");
    }
    // Long before State would forget a producer.
    assert!(rig.world.wall_ms().0 - begun_ms < 12 * 3_600_000, "seed {seed}: a client got stuck");
    (logs.concat(), failed)
}

/// Each seed has a runtime of its own, so that nothing of one run is left when the next begins.
fn run_alone(seed: u64) -> (Vec<String>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(seed))
}

#[test]
fn the_log_is_what_was_acknowledged() {
    let failed: usize = seeds(60).map(|seed| run_alone(seed).1).sum();
    assert!(failed > 0, "some values fail");
}

#[test]
fn one_seed_gives_one_log() {
    assert_eq!(run_alone(7).0, run_alone(7).0);
    assert_ne!(run_alone(7).0, run_alone(8).0);
}
