//! A broker that was away until the journal was trimmed beyond what it had applied (H13).
use super::*;
use crate::state::FenceBroker;
use crate::store::faulty::{Fault, Faulty};

/// Broker 1, cut off from the journal since broker 2 has appended so much that it was trimmed beyond what 1 has applied.
struct Overtaken {
    site: Site,
    broker: Started,
    metrics: Arc<Metrics>,
    journal: Troubled,
    bucket: Faulty,
    other: Started,
}

impl Overtaken {
    async fn new(seed: u64) -> Self {
        let mut site = Site::new(seed);
        site.policy = SnapshotPolicy { entries: 10, kept_ms: 0, ..NO_SNAPSHOTS };
        let journal = Troubled::new(Arc::new(site.journal.clone()), site.world.clone());
        let bucket = Faulty::new(Arc::new(site.bucket.clone()), site.world.clone());
        let parts = Parts {
            journal: Arc::new(journal.clone()),
            bucket: Arc::new(bucket.clone()),
            snapshots: NO_SNAPSHOTS,
            ..site.parts(1)
        };
        let metrics = parts.metrics.clone();
        let broker = start(parts).await.unwrap();
        let other = site.start(2).await;
        broker.replica.propose(topic("t", 1)).await.unwrap();
        Self { site, broker, metrics, journal, bucket, other }
    }

    /// What the other does while it is away: a record, and much else.
    async fn go_on(&self) {
        self.journal.away(true);
        let slot = self.other.replica.barrier().await.unwrap().topic_by_name("t").unwrap().slots[0];
        assert_eq!(self.other.replica.propose(commit(slot)).await, Ok(accepted(0)));
        for _ in 0..100 {
            self.other.replica.propose(ids(1)).await.unwrap();
            self.site.world.sleep(Duration::from_millis(100)).await;
        }
        let trimmed = self.site.journal.read(self.broker.replica.applied().position.next()).await;
        assert!(matches!(trimmed, Err(crate::journal::JournalError::Trimmed { .. })), "{trimmed:?}");
    }

    async fn fence(&self) {
        let state = self.other.replica.state();
        let known = state.broker(BrokerId(1)).unwrap();
        let (incarnation, last_position) = (known.incarnation.unwrap().0, known.last_position.0);
        // The other has been heard for as long as this takes.
        let fence = FenceBroker { broker: 1, incarnation, last_position };
        for _ in 0..20 {
            self.site.world.sleep(Duration::from_secs(1)).await;
            self.other.replica.heartbeat().await.unwrap();
        }
        assert_eq!(self.other.replica.propose(fence).await, Ok(Outcome::Done));
    }

    /// It is one of the others again, with all that they have.
    async fn is_back(&self) {
        let (ours, theirs) = loop {
            let states = (self.broker.replica.barrier().await, self.other.replica.barrier().await);
            let me = self.broker.replica.identity();
            if let (Ok(ours), Ok(theirs)) = states
                && ours.head() == theirs.head()
                && ours.broker(me.broker).unwrap().incarnation == Some(me.incarnation)
            {
                break (ours, theirs);
            }
            assert!(!self.broker.owner.is_finished());
            // The clock stands still for as long as somebody has something to do.
            self.site.world.sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(bytes_of(&ours), bytes_of(&theirs));
        assert!(!self.broker.replica.is_reloading());
        assert_eq!(self.metrics.journal.reloads.get(), 1);
        first(self.broker.replica.propose(ids(5)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn h13_a_broker_that_was_overtaken_goes_on_from_a_snapshot_in_a_new_life() {
    for fenced in [false, true] {
        let overtaken = Overtaken::new(40).await;
        let Overtaken { site, broker, journal, .. } = &overtaken;
        let (before, slot) = (broker.replica.identity(), broker.replica.state().topic_by_name("t").unwrap().slots[0]);
        let waiter = broker.replica.watch([slot].into_iter());
        overtaken.go_on().await;
        if fenced {
            overtaken.fence().await;
        }
        let applied = broker.replica.applied();
        let asked = broker.replica.submit(ids(5)).await.unwrap();
        journal.away(false);
        let answer = asked.await.unwrap();
        let refused = matches!(&answer, Err(ProposeError::NotDone(reason)) if reason.contains("gone on without it"));
        assert!(refused, "asked in an earlier life: {answer:?}");
        overtaken.is_back().await;
        assert_ne!(broker.replica.identity().incarnation, before.incarnation);
        assert!(broker.replica.applied().position > applied.position);
        assert!(site.world.timeout(Duration::from_secs(1), waiter.woken()).await.is_some(), "who waited looks again");
    }
}

#[tokio::test(start_paused = true)]
async fn h13_an_append_that_happened_and_was_trimmed_is_not_done_again() {
    let overtaken = Overtaken::new(41).await;
    let Overtaken { broker, journal, other, .. } = &overtaken;
    journal.script([End::LostAfter]);
    let asked = broker.replica.submit(ids(1_000)).await.unwrap();
    overtaken.site.world.sleep(Duration::from_millis(10)).await;
    overtaken.go_on().await;
    journal.away(false);
    assert!(asked.await.is_err(), "its outcome is not to be had any more");
    overtaken.is_back().await;
    let given = first(other.replica.propose(ids(0)).await);
    assert_eq!(given, 1_000 + 100 + 5, "once");
}

#[tokio::test(start_paused = true)]
async fn h13_it_tries_until_a_snapshot_can_be_read() {
    let overtaken = Overtaken::new(42).await;
    let Overtaken { site, broker, journal, bucket, .. } = &overtaken;
    overtaken.go_on().await;
    let mut told = broker.replica.reloading();
    bucket.set_all(Some(Fault::NotDone));
    journal.away(false);
    assert!(!*told.borrow_and_update());
    told.changed().await.unwrap();
    assert!(*told.borrow_and_update());
    for _ in 0..20 {
        site.world.sleep(Duration::from_secs(1)).await;
        assert!(broker.replica.is_reloading() && !broker.owner.is_finished());
    }
    bucket.set_all(None);
    told.changed().await.unwrap();
    assert!(!*told.borrow_and_update());
    overtaken.is_back().await;
}

#[tokio::test(start_paused = true)]
async fn h13_a_registration_that_the_journal_does_not_take_is_tried_again() {
    let overtaken = Overtaken::new(43).await;
    overtaken.go_on().await;
    overtaken.journal.script([End::NotDone; 50]);
    overtaken.journal.away(false);
    overtaken.is_back().await;
}

#[tokio::test(start_paused = true)]
async fn h8_a_life_that_it_did_not_see_begin_and_end_was_its_own() {
    for fenced in [false, true] {
        let overtaken = Overtaken::new(45).await;
        let Overtaken { site, journal, other, .. } = &overtaken;
        journal.away(true);
        overtaken.fence().await;
        journal.script([End::LostAfter]);
        journal.away(false);
        // It registers again, and is cut off before it knows that it has.
        while other.replica.barrier().await.unwrap().broker(BrokerId(1)).unwrap().incarnation.is_none() {
            site.world.sleep(Duration::from_millis(1)).await;
        }
        overtaken.go_on().await;
        if fenced {
            overtaken.fence().await;
        }
        journal.away(false);
        overtaken.is_back().await;
    }
}

#[tokio::test(start_paused = true)]
async fn h8_a_broker_that_was_overtaken_and_replaced_stops() {
    let overtaken = Overtaken::new(44).await;
    overtaken.go_on().await;
    let next = overtaken.site.start(1).await;
    overtaken.journal.away(false);
    assert_eq!(overtaken.broker.owner.await.unwrap(), Err(Fatal::Replaced { broker: BrokerId(1) }));
    first(next.replica.propose(ids(5)).await);
}

#[tokio::test(start_paused = true)]
async fn h2_a_broker_that_was_overtaken_does_not_go_on_in_another_history() {
    let overtaken = Overtaken::new(45).await;
    overtaken.go_on().await;
    // Somebody has seen another entry in the place of the last one.
    let head = overtaken.site.journal.head().await.unwrap();
    let seen = format!("witness/{:016x}-{:016x}-0000000000000001", head.position.0, head.token.0 ^ 1);
    overtaken.site.bucket.create(&seen, vec![Bytes::new()], crate::store::Purpose::Control).await.unwrap();
    overtaken.journal.away(false);
    let fatal = overtaken.broker.owner.await.unwrap().unwrap_err();
    assert!(fatal.is_fork() && fatal.to_string().contains("witness/"), "{fatal}");
}

/// A new life does not undo it.
#[tokio::test(start_paused = true)]
async fn h13_who_is_told_to_go_while_it_is_away_goes() {
    let overtaken = Overtaken::new(46).await;
    overtaken.go_on().await;
    let told = crate::state::DrainBroker { broker: 1 };
    assert_eq!(overtaken.other.replica.propose(told).await, Ok(Outcome::Done));
    overtaken.journal.away(false);
    overtaken.is_back().await;
    let standing = overtaken.broker.replica.state().broker(BrokerId(1)).unwrap().standing;
    assert_eq!(standing, crate::state::Standing::Draining);
}
