//! Consumers of assigned partitions: they begin somewhere, read on, and seek now and then.
use std::time::Duration;

use super::client::{Client, is_lasting};
use super::reader::{At, EARLIEST, LATEST, Manner, Reader};

/// One life: until clients stop or `life` is over.
pub(super) async fn run(client: Client, life: Duration) {
    let end = client.now() + life;
    client.await_topics().await;
    let mut reader = Reader::new(&client, Manner::draw(&client));
    let (partitions_max, moves) = (2 + client.draw(5), 20 + client.draw(100));
    while client.now() < end && !client.is_stopping() {
        let assigned = reader.assigned();
        if assigned.is_empty() || client.odds(moves) {
            move_on(&client, &mut reader, &assigned, partitions_max);
        }
        reader.turn(Duration::from_millis(500)).await;
    }
}

/// Takes other partitions, or goes elsewhere in one of them.
fn move_on(client: &Client, reader: &mut Reader, assigned: &[At], partitions_max: u64) {
    let view = client.view();
    if let Some(at) = client.pick(assigned).filter(|_| !client.odds(3)) {
        return reader.assign(at.clone(), start(client));
    }
    assigned.iter().for_each(|at| reader.revoke(at));
    let all = view.topics.iter().flat_map(|(name, topic)| topic.leaders.keys().map(|p| (name.clone(), *p)));
    let all: Vec<At> = all.collect();
    let lasting: Vec<At> = all.iter().filter(|(name, _)| is_lasting(name)).cloned().collect();
    for _ in 0..partitions_max {
        let from = if client.odds(3) { &all } else { &lasting };
        if let Some(at) = client.pick(from).filter(|at| reader.position(at).is_none()) {
            reader.assign(at.clone(), start(client));
        }
    }
}

fn start(client: &Client) -> i64 {
    match client.draw(4) {
        0 => LATEST,
        1 => client.between(0, 100),
        _ => EARLIEST,
    }
}
