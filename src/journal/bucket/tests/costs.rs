//! What is asked of the bucket, which charges for it. Virtual time.
use std::sync::Arc;
use std::time::Duration;

use super::held::Held;
use super::{POLLS, append_all, handle};
use crate::journal::bucket::format::{self, Boundary, Entry};
use crate::journal::bucket::newest::Newest;
use crate::journal::rules::Known;
use crate::journal::{BucketJournal, Journal, JournalError, PollPolicy, Stored, contract::entry};
use crate::store::{Bucket, MemoryBucket, Operation};
use crate::types::{Hint, Incarnation, Position, Token};
use crate::world::World;

fn counted(memory: &MemoryBucket) -> (Held, Arc<dyn Bucket>) {
    let counted = Held::new(Arc::new(memory.clone()));
    (counted.clone(), Arc::new(counted))
}

/// Three brokers that wait: the bar is ten dollars a month for all, at 0.0004 per thousand GETs.
#[tokio::test(start_paused = true)]
async fn three_idle_brokers_cost_little() {
    let (world, memory) = (World::seeded(1), MemoryBucket::new());
    let head = append_all(&handle(&(Arc::new(memory.clone()) as Arc<dyn Bucket>), &world), 1, 1..=3).await;
    let (counted, bucket) = counted(&memory);
    let idle = (0..3).map(|_| {
        let journal = handle(&bucket, &world);
        async move { journal.changed(head.position).await }
    });
    let hour = Duration::from_secs(3600);
    assert!(world.timeout(hour, futures::future::join_all(idle)).await.is_none());
    let requests = counted.take_requests();
    println!("{requests:?}");
    assert_eq!(requests.keys().copied().collect::<Vec<_>>(), [Operation::Read]);
    let month = requests[&Operation::Read] as f64 * 24.0 * 30.0 * 0.0004 / 1000.0;
    assert!(month < 3.3, "{month} dollars");
}

#[tokio::test(start_paused = true)]
async fn an_append_costs_one_create_and_two_reads() {
    let (world, memory) = (World::seeded(1), MemoryBucket::new());
    let (counted, bucket) = counted(&memory);
    let journal = handle(&bucket, &world);
    append_all(&journal, 1, 1..=1).await;
    counted.take_requests();
    append_all(&journal, 1, 2..=11).await;
    let requests = counted.take_requests();
    // And two for the head, which was asked for once.
    assert_eq!((requests[&Operation::Create], requests[&Operation::Read]), (10, 22), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_another_broker_costs_four_reads() {
    let (world, memory) = (World::seeded(1), MemoryBucket::new());
    let writer = handle(&(Arc::new(memory.clone()) as Arc<dyn Bucket>), &world);
    let mut head = append_all(&writer, 1, 1..=3).await;
    let (counted, bucket) = counted(&memory);
    let reader = handle(&bucket, &world);
    assert_eq!(reader.head().await, Ok(head));
    for counter in 4..=6 {
        head = append_all(&writer, 1, counter..=counter).await;
        counted.take_requests();
        reader.changed(Position(counter - 1)).await;
        assert_eq!(reader.read(head.position).await.unwrap().len(), 1);
        assert_eq!(reader.read(head.position.next()).await, Ok(Vec::new()));
        let requests = counted.take_requests();
        let polls_without_news = 1;
        assert!(requests[&Operation::Read] <= 4 + polls_without_news, "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_at_once() {
    let (world, memory) = (World::seeded(1), MemoryBucket::new());
    let bucket: Arc<dyn Bucket> = Arc::new(memory);
    let writer = handle(&bucket, &world);
    let head = append_all(&writer, 1, 1..=3).await;
    let slow = PollPolicy { fastest: Duration::from_secs(60), slowest: Duration::from_secs(60), ..POLLS };
    let reader = BucketJournal::new(Arc::clone(&bucket), world.clone(), slow);
    assert_eq!(reader.head().await, Ok(head));
    let said = |position| Hint { incarnation: Incarnation(1), position: Position(position) };
    let waits = async {
        // The first poll is due at once and finds nothing.
        assert!(world.timeout(Duration::from_secs(1), reader.changed(head.position)).await.is_none());
        let asked = world.now();
        reader.changed(head.position).await;
        asked.elapsed()
    };
    let hints = async {
        world.sleep(Duration::from_secs(5)).await;
        append_all(&writer, 1, 4..=4).await;
        reader.hint(said(3));
        world.sleep(Duration::from_secs(5)).await;
        reader.hint(said(4));
    };
    let (took, ()) = tokio::join!(waits, hints);
    assert_eq!(took, Duration::from_secs(9), "a hint of what is known wakes nobody, the other one does");
}

/// A journal of which a million entries are trimmed: what a start asks does not grow with them.
#[tokio::test(start_paused = true)]
async fn a_start_after_a_million_entries_is_cheap() {
    const TRIMMED: u64 = 1_000_000;
    const LEFT: u64 = 5_000;
    let (world, memory) = (World::seeded(1), MemoryBucket::new());
    let known = |n: u64| Known { counter: n, position: Position(n), token: entry(1, n, b"").token };
    for number in 1..=100 {
        let first = Position(TRIMMED / 100 * number + 1);
        let mut newest = Newest::default();
        newest.note(Incarnation(1), known(first.0 - 1));
        let boundary = Boundary { number, first, before: known(first.0 - 1).token, newest };
        memory.overwrite(&format::boundary_key(number), format::encode_boundary(&boundary));
    }
    for position in TRIMMED + 1..=TRIMMED + LEFT {
        let mut newest = Newest::default();
        newest.note(Incarnation(1), known(position - 1));
        let below = format::is_checkpoint(Position(position)).then_some(newest);
        let stored = Stored { position: Position(position), proposal: entry(1, position, b"x") };
        let written = Entry { stored, previous: known(position - 1).token, below };
        memory.overwrite(&format::entry_key(Position(position)), format::encode_entry(&written));
    }
    let (counted, bucket) = counted(&memory);
    let journal = handle(&bucket, &world);
    let head = journal.head().await.unwrap();
    assert_eq!((head.position.0, head.token), (TRIMMED + LEFT, known(TRIMMED + LEFT).token));
    let requests = counted.take_requests();
    println!("{requests:?}");
    assert_eq!(requests.keys().copied().collect::<Vec<_>>(), [Operation::Read]);
    assert!(requests[&Operation::Read] <= 128 + 60, "{requests:?}");
    // And it knows what to say to a retry of long ago.
    let old = journal.append(entry(1, 7, b"x"), head).await;
    assert!(matches!(old, Err(JournalError::Trimmed { first }) if first == Position(TRIMMED + 1)), "{old:?}");
    assert_eq!(journal.append(entry(1, TRIMMED + LEFT + 1, b"x"), head).await.unwrap().position.0, TRIMMED + LEFT + 1);
}

/// What is newest of each incarnation is found again wherever a handle begins, and wherever the journal was trimmed.
#[tokio::test(start_paused = true)]
async fn a_start_knows_every_incarnation() {
    let (world, memory) = (World::seeded(1), MemoryBucket::new());
    let bucket: Arc<dyn Bucket> = Arc::new(memory);
    let writer = handle(&bucket, &world);
    for incarnation in 1..=6 {
        append_all(&writer, incarnation, 1..=60).await;
    }
    let head = writer.head().await.unwrap();
    for below in [1, 100, 127, 128, 129, 130, 256, 257, 300, 360] {
        handle(&bucket, &world).trim(Position(below)).await.unwrap();
        let journal = handle(&bucket, &world);
        for incarnation in 1..=6 {
            let again = journal.append(entry(incarnation, 60, b"x"), head).await.unwrap();
            assert_eq!(again.position, Position(incarnation * 60), "trimmed below {below}");
            let other = entry(incarnation, 60, b"x");
            let other = crate::journal::Proposal { token: Token(1), ..other };
            let refused = journal.append(other, head).await;
            assert!(matches!(refused, Err(JournalError::CounterTaken { .. })), "{refused:?}");
        }
        assert_eq!(journal.head().await, Ok(head));
    }
}
