//! A bucket that loses answers, does things late and refuses them, and one that lost what it had. Virtual time.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{append_all, at, handle};
use crate::journal::contract::entry;
use crate::journal::{Deadlined, Journal, JournalError, Proposal, Stored};
use crate::store::faulty::{Fault, Faulty, Rates};
use crate::store::{Bucket, MemoryBucket, Operation};
use crate::types::{Head, Incarnation, Position};
use crate::world::World;

fn faulty() -> (World, MemoryBucket, Faulty, Arc<dyn Bucket>) {
    let world = World::seeded(1);
    let memory = MemoryBucket::new();
    let faulty = Faulty::new(Arc::new(memory.clone()), world.clone());
    let bucket = Arc::new(faulty.clone());
    (world, memory, faulty, bucket)
}

const ORIGIN: Head = Head { position: Position(0), token: crate::types::Token(0) };

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_known_when_it_is_sent_again() {
    let (world, _, faulty, bucket) = faulty();
    let journal = handle(&bucket, &world);
    faulty.script(Operation::Create, [Fault::ReplyLost]);
    let proposal = entry(1, 1, b"x");
    assert!(matches!(journal.append(proposal.clone(), ORIGIN).await, Err(JournalError::Unknown(_))));
    assert_eq!(journal.append(proposal.clone(), ORIGIN).await.unwrap().position, Position(1));
    assert_eq!(journal.append(proposal, ORIGIN).await.unwrap().position, Position(1));
    assert_eq!(journal.head().await.unwrap().position, Position(1));
}

#[tokio::test(start_paused = true)]
async fn an_append_that_happens_late_happens_once() {
    for retry_after_s in [1, 10] {
        for other_first in [false, true] {
            let (world, memory, faulty, bucket) = faulty();
            let journal = handle(&bucket, &world);
            faulty.script(Operation::Create, [Fault::DoneLater(Duration::from_secs(5))]);
            let proposal = entry(1, 1, b"late");
            assert!(matches!(journal.append(proposal.clone(), ORIGIN).await, Err(JournalError::Unknown(_))));
            if other_first {
                append_all(&handle(&(Arc::new(memory) as Arc<dyn Bucket>), &world), 2, 1..=2).await;
            }
            world.sleep(Duration::from_secs(retry_after_s)).await;
            let position = journal.append(proposal.clone(), ORIGIN).await.unwrap().position;
            assert_eq!(position, Position(if other_first { 3 } else { 1 }));
            world.sleep(Duration::from_secs(10)).await;
            let all = handle(&bucket, &world).read(Position(1)).await.unwrap();
            assert_eq!(all.iter().filter(|stored| stored.proposal == proposal).count(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_certain_only_if_nothing_was_sent_before() {
    let (world, _, faulty, bucket) = faulty();
    let journal = handle(&bucket, &world);
    faulty.script(Operation::Create, [Fault::Refused, Fault::NotDone, Fault::Refused, Fault::None, Fault::Refused]);
    let proposal = entry(1, 1, b"x");
    assert!(matches!(journal.append(proposal.clone(), ORIGIN).await, Err(JournalError::NotDone(_))));
    assert!(matches!(journal.append(proposal.clone(), ORIGIN).await, Err(JournalError::Unknown(_))));
    assert!(matches!(journal.append(proposal.clone(), ORIGIN).await, Err(JournalError::Unknown(_))));
    assert_eq!(journal.append(proposal.clone(), ORIGIN).await.unwrap().position, Position(1));
    let refused = journal.append(entry(1, 2, b"x"), at(1, &proposal)).await;
    assert!(matches!(refused, Err(JournalError::NotDone(_))), "the doubt is over: {refused:?}");
}

/// Appends of each broker.
const EACH: u64 = 25;

/// A broker: it sends each proposal until it knows, and folds in what it missed; after a trim it begins where the journal
/// does, as from a snapshot.
struct Broker {
    journal: Arc<dyn Journal>,
    world: World,
    incarnation: u64,
    head: Head,
    /// By position, what it was told of its own appends.
    acknowledged: BTreeMap<Position, Proposal>,
    applied: BTreeMap<Position, Proposal>,
}

impl Broker {
    async fn append(&mut self, counter: u64) {
        let proposal = entry(self.incarnation, counter, b"some bytes");
        loop {
            match self.journal.append(proposal.clone(), self.head).await {
                Ok(appended) => {
                    self.acknowledged.insert(appended.position, proposal);
                    return self.follow(appended.position).await;
                }
                Err(JournalError::Trimmed { first }) => self.reload(first).await,
                Err(JournalError::Unknown(_) | JournalError::NotDone(_)) => {
                    self.world.sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn follow(&mut self, to: Position) {
        while self.head.position < to {
            match self.journal.read(self.head.position.next()).await {
                Ok(page) => page.into_iter().for_each(|stored| self.apply(stored)),
                Err(JournalError::Trimmed { first }) => self.reload(first).await,
                Err(JournalError::Unknown(_)) => self.world.sleep(Duration::from_millis(100)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn apply(&mut self, Stored { position, proposal }: Stored) {
        assert_eq!(position, self.head.position.next());
        self.head = at(position.0, &proposal);
        self.applied.insert(position, proposal);
    }

    async fn reload(&mut self, first: Position) {
        if let Ok(page) = self.journal.read(first).await
            && let Some(Stored { position, proposal }) = page.into_iter().next()
        {
            self.head = at(position.0, &proposal);
            self.applied.insert(position, proposal);
        }
    }
}

async fn several_brokers_and_a_trimmer(seed: u64, rates: Rates) {
    let world = World::seeded(seed);
    let begun = world.now();
    let memory = MemoryBucket::new();
    let faulty = || Faulty::new(Arc::new(memory.clone()), world.clone());
    let mut faults = Vec::new();
    let mut journal = || {
        let bucket = faulty();
        bucket.set_rates(rates);
        faults.push(bucket.clone());
        let journal = handle(&(Arc::new(bucket) as Arc<dyn Bucket>), &world);
        Arc::new(Deadlined::new(Arc::new(journal), world.clone(), Duration::from_secs(10)))
    };
    let brokers = (1..=4).map(|incarnation| {
        let mut broker = Broker {
            journal: journal(),
            world: world.clone(),
            incarnation,
            head: ORIGIN,
            acknowledged: BTreeMap::new(),
            applied: BTreeMap::new(),
        };
        async move {
            for counter in 1..=EACH {
                broker.append(counter).await;
            }
            broker
        }
    });
    let brokers = futures::future::join_all(brokers);
    let trimmer = journal();
    let trims = async {
        loop {
            world.sleep(Duration::from_millis(500 + world.random_below(3_000))).await;
            if let Ok(head) = trimmer.head().await {
                let _ = trimmer.trim(Position(head.position.0.saturating_sub(world.random_below(8)))).await;
            }
        }
    };
    let brokers = tokio::select! { biased; brokers = brokers => brokers, () = trims => unreachable!() };
    check(&brokers);
    // What was on its way is there by now, and changes nothing.
    faults.iter().for_each(|bucket| bucket.set_rates(Rates::default()));
    world.sleep(Duration::from_secs(120)).await;
    let journal = handle(&(Arc::new(memory) as Arc<dyn Bucket>), &world);
    let last = brokers.iter().filter_map(|broker| broker.acknowledged.keys().next_back()).max().unwrap();
    assert_eq!(journal.head().await.unwrap().position, *last, "seed {seed}");
    println!("seed {seed}: {:?}", begun.elapsed());
}

/// All saw one order, and each entry once.
fn check(brokers: &[Broker]) {
    let mut order: BTreeMap<Position, Proposal> = BTreeMap::new();
    for (position, proposal) in brokers.iter().flat_map(|b| b.acknowledged.iter().chain(&b.applied)) {
        let there = order.entry(*position).or_insert_with(|| proposal.clone());
        assert_eq!(there, proposal, "two entries at {position}");
    }
    let mut counters: BTreeMap<Incarnation, u64> = BTreeMap::new();
    for proposal in order.values() {
        let last = counters.insert(proposal.incarnation, proposal.counter).unwrap_or(0);
        assert_eq!(proposal.counter, last + 1, "of incarnation {}", proposal.incarnation);
    }
    assert_eq!(order.len(), brokers.len() * EACH as usize);
}

#[tokio::test(start_paused = true)]
async fn brokers_agree_whatever_the_bucket_does() {
    let rates = Rates { not_done: 300, reply_lost: 500, done_later: 500, refused: 300, hangs: 20, delay_ms_max: 120 };
    for seed in 0..10 {
        several_brokers_and_a_trimmer(seed, rates).await;
    }
}

/// What was read before a failure stays read. Else who is far behind needs hundreds of requests that all succeed, and never
/// gets to the end.
#[tokio::test(start_paused = true)]
async fn who_is_far_behind_gets_to_the_end_though_every_tenth_request_fails() {
    let (world, memory, faulty, bucket) = faulty();
    let working: Arc<dyn Bucket> = Arc::new(memory);
    let writer = handle(&working, &world);
    let head = append_all(&writer, 1, 1..=1).await;
    let (lags, trims) = (handle(&bucket, &world), handle(&bucket, &world));
    assert_eq!((lags.head().await, trims.head().await), (Ok(head), Ok(head)));
    let last = append_all(&writer, 1, 2..=300).await;
    faulty.set_rates(Rates { not_done: 1_000, ..Rates::default() });
    let mut appended = None;
    for _ in 0..100 {
        appended = appended.or(lags.append(entry(2, 1, b"x"), head).await.ok());
    }
    assert_eq!(appended.unwrap().position, last.position.next());

    for _ in 0..100 {
        let _ = trims.trim(Position(200)).await;
    }
    assert_eq!(handle(&working, &world).read(Position(1)).await, Err(JournalError::Trimmed { first: Position(200) }));

    // A handle that knows nothing yet.
    let fresh = handle(&bucket, &world);
    let mut found = None;
    for _ in 0..100 {
        found = found.or(fresh.head().await.ok());
    }
    assert_eq!(found.unwrap().position, last.position.next());
}

#[tokio::test(start_paused = true)]
async fn h2_a_bucket_that_lost_the_tail_is_noticed_by_who_knew_it_and_across_the_seam() {
    let (world, memory, _, bucket) = faulty();
    let knows = handle(&bucket, &world);
    append_all(&knows, 1, 1..=8).await;
    let lags = handle(&bucket, &world);
    lags.head().await.unwrap();
    let head = append_all(&knows, 1, 9..=10).await;
    for lost in ["journal/00000000000000000009", "journal/00000000000000000010"] {
        memory.delete(&lost.to_owned(), crate::store::Purpose::Control).await.unwrap();
    }
    let refused = knows.append(entry(1, 11, b"x"), head).await;
    assert!(matches!(refused, Err(JournalError::Forked { after, .. }) if after == head), "{refused:?}");
    let fresh = handle(&bucket, &world).head().await;
    assert!(matches!(fresh, Err(JournalError::Damaged { position: Position(9), .. })), "{fresh:?}");
    let forked = lags.append(entry(2, 1, b"x"), at(8, &entry(1, 8, b""))).await;
    // Position 9 is free; what the other one wrote at 11 was written onto another 10.
    assert_eq!(forked.unwrap().position, Position(9));
    let next = lags.append(entry(2, 2, b"x"), at(9, &entry(2, 1, b""))).await;
    assert_eq!(next.unwrap().position, Position(10));
    let seam = lags.append(entry(2, 3, b"x"), at(10, &entry(2, 2, b""))).await;
    assert!(matches!(seam, Err(JournalError::Forked { after, .. }) if after.position == Position(10)), "{seam:?}");
    // And what is replaced in place is noticed as well.
    let (world, memory, _, bucket) = self::faulty();
    let knows = handle(&bucket, &world);
    let head = append_all(&knows, 1, 1..=3).await;
    memory.delete(&"journal/00000000000000000003".to_owned(), crate::store::Purpose::Control).await.unwrap();
    append_all(&handle(&bucket, &world), 2, 1..=1).await;
    let refused = knows.append(entry(1, 4, b"x"), head).await;
    assert!(matches!(refused, Err(JournalError::Forked { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn damage_is_named_and_survives_no_second_look() {
    let (world, memory, _, bucket) = faulty();
    append_all(&handle(&bucket, &world), 1, 1..=3).await;
    let key = "journal/00000000000000000002";
    let mut bytes = memory.contents()[key].to_vec();
    bytes[30] ^= 1;
    memory.overwrite(key, bytes.into());
    let damaged = handle(&bucket, &world).read(Position(1)).await;
    assert!(matches!(damaged, Err(JournalError::Damaged { position: Position(2), .. })), "{damaged:?}");
    memory.delete(&key.to_owned(), crate::store::Purpose::Control).await.unwrap();
    let known = handle(&bucket, &world);
    let hole = known.head().await;
    assert!(matches!(hole, Err(JournalError::Damaged { position: Position(2), .. })), "{hole:?}");
}
