//! The APIs of transactions in every version that is offered: one transaction each way, what readers are told, and who is
//! refused.
use kafka_protocol::messages::ProducerId as WireProducerId;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use super::groups::{group, versions};
use super::*;
use crate::records::{BatchBuilder, Batches, NewRecord};
use crate::types::{ProducerEpoch, ProducerId, Sequence};

/// A producer as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Me {
    id: i64,
    epoch: i16,
    sequence: i32,
}

fn transactional(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

pub(super) async fn init(ctx: &Context, version: i16, id: &str) -> Result<Me, i16> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional(id)))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(WireProducerId(-1))
        .with_producer_epoch(-1);
    let answer = ask(ctx, version, request).await;
    let me = Me { id: answer.producer_id.0, epoch: answer.producer_epoch, sequence: 0 };
    if answer.error_code == 0 { Ok(me) } else { Err(answer.error_code) }
}

impl Me {
    /// No producer that a broker knows.
    pub(super) fn nobody() -> Self {
        Self { id: -1, epoch: -1, sequence: -1 }
    }
}

pub(super) async fn send(ctx: &Context, version: i16, id: Option<&str>, me: &mut Me) -> Result<i64, i16> {
    let record = NewRecord { timestamp: ctx.world.wall_ms(), key: None, value: Some(b"v"), headers: &[] };
    send_batch(ctx, version, id, me, &[record]).await
}

/// Sends a batch of records by keys and values.
pub(super) async fn send_records(
    ctx: &Context,
    version: i16,
    id: Option<&str>,
    me: &mut Me,
    records: &[(&str, Option<&str>)],
) -> Result<i64, i16> {
    let timestamp = ctx.world.wall_ms();
    let records = records.iter().map(|(key, value)| NewRecord {
        timestamp,
        key: Some(key.as_bytes()),
        value: value.map(str::as_bytes),
        headers: &[],
    });
    let records: Vec<NewRecord<'_>> = records.collect();
    send_batch(ctx, version, id, me, &records).await
}

async fn send_batch(
    ctx: &Context,
    version: i16,
    id: Option<&str>,
    me: &mut Me,
    records: &[NewRecord<'_>],
) -> Result<i64, i16> {
    let producer = (ProducerId(me.id), ProducerEpoch(me.epoch), Sequence(me.sequence));
    let batch = BatchBuilder::new().producer(producer.0, producer.1, producer.2);
    let batch = if me.id < 0 { batch } else { batch.transactional() };
    let batch = records.iter().fold(batch, BatchBuilder::with);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.build().unwrap()));
    let topic = ctx.replica.state().topic_by_name("t").unwrap().id.0;
    let topic = TopicProduceData::default().with_name(name("t")).with_topic_id(topic).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(id.map(transactional))
        .with_acks(-1)
        .with_timeout_ms(5000)
        .with_topic_data(vec![topic]);
    let answer = ask(ctx, version, request).await.responses.remove(0).partition_responses.remove(0);
    if answer.error_code == 0 {
        me.sequence += if me.id < 0 { 0 } else { records.len() as i32 };
        Ok(answer.base_offset)
    } else {
        Err(answer.error_code)
    }
}

async fn add(ctx: &Context, version: i16, id: &str, me: Me, partitions: &[i32]) -> Vec<i16> {
    use add_partitions_to_txn_request::AddPartitionsToTxnTopic;
    let topic = AddPartitionsToTxnTopic::default().with_name(name("t")).with_partitions(partitions.to_vec());
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional(id))
        .with_v3_and_below_producer_id(WireProducerId(me.id))
        .with_v3_and_below_producer_epoch(me.epoch)
        .with_v3_and_below_topics(vec![topic]);
    let answer = ask(ctx, version, request).await.results_by_topic_v3_and_below.remove(0);
    answer.results_by_partition.iter().map(|p| p.partition_error_code).collect()
}

pub(super) async fn end(ctx: &Context, version: i16, id: &str, me: &mut Me, committed: bool) -> i16 {
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional(id))
        .with_producer_id(WireProducerId(me.id))
        .with_producer_epoch(me.epoch)
        .with_committed(committed);
    let answer = ask(ctx, version, request).await;
    if answer.error_code == 0 && version >= 5 {
        *me = Me { id: answer.producer_id.0, epoch: answer.producer_epoch, sequence: 0 };
    }
    answer.error_code
}

async fn commit_offset(ctx: &Context, version: i16, id: &str, me: Me, offset: i64) -> i16 {
    use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
    let partition = TxnOffsetCommitRequestPartition::default().with_partition_index(1).with_committed_offset(offset);
    let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional(id))
        .with_group_id(group("g"))
        .with_producer_id(WireProducerId(me.id))
        .with_producer_epoch(me.epoch)
        .with_generation_id(-1)
        .with_topics(vec![topic]);
    ask(ctx, version, request).await.topics[0].partitions[0].error_code
}

/// The committed offset and the error of partition 1.
async fn committed(ctx: &Context, stable: bool) -> (i64, i16) {
    use offset_fetch_request::OffsetFetchRequestTopic;
    let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![1]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group("g"))
        .with_require_stable(stable)
        .with_topics(Some(vec![topic]));
    let found = ask(ctx, 7, request).await.topics.remove(0).partitions.remove(0);
    (found.committed_offset, found.error_code)
}

/// What a fetch of partition 0 gives: last stable offset, aborted transactions, and per batch its offset and whether it is
/// a control batch.
async fn fetch(ctx: &Context, from: i64, committed: bool, bytes: i32) -> (i64, Option<Vec<i64>>, Vec<(i64, bool)>) {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(from)
        .with_partition_max_bytes(bytes)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_isolation_level(i8::from(committed))
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let found = ask(ctx, 12, request).await.responses.remove(0).partitions.remove(0);
    assert_eq!(found.error_code, 0);
    let aborted = found.aborted_transactions.map(|all| all.iter().map(|a| a.first_offset).collect());
    let records = found.records.unwrap_or_default();
    let batches = Batches::new(records).map(|batch| batch.unwrap().header);
    let batches = batches.map(|header| (header.base_offset.0, header.is_control())).collect();
    (found.last_stable_offset, aborted, batches)
}

async fn latest(ctx: &Context, isolation: i8) -> i64 {
    offset_at(ctx, -1, isolation).await
}

pub(super) async fn offset_at(ctx: &Context, timestamp: i64, isolation: i8) -> i64 {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_isolation_level(isolation).with_topics(vec![topic]);
    ask(ctx, 9, request).await.topics[0].partitions[0].offset
}

#[tokio::test(start_paused = true)]
async fn a_transaction_of_version_1_in_every_version_that_is_offered() {
    let ctx = &*broker("").await;
    create(ctx, "t", 2).await.unwrap();
    for v in versions(ApiKey::InitProducerId) {
        init(ctx, v, "x").await.unwrap();
    }
    let mut me = init(ctx, 5, "x").await.unwrap();
    assert_eq!(me.epoch, 6);
    for v in versions(ApiKey::AddPartitionsToTxn) {
        assert_eq!(add(ctx, v, "x", me, &[0]).await, [0], "version {v}");
        let old = Me { epoch: 5, ..me };
        let fenced = if v < 2 { KafkaError::InvalidProducerEpoch } else { KafkaError::ProducerFenced };
        assert_eq!(add(ctx, v, "x", old, &[0]).await, [fenced.code()], "version {v}");
        let unknown = [KafkaError::OperationNotAttempted.code(), KafkaError::UnknownTopicOrPartition.code()];
        assert_eq!(add(ctx, v, "x", me, &[1, 9]).await, unknown);
    }
    for v in 3..=11 {
        send(ctx, v, Some("x"), &mut me).await.unwrap();
    }
    for v in versions(ApiKey::AddOffsetsToTxn) {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional("x"))
            .with_producer_id(WireProducerId(me.id))
            .with_producer_epoch(me.epoch)
            .with_group_id(group("g"));
        assert_eq!(ask(ctx, v, request).await.error_code, 0, "version {v}");
    }
    for v in 0..=4 {
        assert_eq!(commit_offset(ctx, v, "x", me, i64::from(v)).await, 0, "version {v}");
    }
    let unstable = KafkaError::UnstableOffsetCommit.code();
    assert_eq!((committed(ctx, false).await, committed(ctx, true).await), ((-1, 0), (-1, unstable)));
    for v in 0..=4 {
        assert_eq!(end(ctx, v, "x", &mut me, true).await, 0, "version {v}");
    }
    assert_eq!((committed(ctx, true).await, latest(ctx, 1).await), ((4, 0), 10));
    assert_eq!(send(ctx, 9, Some("x"), &mut me).await, Err(KafkaError::InvalidTxnState.code()));
}

#[tokio::test(start_paused = true)]
async fn k11_readers_are_told_what_was_aborted_at_every_offset_and_size() {
    let ctx = &*broker("").await;
    create(ctx, "t", 2).await.unwrap();
    let (mut x, mut y) = (init(ctx, 5, "x").await.unwrap(), init(ctx, 5, "y").await.unwrap());
    // x 0, y 1, x aborts 2, y 3, y commits 4, x 5 and stays open, y 6, y aborts 7.
    assert_eq!(send(ctx, 12, Some("x"), &mut x).await, Ok(0));
    assert_eq!(send(ctx, 13, Some("y"), &mut y).await, Ok(1));
    assert_eq!((fetch(ctx, 0, true, 1 << 20).await, latest(ctx, 1).await), ((0, Some(vec![]), vec![]), 0));
    assert_eq!((offset_at(ctx, 0, 1).await, offset_at(ctx, 0, 0).await), (-1, 0));
    assert_eq!(end(ctx, 5, "x", &mut x, false).await, 0);
    assert_eq!(send(ctx, 13, Some("y"), &mut y).await, Ok(3));
    assert_eq!(end(ctx, 5, "y", &mut y, true).await, 0);
    assert_eq!(send(ctx, 13, Some("x"), &mut x).await, Ok(5));
    assert_eq!(send(ctx, 13, Some("y"), &mut y).await, Ok(6));
    assert_eq!(end(ctx, 5, "y", &mut y, false).await, 0);
    let all = [(0, false), (1, false), (2, true), (3, false), (4, true), (5, false), (6, false), (7, true)];
    assert_eq!(fetch(ctx, 0, false, 1 << 20).await, (5, None, all.to_vec()));
    assert_eq!((latest(ctx, 0).await, latest(ctx, 1).await), (8, 5));
    // By time, and the one with the largest: nothing beyond the last stable offset, and no marker.
    assert_eq!((offset_at(ctx, 0, 1).await, offset_at(ctx, 0, 0).await), (0, 0));
    assert!(offset_at(ctx, -3, 1).await < 5 && ![2, 4, 7].contains(&offset_at(ctx, -3, 0).await));
    assert_eq!((offset_at(ctx, -4, 1).await, offset_at(ctx, -2, 1).await), (0, 0));
    for from in 0..5 {
        let aborted = if from <= 2 { vec![0] } else { vec![] };
        let (stable, listed, batches) = fetch(ctx, from, true, 1 << 20).await;
        assert_eq!((stable, listed), (5, Some(aborted.clone())));
        assert_eq!(batches, all[from as usize..5]);
        let (_, listed, batches) = fetch(ctx, from, true, 1).await;
        assert_eq!((listed, batches), (Some(aborted), vec![all[from as usize]]));
    }
    for from in 5..=8 {
        assert_eq!(fetch(ctx, from, true, 1 << 20).await, (5, Some(vec![]), vec![]));
    }
    assert_eq!(end(ctx, 5, "x", &mut x, false).await, 0);
    let (stable, listed, batches) = fetch(ctx, 3, true, 1 << 20).await;
    assert_eq!((stable, listed, batches.len()), (9, Some(vec![6, 5]), 6));
}

#[tokio::test(start_paused = true)]
async fn k7_what_is_late_is_refused_and_an_end_is_told_again() {
    let ctx = &*broker("").await;
    create(ctx, "t", 2).await.unwrap();
    let mut me = init(ctx, 5, "x").await.unwrap();
    send(ctx, 12, Some("x"), &mut me).await.unwrap();
    let (mut late, mut again) = (me, me);
    assert_eq!(end(ctx, 5, "x", &mut me, true).await, 0);
    assert_eq!(send(ctx, 12, Some("x"), &mut late).await, Err(KafkaError::InvalidProducerEpoch.code()));
    send(ctx, 12, Some("x"), &mut me).await.unwrap();
    assert_eq!(end(ctx, 5, "x", &mut again, true).await, 0);
    assert_eq!((again.epoch, latest(ctx, 1).await), (me.epoch, 2), "the next one is still open");
    assert_eq!(commit_offset(ctx, 5, "x", late, 1).await, KafkaError::InvalidProducerEpoch.code());
    assert_eq!(commit_offset(ctx, 5, "x", me, 7).await, 0);
    let denied = KafkaError::TransactionalIdAuthorizationFailed.code();
    assert_eq!(send(ctx, 12, None, &mut me).await, Err(denied), "a transactional batch has a transactional id");
    init(ctx, 5, "y").await.unwrap();
    assert_eq!(send(ctx, 12, Some("y"), &mut me).await, Err(KafkaError::InvalidProducerIdMapping.code()));
    assert_eq!(end(ctx, 5, "x", &mut me, true).await, 0);
    assert_eq!(committed(ctx, true).await, (7, 0));
    assert_eq!(end(ctx, 5, "none", &mut me, true).await, KafkaError::InvalidProducerIdMapping.code());
    assert_eq!(init(ctx, 5, "").await, Err(KafkaError::InvalidRequest.code()));
    assert_eq!(init(ctx, 5, &"x".repeat(1025)).await, Err(KafkaError::InvalidRequest.code()));
}

#[tokio::test(start_paused = true)]
async fn k9_a_transaction_that_nobody_ends_is_aborted_in_time() {
    let ctx = &*broker("").await;
    create(ctx, "t", 2).await.unwrap();
    let mut me = init(ctx, 5, "x").await.unwrap();
    send(ctx, 12, Some("x"), &mut me).await.unwrap();
    ctx.world.sleep(std::time::Duration::from_secs(59)).await;
    assert_eq!(latest(ctx, 1).await, 0);
    ctx.world.sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(latest(ctx, 1).await, 2);
    assert_eq!(end(ctx, 5, "x", &mut me, true).await, KafkaError::ProducerFenced.code());
}

#[tokio::test(start_paused = true)]
async fn operators_see_transactions_and_abort_them() {
    let ctx = &*broker("").await;
    create(ctx, "t", 2).await.unwrap();
    let mut me = init(ctx, 5, "x").await.unwrap();
    init(ctx, 5, "idle").await.unwrap();
    send(ctx, 12, Some("x"), &mut me).await.unwrap();
    let ids = ["x", "idle", "none", "x"].map(transactional).to_vec();
    let described = ask(ctx, 0, DescribeTransactionsRequest::default().with_transactional_ids(ids)).await;
    let shown: Vec<(i16, &str, usize)> = described
        .transaction_states
        .iter()
        .map(|s| (s.error_code, s.transaction_state.as_str(), s.topics.len()))
        .collect();
    let none = KafkaError::TransactionalIdNotFound.code();
    assert_eq!(shown, [(0, "Ongoing", 1), (0, "Empty", 0), (none, "", 0)]);
    assert_eq!(
        (described.transaction_states[0].producer_id.0, described.transaction_states[0].producer_epoch),
        (me.id, 0)
    );
    for v in versions(ApiKey::ListTransactions) {
        let list = |request: ListTransactionsRequest| async move {
            let found = ask(ctx, v, request).await;
            let ids: Vec<String> = found.transaction_states.iter().map(|s| s.transactional_id.to_string()).collect();
            (found.error_code, ids.join(" "), found.unknown_state_filters.len())
        };
        let all = || ListTransactionsRequest::default().with_duration_filter(-1);
        assert_eq!(list(all()).await, (0, "idle x".to_owned(), 0));
        let states = all().with_state_filters(vec![text("Ongoing"), text("Strange")]);
        assert_eq!(list(states).await, (0, "x".to_owned(), 1));
        let of_producer = all().with_producer_id_filters(vec![WireProducerId(me.id)]);
        assert_eq!(list(of_producer).await, (0, "x".to_owned(), 0));
        if v >= 1 {
            let old = all().with_state_filters(vec![text("Ongoing")]).with_duration_filter(60_000);
            assert_eq!(list(old).await, (0, String::new(), 0));
        }
        if v >= 2 {
            assert_eq!(list(all().with_transactional_id_pattern(Some(text("i.*")))).await, (0, "idle".to_owned(), 0));
            let broken = list(all().with_transactional_id_pattern(Some(text("(")))).await;
            assert_eq!(broken.0, KafkaError::InvalidRegularExpression.code());
        }
    }
    let topic =
        describe_producers_request::TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let found = ask(ctx, 0, DescribeProducersRequest::default().with_topics(vec![topic])).await.topics.remove(0);
    assert_eq!(found.partitions[0].active_producers[0].current_txn_start_offset, 0);
    let markers = |epoch, transaction_result| {
        use write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
        let topic = WritableTxnMarkerTopic::default().with_name(name("t")).with_partition_indexes(vec![0]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(WireProducerId(me.id))
            .with_producer_epoch(epoch)
            .with_transaction_result(transaction_result)
            .with_topics(vec![topic]);
        WriteTxnMarkersRequest::default().with_markers(vec![marker])
    };
    let code = |answer: WriteTxnMarkersResponse| answer.markers[0].topics[0].partitions[0].error_code;
    assert_eq!(code(ask(ctx, 1, markers(0, true)).await), KafkaError::InvalidRequest.code());
    assert_eq!(code(ask(ctx, 1, markers(7, false)).await), KafkaError::ProducerFenced.code());
    assert_eq!(code(ask(ctx, 1, markers(0, false)).await), 0);
    assert_eq!(code(ask(ctx, 1, markers(1, false)).await), KafkaError::InvalidTxnState.code());
    assert_eq!(latest(ctx, 1).await, 2);
}
