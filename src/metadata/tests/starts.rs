//! Starts: from snapshots and tails, and the refusals of a journal and a bucket that don't belong together.
use super::*;
use crate::journal::Stored;
use crate::segment::ObjectName;
use crate::store::{CreateOutcome, Purpose};
use crate::types::{Head, Token};

/// A site with a topic, records, three snapshots and a tail behind the last; the broker is gone.
async fn used(seed: u64) -> Site {
    let mut site = Site::new(seed);
    site.policy = SnapshotPolicy { entries: 10, ..NO_SNAPSHOTS };
    // So many are kept that the journal is not trimmed.
    site.settings.snapshots_min = 10;
    let broker = site.start(1).await;
    broker.replica.propose(topic("t", 1)).await.unwrap();
    let slot = broker.replica.state().topic_by_name("t").unwrap().slots[0];
    while stored(&site).len() < 3 {
        broker.replica.propose(commit(slot)).await.unwrap();
        site.world.sleep(Duration::from_millis(100)).await;
    }
    broker.replica.propose(topic("u", 2)).await.unwrap();
    broker.replica.propose(ids(5)).await.unwrap();
    broker.owner.abort();
    site.policy = NO_SNAPSHOTS;
    site
}

fn stored(site: &Site) -> Vec<String> {
    site.bucket.contents().into_keys().filter(|k| k.starts_with(SNAPSHOT_PREFIX)).collect()
}

/// The first `count` entries, in a journal of their own.
async fn copied(journal: &MemoryJournal, count: usize) -> MemoryJournal {
    let copy = MemoryJournal::new();
    let entries: Vec<Stored> = journal.read(Position(1)).await.unwrap();
    for stored in entries.into_iter().take(count) {
        copy.append(stored.proposal, copy.head().await.unwrap()).await.unwrap();
    }
    copy
}

async fn object(site: &Site, applied: Head) {
    let key = ObjectName::data(applied, 5).key();
    let created = site.bucket.create(&key, vec![Bytes::from_static(b"x")], Purpose::Ingest).await;
    assert_eq!(created, Ok(CreateOutcome::Created));
}

/// What a start is refused with.
async fn refusal(site: &Site) -> (StartError, String) {
    let before = site.head().await;
    let error = start(site.parts(1)).await.err().expect("it is refused");
    assert_eq!(site.head().await, before, "nothing was written");
    let text = error.to_string();
    (error, text)
}

#[tokio::test(start_paused = true)]
async fn a_restart_gives_the_state_of_a_whole_replay() {
    let site = used(40).await;
    let broker = site.start(1).await;
    assert_eq!(bytes_of(&broker.replica.state()), bytes_of(&site.replayed().await));
    let reads = site.journal.clone();
    // And one that could not have replayed it all.
    let newest = stored(&site).pop().unwrap();
    reads.trim(snapshots_position(&newest)).await.unwrap();
    let again = site.start(1).await;
    broker.replica.barrier().await.unwrap();
    assert_eq!(bytes_of(&again.replica.state()), bytes_of(&broker.replica.state()));
}

fn snapshots_position(key: &str) -> Position {
    crate::metadata::witness::moment(SNAPSHOT_PREFIX, key).unwrap().position
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_passed_over() {
    let site = used(41).await;
    let mut left = stored(&site);
    while let Some(newest) = left.pop() {
        let mut bytes = site.bucket.contents()[&newest].to_vec();
        match left.len() {
            2 => bytes.truncate(bytes.len() / 2),
            1 => bytes.clear(),
            _ => bytes[20] ^= 1,
        }
        site.bucket.overwrite(&newest, bytes.into());
        let broker = site.start(1).await;
        assert_eq!(bytes_of(&broker.replica.state()), bytes_of(&site.replayed().await));
        broker.owner.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_trimmed_journal_without_a_snapshot_is_refused() {
    let site = used(42).await;
    for key in stored(&site) {
        site.bucket.overwrite(&key, Bytes::from_static(b"gone"));
    }
    site.journal.trim(Position(5)).await.unwrap();
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::NoSnapshot { first: Position(5) }), "{error:?}");
    assert!(text.contains("restore a snapshot"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_others_overtake_begins_again() {
    let site = used(42).await;
    let key = stored(&site).pop().unwrap();
    let bytes = site.bucket.contents()[&key].clone();
    site.bucket.delete(&key, Purpose::Control).await.unwrap();
    let late = Troubled::new(Arc::new(site.journal.clone()), site.world.clone());
    late.slow_reads(Duration::from_secs(1));
    let started = start(Parts { journal: Arc::new(late), ..site.parts(1) });
    let overtake = async {
        // It has the snapshots there are, and reads the journal behind them.
        site.world.sleep(Duration::from_millis(500)).await;
        site.bucket.overwrite(&key, bytes);
        site.journal.trim(snapshots_position(&key)).await.unwrap();
    };
    let (broker, ()) = futures::join!(started, overtake);
    assert!(broker.unwrap().replica.state().topic_by_name("u").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_empty_journal_in_front_of_a_used_bucket_is_refused() {
    let mut site = used(43).await;
    site.journal = MemoryJournal::new();
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::JournalTooOld { head: Position(0), .. }), "{error:?}");
    assert!(text.contains("offsets twice") && text.contains("Restore the newest journal"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_older_journal_is_refused_by_a_snapshot() {
    let mut site = used(44).await;
    let newest = snapshots_position(&stored(&site).pop().unwrap());
    site.journal = copied(&site.journal, newest.0 as usize - 1).await;
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::JournalTooOld { .. }) && text.contains("snapshots/"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_older_journal_is_refused_by_an_object() {
    let mut site = used(45).await;
    let head = site.journal.head().await.unwrap();
    object(&site, head).await;
    site.start(1).await.owner.abort();
    site.journal = copied(&site.journal, head.position.0 as usize - 1).await;
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::JournalTooOld { .. }) && text.contains("data/5/"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn h2_a_forked_journal_is_refused_by_a_snapshot() {
    let mut site = used(46).await;
    let newest = snapshots_position(&stored(&site).pop().unwrap());
    site.journal = copied(&site.journal, newest.0 as usize - 2).await;
    // Somebody goes on with it, in front of another bucket, beyond where the first one was.
    let bucket = std::mem::take(&mut site.bucket);
    let other = site.start(1).await;
    for _ in 0..10 {
        other.replica.propose(ids(1)).await.unwrap();
    }
    other.owner.abort();
    site.bucket = bucket;
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::Forked { .. }) && text.contains(&newest_hex(newest)), "{text}");
}

fn newest_hex(position: Position) -> String {
    format!("snapshots/{:016x}", position.0)
}

#[tokio::test(start_paused = true)]
async fn h2_a_forked_journal_is_refused_by_an_object() {
    let site = Site::new(47);
    site.start(1).await.owner.abort();
    let Head { position, token } = site.journal.head().await.unwrap();
    object(&site, Head { position, token: Token(token.0 ^ 1) }).await;
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::Forked { .. }) && text.contains("data/5/"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn another_clusters_bucket_is_refused() {
    let mut site = Site::new(48);
    site.start(1).await.owner.abort();
    let other = Site::new(49);
    other.start(1).await.owner.abort();
    site.bucket = other.bucket;
    let (error, text) = refusal(&site).await;
    assert!(matches!(error, StartError::OtherCluster { .. }), "{error:?}");
    assert!(text.contains("give each cluster a bucket"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn another_clusters_snapshots_are_not_loaded() {
    // The other cluster's snapshots lie at positions that our journal has trimmed, so tokens can't tell.
    let mut site = Site::new(50);
    let broker = site.start(1).await;
    for _ in 0..200 {
        broker.replica.propose(ids(1)).await.unwrap();
    }
    broker.owner.abort();
    let other = used(51).await;
    let newest = snapshots_position(&stored(&other).pop().unwrap());
    site.journal.trim(newest.next()).await.unwrap();
    site.bucket = other.bucket;
    let (error, _) = refusal(&site).await;
    assert!(matches!(error, StartError::NoSnapshot { .. } | StartError::OtherCluster { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_journal_takes_no_bucket_that_has_a_cluster() {
    let mut site = Site::new(52);
    let id = site.start(1).await.replica.state().cluster_id().unwrap().to_string();
    site.journal = MemoryJournal::new();
    let refused = start(site.parts(1)).await.err();
    assert!(matches!(&refused, Some(StartError::JournalOfNobody { bucket }) if *bucket == id), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn settings_of_the_configuration_reach_state() {
    let site = Site::new(53);
    site.start(1).await.owner.abort();
    let settings = Settings { topics_max: 7, ..SETTINGS };
    let broker = start(Parts { settings, ..site.parts(1) }).await.unwrap();
    assert_eq!(*broker.replica.state().settings(), settings);
}

#[tokio::test(start_paused = true)]
async fn two_brokers_that_found_a_cluster_at_once_found_one() {
    let site = Site::new(14);
    let late = Troubled::new(Arc::new(site.journal.clone()), site.world.clone());
    late.script([End::Done.after(Duration::from_secs(1))]);
    let slow = start(Parts { journal: Arc::new(late), ..site.parts(2) });
    let (quick, slow) = futures::join!(site.start(1), slow);
    let (quick, slow) = (quick.replica.barrier().await.unwrap(), slow.unwrap().replica.barrier().await.unwrap());
    assert_eq!(bytes_of(&quick), bytes_of(&slow));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_others_write_to_during_a_start_is_not_newer() {
    let site = Site::new(15);
    let busy = site.start(1).await;
    let late = Troubled::new(Arc::new(site.journal.clone()), site.world.clone());
    late.slow_heads(Duration::from_secs(1));
    let slow = start(Parts { journal: Arc::new(late), ..site.parts(2) });
    let write = async {
        // The head was read, and its answer is under way.
        site.world.sleep(Duration::from_millis(500)).await;
        busy.replica.propose(ids(1)).await.unwrap();
        object(&site, busy.replica.applied()).await;
    };
    let (started, ()) = futures::join!(slow, write);
    started.unwrap();
}
