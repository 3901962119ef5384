//! Second copies of slow PUTs.
use super::*;

const HEDGE: PutPolicy = PutPolicy { deadline: DEADLINE, hedge: true };
const USUAL: Fate = Fate::After(Duration::from_millis(100));

/// A rig that has seen `puts` usual PUTs.
async fn seasoned(seed: u64, puts: usize) -> Rig {
    let rig = Rig::with(seed, AT_ONCE, HEDGE).await;
    for n in 0..puts {
        rig.bucket.next([USUAL]);
        placed(rig.say(1, &n.to_string()).await).await.unwrap();
    }
    rig
}

#[tokio::test(start_paused = true)]
async fn a_slow_put_gets_a_second_copy_and_the_faster_is_named() {
    let rig = seasoned(40, 50).await;
    rig.bucket.next([Fate::After(Duration::from_secs(9)), USUAL]);
    let begun = rig.world.now();
    assert_eq!(placed(rig.say(1, "slow").await).await, Ok(50));
    assert_eq!(begun.elapsed().as_millis(), 200, "p95 and one more PUT");
    assert_eq!((rig.metrics.produce.hedged_puts.get(), rig.metrics.produce.hedges_won.get()), (1, 1));
    assert_eq!(rig.log(0).await.last().unwrap(), "slow");
    let state = rig.state();
    let (_, meta) = state.objects().last().unwrap();
    let object = rig.site.bucket.contents()[&meta.name.key()].clone();
    assert_eq!(read_footer(&object).unwrap().0.name, meta.name, "the copy says its own name");
    assert!(rig.cache.get(meta.name, meta.bytes).await.unwrap().len() == meta.bytes);
}

#[tokio::test(start_paused = true)]
async fn the_first_may_still_win_and_either_may_fail() {
    let rig = seasoned(41, 50).await;
    let slow = Fate::After(Duration::from_millis(150));
    rig.bucket.next([slow, Fate::Hangs]);
    assert_eq!(placed(rig.say(1, "first").await).await, Ok(50));
    rig.bucket.next([slow, Fate::Fails(1000)]);
    assert_eq!(placed(rig.say(1, "first").await).await, Ok(51));
    assert_eq!((rig.metrics.produce.hedged_puts.get(), rig.metrics.produce.hedges_won.get()), (2, 0));
    for _ in 0..50 {
        rig.bucket.next([USUAL]);
        placed(rig.say(1, "usual").await).await.unwrap();
    }
    rig.bucket.next([Fate::Hangs, Fate::Hangs]);
    let begun = rig.world.now();
    assert_eq!(placed(rig.say(1, "neither").await).await, Err(KafkaError::RequestTimedOut));
    assert!(begun.elapsed() <= DEADLINE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn few_are_made_however_slow_the_store_gets() {
    let rig = seasoned(42, 100).await;
    let before = rig.bucket.creates();
    let mut usual_again = 0;
    for n in 0..400 {
        // Ten times slower from one moment to the next.
        rig.bucket.next([Fate::After(Duration::from_secs(1)), Fate::After(Duration::from_secs(1))]);
        placed(rig.say(1, &n.to_string()).await).await.unwrap();
        // What no copy took is the next object's otherwise.
        rig.bucket.clear();
        if n == 200 {
            usual_again = rig.metrics.produce.hedged_puts.get();
        }
    }
    let hedges = rig.metrics.produce.hedged_puts.get();
    assert!((1..=5).contains(&hedges), "{hedges} of 400");
    assert_eq!(hedges, usual_again, "and none once that is usual");
    assert_eq!(rig.bucket.creates() - before, 400 + hedges as usize);
}

#[tokio::test(start_paused = true)]
async fn none_is_made_where_puts_go_nowhere_or_too_few_are_known() {
    let near = Rig::new(43, AT_ONCE).await;
    for n in 0..60 {
        near.bucket.next([Fate::After(Duration::from_millis(if n < 50 { 1 } else { 5000 }))]);
        placed(near.say(1, "x").await).await.unwrap();
    }
    assert_eq!(near.metrics.produce.hedged_puts.get(), 0);
    let fresh = seasoned(44, 20).await;
    fresh.bucket.next([Fate::After(Duration::from_secs(9))]);
    placed(fresh.say(1, "x").await).await.unwrap();
    assert_eq!(fresh.metrics.produce.hedged_puts.get(), 0);
}
