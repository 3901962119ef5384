//! How soon others hear of an append, and how many appends there are in a second.
use super::*;

const PAYLOAD_BYTES: usize = 2048;

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn another_broker_hears_of_an_append_at_once() {
    const APPENDS: u64 = 300;
    let server = Server::new().await;
    let (one, other) =
        (deadlined(server.url(), Duration::from_secs(5)).await, deadlined(server.url(), Duration::from_secs(5)).await);
    let world = World::real().unwrap();
    // Both listen from the first look on.
    world.sleep(Duration::from_millis(300)).await;
    let mut head = Head::default();
    let mut waits = Vec::new();
    for counter in 1..=APPENDS {
        let proposal = entry(1, counter, &[1; PAYLOAD_BYTES]);
        let heard = async {
            other.changed(head.position).await;
            world.now()
        };
        let append = async {
            let appended = one.append(proposal.clone(), head).await.unwrap();
            (appended, world.now())
        };
        let (heard, (appended, answered)) = tokio::join!(heard, append);
        head = head_of(&appended, &proposal);
        waits.push(heard.saturating_duration_since(answered));
        // Not in step with the polls.
        world.sleep(Duration::from_millis(world.random_below(7))).await;
    }
    waits.sort();
    let at = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    println!("append to changed: p50 {:?}, p99 {:?}, slowest {:?}", at(50), at(99), at(100));
    assert!(at(99) <= Duration::from_millis(20), "p99 {:?}", at(99));
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn an_append_without_a_notification_is_found_within_a_second() {
    let server = Server::new().await;
    let journal = deadlined(server.url(), Duration::from_secs(5)).await;
    let admin = server.client().await;
    let world = World::real().unwrap();
    for position in 1..=3_i64 {
        let begun = world.now();
        admin
            .batch_execute(&format!(
                "BEGIN; INSERT INTO entries VALUES ({position}, 1, {position}, {position}, 0, '');
                 UPDATE journal SET position = {position}, token = {position}; COMMIT"
            ))
            .await
            .unwrap();
        journal.changed(Position(position.cast_unsigned() - 1)).await;
        let waited = world.now() - begun;
        assert!(waited <= Duration::from_secs(1), "position {position} was found after {waited:?}");
    }
}

/// Appends for `seconds` with each handle at once; how many in all.
async fn appends(handles: &[Arc<dyn Journal>], incarnation: u64, seconds: u64) -> u64 {
    let world = World::real().unwrap();
    let end = world.now() + Duration::from_secs(seconds);
    let appenders = (incarnation..).zip(handles).map(|(incarnation, journal)| {
        let (world, journal) = (world.clone(), Arc::clone(journal));
        async move {
            let mut head = journal.head().await.unwrap();
            let mut counter = 0;
            while world.now() < end {
                counter += 1;
                let proposal = entry(incarnation, counter, &[1; PAYLOAD_BYTES]);
                let appended = journal.append(proposal.clone(), head).await.unwrap();
                head = head_of(&appended, &proposal);
            }
            counter
        }
    });
    let counts = appenders.map(|appender| World::real().unwrap().spawn("appender", appender));
    futures::future::join_all(counts).await.into_iter().map(|count| count.unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a PostgreSQL server"]
async fn appends_in_a_second() {
    const SECONDS: u64 = 5;
    let server = Server::new().await;
    let mut handles = Vec::new();
    for _ in 0..8 {
        handles.push(deadlined(server.url(), Duration::from_secs(10)).await);
    }
    for (i, count) in (1..).zip([1, 2, 4, 8]) {
        let done = appends(&handles[..count], i * 100, SECONDS).await;
        println!("{count} handles: {} appends of {PAYLOAD_BYTES} bytes a second", done / SECONDS);
        // Far below what a busy machine with a slow disk does; a journal that goes on after polls only does 2.
        assert!(done / SECONDS > 5, "{done} appends in {SECONDS} s");
    }
}
