//! Appends that fail in every way: what was promised to the proposer holds, and no entry is there twice.
use super::*;
use crate::journal::{JournalError, Proposal};
use crate::state::{Command, FEATURE_LEVEL_MAX};
use crate::types::{Head, Incarnation, Token};

/// The journal's own entries of a broker: each proposal once, with the bytes that were sent each time.
async fn check_frozen(site: &Site, seen: &[Proposal]) {
    let entries = site.journal.read(Position(1)).await.unwrap();
    for stored in &entries {
        let same = |p: &&Proposal| p.incarnation == stored.proposal.incarnation && p.counter == stored.proposal.counter;
        assert!(seen.iter().filter(same).all(|p| *p == stored.proposal), "a retry has other bytes");
        assert_eq!(entries.iter().filter(|e| same(&&e.proposal)).count(), 1, "an entry is there twice");
    }
}

#[tokio::test(start_paused = true)]
async fn h8_a_lost_reply_is_asked_for_until_it_is_known() {
    let scripts: &[&[troubled::Trouble]] = &[
        &[End::NotDone.into()],
        &[End::LostBefore.into()],
        &[End::LostAfter.into()],
        &[End::Silent.into()],
        &[End::SilentDone.into()],
        &[End::Done.behind(3)],
        &[End::LostAfter.behind(3)],
        &[End::LostAfter.into(), End::Done.behind(3)],
        &[End::LostBefore.into(), End::LostAfter.behind(2), End::NotDone.behind(1), End::LostBefore.behind(7)],
        &[End::SilentDone.behind(30), End::LostAfter.behind(30), End::NotDone.into(), End::Done.behind(30)],
    ];
    for (page, script) in [None, Some(1), Some(4)].into_iter().flat_map(|p| scripts.iter().map(move |s| (p, s))) {
        let site = Site::new(10);
        let (broker, journal) = site.start_troubled(1).await;
        let other = site.start(2).await;
        journal.other(other.replica.clone());
        if let Some(page) = page {
            journal.page(page);
        }
        journal.script(script.iter().copied());
        let before = journal.seen().len();
        assert!(first(broker.replica.propose(ids(100)).await) <= 100, "{script:?}");
        let seen = journal.seen();
        assert!(seen[before..].iter().all(|p| *p == seen[before]), "{script:?}: the same bytes each time");
        check_frozen(&site, &seen).await;
        // Once: what the others took and what we took is all that was given.
        let foreign = other.replica.propose(ids(0)).await;
        let given = first(foreign) - 100;
        let after = first(broker.replica.propose(ids(0)).await);
        assert_eq!(after, 100 + given, "{script:?}");
        assert!(given <= 200, "{script:?}");
        assert_eq!(bytes_of(&broker.replica.barrier().await.unwrap()), bytes_of(&site.replayed().await));
    }
}

#[tokio::test(start_paused = true)]
async fn what_certainly_did_not_happen_is_said_in_time() {
    let site = Site::new(11);
    let (broker, journal) = site.start_troubled(1).await;
    journal.script([End::NotDone; 20]);
    let start = site.world.now();
    assert!(matches!(broker.replica.propose(ids(5)).await, Err(ProposeError::NotDone(_))));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(first(broker.replica.propose(ids(5)).await), 0, "it did not happen");
    assert_eq!(bytes_of(&broker.replica.state()), bytes_of(&site.replayed().await));
}

#[tokio::test(start_paused = true)]
async fn a_doubt_ends_only_by_an_answer() {
    let site = Site::new(12);
    let (broker, journal) = site.start_troubled(1).await;
    // It was done by the lost attempt, so that no number of refusals afterwards makes it undone.
    journal.script([End::LostAfter]);
    journal.script([End::NotDone; 100]);
    assert_eq!(first(broker.replica.propose(ids(5)).await), 0);
    assert_eq!(first(broker.replica.propose(ids(5)).await), 5);
}

#[tokio::test(start_paused = true)]
async fn h17_a_hung_append_is_sent_again() {
    let site = Site::new(13);
    let (broker, journal) = site.start_troubled(1).await;
    journal.script([End::SilentDone, End::Silent]);
    let start = site.world.now();
    assert_eq!(first(broker.replica.propose(ids(5)).await), 0);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    assert_eq!(first(broker.replica.propose(ids(5)).await), 5);
}

#[tokio::test(start_paused = true)]
async fn h2_a_fork_stops_the_broker() {
    let site = Site::new(14);
    let (broker, journal) = site.start_troubled(1).await;
    journal.script([End::Forked]);
    assert_eq!(broker.replica.propose(ids(5)).await, Err(ProposeError::Stopped));
    let fatal = broker.owner.await.unwrap().unwrap_err();
    assert!(matches!(&fatal, Fatal::Journal(JournalError::Forked { .. })), "{fatal}");
    assert_eq!(broker.replica.propose(ids(5)).await, Err(ProposeError::Stopped));
    assert!(matches!(start(site.parts(2)).await.err(), Some(StartError::ForkFound { .. })));
    // Where the journal goes on nevertheless:
    mend(&site.journal, &site.bucket, &site.world, Choice::Journal).await.unwrap();
    site.start(2).await.replica.propose(ids(5)).await.unwrap();
    assert!(broker.replica.barrier().await.is_err(), "it answers nothing that could be wrong");
}

#[tokio::test(start_paused = true)]
async fn h8_two_processes_with_one_life_stop() {
    let site = Site::new(15);
    let broker = site.start(1).await;
    let incarnation = broker.replica.identity().incarnation;
    // Another process uses the same incarnation's next counter.
    let twin = Proposal { incarnation, counter: 2, token: Token(99), payload: entry(&site, |_| {}).await };
    append(&site, twin).await;
    assert_eq!(broker.replica.propose(ids(5)).await, Err(ProposeError::Stopped));
    let fatal = broker.owner.await.unwrap().unwrap_err();
    assert!(matches!(&fatal, Fatal::Journal(JournalError::CounterTaken { .. })), "{fatal}");
}

#[tokio::test(start_paused = true)]
async fn h5_other_outcomes_stop_the_broker() {
    let site = Site::new(16);
    let broker = site.start(1).await;
    append_of_another(&site, |entry| entry.after_outcomes ^= 1).await;
    let fatal = broker.owner.await.unwrap().unwrap_err();
    let at = Position(1);
    assert_eq!(fatal, Fatal::Diverged { at, broker: BrokerId(2) });
    let refused = start(site.parts(3)).await.err().unwrap().to_string();
    assert!(refused.contains("differ from those of broker 2"), "and nobody starts over it: {refused}");
}

#[tokio::test(start_paused = true)]
async fn h5_an_entry_of_the_future_stops_the_broker() {
    let site = Site::new(17);
    let broker = site.start(1).await;
    append_of_another(&site, |entry| entry.feature_level = FEATURE_LEVEL_MAX + 1).await;
    let fatal = broker.owner.await.unwrap().unwrap_err().to_string();
    let told = format!("journal entry 2 is of feature level {}", FEATURE_LEVEL_MAX + 1);
    assert!(fatal.contains(&told), "{fatal}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_stops_the_broker() {
    let site = Site::new(18);
    let broker = site.start(1).await;
    append(&site, Proposal { payload: Bytes::from_static(b"garbage"), ..proposal(entry(&site, |_| {}).await) }).await;
    let fatal = broker.owner.await.unwrap().unwrap_err();
    assert!(matches!(fatal, Fatal::Entry { position: Position(2), .. }), "{fatal}");
}

/// An entry that broker 2 could write after what is in the journal, but for `change`.
async fn entry(site: &Site, change: impl FnOnce(&mut Entry)) -> Bytes {
    let state = site.replayed().await;
    let Head { position, token } = state.head();
    let mut entry = Entry {
        feature_level: 1,
        broker: 2,
        incarnation: 77,
        counter: 1,
        token: 88,
        wall_ms: 0,
        after_position: position.0,
        after_token: token.0,
        after_outcomes: state.outcomes_hash(),
        commands: vec![Command::from(ids(1))],
    };
    change(&mut entry);
    entry.encode_framed()
}

fn proposal(payload: Bytes) -> Proposal {
    Proposal { incarnation: Incarnation(77), counter: 1, token: Token(88), payload }
}

async fn append(site: &Site, proposal: Proposal) {
    let after = site.journal.head().await.unwrap();
    site.journal.append(proposal, after).await.unwrap();
}

async fn append_of_another(site: &Site, change: impl FnOnce(&mut Entry)) {
    let payload = entry(site, change).await;
    append(site, proposal(payload)).await;
}
