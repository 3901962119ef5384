//! Produce (0), versions 3 to 13; 0 to 2 are shown but refused, as in Kafka, for the sake of older librdkafka, which
//! reads codec support from the range. With version 12 partitions join a transaction without AddPartitionsToTxn (KIP-890).
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use std::time::Duration;

use super::resolve::{is_internal, slot, state_with, topic};
use super::table::{Offered, encode};
use super::transactions::abortable_in_version;
use super::{Answer, Call, Context};
use crate::config::{Compression, TimestampType as ConfiguredType, TopicSettings, Validation as ConfiguredValidation};
use crate::fetch::TopicKey;
use crate::planted::{Defect, planted};
use crate::produce::{BatchResult, PartBatch, ProduceError, Submission};
use crate::protocol::Splices;
use crate::records::{BatchHeader, Codec, Level, Refused, Rules, TimestampType, Validation, validate};
use crate::state::{State, TRANSACTIONS_LEVEL, Topic};
use crate::types::{KafkaError, PartitionIndex, TimestampMs, TopicId};

pub(super) const OFFERED: Offered = Offered { key: ApiKey::Produce, min: 3, max: 13, shown_min: 0 };

/// Bytes that one batch's records may have when they are decompressed for a check: beyond it Java producers split.
const INFLATED_MAX: usize = 64 << 20;

/// One partition of the request, judged.
struct Part {
    topic: usize,
    index: i32,
    /// What stands in the response besides the offset.
    log_append_time: i64,
    verdict: Result<(), Refusal>,
}

struct Refusal {
    error: KafkaError,
    message: Option<String>,
    records: Vec<crate::records::RecordError>,
}

impl From<KafkaError> for Refusal {
    fn from(error: KafkaError) -> Self {
        Self { error, message: None, records: Vec::new() }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self { error: refused.error, message: Some(refused.message), records: refused.records }
    }
}

pub(super) async fn handle(ctx: &Context, mut call: Call, request: ProduceRequest) -> Answer {
    let acks = request.acks;
    let version = call.header.version;
    let keys: Vec<TopicKey> = request.topic_data.iter().map(|t| key_of(t, version)).collect();
    let known = state_with(ctx, keys.iter()).await;
    let Some(state) = known.ok().filter(|_| ctx.members().serves()) else {
        for (data, key) in request.topic_data.iter().zip(&keys) {
            data.partition_data.iter().for_each(|partition| remember(ctx, key, partition));
        }
        return all_refused(&call, &request, KafkaError::NotLeaderOrFollower);
    };
    if !(-1..=1).contains(&acks) {
        return all_refused(&call, &request, KafkaError::InvalidRequiredAcks);
    }
    let asked = Asked { version, transactional_id: request.transactional_id.as_ref().map(|id| id.as_str()) };
    let (mut parts, mut batches) = (Vec::new(), Vec::new());
    for (t, (data, key)) in request.topic_data.iter().zip(&keys).enumerate() {
        let settings = topic(&state, key).map(|topic| (topic, ctx.topic_settings.of(topic)));
        let internal = settings.as_ref().is_some_and(|(topic, _)| is_internal(&topic.name));
        for partition in &data.partition_data {
            let judged = match &settings {
                None => {
                    Err(slot(&state, key, PartitionIndex(0)).err().unwrap_or(KafkaError::UnknownServerError).into())
                }
                Some(_) if internal => Err(KafkaError::InvalidTopicException.into()),
                Some((topic, settings)) => judge(ctx, &state, asked, (key, topic), settings, partition),
            };
            let (verdict, log_append_time) = match judged {
                Ok(batch) => {
                    let stamped = batch.header.timestamp_type() == TimestampType::LogAppendTime;
                    let time = if stamped { batch.header.max_timestamp.0 } else { -1 };
                    batches.push(batch);
                    (Ok(()), time)
                }
                Err(refusal) => {
                    remember(ctx, key, partition);
                    (Err(refusal), -1)
                }
            };
            parts.push(Part { topic: t, index: partition.index, log_append_time, verdict });
        }
    }
    count(ctx, &parts, &batches);
    let permit = call.permit.take();
    let submission = Submission { connection: call.connection, batches, permit, frame_bytes: call.frame_bytes };
    let Some(results) = ctx.producer.submit(submission).await else {
        return Answer::Close("the broker stops".to_owned());
    };
    let names: Vec<(TopicName, crate::types::Uuid)> =
        request.topic_data.into_iter().map(|t| (t.name, t.topic_id)).collect();
    if acks == 0 && parts.iter().any(|p| p.verdict.is_err()) {
        return Answer::Close("a batch was refused, and acks=0 has no other way to say so".to_owned());
    }
    let (world, replica) = (ctx.world.clone(), ctx.replica.clone());
    let patience = Duration::from_millis(ctx.config.produce.deadline_ms) + ANSWER_MARGIN;
    Answer::Later(Box::pin(async move {
        let left = (call.received + patience).saturating_duration_since(world.now());
        let results = match world.timeout(left, results).await {
            Some(Ok(results)) => results,
            // The broker stops: silence, since nothing is known.
            Some(Err(_)) => return None,
            // Undecided: the client may send it again, and its sequence numbers tell.
            None => vec![Err(timed_out()); parts.iter().filter(|p| p.verdict.is_ok()).count()],
        };
        if acks == 0 {
            return None;
        }
        let response = respond(&replica.state(), version, &keys, &names, parts, results);
        let frame = encode(&call, &response, Splices::default())?;
        Some(frame.into())
    }))
}

/// A batch is given up at its deadline; its journal entry gets this much longer before the client hears of a time-out.
const ANSWER_MARGIN: Duration = Duration::from_millis(2_000);

fn timed_out() -> ProduceError {
    let message = "it is not known yet whether the records were written; send them again".to_owned();
    let fenced = planted(Defect::TimeoutAsFenced);
    let error = if fenced { KafkaError::InvalidProducerEpoch } else { KafkaError::RequestTimedOut };
    ProduceError { error, message: Some(message) }
}

/// What all partitions of a request have in common.
#[derive(Clone, Copy)]
struct Asked<'a> {
    version: i16,
    transactional_id: Option<&'a str>,
}

/// The first version with which partitions join a transaction (`TransactionSupportedOperation.ADD_PARTITION`).
const JOINS: i16 = 12;

/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 11;

/// Whether a transactional batch may come with this request; whether it may be appended is decided when it is committed.
fn check_transactional(state: &State, asked: Asked<'_>, header: &BatchHeader) -> Result<(), KafkaError> {
    if state.feature_level() < TRANSACTIONS_LEVEL {
        return Err(KafkaError::InvalidTxnState);
    }
    if !header.has_producer() {
        return Err(KafkaError::InvalidRecord);
    }
    let id = asked.transactional_id.ok_or(KafkaError::TransactionalIdAuthorizationFailed)?;
    // A producer id is never given for another transactional id, so an older State can't be wrong.
    match state.transactional_id_of(header.producer_id) {
        Some(other) if **other != *id => Err(KafkaError::InvalidProducerIdMapping),
        _ => Ok(()),
    }
}

fn key_of(topic: &TopicProduceData, version: i16) -> TopicKey {
    if version >= 13 { TopicKey::Id(TopicId(topic.topic_id)) } else { TopicKey::Name(Arc::from(topic.name.as_str())) }
}

/// Checks one partition's records.
fn judge(
    ctx: &Context,
    state: &State,
    asked: Asked<'_>,
    (key, topic): (&TopicKey, &Topic),
    settings: &TopicSettings,
    data: &PartitionProduceData,
) -> Result<PartBatch, Refusal> {
    let partition = PartitionIndex(data.index);
    let slot = slot(state, key, partition)?;
    let records = data.records.as_ref().ok_or(KafkaError::InvalidRecord)?;
    let valid = validate(records, &rules(settings, asked.version, ctx.world.wall_ms()))?;
    if valid.header.is_transactional() {
        check_transactional(state, asked, &valid.header)?;
    }
    let (header, bytes) = (valid.header, valid.bytes);
    let awaits = header.has_producer().then(|| ctx.unplaced.take(header.producer_id, topic, partition)).flatten();
    Ok(PartBatch { slot, topic: topic.id, partition, header, bytes, awaits, joins: asked.version >= JOINS })
}

/// The batch is refused. It, or another one of its sequence, comes before what its producer has sent behind it.
fn remember(ctx: &Context, key: &TopicKey, data: &PartitionProduceData) {
    let header = data.records.as_ref().and_then(|records| BatchHeader::parse(records).ok());
    if let Some(header) = header.filter(BatchHeader::has_producer) {
        ctx.unplaced.refused(header.producer_id, key, PartitionIndex(data.index), header.base_sequence);
    }
}

fn rules(settings: &TopicSettings, version: i16, now: TimestampMs) -> Rules {
    let level = settings.compression_level.map_or(Level::Default, Level::Is);
    let target = match settings.compression {
        Compression::Producer => None,
        Compression::Uncompressed => Some((Codec::None, Level::Default)),
        Compression::Gzip => Some((Codec::Gzip, level)),
        Compression::Snappy => Some((Codec::Snappy, Level::Default)),
        Compression::Lz4 => Some((Codec::Lz4, level)),
        Compression::Zstd => Some((Codec::Zstd, level)),
    };
    Rules {
        max_message_bytes: usize::try_from(settings.max_message_bytes).unwrap_or(0),
        timestamp_type: match settings.timestamp_type {
            ConfiguredType::CreateTime => TimestampType::CreateTime,
            ConfiguredType::LogAppendTime => TimestampType::LogAppendTime,
        },
        before_max_ms: settings.timestamp_before_max_ms,
        after_max_ms: settings.timestamp_after_max_ms,
        compacted: settings.compacted,
        validation: match settings.validation {
            ConfiguredValidation::Header => Validation::Header,
            ConfiguredValidation::Full => Validation::Full,
        },
        target,
        zstd: version >= 7,
        inflated_bytes_max: INFLATED_MAX,
        now,
    }
}

fn count(ctx: &Context, parts: &[Part], batches: &[PartBatch]) {
    let metrics = &ctx.metrics.produce;
    metrics.in_bytes.inc_by(batches.iter().map(|b| b.bytes.len() as u64).sum());
    metrics.in_records.inc_by(batches.iter().map(|b| u64::from(b.header.records())).sum());
    for refusal in parts.iter().filter_map(|p| p.verdict.as_ref().err()) {
        metrics.refused(refusal.error);
    }
}

/// Puts refusals and results together, in the order of the request.
fn respond(
    state: &State,
    version: i16,
    keys: &[TopicKey],
    names: &[(TopicName, crate::types::Uuid)],
    parts: Vec<Part>,
    results: Vec<BatchResult>,
) -> ProduceResponse {
    let mut results = results.into_iter();
    let mut topics: Vec<TopicProduceResponse> = names
        .iter()
        .map(|(name, id)| TopicProduceResponse::default().with_name(name.clone()).with_topic_id(*id))
        .collect();
    for part in parts {
        let response = PartitionProduceResponse::default().with_index(part.index).with_base_offset(-1);
        let response = match part.verdict {
            Err(refusal) => refused(response, refusal),
            Ok(()) => match results.next() {
                Some(Ok(placed)) => {
                    let slot = slot(state, &keys[part.topic], PartitionIndex(part.index)).ok();
                    let log_start = slot.and_then(|s| state.partition(s)).map_or(-1, |p| p.log_start.0);
                    let later = !topics[part.topic].partition_responses.is_empty();
                    let missing = later && planted(Defect::OffsetZero);
                    response
                        .with_base_offset(if missing { 0 } else { placed.base_offset.0 })
                        .with_log_append_time_ms(part.log_append_time)
                        .with_log_start_offset(log_start)
                }
                Some(Err(failed)) => {
                    let error = unknown_as_asked(failed.error, &keys[part.topic]);
                    let error = abortable_in_version(version, ABORTABLE, error);
                    refused(response, Refusal { error, message: failed.message, records: Vec::new() })
                }
                None => refused(response, KafkaError::UnknownServerError.into()),
            },
        };
        topics[part.topic].partition_responses.push(response);
    }
    ProduceResponse::default().with_responses(topics)
}

/// A client that named the topic by its id is told that the id is unknown.
fn unknown_as_asked(error: KafkaError, key: &TopicKey) -> KafkaError {
    match (error, key) {
        (KafkaError::UnknownTopicOrPartition, TopicKey::Id(_)) => KafkaError::UnknownTopicId,
        _ => error,
    }
}

fn refused(response: PartitionProduceResponse, refusal: Refusal) -> PartitionProduceResponse {
    let record = |r: crate::records::RecordError| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(i32::try_from(r.index).unwrap_or(i32::MAX))
            .with_batch_index_error_message(Some(StrBytes::from_string(r.message)))
    };
    response
        .with_error_code(refusal.error.code())
        .with_error_message(refusal.message.map(StrBytes::from_string))
        .with_record_errors(refusal.records.into_iter().map(record).collect())
}

fn all_refused(call: &Call, request: &ProduceRequest, error: KafkaError) -> Answer {
    if request.acks == 0 {
        return Answer::Close("nothing was taken, and acks=0 has no other way to say so".to_owned());
    }
    let topics = request.topic_data.iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|p| {
            let response = PartitionProduceResponse::default().with_index(p.index).with_base_offset(-1);
            refused(response, error.into())
        });
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions.collect())
    });
    let response = ProduceResponse::default().with_responses(topics.collect());
    match encode(call, &response, Splices::default()) {
        Some(frame) => Answer::Now(frame.into()),
        None => Answer::Close("the answer can't be encoded".to_owned()),
    }
}
