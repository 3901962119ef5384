//! Producers that write in transactions, and what real ones do to each other: they commit and abort, go silent until their
//! time is over, vanish in the middle, and take each other's transactional id while the other still thinks it has it.
use std::time::Duration;
use strandline::records::Codec;
use strandline_history::Value;

use super::Place;
use super::client::{COPIES, Client, LEDGER, STABLE, TABLES};
use super::reader::{At, LATEST, Manner, Reader};
use super::records::Form;
use super::transaction::{Over, Transactional};

/// One life: until clients stop, `life` is over, or another takes the transactional id.
pub(super) async fn run(client: Client, place: Place, life: Duration) {
    let end = client.now() + life;
    client.await_lasting().await;
    let timeout = Duration::from_millis(2_000 + client.draw(10_000));
    let Some(mut producer) = Transactional::open(&client, &format!("writer-{}", place.number), timeout).await else {
        return;
    };
    if client.odds(2) {
        producer.grow_old();
    }
    let (pause_ms, silent_odds) = (50 + client.draw(800), 10 + client.draw(30));
    // Some look into the log while their transaction is open, as those do whose writes depend on what they read.
    let mut reader = client.odds(2).then(|| looker(&client));
    while client.now() < end && !client.is_stopping() {
        client.sleep_ms(client.draw(2 * pause_ms)).await;
        client.refresh_if_due();
        if transact(&client, &mut producer, reader.as_mut(), (timeout, silent_odds)).await.is_err() {
            return;
        }
    }
}

fn looker(client: &Client) -> Reader {
    let mut reader = Reader::new(client, Manner { read_committed: true, ..Manner::draw(client) });
    reader.assign((LEDGER.to_owned(), 0), LATEST);
    reader
}

/// One transaction, well or not: an error where this producer is of no more use.
async fn transact(
    client: &Client,
    producer: &mut Transactional,
    reader: Option<&mut Reader>,
    (timeout, silent_odds): (Duration, u64),
) -> Result<(), Over> {
    producer.begin();
    let mut written = write(client, producer).await;
    if let Some(reader) = reader {
        reader.turn(Duration::from_millis(client.draw(400))).await;
    }
    if written.is_ok() && client.odds(3) {
        client.sleep_ms(client.draw(1_500)).await;
        written = write(client, producer).await;
    }
    if client.odds(silent_odds) {
        // Longer than its time-out now and then, and then as if nothing had been.
        client.sleep_ms(client.draw(2 * u64::try_from(timeout.as_millis()).unwrap_or(0))).await;
        // It is never heard of again.
        if client.odds(2) {
            return Err(Over::Closed);
        }
    }
    match written {
        Ok(()) => match client.odds(4) {
            true => producer.end(false).await,
            false => producer.end(true).await,
        },
        Err(Over::Abort) => producer.end(false).await,
        Err(Over::Closed) => Err(Over::Closed),
    }
}

/// A few batches to a few partitions.
async fn write(client: &Client, producer: &mut Transactional) -> Result<(), Over> {
    let view = client.view();
    let topics = [LEDGER, LEDGER, LEDGER, COPIES, STABLE, TABLES];
    let mut batches: Vec<(At, Vec<Value>, Form)> = Vec::new();
    for _ in 0..=client.draw(4) {
        let topic = *client.pick(&topics).expect("there are some");
        let partitions: Vec<i32> =
            view.topics.get(topic).into_iter().flat_map(|topic| topic.leaders.keys().copied()).collect();
        let Some(partition) = client.pick(&partitions) else { continue };
        let at = (topic.to_owned(), *partition);
        if !producer.writes(&at) {
            continue;
        }
        let values = (0..=client.draw(4)).map(|_| producer.value(&at, None)).collect();
        batches.push((at, values, form(client)));
    }
    producer.write(batches).await
}

pub(super) fn form(client: &Client) -> Form {
    let codec = *client.pick(&[Codec::None, Codec::None, Codec::Gzip, Codec::Lz4]).expect("there are some");
    Form { codec, bytes_min: [0, 60, 300][usize::try_from(client.draw(3)).unwrap_or(0)] }
}
