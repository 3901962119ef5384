//! Consume, transform, produce: what is in the ledger is taken to the copies, in transactions that also commit how far it
//! was read. Either each worker has a share of the partitions and a transactional id that goes with them, so that whoever
//! takes over the id has fenced the one before; or they are members of a group, which has fenced whoever had the
//! partitions before when it gives them to another, but for what that one's open transaction may still commit (KIP-447).
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_history::{GroupProtocol, Value};

use super::classic::{Classic, Over as Leaving};
use super::client::{COPIES, Client, LEDGER};
use super::membership::{Committed, Membership};
use super::reader::{At, EARLIEST, Manner, Reader};
use super::records::Form;
use super::transaction::{Over, Transactional};
use super::transactional::form;
use super::{CHAIN_GROUP, Place};

/// Values of one batch at most.
const BATCH_MAX: usize = 60;

/// One life: until clients stop, `life` is over, or another takes its place.
pub(super) async fn run(client: Client, place: Place, life: Duration) {
    let end = client.now() + life;
    client.await_lasting().await;
    let timeout = Duration::from_millis(3_000 + client.draw(8_000));
    // Whoever was before must be fenced before it is asked how far it came.
    let id = format!("chain-{}", place.number);
    let Some(mut producer) = Transactional::open(&client, &id, timeout).await else { return };
    let mut member = Membership::new(&client, CHAIN_GROUP, GroupProtocol::Classic, None);
    let manner = Manner { read_committed: true, reset: EARLIEST, ..Manner::draw(&client) };
    (member.stable, member.reader) = (true, Reader::new(&client, manner));
    let (mut knows_where, pause_ms) = (false, 100 + client.draw(500));
    while client.now() < end && !client.is_stopping() {
        match turn(&client, &mut producer, &mut member, &share(&client, place), (knows_where, pause_ms)).await {
            Ok(took) => knows_where = took,
            Err(_) => return,
        }
    }
}

/// The same as a member, with a transactional id of its own.
pub(super) async fn run_as_member(client: Client, life: Duration) {
    let end = client.now() + life;
    client.await_lasting().await;
    let timeout = Duration::from_millis(3_000 + client.draw(8_000));
    let id = format!("member-{}", client.site().process);
    let Some(mut producer) = Transactional::open(&client, &id, timeout).await else { return };
    let mut classic = Classic::of(&client, CHAIN_GROUP, None, vec![LEDGER.to_owned()]);
    let manner = Manner { read_committed: true, reset: EARLIEST, ..Manner::draw(&client) };
    classic.commits_itself = false;
    (classic.member.stable, classic.member.reader) = (true, Reader::new(&client, manner));
    let pause_ms = 100 + client.draw(500);
    while let Some(own) = classic.join(end).await {
        let (mut knows_where, mut next_beat) = (false, client.now());
        let over = loop {
            if client.now() >= end || client.is_stopping() {
                break Over::Closed;
            }
            if client.now() >= next_beat {
                next_beat = client.now() + classic.beat_every();
                match classic.beat().await {
                    None => {}
                    Some(Leaving::Rejoin) => break Over::Abort,
                    Some(Leaving::Ended) => return,
                }
            }
            match turn(&client, &mut producer, &mut classic.member, &own, (knows_where, pause_ms)).await {
                Ok(took) => knows_where = took,
                Err(_) => return,
            }
        };
        classic.let_go();
        if over == Over::Closed {
            break;
        }
    }
    classic.leave().await;
}

/// The partitions that go with a place.
fn share(client: &Client, place: Place) -> Vec<At> {
    let view = client.view();
    let partitions = view.topics.get(LEDGER).into_iter().flat_map(|topic| topic.leaders.keys());
    let own = partitions.filter(|partition| u64::from(partition.unsigned_abs()) % place.of == place.number);
    own.map(|partition| (LEDGER.to_owned(), *partition)).collect()
}

/// Begins to read its `own` partitions where the group has committed, or reads on for a while and takes over what there is;
/// says whether it still knows where it is.
async fn turn(
    client: &Client,
    producer: &mut Transactional,
    member: &mut Membership,
    own: &[At],
    (knows_where, pause_ms): (bool, u64),
) -> Result<bool, Over> {
    if !knows_where {
        member.reader.assigned().iter().for_each(|at| member.reader.revoke(at));
        member.reader.take();
        let knows = member.read_only(own).await;
        client.back_off().await;
        return Ok(knows);
    }
    let until = client.now() + Duration::from_millis(client.draw(2 * pause_ms));
    while client.now() < until {
        member.reader.turn(until - client.now()).await;
    }
    take_over(client, producer, member).await
}

/// One transaction, if there is anything to take over: false where it was aborted and is to be begun anew.
async fn take_over(client: &Client, producer: &mut Transactional, member: &mut Membership) -> Result<bool, Over> {
    let taken = member.reader.take();
    if taken.is_empty() {
        return Ok(true);
    }
    producer.begin();
    let mut done = write(client, producer, taken).await;
    if done.is_ok() {
        let offsets = positions(client, member);
        done = producer.send_offsets(member, &offsets).await;
    }
    if client.odds(25) {
        client.sleep_ms(client.draw(15_000)).await;
        if client.odds(3) {
            return Err(Over::Closed);
        }
    }
    match done {
        Ok(()) if !client.odds(8) => producer.end(true).await.map(|()| true),
        Ok(()) | Err(Over::Abort) => producer.end(false).await.map(|()| false),
        Err(Over::Closed) => Err(Over::Closed),
    }
}

async fn write(client: &Client, producer: &mut Transactional, taken: Vec<(At, Value)>) -> Result<(), Over> {
    let count = client.view().topics.get(COPIES).map_or(0, |topic| topic.leaders.len());
    let count = i32::try_from(count).unwrap_or(0).max(1);
    let mut by_partition: BTreeMap<At, Vec<Value>> = BTreeMap::new();
    for ((_, partition), source) in taken {
        let at = (COPIES.to_owned(), partition % count);
        let value = producer.value(&at, Some((source.process, source.counter)));
        by_partition.entry(at).or_default().push(value);
    }
    let form: Form = form(client);
    let cut = |(at, values): (At, Vec<Value>)| {
        let chunks: Vec<_> = values.chunks(BATCH_MAX).map(|chunk| (at.clone(), chunk.to_vec(), form)).collect();
        chunks
    };
    producer.write(by_partition.into_iter().flat_map(cut).collect()).await
}

/// Where each partition goes on behind all that was taken.
fn positions(client: &Client, member: &Membership) -> BTreeMap<At, Option<Committed>> {
    let metadata = format!("{}/{:x}", client.site().process, client.draw(1 << 40));
    let position = |at: At| {
        let offset = member.reader.position(&at)?;
        Some((at, Some((offset, metadata.clone()))))
    };
    member.reader.assigned().into_iter().filter_map(position).collect()
}
