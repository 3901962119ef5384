//! A journal that lost its tail (H2): the mark that stops every broker, and the operator's ways to go on (H11).
use super::*;
use crate::records::{BatchBuilder, NewRecord};
use crate::segment::{ObjectHeader, ObjectName, ObjectWriter};
use crate::state::{BatchSpec, CommitCompaction, CompactedRun, CompactedShare, Outcome, RunSpec, RunsWriter};
use crate::store::Purpose;
use crate::types::{Head, ObjectId, Offset, PartitionIndex, Token};

const INTERVAL: Duration = Duration::from_secs(30);

impl Site {
    async fn start_with_witnesses(&self, broker: i32) -> Started {
        start(Parts { witness_interval: Some(INTERVAL), ..self.parts(broker) }).await.unwrap()
    }

    /// Takes the last `count` entries from the journal, as a fail-over to a replica that lagged does.
    async fn lose(&mut self, count: usize) {
        let entries = self.journal.read(Position(1)).await.unwrap();
        let kept = entries.len() - count;
        self.journal = MemoryJournal::new();
        for stored in entries.into_iter().take(kept) {
            let head = self.journal.head().await.unwrap();
            self.journal.append(stored.proposal, head).await.unwrap();
        }
    }

    async fn mend(&self, choice: Choice) -> Result<Mended, MendError> {
        mend(&self.journal, &self.bucket, &self.world, choice).await
    }

    async fn survey(&self) -> Survey {
        survey(&self.journal, &self.bucket).await.unwrap()
    }

    fn below(&self, prefix: &str) -> Vec<String> {
        self.bucket.contents().into_keys().filter(|key| key.starts_with(prefix)).collect()
    }
}

/// Two brokers, of which the second has seen what the journal lost, five records of ten, and has stopped for it.
async fn forked(seed: u64) -> (Site, Arc<State>) {
    let mut site = Site::new(seed);
    let lagging = site.start(1).await;
    lagging.replica.propose(topic("t", 1)).await.unwrap();
    let slot = lagging.replica.state().topic_by_name("t").unwrap().slots[0];
    lagging.owner.abort();
    // Its journal is the one that it began with, whatever becomes of the site's.
    let (journal, healthy) = (Troubled::new(Arc::new(site.journal.clone()), site.world.clone()), site.parts(2));
    let parts = Parts { journal: Arc::new(journal.clone()), witness_interval: Some(INTERVAL), ..healthy };
    let broker = start(parts).await.unwrap();
    for _ in 0..10 {
        broker.replica.propose(commit(slot)).await.unwrap();
    }
    let seen = broker.replica.state();
    journal.script([End::Forked]);
    assert!(broker.replica.propose(ids(1)).await.is_err());
    let fatal = broker.owner.await.unwrap().unwrap_err();
    assert!(fatal.is_fork(), "{fatal}");
    site.lose(5).await;
    (site, seen)
}

fn end(state: &State) -> Offset {
    let topic = state.topic_by_name("t").unwrap();
    state.partition(topic.slots[0]).unwrap().end
}

#[tokio::test(start_paused = true)]
async fn h2_who_finds_a_fork_leaves_a_mark_and_its_state() {
    let (site, seen) = forked(1).await;
    assert_eq!(site.below("fork/").len(), 2, "{:?}", site.below("fork/"));
    let refused = start(site.parts(1)).await.err().expect("it is refused");
    assert!(matches!(refused, StartError::ForkFound { .. }) && refused.is_fork(), "{refused}");
    assert!(refused.to_string().contains("fork show"), "{refused}");
    let survey = site.survey().await;
    assert!(survey.marks[0].contains("forked"), "{:?}", survey.marks);
    assert_eq!(survey.kept.last().unwrap().at, seen.head());
    assert!(survey.lost.iter().any(|(at, _)| *at == seen.head()), "{survey}");
}

#[tokio::test(start_paused = true)]
async fn h2_a_mark_stops_the_brokers_that_run() {
    let site = Site::new(2);
    let broker = site.start_with_witnesses(1).await;
    let key = format!("{FORK_PREFIX}found/0-0-0");
    site.bucket.create(&key, vec![Bytes::from_static(b"found by another")], Purpose::Control).await.unwrap();
    let fatal = broker.owner.await.unwrap().unwrap_err();
    assert!(matches!(&fatal, Fatal::ForkFound { mark } if *mark == key), "{fatal}");
    assert!(broker.replica.propose(ids(1)).await.is_err());
    assert_eq!(site.below("fork/state/").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn h2_a_witness_is_left_where_nothing_is_written() {
    let site = Site::new(3);
    let broker = site.start_with_witnesses(1).await;
    for _ in 0..3 {
        site.world.sleep(2 * INTERVAL).await;
        let left = site.below(WITNESS_PREFIX);
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(crate::metadata::witness::moment(WITNESS_PREFIX, &left[0]), Some(broker.replica.applied()));
        broker.replica.propose(ids(1)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn h2_a_journal_that_lacks_what_a_witness_saw_is_refused() {
    let mut site = Site::new(4);
    let broker = site.start_with_witnesses(1).await;
    broker.replica.propose(ids(1)).await.unwrap();
    site.world.sleep(2 * INTERVAL).await;
    broker.owner.abort();
    site.lose(1).await;
    let refused = start(site.parts(1)).await.err().expect("it is refused");
    assert!(matches!(&refused, StartError::JournalTooOld { what, .. } if what.contains("witness/")), "{refused}");
    // A broker that lagged went on with it, in front of another bucket: now it is as long as before, and still another one.
    let bucket = std::mem::take(&mut site.bucket);
    let other = site.start(2).await;
    other.replica.propose(ids(1)).await.unwrap();
    other.owner.abort();
    site.bucket = bucket;
    let refused = start(site.parts(1)).await.err().expect("it is refused");
    assert!(matches!(&refused, StartError::Forked { what } if what.contains("witness/")), "{refused}");
    // And now everybody knows.
    let refused = start(site.parts(3)).await.err().expect("it is refused");
    assert!(matches!(&refused, StartError::ForkFound { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn another_clusters_journal_marks_no_fork() {
    let mut site = Site::new(5);
    let broker = site.start_with_witnesses(1).await;
    site.world.sleep(2 * INTERVAL).await;
    broker.owner.abort();
    let other = Site::new(6);
    let stranger = other.start(1).await;
    for _ in 0..9 {
        stranger.replica.propose(ids(1)).await.unwrap();
    }
    let own = std::mem::replace(&mut site.journal, other.journal);
    let refused = start(site.parts(1)).await.err().expect("it is refused");
    assert!(matches!(&refused, StartError::Forked { .. }), "{refused}");
    assert!(site.below("fork/").is_empty(), "the journal is what it was");
    site.journal = own;
    site.start(1).await;
}

#[tokio::test(start_paused = true)]
async fn where_the_right_journal_was_restored_only_the_marks_go() {
    let mut site = Site::new(7);
    let broker = site.start_with_witnesses(1).await;
    for _ in 0..5 {
        broker.replica.propose(ids(1)).await.unwrap();
    }
    site.world.sleep(2 * INTERVAL).await;
    let state = broker.replica.state();
    broker.owner.abort();
    let whole = site.journal.clone();
    site.lose(2).await;
    let key = format!("{FORK_PREFIX}found/0-0-0");
    site.bucket.create(&key, vec![Bytes::from_static(b"x")], Purpose::Control).await.unwrap();
    assert_eq!(site.survey().await.lost.len(), 1);
    site.journal = whole;
    assert_eq!(site.mend(Choice::Journal).await.unwrap(), Mended::NothingLost { marks: 1 });
    assert_eq!(site.mend(Choice::Journal).await.unwrap(), Mended::NothingLost { marks: 0 });
    let again = site.start(1).await.replica.state();
    assert_eq!((again.generation(), again.membership()), (0, state.membership()));
}

#[tokio::test(start_paused = true)]
async fn the_furthest_state_of_a_broker_has_everything_that_was_acknowledged() {
    let (site, seen) = forked(9).await;
    let mended = site.mend(Choice::Bucket).await.unwrap();
    let Mended::Begun { generation: 1, at, from, lost_entries: 0, salvaged } = &mended else { panic!("{mended:?}") };
    assert_eq!((*from, salvaged), (seen.head(), &Salvaged::default()));
    assert!(at.position > seen.head().position);
    assert_eq!(site.below("fork/"), site.below("fork/resolved/"));
    for (broker, records) in [(1, 0), (2, 1)] {
        let started = site.start_with_witnesses(broker).await;
        let state = started.replica.state();
        assert_eq!((end(&state), state.generation()), (end(&seen).plus(records), 1));
        let slot = state.topic_by_name("t").unwrap().slots[0];
        assert_eq!(state.forks().end(0, slot), Some(end(&seen)));
        started.replica.propose(commit(slot)).await.unwrap();
        // A later start reads it back from the snapshot and the new journal.
        started.owner.abort();
    }
    assert!(site.survey().await.lost.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_journal_as_it_is_gives_up_what_it_lacks() {
    let (site, seen) = forked(10).await;
    let before = site.replayed().await;
    let mended = site.mend(Choice::Journal).await.unwrap();
    let Mended::Begun { generation: 1, at, from, lost_entries, .. } = &mended else { panic!("{mended:?}") };
    assert_eq!((*from, *lost_entries), (before.head(), seen.head().position.0 - before.head().position.0));
    assert!(
        at.position > seen.head().position,
        "what was seen of the lost entries is never taken for a part of the history"
    );
    let broker = site.start(1).await;
    let state = broker.replica.state();
    assert_eq!(end(&state), end(&before));
    let slot = state.topic_by_name("t").unwrap().slots[0];
    broker.replica.propose(commit(slot)).await.unwrap();
    let state = broker.replica.state();
    // What was read before the fork is told from what has its offsets now.
    assert!(end(&state) > end(&before));
    assert_eq!(state.forks().end(0, slot), Some(end(&before)));
    assert_eq!(state.forks().generation_at(slot, end(&before), state.generation()), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_held_on_to_the_lost_entries_is_refused() {
    let (site, seen) = forked(11).await;
    site.mend(Choice::Journal).await.unwrap();
    let late = crate::journal::Proposal {
        incarnation: Incarnation(5),
        counter: 1,
        token: Token(5),
        payload: Bytes::from_static(b"late"),
    };
    let refused = site.journal.append(late, seen.head()).await.unwrap_err();
    assert!(matches!(refused, crate::journal::JournalError::Trimmed { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_fork_can_be_resolved_again_after_a_failure_half_way() {
    let (site, seen) = forked(12).await;
    site.mend(Choice::Bucket).await.unwrap();
    // As if the marks had not been removed any more.
    let key = format!("{FORK_PREFIX}found/{:016x}-{:016x}-1", seen.head().position.0, seen.head().token.0);
    site.bucket.create(&key, vec![Bytes::from_static(b"x")], Purpose::Control).await.unwrap();
    let again = site.mend(Choice::Bucket).await.unwrap();
    assert_eq!(again, Mended::NothingLost { marks: 1 });
    assert_eq!(end(&site.start(1).await.replica.state()), end(&seen));
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_comes_after_the_fork_was_resolved_stops_nobody() {
    let (site, seen) = forked(14).await;
    site.mend(Choice::Journal).await.unwrap();
    let head = seen.head();
    for prefix in ["fork/found/", "fork/state/"] {
        let key = format!("{prefix}{:016x}-{:016x}-1", head.position.0, head.token.0);
        site.bucket.create(&key, vec![Bytes::from_static(b"late")], Purpose::Control).await.unwrap();
    }
    let broker = site.start_with_witnesses(1).await;
    site.world.sleep(4 * INTERVAL).await;
    broker.replica.propose(ids(1)).await.unwrap();
    // One of the present generation does.
    let head = broker.replica.state().head();
    let key = format!("fork/found/{:016x}-{:016x}-1", head.position.0, head.token.0);
    site.bucket.create(&key, vec![Bytes::from_static(b"another")], Purpose::Control).await.unwrap();
    let fatal = broker.owner.await.unwrap().unwrap_err();
    assert!(matches!(&fatal, Fatal::ForkFound { mark } if *mark == key), "{fatal}");
}

#[tokio::test(start_paused = true)]
async fn generations_pile_up() {
    let (mut site, _) = forked(13).await;
    site.mend(Choice::Bucket).await.unwrap();
    let broker = site.start_with_witnesses(1).await;
    let slot = broker.replica.state().topic_by_name("t").unwrap().slots[0];
    broker.replica.propose(commit(slot)).await.unwrap();
    site.world.sleep(2 * INTERVAL).await;
    let seen = broker.replica.state();
    broker.owner.abort();
    // The journal's backup of before the record comes back.
    let only: Vec<_> = site.journal.read(site.journal_first().await).await.unwrap();
    let fresh = MemoryJournal::new();
    fresh.restart(only[0].clone(), Head::default()).await.unwrap();
    site.journal = fresh;
    let mended = site.mend(Choice::Journal).await.unwrap();
    assert!(matches!(mended, Mended::Begun { generation: 2, lost_entries, .. } if lost_entries > 0), "{mended:?}");
    let state = site.start(1).await.replica.state();
    assert!(end(&state) < end(&seen));
    assert_eq!([state.forks().end(0, slot), state.forks().end(1, slot)], [Some(end(&state)); 2]);
}

impl Site {
    async fn journal_first(&self) -> Position {
        match self.journal.read(Position(1)).await {
            Err(crate::journal::JournalError::Trimmed { first }) => first,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_moment_of_an_old_history_is_not_the_new_ones() {
    let (site, seen) = forked(14).await;
    site.mend(Choice::Journal).await.unwrap();
    let Head { position, .. } = site.journal.head().await.unwrap();
    assert!(position > seen.head().position);
    let survey = site.survey().await;
    let kept: Vec<_> = survey.kept.iter().map(|kept| kept.in_journal).collect();
    assert_eq!(kept, [Presence::Has]);
}

/// An object with one batch of `records` for the topic's first partition, in the bucket; the command that commits it.
async fn stored(site: &Site, state: &State, ulid: u128, of_record: u8, records: usize) -> CommitRuns {
    let name = ObjectName::data(state.head(), ulid);
    let header = ObjectHeader { name, incarnation: Incarnation(1), written_ms: TimestampMs(1) };
    let mut batch = BatchBuilder::new();
    let value = [of_record; 10];
    (0..records).for_each(|_| batch.push(&NewRecord { value: Some(&value), ..NewRecord::default() }));
    let mut object = ObjectWriter::new(&header);
    let position = object.position();
    object.push(batch.build().unwrap());
    let bytes = object.position();
    object.end_run(state.topic_by_name("t").unwrap().id, PartitionIndex(0), position, 1);
    let (body, _) = object.finish();
    site.bucket.create(&name.key(), body.clone(), Purpose::Ingest).await.unwrap();
    let slot = state.topic_by_name("t").unwrap().slots[0];
    let batch = BatchSpec { bytes: bytes - position, records: records as u32, producer: None };
    let mut runs = RunsWriter::default();
    runs.push(&RunSpec { slot, position, max_timestamp: TimestampMs(1), batches: vec![batch] });
    CommitRuns::new(name, body.iter().map(Bytes::len).sum::<usize>() as u32, None, runs)
}

#[tokio::test(start_paused = true)]
async fn records_of_lost_entries_are_had_from_their_objects_once() {
    let mut site = Site::new(15);
    let broker = site.start_with_witnesses(1).await;
    broker.replica.propose(topic("t", 1)).await.unwrap();
    let state = broker.replica.state();
    let committed = stored(&site, &state, 1, b'a', 5).await;
    broker.replica.propose(committed).await.unwrap();
    let slot = state.topic_by_name("t").unwrap().slots[0];
    // Second copies of both, as a slow PUT leaves them.
    stored(&site, &state, 2, b'a', 5).await;
    let kept = site.journal.read(Position(1)).await.unwrap().len();
    let before = broker.replica.state();
    let lost = stored(&site, &before, 3, b'b', 7).await;
    broker.replica.propose(lost).await.unwrap();
    stored(&site, &before, 4, b'b', 7).await;
    // And one of which nothing is left, and one of a topic that went with the journal.
    let gone = ObjectName::data(broker.replica.applied(), 5);
    site.bucket.create(&gone.key(), vec![Bytes::from_static(b"cut")], Purpose::Ingest).await.unwrap();
    broker.owner.abort();
    let entries = site.journal.read(Position(1)).await.unwrap().len();
    site.lose(entries - kept).await;
    let mended = site.mend(Choice::Journal).await.unwrap();
    let Mended::Begun { salvaged, .. } = &mended else { panic!("{mended:?}") };
    assert_eq!(*salvaged, Salvaged { objects: 1, records: 7, left: vec![gone.key()] });
    let state = site.start(1).await.replica.state();
    assert_eq!((end(&state), state.forks().end(0, slot)), (Offset(12), Some(Offset(5))));
    assert_eq!(state.brokers().map(|broker| broker.id).collect::<Vec<_>>(), [BrokerId(1)]);
}

#[tokio::test(start_paused = true)]
async fn what_compaction_has_put_elsewhere_is_not_had_again_from_the_flush() {
    let mut site = Site::new(17);
    let broker = site.start_with_witnesses(1).await;
    broker.replica.propose(topic("t", 1)).await.unwrap();
    let state = broker.replica.state();
    let slot = state.topic_by_name("t").unwrap().slots[0];
    let committed = stored(&site, &state, 1, b'a', 5).await;
    broker.replica.propose(committed).await.unwrap();
    let name = ObjectName::compacted(broker.replica.applied(), 9);
    let run = CompactedRun { end_offset: Offset(5), bytes: 100, max_timestamp: TimestampMs(1) };
    let share = CompactedShare { slot, base_offset: Offset(0), runs: vec![run] };
    let compaction = CommitCompaction::new(name, 1000, None, (1, &[ObjectId(0)]), 64, &[share]);
    let outcome = broker.replica.propose(compaction).await.unwrap();
    assert_eq!(outcome, Outcome::Compacted { object: Some(ObjectId(1)), taken: 1, dropped: 0 });
    let kept = site.journal.read(Position(1)).await.unwrap().len();
    let lost = stored(&site, &broker.replica.state(), 3, b'b', 7).await;
    broker.replica.propose(lost).await.unwrap();
    // Of what was there this one knows, of which nothing is left.
    let seen = ObjectName::data(broker.replica.applied(), 5);
    site.bucket.create(&seen.key(), vec![Bytes::from_static(b"cut")], Purpose::Ingest).await.unwrap();
    broker.owner.abort();
    let entries = site.journal.read(Position(1)).await.unwrap().len();
    site.lose(entries - kept).await;
    let mended = site.mend(Choice::Journal).await.unwrap();
    let Mended::Begun { salvaged, .. } = &mended else { panic!("{mended:?}") };
    assert_eq!(*salvaged, Salvaged { objects: 1, records: 7, left: vec![seen.key()] });
    assert_eq!(end(&site.start(1).await.replica.state()), Offset(12));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_gone_is_made_from_the_bucket() {
    let mut site = Site::new(16);
    site.policy = SnapshotPolicy { entries: 3, ..NO_SNAPSHOTS };
    let broker = site.start_with_witnesses(1).await;
    broker.replica.propose(topic("t", 1)).await.unwrap();
    for n in 0..5 {
        site.world.sleep(Duration::from_secs(3)).await;
        let commit = stored(&site, &broker.replica.state(), 10 + n, b'a' + n as u8, 2).await;
        broker.replica.propose(commit).await.unwrap();
    }
    assert!(!site.below(SNAPSHOT_PREFIX).is_empty());
    broker.owner.abort();
    site.journal = MemoryJournal::new();
    assert!(matches!(site.mend(Choice::Journal).await, Err(MendError::NoState("journal"))));
    let mended = site.mend(Choice::Bucket).await.unwrap();
    assert!(matches!(mended, Mended::Begun { generation: 1, .. }), "{mended:?}");
    assert_eq!(end(&site.start(1).await.replica.state()), Offset(10));
}

/// The journal lost its tail, nobody had left word of it, and a broker that lagged went on: two histories, and a State of each.
async fn diverged(seed: u64, more: usize) -> (Site, Arc<State>) {
    let (site, seen) = forked(seed).await;
    // As if the one that lagged had not come by the mark yet.
    for mark in site.below("fork/found/") {
        site.bucket.delete(&mark, Purpose::Control).await.unwrap();
    }
    let kept = site.below("fork/state/").pop().unwrap();
    let bytes = site.bucket.contents()[&kept].clone();
    site.bucket.delete(&kept, Purpose::Control).await.unwrap();
    let lagging = site.start(1).await;
    for _ in 0..more {
        lagging.replica.propose(ids(1)).await.unwrap();
    }
    lagging.owner.abort();
    site.bucket.overwrite(&kept, bytes);
    (site, seen)
}

#[tokio::test(start_paused = true)]
async fn a_state_of_long_ago_is_not_taken_for_nothing_lost() {
    let (site, seen) = diverged(17, 1500).await;
    let survey = site.survey().await;
    assert!(survey.lost.iter().any(|(at, _)| *at == seen.head()), "{survey}");
    assert!(survey.to_string().contains("went on after the loss"), "{survey}");
    let mended = site.mend(Choice::Journal).await.unwrap();
    let Mended::Begun { lost_entries, .. } = mended else { panic!("{mended:?}") };
    assert!(lost_entries > 0);
    // What readers of the lost history had beyond the common part is of no generation that is theirs.
    let state = site.start(1).await.replica.state();
    let slot = state.topic_by_name("t").unwrap().slots[0];
    assert!(state.forks().end(0, slot).unwrap() <= end(&state));
    assert!(state.forks().end(0, slot).unwrap() < end(&seen));
}

#[tokio::test(start_paused = true)]
async fn a_running_broker_notices_later_that_others_had_seen_more() {
    let (site, seen) = diverged(18, 100).await;
    for mark in site.below("fork/") {
        site.bucket.delete(&mark, Purpose::Control).await.unwrap();
    }
    let running = site.start_with_witnesses(1).await;
    running.replica.propose(ids(1)).await.unwrap();
    // Somebody's word of the lost history comes late.
    let late = crate::metadata::witness::key(WITNESS_PREFIX, seen.head(), 7);
    site.bucket.create(&late, vec![Bytes::from_static(b"broker 2")], Purpose::Control).await.unwrap();
    let fatal = running.owner.await.unwrap().unwrap_err();
    assert!(fatal.is_fork(), "{fatal}");
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_call_began_is_finished_or_forgotten() {
    let (site, seen) = forked(19).await;
    let begun = seen.begin_generation(Head { position: Position(900), token: Token(9) }, 0, &seen);
    let (header, bytes) = begun.encode_snapshot();
    let next = crate::metadata::witness::key("fork/next/", header.at, 1);
    site.bucket.create(&next, vec![bytes], Purpose::Control).await.unwrap();
    // The journal does not begin with it: it counts for nothing.
    let mended = site.mend(Choice::Journal).await.unwrap();
    assert!(matches!(&mended, Mended::Begun { at, .. } if at.position < Position(900)), "{mended:?}");
    // And here it does.
    let (site, seen) = forked(20).await;
    let begun = seen.begin_generation(Head { position: Position(900), token: Token(9) }, 0, &seen);
    let (header, bytes) = begun.encode_snapshot();
    site.bucket.create(&next, vec![bytes], Purpose::Control).await.unwrap();
    let only =
        crate::journal::Proposal { incarnation: Incarnation(5), counter: 1, token: Token(9), payload: Bytes::new() };
    let only = crate::journal::Stored { position: Position(900), proposal: only };
    site.journal.restart(only, site.journal.head().await.unwrap()).await.unwrap();
    let mended = site.mend(Choice::Bucket).await.unwrap();
    assert_eq!(mended, Mended::Finished { generation: 1, at: header.at });
    assert_eq!(end(&site.start(1).await.replica.state()), end(&seen));
}

#[tokio::test(start_paused = true)]
async fn a_generation_is_never_begun_twice() {
    let (mut site, _) = forked(21).await;
    let before = site.journal.read(Position(1)).await.unwrap();
    site.mend(Choice::Bucket).await.unwrap();
    // A backup from before comes back.
    site.journal = MemoryJournal::new();
    for stored in before {
        let head = site.journal.head().await.unwrap();
        site.journal.append(stored.proposal, head).await.unwrap();
    }
    let mended = site.mend(Choice::Journal).await.unwrap();
    assert!(matches!(mended, Mended::Begun { generation: 2, .. }), "{mended:?}");
    let state = site.start(1).await.replica.state();
    let slot = state.topic_by_name("t").unwrap().slots[0];
    assert_eq!([state.forks().end(0, slot), state.forks().end(1, slot)], [Some(end(&state)); 2]);
}
