//! Which API is served where, and in which versions.
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message};

use super::{Answer, Call, Context};
use super::{
    add_offsets_to_txn, add_partitions_to_txn, alter_configs, alter_partition_reassignments, api_versions,
    consumer_group_describe, consumer_group_heartbeat, create_acls, create_partitions, create_topics, delete_acls,
    delete_groups, delete_records, delete_topics, describe_acls, describe_cluster, describe_configs, describe_groups,
    describe_log_dirs, describe_producers, describe_topic_partitions, describe_transactions, elect_leaders, end_txn,
    fetch, fetch_snapshot, find_coordinator, heartbeat, incremental_alter_configs, init_producer_id, join_group,
    leave_group, list_config_resources, list_groups, list_offsets, list_partition_reassignments, list_transactions,
    metadata, offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, produce, sync_group,
    txn_offset_commit, unregister_broker, update_features, write_txn_markers,
};
use crate::protocol::{
    ByIdResponse, EncodeError, Frame, Splices, decode, decode_by_id, encode_by_id, encode_response,
    unsupported_api_versions,
};

/// An API as ApiVersions shows it. `shown_min` is below `min` where Kafka shows versions that it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    pub key: ApiKey,
    pub min: i16,
    pub max: i16,
    pub shown_min: i16,
}

impl Offered {
    pub(super) const fn new(key: ApiKey, min: i16, max: i16) -> Self {
        Self { key, min, max, shown_min: min }
    }
}

/// Everything that is offered, by key.
pub const OFFERED: &[Offered] = &[
    produce::OFFERED,
    fetch::OFFERED,
    list_offsets::OFFERED,
    metadata::OFFERED,
    api_versions::OFFERED,
    create_topics::OFFERED,
    delete_topics::OFFERED,
    delete_records::OFFERED,
    offset_commit::OFFERED,
    offset_fetch::OFFERED,
    find_coordinator::OFFERED,
    join_group::OFFERED,
    heartbeat::OFFERED,
    leave_group::OFFERED,
    sync_group::OFFERED,
    describe_groups::OFFERED,
    list_groups::OFFERED,
    init_producer_id::OFFERED,
    offset_for_leader_epoch::OFFERED,
    add_partitions_to_txn::OFFERED,
    add_offsets_to_txn::OFFERED,
    end_txn::OFFERED,
    write_txn_markers::OFFERED,
    txn_offset_commit::OFFERED,
    describe_acls::OFFERED,
    create_acls::OFFERED,
    delete_acls::OFFERED,
    describe_configs::OFFERED,
    alter_configs::OFFERED,
    describe_log_dirs::OFFERED,
    create_partitions::OFFERED,
    delete_groups::OFFERED,
    elect_leaders::OFFERED,
    incremental_alter_configs::OFFERED,
    alter_partition_reassignments::OFFERED,
    list_partition_reassignments::OFFERED,
    offset_delete::OFFERED,
    update_features::OFFERED,
    describe_cluster::OFFERED,
    describe_producers::OFFERED,
    unregister_broker::OFFERED,
    describe_transactions::OFFERED,
    list_transactions::OFFERED,
    consumer_group_heartbeat::OFFERED,
    consumer_group_describe::OFFERED,
    list_config_resources::OFFERED,
    describe_topic_partitions::OFFERED,
];

/// What brokers ask each other, and ApiVersions does not show.
const BETWEEN_BROKERS: &[Offered] = &[fetch_snapshot::OFFERED];

/// The versions of ApiVersions, for the answer to a version of the future.
pub const API_VERSIONS_RANGE: (i16, i16) = (api_versions::OFFERED.min, api_versions::OFFERED.max);

/// Serves one request.
pub async fn serve(ctx: &Context, mut call: Call) -> Answer {
    let (key, version) = (call.header.api_key, call.header.version);
    let Some(offered) = OFFERED.iter().chain(BETWEEN_BROKERS).find(|o| o.key == key) else {
        return Answer::Close(format!("{key:?} is not offered"));
    };
    if version < offered.min || version > offered.max {
        if key == ApiKey::ApiVersions {
            return unsupported(&call);
        }
        return Answer::Close(format!("{key:?} version {version} is not offered"));
    }
    if call.body.len() > body_bytes_max(key) {
        return Answer::Close(format!("{key:?} of {} bytes is too large", call.body.len()));
    }
    macro_rules! call {
        ($handle:path) => {
            match decode(version, std::mem::take(&mut call.body)) {
                Ok(request) => respond(&call, &$handle(ctx, &call, request).await),
                Err(error) => Answer::Close(error.to_string()),
            }
        };
    }
    macro_rules! by_id {
        ($handle:path) => {
            match decode_by_id(version, std::mem::take(&mut call.body)) {
                Ok(request) => respond_by_id(&call, &$handle(ctx, &call, request).await),
                Err(error) => Answer::Close(error.to_string()),
            }
        };
    }
    match key {
        ApiKey::Produce => match decode(version, std::mem::take(&mut call.body)) {
            Ok(request) => produce::handle(ctx, call, request).await,
            Err(error) => Answer::Close(error.to_string()),
        },
        ApiKey::Fetch => match decode(version, std::mem::take(&mut call.body)) {
            Ok(request) => fetch::handle(ctx, &call, request).await,
            Err(error) => Answer::Close(error.to_string()),
        },
        ApiKey::FetchSnapshot => match decode(version, std::mem::take(&mut call.body)) {
            Ok(request) => fetch_snapshot::handle(ctx, &call, request).await,
            Err(error) => Answer::Close(error.to_string()),
        },
        ApiKey::ListOffsets => call!(list_offsets::handle),
        ApiKey::Metadata => call!(metadata::handle),
        ApiKey::ApiVersions => call!(api_versions::handle),
        ApiKey::CreateTopics => call!(create_topics::handle),
        ApiKey::DeleteTopics => call!(delete_topics::handle),
        ApiKey::DeleteRecords => call!(delete_records::handle),
        ApiKey::FindCoordinator => call!(find_coordinator::handle),
        ApiKey::OffsetCommit => by_id!(offset_commit::handle),
        ApiKey::OffsetFetch => by_id!(offset_fetch::handle),
        ApiKey::JoinGroup => call!(join_group::handle),
        ApiKey::Heartbeat => call!(heartbeat::handle),
        ApiKey::LeaveGroup => call!(leave_group::handle),
        ApiKey::SyncGroup => call!(sync_group::handle),
        ApiKey::OffsetDelete => call!(offset_delete::handle),
        ApiKey::DescribeGroups => call!(describe_groups::handle),
        ApiKey::ConsumerGroupDescribe => call!(consumer_group_describe::handle),
        ApiKey::ListGroups => call!(list_groups::handle),
        ApiKey::DeleteGroups => call!(delete_groups::handle),
        ApiKey::ConsumerGroupHeartbeat => call!(consumer_group_heartbeat::handle),
        ApiKey::InitProducerId => call!(init_producer_id::handle),
        ApiKey::AddPartitionsToTxn => call!(add_partitions_to_txn::handle),
        ApiKey::AddOffsetsToTxn => call!(add_offsets_to_txn::handle),
        ApiKey::EndTxn => call!(end_txn::handle),
        ApiKey::WriteTxnMarkers => call!(write_txn_markers::handle),
        ApiKey::DescribeTransactions => call!(describe_transactions::handle),
        ApiKey::ListTransactions => call!(list_transactions::handle),
        ApiKey::TxnOffsetCommit => call!(txn_offset_commit::handle),
        ApiKey::OffsetForLeaderEpoch => call!(offset_for_leader_epoch::handle),
        ApiKey::DescribeAcls => call!(describe_acls::handle),
        ApiKey::CreateAcls => call!(create_acls::handle),
        ApiKey::DeleteAcls => call!(delete_acls::handle),
        ApiKey::DescribeConfigs => call!(describe_configs::handle),
        ApiKey::AlterConfigs => call!(alter_configs::handle),
        ApiKey::DescribeLogDirs => call!(describe_log_dirs::handle),
        ApiKey::CreatePartitions => call!(create_partitions::handle),
        ApiKey::ElectLeaders => call!(elect_leaders::handle),
        ApiKey::IncrementalAlterConfigs => call!(incremental_alter_configs::handle),
        ApiKey::AlterPartitionReassignments => call!(alter_partition_reassignments::handle),
        ApiKey::ListPartitionReassignments => call!(list_partition_reassignments::handle),
        ApiKey::UpdateFeatures => call!(update_features::handle),
        ApiKey::UnregisterBroker => call!(unregister_broker::handle),
        ApiKey::DescribeCluster => call!(describe_cluster::handle),
        ApiKey::DescribeProducers => call!(describe_producers::handle),
        ApiKey::ListConfigResources => call!(list_config_resources::handle),
        ApiKey::DescribeTopicPartitions => call!(describe_topic_partitions::handle),
        _ => Answer::Close(format!("{key:?} is not offered")),
    }
}

/// The largest body of a request. Those that carry records, or name every partition of a cluster as a matter of course,
/// have the frame's limit only. The others are answered with some hundred bytes for each item of a few; 4 MiB are 50,000
/// topics by name, or more changes than one request makes in earnest.
fn body_bytes_max(key: ApiKey) -> usize {
    match key {
        ApiKey::Produce | ApiKey::Fetch | ApiKey::ListOffsets | ApiKey::Metadata | ApiKey::OffsetForLeaderEpoch => {
            usize::MAX
        }
        // Partitions as well, and the leader's assignments for all members.
        ApiKey::OffsetCommit | ApiKey::OffsetFetch | ApiKey::SyncGroup | ApiKey::TxnOffsetCommit => usize::MAX,
        _ => 4 << 20,
    }
}

fn respond<M: Encodable + HeaderVersion + Message>(call: &Call, message: &M) -> Answer {
    match encode(call, message, Splices::default()) {
        Some(frame) => Answer::Now(frame.into()),
        None => Answer::Close("the answer can't be encoded".to_owned()),
    }
}

fn respond_by_id<M: ByIdResponse>(call: &Call, message: &M) -> Answer {
    match sent(call, encode_by_id(call.header.version, call.header.correlation_id, message)) {
        Some(frame) => Answer::Now(frame.into()),
        None => Answer::Close("the answer can't be encoded".to_owned()),
    }
}

/// An ApiVersions request of a version that is not offered gets version 0 of the answer, with the range.
fn unsupported(call: &Call) -> Answer {
    let Offered { min, max, .. } = api_versions::OFFERED;
    match unsupported_api_versions(call.header.correlation_id, min, max) {
        Ok(frame) => Answer::Now(frame.into()),
        Err(error) => Answer::Close(error.to_string()),
    }
}

/// The response as a frame; `None`, after a line in the log, if it has a value that its version can't carry.
pub(super) fn encode<M: Encodable + HeaderVersion + Message>(
    call: &Call,
    message: &M,
    splices: Splices,
) -> Option<Frame> {
    let header = &call.header;
    let frame = encode_response(header.api_key, header.version, header.correlation_id, message, splices);
    sent(call, frame)
}

fn sent(call: &Call, frame: Result<Frame, EncodeError>) -> Option<Frame> {
    let header = &call.header;
    let failed = |error: &EncodeError| {
        tracing::error!(api = ?header.api_key, version = header.version, %error, "answer not sent");
    };
    frame.inspect_err(failed).ok()
}
