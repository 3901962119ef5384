//! Random histories: several brokers over one journal that fails by chance, against what the journal says in the end.
use super::*;
use crate::metadata::tests::troubled::Troubled;

/// Blocks that a broker was told it has, and how many proposals it was told did not happen.
async fn client(world: World, replica: Replica, proposals: u64) -> (Vec<(i64, i64)>, u64) {
    let (mut blocks, mut undone) = (Vec::new(), 0);
    for n in 0..proposals {
        let count = 1 + n % 7;
        match replica.propose(ids(count as u32)).await {
            Err(ProposeError::NotDone(_)) => undone += 1,
            outcome => blocks.push((first(outcome), count as i64)),
        }
        world.sleep(Duration::from_millis(world.random_below(50))).await;
    }
    (blocks, undone)
}

async fn run(seed: u64) -> (Bytes, u64) {
    let site = Site::new(seed);
    let mut brokers: Vec<(Started, Troubled)> = Vec::new();
    for broker in 1..=3 {
        brokers.push(site.start_troubled(broker).await);
    }
    let mut clients = Vec::new();
    for (n, (broker, journal)) in brokers.iter().enumerate() {
        journal.by_chance(true);
        if n == 1 {
            journal.page(2);
        }
        if seed.is_multiple_of(3) {
            journal.script([End::NotDone; 30]);
        }
        for _ in 0..4 {
            let client = client(site.world.clone(), broker.replica.clone(), 20);
            clients.push(site.world.spawn("client", client));
        }
    }
    let (mut blocks, mut undone) = (Vec::new(), 0);
    for client in clients {
        let (more, not_done) = client.await.unwrap();
        blocks.extend(more);
        undone += not_done;
    }
    // Every block was given once, and nothing besides: what was told to be undone took no ids.
    blocks.sort_unstable();
    let mut next = 0;
    for (first, count) in blocks {
        assert_eq!(first, next, "seed {seed}");
        next += count;
    }
    let replayed = bytes_of(&site.replayed().await);
    for (broker, journal) in &brokers {
        journal.by_chance(false);
        assert_eq!(bytes_of(&broker.replica.barrier().await.unwrap()), replayed, "seed {seed}");
    }
    (replayed, undone)
}

/// Each seed has a runtime of its own, so that nothing of one run is left when the next begins.
fn run_alone(seed: u64) -> (Bytes, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(seed))
}

#[test]
fn brokers_agree_whatever_the_journal_does() {
    let undone: u64 = seeds(30).map(|seed| run_alone(seed).1).sum();
    assert!(undone > 0, "some proposals were given up");
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(run_alone(5), run_alone(5));
    assert_ne!(run_alone(5), run_alone(6));
}
