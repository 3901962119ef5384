//! What every journal promises, as tests that run against any of them. A journal's test module names its [`Harness`]
//! and calls [`suite!`]; each case starts with an empty journal of its own.
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// One empty journal that a case can open again.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// Opens the journal. Called again only after every earlier handle was dropped, as after a restart.
    async fn open(&self) -> Arc<dyn Journal>;

    /// A second handle beside `first`, of another broker where the journal can have several.
    async fn another(&self, first: &Arc<dyn Journal>) -> Arc<dyn Journal> {
        Arc::clone(first)
    }
}

/// Makes one test of each case; with `run`, runs each, for one test that holds what they all need. The expression makes a
/// fresh [`Harness`]; an attribute after it is each test's.
macro_rules! suite {
    (run $harness:expr) => {
        $crate::journal::contract::suite!(@every run [] $harness);
    };
    ($harness:expr $(, $attribute:meta)?) => {
        $crate::journal::contract::suite!(@every make [$(#[$attribute])?] $harness);
    };
    (@every $how:ident $attribute:tt $harness:expr) => {
        $crate::journal::contract::suite!(@$how $attribute $harness;
            an_empty_journal_has_an_empty_head
            positions_count_up_without_gaps
            an_entry_reads_back_as_it_was_proposed
            a_reopened_journal_goes_on
            a_retry_gets_the_old_position
            a_retry_after_a_reopen_gets_the_old_position
            a_retry_with_a_later_after_gets_the_old_position
            identical_proposals_at_once_are_one_entry
            a_counter_with_another_token_is_taken
            a_lower_counter_that_was_never_there_is_refused
            after_with_another_token_is_a_fork
            after_beyond_the_head_is_a_fork
            a_fork_is_told_before_a_retry_is_recognised
            an_older_after_gets_what_it_missed
            what_was_missed_is_paged
            many_appenders_get_one_order
            trimmed_entries_say_so
            after_a_trim_the_three_answers_differ
            the_last_entry_is_never_trimmed
            a_trim_is_remembered_by_a_reopened_journal
            a_trim_goes_only_forward
            a_retry_after_a_trim_is_recognised
            an_old_counter_after_a_trim_is_never_added_again
            entries_go_on_after_a_trim_of_everything
            a_restarted_journal_goes_on_from_its_one_entry
            changed_wakes_a_waiter
            changed_sees_what_came_before_it
            the_largest_entry_fits_and_a_larger_one_does_not
            pages_end_at_their_limit
        );
    };
    (@run [] $harness:expr; $($case:ident)*) => {
        $(
            println!("case {}", stringify!($case));
            $crate::journal::contract::$case(&$harness).await;
        )*
    };
    (@make $attribute:tt $harness:expr; $($case:ident)*) => {
        $($crate::journal::contract::suite!(@case $attribute $harness; $case);)*
    };
    (@case [$($attribute:tt)*] $harness:expr; $case:ident) => {
        #[tokio::test]
        $($attribute)*
        async fn $case() {
            $crate::journal::contract::$case(&$harness).await;
        }
    };
}
pub(crate) use suite;

/// A proposal with a token that follows from its other parts.
pub(crate) fn entry(incarnation: u64, counter: u64, payload: &[u8]) -> Proposal {
    Proposal {
        incarnation: Incarnation(incarnation),
        counter,
        token: Token(u64::MAX - incarnation * 1_000_003 - counter),
        payload: Bytes::copy_from_slice(payload),
    }
}

const ORIGIN: Head = Head { position: Position(0), token: Token(0) };

fn at(position: u64, proposal: &Proposal) -> Head {
    Head { position: Position(position), token: proposal.token }
}

/// Appends entries 1..=count of incarnation 1, each after the one before, and gives the head.
async fn fill(journal: &Arc<dyn Journal>, count: u64) -> Head {
    let mut head = journal.head().await.unwrap();
    for counter in 1..=count {
        let proposal = entry(1, counter, format!("entry {counter}").as_bytes());
        let appended = journal.append(proposal.clone(), head).await.unwrap();
        head = at(appended.position.0, &proposal);
    }
    head
}

/// All entries from `from` on, page by page.
async fn read_all(journal: &Arc<dyn Journal>, from: u64) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    loop {
        let next = all.last().map_or(Position(from), |last| last.position.next());
        let page = journal.read(next).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn positions(entries: &[Stored]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position.0).collect()
}

async fn trimmed_at(journal: &Arc<dyn Journal>, position: u64) -> Position {
    match journal.read(Position(position)).await {
        Err(JournalError::Trimmed { first }) => first,
        other => panic!("position {position} should be trimmed, but gives {other:?}"),
    }
}

pub(crate) async fn an_empty_journal_has_an_empty_head(harness: &impl Harness) {
    let journal = harness.open().await;
    assert_eq!(journal.head().await.unwrap(), ORIGIN);
    assert_eq!(journal.read(Position(1)).await.unwrap(), []);
    assert_eq!(journal.read(Position(0)).await.unwrap(), []);
    journal.trim(Position(100)).await.unwrap();
    assert_eq!(journal.head().await.unwrap(), ORIGIN);
    assert_eq!(journal.append(entry(1, 1, b"x"), ORIGIN).await.unwrap().position, Position(1));
}

pub(crate) async fn positions_count_up_without_gaps(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 20).await;
    assert_eq!(head.position, Position(20));
    assert_eq!(journal.head().await.unwrap(), head);
    // A refused append takes no position.
    journal.append(entry(2, 1, b"x"), Head { position: Position(99), token: Token(1) }).await.unwrap_err();
    journal.append(entry(1, 20, b"x"), head).await.unwrap();
    assert_eq!(journal.append(entry(1, 21, b"x"), head).await.unwrap().position, Position(21));
    assert_eq!(positions(&read_all(&journal, 1).await), (1..=21).collect::<Vec<_>>());
}

pub(crate) async fn an_entry_reads_back_as_it_was_proposed(harness: &impl Harness) {
    let journal = harness.open().await;
    let proposals = [
        Proposal { incarnation: Incarnation(u64::MAX), counter: 1, token: Token(u64::MAX), payload: Bytes::new() },
        Proposal {
            incarnation: Incarnation(0),
            counter: 7,
            token: Token(1),
            payload: Bytes::from_static(&[0, 255, 0]),
        },
        entry(3, 1, &[7; 100_000]),
    ];
    let mut head = ORIGIN;
    for (position, proposal) in (1..).zip(&proposals) {
        journal.append(proposal.clone(), head).await.unwrap();
        head = at(position, proposal);
    }
    let stored = read_all(&journal, 1).await;
    assert_eq!(stored.iter().map(|stored| &stored.proposal).collect::<Vec<_>>(), proposals.iter().collect::<Vec<_>>());
    assert_eq!(positions(&journal.read(Position(3)).await.unwrap()), [3]);
    assert_eq!(journal.read(Position(4)).await.unwrap(), []);
    assert_eq!(journal.read(Position(400)).await.unwrap(), []);
}

pub(crate) async fn a_reopened_journal_goes_on(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 5).await;
    let before = read_all(&journal, 1).await;
    drop(journal);
    let journal = harness.open().await;
    assert_eq!(journal.head().await.unwrap(), head);
    assert_eq!(read_all(&journal, 1).await, before);
    assert_eq!(journal.append(entry(2, 1, b"x"), head).await.unwrap().position, Position(6));
}

pub(crate) async fn a_retry_gets_the_old_position(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 3).await;
    let again = journal.append(entry(1, 3, b"entry 3"), at(2, &entry(1, 2, b""))).await.unwrap();
    assert_eq!(again, Appended { position: Position(3), missed: Vec::new() });
    // Also one that is not the newest any more.
    assert_eq!(journal.append(entry(1, 1, b"entry 1"), ORIGIN).await.unwrap().position, Position(1));
    assert_eq!(journal.head().await.unwrap(), head);
}

pub(crate) async fn a_retry_after_a_reopen_gets_the_old_position(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 3).await;
    drop(journal);
    let journal = harness.open().await;
    assert_eq!(journal.append(entry(1, 3, b"entry 3"), head).await.unwrap().position, Position(3));
    assert_eq!(journal.append(entry(1, 2, b"entry 2"), ORIGIN).await.unwrap().position, Position(2));
    assert_eq!(journal.head().await.unwrap(), head);
}

pub(crate) async fn a_retry_with_a_later_after_gets_the_old_position(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 5).await;
    let again = journal.append(entry(1, 2, b"entry 2"), head).await.unwrap();
    assert_eq!(again, Appended { position: Position(2), missed: Vec::new() });
}

pub(crate) async fn identical_proposals_at_once_are_one_entry(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 1).await;
    let other = harness.another(&journal).await;
    let proposal = entry(2, 1, b"once");
    let attempts = (0..16).map(|i| {
        let journal = Arc::clone(if i % 2 == 0 { &journal } else { &other });
        let proposal = proposal.clone();
        async move { journal.append(proposal, head).await }
    });
    for attempt in futures::future::join_all(attempts).await {
        assert_eq!(attempt.unwrap().position, Position(2));
    }
    assert_eq!(journal.head().await.unwrap(), at(2, &proposal));
}

pub(crate) async fn a_counter_with_another_token_is_taken(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 3).await;
    for counter in [2, 3] {
        let impostor = Proposal { token: Token(5), ..entry(1, counter, b"other") };
        let refused = journal.append(impostor, head).await.unwrap_err();
        assert_eq!(refused, JournalError::CounterTaken { incarnation: Incarnation(1), counter });
    }
    assert_eq!(journal.head().await.unwrap(), head);
}

pub(crate) async fn a_lower_counter_that_was_never_there_is_refused(harness: &impl Harness) {
    let journal = harness.open().await;
    let fifth = entry(1, 5, b"the fifth");
    journal.append(fifth.clone(), ORIGIN).await.unwrap();
    let refused = journal.append(entry(1, 4, b"late"), at(1, &fifth)).await.unwrap_err();
    assert_eq!(refused, JournalError::CounterTaken { incarnation: Incarnation(1), counter: 4 });
    assert_eq!(journal.head().await.unwrap(), at(1, &fifth));
}

pub(crate) async fn after_with_another_token_is_a_fork(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 3).await;
    for position in [0, 1, 3] {
        let after = Head { position: Position(position), token: Token(12345) };
        let refused = journal.append(entry(2, 1, b"x"), after).await.unwrap_err();
        assert!(matches!(&refused, JournalError::Forked { after: a, .. } if *a == after), "{refused}");
    }
    assert_eq!(journal.head().await.unwrap(), head);
}

/// Whatever it had before, and where it begins; a kind that can't says so and changes nothing.
pub(crate) async fn a_restarted_journal_goes_on_from_its_one_entry(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 5).await;
    let only = Stored { position: Position(1000), proposal: entry(7, 1, b"") };
    let stale = Head { position: Position(4), ..head };
    assert!(matches!(journal.restart(only.clone(), stale).await, Err(JournalError::NotDone(_))));
    assert_eq!(read_all(&journal, 1).await.len(), 5);
    match journal.restart(only.clone(), head).await {
        Ok(()) => {}
        Err(JournalError::NotDone(_)) => return assert_eq!(journal.head().await.unwrap(), head),
        Err(error) => panic!("{error}"),
    }
    let begun = at(1000, &only.proposal);
    assert_eq!(journal.head().await.unwrap(), begun);
    for lost in [Position(1), head.position, Position(999)] {
        assert_eq!(journal.read(lost).await, Err(JournalError::Trimmed { first: only.position }));
    }
    let refused = journal.append(entry(1, 6, b"x"), head).await.unwrap_err();
    assert!(matches!(refused, JournalError::Trimmed { .. } | JournalError::Forked { .. }), "{refused}");
    let next = entry(8, 1, b"next");
    assert_eq!(journal.append(next.clone(), begun).await.unwrap().position, Position(1001));
    assert_eq!(read_all(&journal, 1000).await, [only, Stored { position: Position(1001), proposal: next.clone() }]);
    drop(journal);
    let journal = harness.open().await;
    assert_eq!(journal.head().await.unwrap(), at(1001, &next));
    assert_eq!(read_all(&journal, 1000).await.len(), 2);
}

pub(crate) async fn after_beyond_the_head_is_a_fork(harness: &impl Harness) {
    let journal = harness.open().await;
    let lost = Head { position: Position(1), token: Token(9) };
    let refused = journal.append(entry(2, 1, b"x"), lost).await.unwrap_err();
    assert!(matches!(refused, JournalError::Forked { .. }), "{refused}");
    let head = fill(&journal, 3).await;
    let refused = journal.append(entry(2, 1, b"x"), Head { position: Position(4), ..head }).await.unwrap_err();
    assert!(matches!(refused, JournalError::Forked { .. }), "{refused}");
}

pub(crate) async fn a_fork_is_told_before_a_retry_is_recognised(harness: &impl Harness) {
    let journal = harness.open().await;
    fill(&journal, 3).await;
    let lost = Head { position: Position(7), token: Token(9) };
    let refused = journal.append(entry(1, 3, b"entry 3"), lost).await.unwrap_err();
    assert!(matches!(refused, JournalError::Forked { .. }), "{refused}");
}

pub(crate) async fn an_older_after_gets_what_it_missed(harness: &impl Harness) {
    let journal = harness.open().await;
    fill(&journal, 6).await;
    let appended = journal.append(entry(2, 1, b"x"), at(2, &entry(1, 2, b""))).await.unwrap();
    assert_eq!(appended.position, Position(7));
    // What is given starts right after `after` and has no gap; the rest, if any, is there to be read.
    let count = u64::try_from(appended.missed.len()).unwrap();
    assert_eq!(positions(&appended.missed), (3..3 + count).collect::<Vec<_>>());
    let mut missed = appended.missed;
    missed.extend(read_all(&journal, 3 + count).await);
    assert_eq!(positions(&missed), (3..=7).collect::<Vec<_>>());
    assert_eq!(missed, read_all(&journal, 3).await);
}

pub(crate) async fn what_was_missed_is_paged(harness: &impl Harness) {
    let journal = harness.open().await;
    let mut head = ORIGIN;
    for counter in 1..=5 {
        let proposal = entry(1, counter, &vec![1; 3 << 20]);
        head = at(journal.append(proposal.clone(), head).await.unwrap().position.0, &proposal);
    }
    let missed = journal.append(entry(2, 1, b"x"), ORIGIN).await.unwrap().missed;
    assert!(missed.len() <= 2, "{} entries of 3 MiB are more than a page", missed.len());
    assert_eq!(positions(&missed), (1..).take(missed.len()).collect::<Vec<_>>());
}

pub(crate) async fn many_appenders_get_one_order(harness: &impl Harness) {
    const APPENDERS: u64 = 8;
    const EACH: u64 = 12;
    let journal = harness.open().await;
    let mut handles = vec![Arc::clone(&journal)];
    for _ in 1..APPENDERS {
        handles.push(harness.another(&journal).await);
    }
    let appenders = (1..).zip(handles).map(|(incarnation, journal)| async move {
        let mut applied: Vec<Stored> = Vec::new();
        for counter in 1..=EACH {
            let after = applied.last().map_or(ORIGIN, |last| at(last.position.0, &last.proposal));
            let proposal = entry(incarnation, counter, b"one of many");
            let appended = journal.append(proposal.clone(), after).await.unwrap();
            applied.extend(appended.missed);
            let next = applied.last().map_or(Position(1), |last| last.position.next());
            if next < appended.position {
                let rest = read_all(&journal, next.0).await;
                applied.extend(rest.into_iter().take_while(|stored| stored.position < appended.position));
            }
            applied.push(Stored { position: appended.position, proposal });
        }
        applied
    });
    let views = futures::future::join_all(appenders).await;
    let whole = read_all(&journal, 1).await;
    assert_eq!(positions(&whole), (1..=APPENDERS * EACH).collect::<Vec<_>>());
    for view in views {
        assert_eq!(view, whole[..view.len()], "an appender saw another order");
    }
    for incarnation in 1..=APPENDERS {
        let own = whole.iter().filter(|stored| stored.proposal.incarnation == Incarnation(incarnation));
        assert_eq!(own.map(|stored| stored.proposal.counter).collect::<Vec<_>>(), (1..=EACH).collect::<Vec<_>>());
    }
}

pub(crate) async fn trimmed_entries_say_so(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 10).await;
    journal.trim(Position(6)).await.unwrap();
    assert_eq!(trimmed_at(&journal, 0).await, Position(6));
    assert_eq!(trimmed_at(&journal, 1).await, Position(6));
    assert_eq!(trimmed_at(&journal, 5).await, Position(6));
    assert_eq!(positions(&read_all(&journal, 6).await), [6, 7, 8, 9, 10]);
    assert_eq!(journal.head().await.unwrap(), head);
}

pub(crate) async fn after_a_trim_the_three_answers_differ(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 10).await;
    journal.trim(Position(6)).await.unwrap();
    for after in [ORIGIN, at(3, &entry(1, 3, b"")), at(5, &entry(1, 5, b""))] {
        let refused = journal.append(entry(2, 1, b"x"), after).await.unwrap_err();
        assert_eq!(refused, JournalError::Trimmed { first: Position(6) });
    }
    let other_token = Head { token: Token(3), position: Position(6) };
    let refused = journal.append(entry(2, 1, b"x"), other_token).await.unwrap_err();
    assert!(matches!(refused, JournalError::Forked { .. }), "{refused}");
    assert_eq!(journal.append(entry(2, 1, b"x"), at(6, &entry(1, 6, b""))).await.unwrap().position, Position(11));
    assert_eq!(journal.append(entry(2, 2, b"x"), head).await.unwrap().position, Position(12));
}

pub(crate) async fn the_last_entry_is_never_trimmed(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 4).await;
    journal.trim(Position(u64::MAX)).await.unwrap();
    assert_eq!(journal.head().await.unwrap(), head);
    assert_eq!(trimmed_at(&journal, 3).await, Position(4));
    assert_eq!(positions(&read_all(&journal, 4).await), [4]);
    drop(journal);
    let journal = harness.open().await;
    assert_eq!(journal.head().await.unwrap(), head);
}

pub(crate) async fn a_trim_is_remembered_by_a_reopened_journal(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 10).await;
    journal.trim(Position(8)).await.unwrap();
    drop(journal);
    let journal = harness.open().await;
    assert_eq!(trimmed_at(&journal, 7).await, Position(8));
    assert_eq!(positions(&read_all(&journal, 8).await), [8, 9, 10]);
    let refused = journal.append(entry(2, 1, b"x"), ORIGIN).await.unwrap_err();
    assert_eq!(refused, JournalError::Trimmed { first: Position(8) });
    assert_eq!(journal.append(entry(2, 1, b"x"), head).await.unwrap().position, Position(11));
}

pub(crate) async fn a_trim_goes_only_forward(harness: &impl Harness) {
    let journal = harness.open().await;
    fill(&journal, 10).await;
    journal.trim(Position(8)).await.unwrap();
    journal.trim(Position(3)).await.unwrap();
    journal.trim(Position(0)).await.unwrap();
    assert_eq!(trimmed_at(&journal, 7).await, Position(8));
}

pub(crate) async fn a_retry_after_a_trim_is_recognised(harness: &impl Harness) {
    let journal = harness.open().await;
    fill(&journal, 3).await;
    let other = entry(2, 1, b"x");
    journal.append(other.clone(), ORIGIN).await.unwrap();
    journal.trim(Position(4)).await.unwrap();
    // The newest of incarnation 1 was trimmed, and so was what its retry names as `after`.
    let again = journal.append(entry(1, 3, b"entry 3"), at(2, &entry(1, 2, b""))).await.unwrap();
    assert_eq!(again, Appended { position: Position(3), missed: Vec::new() });
    drop(journal);
    let journal = harness.open().await;
    let again = journal.append(entry(1, 3, b"entry 3"), at(4, &other)).await.unwrap();
    assert_eq!(again.position, Position(3));
    let impostor = Proposal { token: Token(5), ..entry(1, 3, b"other") };
    let refused = journal.append(impostor, at(4, &other)).await.unwrap_err();
    assert_eq!(refused, JournalError::CounterTaken { incarnation: Incarnation(1), counter: 3 });
    assert_eq!(journal.append(entry(1, 4, b"next"), at(4, &other)).await.unwrap().position, Position(5));
}

pub(crate) async fn an_old_counter_after_a_trim_is_never_added_again(harness: &impl Harness) {
    let journal = harness.open().await;
    let head = fill(&journal, 5).await;
    journal.trim(Position(5)).await.unwrap();
    drop(journal);
    let journal = harness.open().await;
    // Counter 2 was trimmed and is not its incarnation's newest: found still, or known to be trimmed, never added.
    match journal.append(entry(1, 2, b"entry 2"), head).await {
        Ok(appended) => assert_eq!(appended.position, Position(2)),
        Err(refused) => assert_eq!(refused, JournalError::Trimmed { first: Position(5) }),
    }
    assert_eq!(journal.head().await.unwrap(), head);
}

pub(crate) async fn entries_go_on_after_a_trim_of_everything(harness: &impl Harness) {
    let journal = harness.open().await;
    let mut head = fill(&journal, 3).await;
    for counter in 1..=5 {
        journal.trim(head.position.next()).await.unwrap();
        let proposal = entry(2, counter, b"x");
        let appended = journal.append(proposal.clone(), head).await.unwrap();
        assert_eq!(appended.position, Position(3 + counter));
        head = at(appended.position.0, &proposal);
    }
    drop(journal);
    assert_eq!(harness.open().await.head().await.unwrap(), head);
}

pub(crate) async fn changed_wakes_a_waiter(harness: &impl Harness) {
    let journal = harness.open().await;
    let other = harness.another(&journal).await;
    let head = fill(&journal, 1).await;
    let wait = async {
        while other.head().await.unwrap().position <= head.position {
            other.changed(head.position).await;
        }
    };
    let append = async {
        // The waiter is polled first, so it waits already.
        tokio::task::yield_now().await;
        journal.append(entry(2, 1, b"x"), head).await.unwrap();
    };
    in_time(async { tokio::join!(wait, append) }).await;
}

pub(crate) async fn changed_sees_what_came_before_it(harness: &impl Harness) {
    let journal = harness.open().await;
    fill(&journal, 2).await;
    in_time(journal.changed(Position(0))).await;
    in_time(journal.changed(Position(1))).await;
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it should have been woken")
}

pub(crate) async fn the_largest_entry_fits_and_a_larger_one_does_not(harness: &impl Harness) {
    let journal = harness.open().await;
    let payload: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let largest = entry(1, 1, &payload);
    journal.append(largest.clone(), ORIGIN).await.unwrap();
    let larger = entry(1, 2, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    let refused = journal.append(larger, at(1, &largest)).await.unwrap_err();
    assert_eq!(refused, JournalError::TooLarge { bytes: PAYLOAD_BYTES_MAX + 1 });
    assert!(journal.read(Position(1)).await.unwrap()[0].proposal == largest);
    assert_eq!(journal.append(entry(1, 2, b""), at(1, &largest)).await.unwrap().position, Position(2));
}

pub(crate) async fn pages_end_at_their_limit(harness: &impl Harness) {
    let journal = harness.open().await;
    let mut head = ORIGIN;
    for counter in 1..=7 {
        let bytes = if counter == 4 { PAYLOAD_BYTES_MAX } else { 3 << 20 };
        let proposal = entry(1, counter, &vec![1; bytes]);
        head = at(journal.append(proposal.clone(), head).await.unwrap().position.0, &proposal);
    }
    let page = journal.read(Position(1)).await.unwrap();
    assert!(!page.is_empty() && page.len() <= 2, "{} entries of 3 MiB are no page", page.len());
    assert_eq!(positions(&read_all(&journal, 1).await), (1..=7).collect::<Vec<_>>());
}
