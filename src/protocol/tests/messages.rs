//! Every request that the table knows, by key: decode it, and encode what was decoded.
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Message, Request};

use super::by_id;
use crate::protocol::request::wire_version;
use crate::protocol::{ApiKey, FrameError, Splices, decode, encode_response};

fn again<M: Request>(version: i16, body: Bytes) -> Result<Bytes, FrameError> {
    let request: M = decode(version, body)?;
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, wire_version::<M>(version)).expect("what was decoded can be encoded");
    Ok(bytes.freeze())
}

fn answer_again<M: Request>(version: i16, mut frame: Bytes) -> Bytes
where
    M::Response: Message + HeaderVersion,
{
    let wire = wire_version::<M::Response>(version);
    let header = ResponseHeader::decode(&mut frame, M::Response::header_version(wire)).unwrap();
    let response = M::Response::decode(&mut frame, wire).unwrap();
    assert!(frame.is_empty());
    let key = ApiKey::try_from(M::KEY).unwrap();
    let frame = encode_response(key, version, header.correlation_id, &response, Splices::default()).unwrap();
    assert_eq!(frame.len(), 1);
    frame[0].in_memory().unwrap().slice(4..)
}

macro_rules! requests {
    ($($request:ident)*) => {
        /// Decodes a request's body and encodes it again.
        pub(in crate::protocol) fn decode_encode(key: i16, version: i16, body: Bytes) -> Result<Bytes, FrameError> {
            match key {
                8 | 9 if version >= 10 => by_id::decode_encode(key, body),
                $($request::KEY => again::<$request>(version, body),)*
                _ => panic!("no request {key}"),
            }
        }

        /// The newest version that the message crate knows of the request and of the response.
        pub(in crate::protocol) fn newest(key: i16) -> (i16, i16) {
            match key {
                // What the message crate lacks, `by_id.rs` has.
                key if [8, 9].contains(&key) => (10, 10),
                $($request::KEY => (
                    $request::VERSIONS.max,
                    <$request as Request>::Response::VERSIONS.max,
                ),)*
                _ => panic!("no request {key}"),
            }
        }

        /// Decodes a response frame without its size, and encodes it again.
        pub(super) fn answer(key: i16, version: i16, frame: Bytes) -> Bytes {
            match key {
                8 | 9 if version >= 10 => by_id::answer(key, frame),
                $($request::KEY => answer_again::<$request>(version, frame),)*
                _ => panic!("no response {key}"),
            }
        }
    };
}

requests! {
    ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
    FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest
    ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
    DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest AddPartitionsToTxnRequest
    AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest TxnOffsetCommitRequest DescribeAclsRequest
    CreateAclsRequest DeleteAclsRequest DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
    DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest CreateDelegationTokenRequest
    RenewDelegationTokenRequest ExpireDelegationTokenRequest DescribeDelegationTokenRequest DeleteGroupsRequest
    ElectLeadersRequest IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
    ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest AlterClientQuotasRequest
    DescribeUserScramCredentialsRequest AlterUserScramCredentialsRequest DescribeQuorumRequest UpdateFeaturesRequest
    DescribeClusterRequest DescribeProducersRequest UnregisterBrokerRequest DescribeTransactionsRequest
    ListTransactionsRequest ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest
    GetTelemetrySubscriptionsRequest PushTelemetryRequest ListConfigResourcesRequest DescribeTopicPartitionsRequest
    ShareGroupHeartbeatRequest ShareGroupDescribeRequest ShareFetchRequest ShareAcknowledgeRequest
    FetchSnapshotRequest AddRaftVoterRequest RemoveRaftVoterRequest DescribeShareGroupOffsetsRequest AlterShareGroupOffsetsRequest
    DeleteShareGroupOffsetsRequest
}
