//! Fetch (1), versions 4 to 18: long poll with `min_bytes` and `max_wait_ms`, sessions (KIP-227), topic ids from 13 on.
//! Records are sent from cached objects without copying; those whose object the bucket has not given when the wait ends
//! are left out, and come with the next fetch. read_committed reads up to the last stable offset, and is told which
//! transactions were aborted (KIP-98). Fetches of replicas (a non-negative replica id) are answered as consumers'.
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, ProducerId as WireProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::list_offsets::kafka_error;
use super::resolve::{check_epoch, slot, state_with};
use super::table::{Offered, encode};
use super::{Answer, Call, Context, Reply};
use crate::cluster::{Members, Seen};
use crate::fetch::{
    CachedObject, PartRead, Records, Reserved, SessionError, SessionPartition, SessionRequest, SessionView, TopicKey,
    available,
};
use crate::metadata::Unavailable;
use crate::planted::{Defect, planted};
use crate::protocol::Splices;
use crate::state::{Aborted, Partition, State};
use crate::types::{BrokerId, KafkaError, Offset, PartitionIndex, Slot, TopicId};
use crate::world::Instant;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::Fetch, 4, 18);

/// A fetch waits at most this long, whatever it asks for: a client that is gone is noticed by then.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Kafka's number for it (`IsolationLevel`).
pub(super) const READ_COMMITTED: i8 = 1;

type PartKey = (TopicKey, PartitionIndex);

/// What a request wants, once its session is known.
struct Wanted {
    /// Where the consumer says that it is.
    rack: Option<String>,
    view: SessionView,
    bytes_max: usize,
    bytes_min: usize,
    wait: Duration,
    /// Only records of transactions that are committed, or of none (read_committed).
    committed: bool,
}

/// One partition's answer.
struct Found {
    key: PartKey,
    error: Option<KafkaError>,
    /// Where the consumer should read it instead, nearer to it (KIP-392).
    nearer: Option<BrokerId>,
    high_watermark: Offset,
    last_stable: Offset,
    log_start: Offset,
    records: Records,
    /// Aborted transactions that have records among those.
    aborted: Option<Vec<AbortedTransaction>>,
    known: SessionPartition,
}

/// What an answer's records keep in memory until they are sent.
#[derive(Default)]
struct Held {
    holds: Vec<Arc<CachedObject>>,
    reserved: Option<Reserved>,
}

pub(super) async fn handle(ctx: &Context, call: &Call, request: FetchRequest) -> Answer {
    let version = call.header.version;
    let (bytes_min, wait) = (usize::try_from(request.min_bytes).unwrap_or(0), request.max_wait_ms);
    let asked = usize::try_from(request.max_bytes).unwrap_or(0);
    let config_max = usize::try_from(ctx.config.kafka.fetch_max_bytes).unwrap_or(usize::MAX);
    let ours = usize::try_from(ctx.config.fetch.response_bytes_max).unwrap_or(usize::MAX);
    let committed = request.isolation_level == READ_COMMITTED;
    let rack = Some(request.rack_id.to_string()).filter(|rack| !rack.is_empty());
    let view = match ctx.sessions.begin(session_request(request, version)) {
        Ok(view) => view,
        Err(error) => return answer(call, &failed(error), Splices::default(), Held::default()),
    };
    ctx.metrics.fetch.sessions.set(i64::try_from(ctx.sessions.count()).unwrap_or(i64::MAX));
    let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(WAIT_MAX);
    let wanted = Wanted { rack, view, bytes_max: asked.min(config_max).min(ours), bytes_min, wait, committed };
    let (found, held) = poll(ctx, &wanted).await;
    respond(ctx, call, &wanted, found, held)
}

fn failed(error: SessionError) -> FetchResponse {
    let error = match error {
        SessionError::NotFound => KafkaError::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => KafkaError::InvalidFetchSessionEpoch,
    };
    FetchResponse::default().with_error_code(error.code())
}

fn session_request(request: FetchRequest, version: i16) -> SessionRequest {
    let by_id = version >= 13;
    let key = |name: &TopicName, id| {
        if by_id { TopicKey::Id(TopicId(id)) } else { TopicKey::Name(Arc::from(name.as_str())) }
    };
    let wanted = |topic: FetchTopic| {
        let key = key(&topic.topic, topic.topic_id);
        topic.partitions.into_iter().map(move |p| ((key.clone(), PartitionIndex(p.partition)), remembered(&p)))
    };
    let forgotten = request.forgotten_topics_data.into_iter().flat_map(|topic| {
        let key = key(&topic.topic, topic.topic_id);
        topic.partitions.into_iter().map(move |p| (key.clone(), PartitionIndex(p)))
    });
    // Clients without sessions send version 4 to 6, where both fields are missing and have these defaults.
    let (id, epoch) = if version >= 7 { (request.session_id, request.session_epoch) } else { (0, -1) };
    SessionRequest {
        id,
        epoch,
        by_id,
        forgotten: forgotten.collect(),
        wanted: request.topics.into_iter().flat_map(wanted).collect(),
    }
}

fn remembered(partition: &FetchPartition) -> SessionPartition {
    SessionPartition {
        offset: Offset(partition.fetch_offset),
        bytes_max: partition.partition_max_bytes,
        leader_epoch: partition.current_leader_epoch,
        high_watermark: Offset(-1),
        log_start: Offset(-1),
    }
}

/// Reads when there is enough, an error, or no time left.
async fn poll(ctx: &Context, wanted: &Wanted) -> (Vec<Found>, Held) {
    let deadline = ctx.world.now() + wanted.wait;
    let keys = || wanted.view.partitions.iter().map(|((topic, _), _)| topic);
    let mut state = match state_with(ctx, keys()).await {
        Ok(state) => state,
        Err(Unavailable(_)) => return (all(wanted, KafkaError::NotLeaderOrFollower), Held::default()),
    };
    let slots: Vec<Slot> =
        wanted.view.partitions.iter().filter_map(|(key, _)| slot(&state, &key.0, key.1).ok()).collect();
    let waiter = ctx.replica.watch(slots.into_iter());
    loop {
        let ready = match look(ctx, state, wanted).await {
            Ok((ready, checked)) => {
                state = checked;
                ready
            }
            Err(Unavailable(_)) => return (all(wanted, KafkaError::NotLeaderOrFollower), Held::default()),
        };
        if ready || ctx.world.now() >= deadline {
            return read(ctx, &state, wanted, deadline).await;
        }
        ctx.metrics.fetch.waiting_requests.inc();
        let left = deadline.saturating_duration_since(ctx.world.now());
        // The end of the time is an answer too: an empty one.
        let _ = ctx.world.timeout(left, waiter.woken()).await;
        ctx.metrics.fetch.waiting_requests.dec();
        state = ctx.replica.state();
    }
}

/// Whether the answer is due: enough bytes, or an error that a newer State confirms. An error is returned where none can
/// be had: a "no" would be a guess then.
async fn look(ctx: &Context, state: Arc<State>, wanted: &Wanted) -> Result<(bool, Arc<State>), Unavailable> {
    let mut bytes = 0;
    let mut doubtful = false;
    for (key, asked) in &wanted.view.partitions {
        match check(&state, key, asked) {
            Ok(partition) => {
                let until = wanted.until(partition);
                bytes += available(&state, partition, asked.offset, until, wanted.bytes_min.max(1));
            }
            Err(_) => doubtful = true,
        }
    }
    if doubtful && planted(Defect::StaleOutOfRange) {
        return Ok((true, state));
    }
    if doubtful {
        return Ok((true, ctx.replica.barrier().await?));
    }
    let members = ctx.members();
    let elsewhere = !members.serves() || nearer(&members, wanted).is_some();
    // Kafka answers at once to a fetch of nothing, and to one that wants no bytes.
    Ok((elsewhere || bytes >= wanted.bytes_min || wanted.view.partitions.is_empty(), state))
}

/// The partition, if it may be read at that offset.
fn check<'a>(state: &'a State, key: &PartKey, asked: &SessionPartition) -> Result<&'a Partition, KafkaError> {
    let slot = slot(state, &key.0, key.1)?;
    check_epoch(state, asked.leader_epoch)?;
    let partition = state.partition(slot).ok_or(KafkaError::UnknownTopicOrPartition)?;
    let deleted = asked.offset < partition.log_start && !planted(Defect::DeletedIsServed);
    if deleted || asked.offset > partition.end {
        return Err(KafkaError::OffsetOutOfRange);
    }
    Ok(partition)
}

impl Wanted {
    /// The end of what may be read of a partition.
    fn until(&self, partition: &Partition) -> Offset {
        let stable = self.committed && !planted(Defect::UnstableIsRead);
        if stable { partition.last_stable() } else { partition.end }
    }
}

/// The aborted transactions with records in `from..until`. A client leaves out their records, up to their markers.
fn aborted(partition: &Partition, from: Offset, until: Offset) -> Vec<AbortedTransaction> {
    let all = partition.transactions().into_iter().flat_map(|t| t.aborted(from, until));
    let listed = all.filter(|aborted| aborted.first >= from || !planted(Defect::AbortedUnlisted));
    let one = |aborted: &Aborted| {
        let producer = WireProducerId(aborted.producer.0);
        AbortedTransaction::default().with_producer_id(producer).with_first_offset(aborted.first.0)
    };
    listed.map(one).collect()
}

/// The brokers of the consumer's zone, if this is none of them.
fn nearer<'a>(members: &'a Members, wanted: &Wanted) -> Option<Seen<'a>> {
    let rack = wanted.rack.as_deref()?;
    (members.is_in(rack, None) && !members.is_in(rack, Some(members.me()))).then(|| members.seen_from(Some(rack)))
}

async fn read(ctx: &Context, state: &State, wanted: &Wanted, until: Instant) -> (Vec<Found>, Held) {
    let members = ctx.members();
    let nearer = nearer(&members, wanted);
    let mut found: Vec<Found> = Vec::with_capacity(wanted.view.partitions.len());
    let (mut reads, mut of) = (Vec::new(), Vec::new());
    for (key, asked) in &wanted.view.partitions {
        let mut one = Found {
            key: key.clone(),
            error: None,
            nearer: None,
            high_watermark: Offset(-1),
            last_stable: Offset(-1),
            log_start: Offset(-1),
            records: Records::default(),
            aborted: None,
            known: asked.clone(),
        };
        match check(state, key, asked) {
            Ok(partition) => {
                (one.high_watermark, one.log_start) = (partition.end, partition.log_start);
                one.last_stable = partition.last_stable();
                let until = wanted.until(partition);
                if let Some(seen) = &nearer {
                    one.nearer = Some(seen.leader(partition.topic, partition.index).leader);
                } else if asked.offset < until {
                    let bytes_max = usize::try_from(asked.bytes_max).unwrap_or(0);
                    reads.push(PartRead { slot: partition.slot, offset: asked.offset, until, bytes_max });
                    of.push(found.len());
                } else if !members.serves() {
                    // What is known may be read here. What comes next, this broker may not learn: the others will (H9).
                    one.error = Some(KafkaError::NotLeaderOrFollower);
                }
            }
            Err(error) => one.error = Some(error),
        }
        found.push(one);
    }
    let plan = ctx.fetcher.plan(state, &reads, wanted.bytes_max);
    // Without memory for records the answer has none, and the client asks again.
    let Some(mut reserved) = reserve(ctx, plan.pinned_bytes(), until).await else {
        return (found, Held::default());
    };
    let fetched = ctx.fetcher.read(plan, &reads, wanted.bytes_max, until).await;
    reserved.shrink_to(fetched.held_bytes);
    for ((index, records), read) in of.into_iter().zip(fetched.parts).zip(&reads) {
        match records {
            Ok(records) => {
                let partition = state.partition(read.slot).filter(|_| wanted.committed);
                found[index].aborted = partition.map(|partition| aborted(partition, read.offset, records.end));
                found[index].records = records;
            }
            Err(error) => found[index].error = Some(kafka_error(error)),
        }
    }
    (found, Held { holds: fetched.holds, reserved: Some(reserved) })
}

/// Memory for the objects of an answer; `None` if they need none or there is none in time.
async fn reserve(ctx: &Context, bytes: usize, until: Instant) -> Option<Reserved> {
    if bytes == 0 { None } else { ctx.answers.reserve(bytes, until).await }
}

fn all(wanted: &Wanted, error: KafkaError) -> Vec<Found> {
    let of = |(key, known): &(PartKey, SessionPartition)| Found {
        key: key.clone(),
        error: Some(error),
        nearer: None,
        high_watermark: Offset(-1),
        last_stable: Offset(-1),
        log_start: Offset(-1),
        records: Records::default(),
        aborted: None,
        known: known.clone(),
    };
    wanted.view.partitions.iter().map(of).collect()
}

/// The response: of an incremental session only the partitions that have news.
fn respond(ctx: &Context, call: &Call, wanted: &Wanted, found: Vec<Found>, held: Held) -> Answer {
    let news = |f: &Found| {
        if f.error.is_some() && wanted.view.incremental && planted(Defect::SessionHidesErrors) {
            return false;
        }
        !wanted.view.incremental
            || f.error.is_some()
            || f.records.bytes > 0
            || f.nearer.is_some()
            || f.high_watermark != f.known.high_watermark
            || f.log_start != f.known.log_start
    };
    let mut splices = Splices::default();
    let mut topics: BTreeMap<TopicKey, Vec<PartitionData>> = BTreeMap::new();
    let mut answered = Vec::new();
    for one in found.into_iter().filter(news) {
        ctx.metrics.fetch.out_bytes.inc_by(one.records.bytes as u64);
        ctx.metrics.fetch.out_records.inc_by(one.records.records);
        if one.error.is_none() {
            answered.push((one.key.clone(), one.high_watermark, one.log_start));
        }
        let data = PartitionData::default()
            .with_partition_index(one.key.1.0)
            .with_error_code(one.error.map_or(0, |e| e.code()))
            .with_preferred_read_replica(one.nearer.map_or(-1, |id| id.0).into())
            .with_high_watermark(one.high_watermark.0)
            .with_last_stable_offset(one.last_stable.0)
            .with_log_start_offset(one.log_start.0)
            .with_aborted_transactions(one.aborted.or_else(|| wanted.committed.then(Vec::new)))
            .with_records(Some(splices.add(one.records.chunks)));
        topics.entry(one.key.0).or_default().push(data);
    }
    if wanted.view.id != 0 {
        ctx.sessions.answered(wanted.view.id, answered.into_iter());
    }
    let topic = |(key, partitions): (TopicKey, Vec<PartitionData>)| {
        let response = FetchableTopicResponse::default().with_partitions(partitions);
        match key {
            TopicKey::Id(id) => response.with_topic_id(id.0),
            TopicKey::Name(name) => response.with_topic(TopicName(StrBytes::from_string(name.to_string()))),
        }
    };
    let response = FetchResponse::default()
        .with_session_id(wanted.view.id)
        .with_responses(topics.into_iter().map(topic).collect());
    answer(call, &response, splices, held)
}

fn answer(call: &Call, response: &FetchResponse, splices: Splices, held: Held) -> Answer {
    match encode(call, response, splices) {
        Some(frame) => Answer::Now(Reply { frame, holds: held.holds, reserved: held.reserved }),
        None => Answer::Close("the answer can't be encoded".to_owned()),
    }
}
