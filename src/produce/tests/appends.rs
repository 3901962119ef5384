//! The journal's share of a flush does not grow with the partitions that it touches.
use super::*;
use crate::state::CreateTopic;

/// As on a local directory.
const LOCAL: FlushRule = FlushRule { interval: Duration::ZERO, object_bytes: 8 << 20, puts_max: 8, puts_unfull_max: 1 };

/// Four connections send to every one of `partitions`, again and again, two requests in flight each. Gives the entries
/// that the journal took meanwhile, the flushes, and the journal's bytes a run.
async fn load(partitions: u32) -> (u64, usize, f64) {
    let mut site = Site::new(u64::from(partitions));
    (site.settings.partitions_max, site.settings.partitions_per_topic_max) = (20_000, 20_000);
    let rig = Rig::over(site, LOCAL, PutPolicy { deadline: DEADLINE, hedge: false }).await;
    let wide = CreateTopic { name: "wide".into(), partitions, ..crate::metadata::tests::topic("wide", 7) };
    rig.broker.replica.propose(wide).await.unwrap();
    let (state, one) = (rig.state(), rig.batch(0, "value", None));
    let topic = state.topic_by_name("wide").unwrap();
    // Only this broker appends, and it applies what it appends.
    let head = || rig.broker.replica.applied().position;
    let before = head();
    for _ in 0..3 {
        let mut results = Vec::new();
        for request in 0..8 {
            let batch = |(index, slot): (usize, &Slot)| PartBatch {
                slot: *slot,
                topic: topic.id,
                partition: PartitionIndex(index as i32),
                header: one.header,
                bytes: one.bytes.clone(),
                awaits: None,
                joins: false,
            };
            let batches: Vec<_> = topic.slots.iter().enumerate().map(batch).collect();
            let frame_bytes = batches.len() * one.bytes.len();
            let submission = Submission { connection: ConnectionId(request % 4), batches, permit: None, frame_bytes };
            results.push(rig.producer.submit(submission).await.unwrap());
        }
        for result in results {
            assert!(result.await.unwrap().iter().all(Result::is_ok));
        }
    }
    let (entries, state) = (head().0 - before.0, rig.state());
    let bytes = rig.site.journal_bytes_after(before).await;
    (entries, state.object_count(), bytes as f64 / state.run_count() as f64)
}

#[tokio::test(start_paused = true)]
async fn a_flush_takes_one_append_however_many_partitions_it_touches() {
    let (few, few_flushes, _) = load(16).await;
    let (many, many_flushes, bytes_a_run) = load(10_000).await;
    println!("entries and flushes: {few}, {few_flushes}; {many}, {many_flushes}; {bytes_a_run} bytes a run");
    assert!(few <= few_flushes as u64, "{few} entries, {few_flushes} flushes");
    assert!(many <= many_flushes as u64, "{many} entries, {many_flushes} flushes");
    assert_eq!(few * many_flushes as u64, many * few_flushes as u64, "as many for few partitions as for many");
    assert!(bytes_a_run <= 24.0, "{bytes_a_run}");
}
