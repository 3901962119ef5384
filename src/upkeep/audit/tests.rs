//! Audits of a log of flushes in a bucket in memory.
use super::*;
use crate::metadata::Started;
use crate::metadata::tests::{Site, topic};
use crate::records::{BatchBuilder, NewRecord};
use crate::segment::{ObjectHeader, ObjectWriter};
use crate::state::{BatchSpec, CommitRuns, DeleteRecords, Outcome, RunSpec, RunsWriter};
use crate::types::{Incarnation, Slot};

const SCOPE: Scope = Scope { topic: None, bytes_per_second: u64::MAX, orphan_age: Duration::from_secs(10) };

struct Rig {
    site: Site,
    broker: Started,
    names: Vec<ObjectName>,
}

/// Two partitions, with a record in each of three objects.
async fn rig() -> Rig {
    let site = Site::new(1);
    let broker = site.start(1).await;
    broker.replica.propose(topic("t", 1)).await.unwrap();
    let mut rig = Rig { site, broker, names: Vec::new() };
    for n in 0..3 {
        rig.flush(n).await;
    }
    rig
}

impl Rig {
    async fn flush(&mut self, ulid: u128) {
        let name = ObjectName::data(self.broker.replica.applied(), ulid);
        let header = ObjectHeader { name, incarnation: Incarnation(1), written_ms: TimestampMs(0) };
        let topic = self.broker.replica.state().topic_by_name("t").unwrap().id;
        let batch = BatchBuilder::new().with(&NewRecord { value: Some(b"value"), ..NewRecord::default() });
        let batch = batch.build().unwrap();
        let (mut writer, mut runs) = (ObjectWriter::new(&header), RunsWriter::default());
        for index in 0..2 {
            let position = writer.position();
            writer.push(batch.clone());
            writer.end_run(topic, PartitionIndex(index), position, 1);
            let batches = vec![BatchSpec { bytes: batch.len() as u32, records: 1, producer: None }];
            runs.push(&RunSpec { slot: Slot(index as u32), position, max_timestamp: TimestampMs(0), batches });
        }
        let (body, bytes) = writer.finish();
        self.site.bucket.create(&name.key(), body, Purpose::Ingest).await.unwrap();
        let outcome = self.broker.replica.propose(CommitRuns::new(name, bytes, None, runs)).await.unwrap();
        assert!(matches!(outcome, Outcome::Batches { .. }));
        self.names.push(name);
    }

    fn damage(&self, n: usize, how: impl FnOnce(&mut Vec<u8>)) {
        let key = self.names[n].key();
        let mut content = self.site.bucket.contents()[&key].to_vec();
        how(&mut content);
        self.site.bucket.overwrite(&key, content.into());
    }

    async fn audit(&self, scope: Scope) -> Report {
        audit(&self.site.bucket, &self.site.world, &self.broker.replica.state(), scope, |_| ()).await.unwrap()
    }

    /// The objects, by number, of which something is wrong.
    async fn wrong(&self, scope: Scope) -> Vec<u64> {
        let problems = self.audit(scope).await.problems;
        let ids = problems.iter().map(|problem| match problem {
            Problem::Object { id, .. } => id.0,
            Problem::Log { .. } => panic!("{problem}"),
        });
        ids.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_has_no_problems() {
    let rig = rig().await;
    let mut seen = Vec::new();
    let state = rig.broker.replica.state();
    let report = audit(&rig.site.bucket, &rig.site.world, &state, SCOPE, |r| seen.push((r.objects, r.objects_all)));
    let report = report.await.unwrap();
    assert_eq!((report.partitions, report.runs, report.objects, report.problems_all), (2, 6, 3, 0), "{report}");
    assert!(report.bytes > 3 * 64 && report.leftovers == 0);
    assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
    let listed = rig.audit(Scope { bytes_per_second: 0, ..SCOPE }).await;
    assert_eq!((listed.objects, listed.bytes, listed.problems_all), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_cut_or_damaged_is_found() {
    let rig = rig().await;
    let fast = Scope { bytes_per_second: 0, ..SCOPE };
    rig.damage(1, |content| {
        content.pop();
    });
    assert_eq!((rig.wrong(SCOPE).await, rig.wrong(fast).await), (vec![1], vec![1]));
    rig.site.bucket.delete(&rig.names[0].key(), Purpose::Control).await.unwrap();
    assert_eq!(rig.wrong(fast).await, [0, 1]);
    rig.damage(2, |content| content[120] ^= 1);
    assert_eq!((rig.wrong(SCOPE).await, rig.wrong(fast).await), (vec![0, 1, 2], vec![0, 1]));
    let of_topic = Scope { topic: rig.broker.replica.state().topic_by_name("t").map(|t| t.id), ..SCOPE };
    assert_eq!(rig.wrong(of_topic).await, [0, 1, 2]);
    let mut report = rig.audit(SCOPE).await;
    assert!(report.to_string().starts_with("PROBLEM data/"), "{report}");
    // What dies while it is looked at may be gone.
    for slot in 0..2 {
        rig.broker.replica.propose(DeleteRecords { slot, offset: 2 }).await.unwrap();
    }
    report.settle(&rig.broker.replica.state());
    assert_eq!((report.problems.len(), report.problems_all), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_no_entry_names_is_a_leftover_when_sweeps_have_missed_it() {
    let rig = rig().await;
    let written_ms = u128::from(rig.site.world.wall_ms().0.unsigned_abs());
    let orphan = ObjectName::data(rig.broker.replica.applied(), written_ms << 80 | 9);
    rig.site.bucket.create(&orphan.key(), vec![Bytes::from_static(b"x")], Purpose::Ingest).await.unwrap();
    assert_eq!(rig.audit(SCOPE).await.leftovers, 0);
    rig.site.world.sleep(Duration::from_secs(21)).await;
    let report = rig.audit(SCOPE).await;
    assert_eq!((report.leftovers, report.leftover_bytes, report.problems_all), (1, 1, 0));
}
