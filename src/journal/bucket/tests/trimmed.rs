//! H3: what stood still while its position was trimmed. Virtual time.
use std::sync::Arc;
use std::time::Duration;

use super::held::{At, Held};
use super::{append_all, at, deleted, handle};
use crate::journal::contract::entry;
use crate::journal::{Journal, JournalError};
use crate::store::faulty::{Fault, Faulty};
use crate::store::{Bucket, MemoryBucket, Operation};
use crate::types::{Head, Position};
use crate::world::World;

/// A memory bucket, and a handle to its journal that can be made to stand still, with three entries in it.
async fn three_entries() -> (World, MemoryBucket, Arc<dyn Bucket>, Held, Head) {
    let world = World::seeded(1);
    let memory = MemoryBucket::new();
    let bucket: Arc<dyn Bucket> = Arc::new(memory.clone());
    let head = append_all(&handle(&bucket, &world), 1, 1..=3).await;
    (world, memory, Arc::clone(&bucket), Held::new(bucket), head)
}

#[tokio::test(start_paused = true)]
async fn h3_an_appender_that_stood_still_learns_that_its_position_was_trimmed() {
    for when in [At::Asking, At::Answering] {
        let (world, memory, bucket, held, head) = three_entries().await;
        let paused = handle(&(Arc::new(held.clone()) as Arc<dyn Bucket>), &world);
        assert_eq!(paused.head().await, Ok(head));
        let others = async {
            let others = handle(&bucket, &world);
            // Where the paused one's object is there already, this finds it.
            append_all(&others, 2, 1..=10).await;
            others.trim(Position(9)).await.unwrap();
            deleted(&memory, &world, 8).await;
        };
        let standing = held.hold(Operation::Create, when);
        let (appended, ()) = tokio::join!(paused.append(entry(3, 1, b"late"), head), standing.while_it_stands(others));
        if when == At::Asking {
            assert_eq!(appended, Err(JournalError::Trimmed { first: Position(9) }));
            // The object is there, and is no entry.
            assert!(memory.contents().contains_key("journal/00000000000000000004"));
        } else {
            assert_eq!(appended.unwrap().position, Position(4), "it was an entry before it was trimmed");
        }
        for journal in [&paused, &handle(&bucket, &world)] {
            let last = journal.head().await.unwrap().position;
            assert_eq!(last, Position(if when == At::Asking { 13 } else { 14 }));
            assert_eq!(journal.read(Position(4)).await, Err(JournalError::Trimmed { first: Position(9) }));
            let rest = journal.read(Position(9)).await.unwrap();
            assert!(rest.iter().all(|stored| stored.proposal.incarnation.0 == 2), "{rest:?}");
        }
        // The next trim's sweep removes it.
        let journal = handle(&bucket, &world);
        journal.trim(Position(10)).await.unwrap();
        deleted(&memory, &world, 9).await;
    }
}

#[tokio::test(start_paused = true)]
async fn h3_a_retry_that_creates_its_trimmed_object_anew_gets_the_old_position() {
    let (world, memory, bucket, held, head) = three_entries().await;
    let lossy = Faulty::new(Arc::new(held.clone()), world.clone());
    let paused = handle(&(Arc::new(lossy.clone()) as Arc<dyn Bucket>), &world);
    lossy.script(Operation::Create, [Fault::ReplyLost]);
    let proposal = entry(3, 1, b"once");
    assert!(matches!(paused.append(proposal.clone(), head).await, Err(JournalError::Unknown(_))));
    let others = async {
        let others = handle(&bucket, &world);
        append_all(&others, 2, 1..=10).await;
        others.trim(Position(9)).await.unwrap();
        deleted(&memory, &world, 8).await;
    };
    let standing = held.hold(Operation::Create, At::Asking);
    let (appended, ()) = tokio::join!(paused.append(proposal.clone(), head), standing.while_it_stands(others));
    assert_eq!(appended.unwrap().position, Position(4));
    let journal = handle(&bucket, &world);
    let last = journal.head().await.unwrap();
    assert_eq!(last.position, Position(14));
    assert_eq!(journal.append(proposal, last).await.unwrap().position, Position(4));
}

#[tokio::test(start_paused = true)]
async fn h3_a_reader_that_stood_still_believes_nothing_that_was_trimmed() {
    for when in [At::Asking, At::Answering] {
        let (world, memory, bucket, held, head) = three_entries().await;
        let reader = handle(&(Arc::new(held.clone()) as Arc<dyn Bucket>), &world);
        assert_eq!(reader.head().await, Ok(head));
        let others = handle(&bucket, &world);
        let head = append_all(&others, 2, 1..=1).await;
        let trim = async {
            append_all(&others, 2, 2..=10).await;
            others.trim(Position(9)).await.unwrap();
            deleted(&memory, &world, 8).await;
        };
        let standing = held.hold(Operation::Read, when);
        let (read, ()) = tokio::join!(reader.read(head.position), standing.while_it_stands(trim));
        assert_eq!(read, Err(JournalError::Trimmed { first: Position(9) }));
        assert_eq!(reader.head().await.unwrap().position, Position(13));
    }
}

#[tokio::test(start_paused = true)]
async fn h3_a_search_for_the_head_that_stood_still_begins_anew() {
    for when in [At::Asking, At::Answering] {
        for skipped in 0..6 {
            let (world, memory, bucket, held, _) = three_entries().await;
            let searcher = handle(&(Arc::new(held.clone()) as Arc<dyn Bucket>), &world);
            let trim = async {
                let others = handle(&bucket, &world);
                append_all(&others, 2, 1..=10).await;
                others.trim(Position(9)).await.unwrap();
                deleted(&memory, &world, 8).await;
            };
            let standing = held.hold_after(Operation::Read, skipped, when);
            let (head, ()) = tokio::join!(searcher.head(), standing.while_it_stands(trim));
            let head = head.unwrap().position;
            // What the head was when it was asked for, or later.
            assert!(head == Position(13) || (head == Position(3) && skipped > 0), "{head} after {skipped} reads");
            assert_eq!(searcher.head().await.unwrap().position, Position(13));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn h3_who_polls_for_a_position_that_was_trimmed_is_woken() {
    let (world, memory, bucket, _, head) = three_entries().await;
    let faulty = Faulty::new(Arc::clone(&bucket), world.clone());
    let waiting = handle(&(Arc::new(faulty.clone()) as Arc<dyn Bucket>), &world);
    assert_eq!(waiting.head().await, Ok(head));
    faulty.set_all(Some(Fault::NotDone));
    let others = handle(&bucket, &world);
    let outage = async {
        append_all(&others, 2, 1..=10).await;
        others.trim(Position(9)).await.unwrap();
        deleted(&memory, &world, 8).await;
        world.sleep(Duration::from_secs(300)).await;
        faulty.set_all(None);
        world.now()
    };
    let ((), healed) = tokio::join!(waiting.changed(head.position), outage);
    assert!(healed.elapsed() <= Duration::from_secs(61), "{:?}", healed.elapsed());
    let next = at(4, &entry(2, 1, b""));
    assert_eq!(waiting.read(next.position).await, Err(JournalError::Trimmed { first: Position(9) }));
}

#[tokio::test(start_paused = true)]
async fn two_trims_at_once_are_both_obeyed() {
    let (world, memory, bucket, held, _) = three_entries().await;
    append_all(&handle(&bucket, &world), 2, 1..=10).await;
    let slow = handle(&(Arc::new(held.clone()) as Arc<dyn Bucket>), &world);
    for (slow_below, fast_below, first) in [(5, 8, 8), (12, 10, 12)] {
        let others = async {
            handle(&bucket, &world).trim(Position(fast_below)).await.unwrap();
        };
        let standing = held.hold(Operation::Create, At::Asking);
        let (trimmed, ()) = tokio::join!(slow.trim(Position(slow_below)), standing.while_it_stands(others));
        assert_eq!(trimmed, Ok(()));
        deleted(&memory, &world, first - 1).await;
        let refused = handle(&bucket, &world).read(Position(1)).await;
        assert_eq!(refused, Err(JournalError::Trimmed { first: Position(first) }));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_sweep_left_is_deleted_by_the_next() {
    let (world, memory, bucket, _, _) = three_entries().await;
    append_all(&handle(&bucket, &world), 2, 1..=10).await;
    let faulty = Faulty::new(Arc::clone(&bucket), world.clone());
    faulty.script(Operation::Delete, [Fault::NotDone, Fault::NotDone]);
    let journal = handle(&(Arc::new(faulty) as Arc<dyn Bucket>), &world);
    journal.trim(Position(6)).await.unwrap();
    world.sleep(Duration::from_secs(1)).await;
    assert!(memory.contents().contains_key("journal/00000000000000000001"));
    journal.trim(Position(7)).await.unwrap();
    deleted(&memory, &world, 6).await;
}
