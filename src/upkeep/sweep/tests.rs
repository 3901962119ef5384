use bytes::Bytes;

use super::*;
use crate::store::MemoryBucket;
use crate::types::{Head, Token};

fn name(position: u64, written_ms: u64, n: u128) -> ObjectName {
    ObjectName::data(Head { position: Position(position), token: Token(1) }, u128::from(written_ms) << 80 | n)
}

fn due(age: Duration, old: u64) -> Due {
    Due { now: TimestampMs(10_000), age, old: Position(old) }
}

#[tokio::test]
async fn what_is_old_and_not_named_is_found_and_nothing_else() {
    let bucket = MemoryBucket::new();
    let (old, young) = (name(5, 1_000, 1), name(5, 9_000, 2));
    let others = ["snapshots/1", "witness/1", "fork/found/1", "data/0/strange", "cluster"];
    for key in [old.key(), young.key()].into_iter().chain(others.map(String::from)) {
        bucket.create(&key, vec![Bytes::from_static(b"12345")], Purpose::Ingest).await.unwrap();
    }
    let state = Arc::new(State::default());
    let found = |age| orphans(&bucket, || state.clone(), due(Duration::from_millis(age), 0));
    assert_eq!(found(5_000).await.unwrap(), [Orphan { name: old, bytes: 5 }]);
    assert_eq!(found(500).await.unwrap().len(), 2);
    assert_eq!(found(9_000).await.unwrap(), []);
}

#[test]
fn what_was_named_long_ago_is_due_whatever_its_writer_s_clock_said() {
    let due = |position, horizon, old, written_ms| {
        due(Duration::from_secs(5), old).has(name(position, written_ms, 0), Position(horizon))
    };
    let future = u64::MAX >> 17;
    assert!(due(7, 8, 0, future), "it is below the horizon");
    assert!(due(7, 0, 8, future), "it is old by this broker's clock");
    assert!(!due(8, 8, 8, future));
    assert!(!due(8, 8, 8, 9_000));
    assert!(due(8, 8, 8, 1_000));
}

#[tokio::test]
async fn a_listing_goes_on_over_all_its_pages() {
    let bucket = MemoryBucket::new();
    for n in 0..2_500_u128 {
        let key = name(5, 1, n * 16).key();
        bucket.create(&key, vec![Bytes::from_static(b"1")], Purpose::Ingest).await.unwrap();
    }
    let state = Arc::new(State::default());
    let found = orphans(&bucket, || state.clone(), due(Duration::ZERO, 0)).await.unwrap();
    assert_eq!(found.len(), 2_500);
}
