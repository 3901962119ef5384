//! Frames and the requests in them, of all APIs and versions.
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use strandline::protocol::{
    ApiKey, ById, FrameError, RequestHeader, decode, decode_by_id, decoded_bytes, is_decodable, parse_header,
};

use crate::{batches, groups, heap};

/// What reading any header, and judging any body, may take: nothing is decoded yet.
fn unread_bytes_max(frame: usize) -> usize {
    4 * frame + (64 << 10)
}

/// What a decoded request may take beside its frame. Who has not said who he is may say only these three.
fn decoded_bytes_max(api: ApiKey, frame: usize) -> usize {
    match api {
        ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => 4 * frame + (64 << 10),
        _ => 16 * frame + (64 << 10),
    }
}

/// A frame as it comes from a socket, without its size.
pub(crate) fn frame(data: &[u8]) -> bool {
    judge(Bytes::copy_from_slice(data)).is_some()
}

/// The API's key and version, a byte each, and a body: whatever is changed in it, it stays a request of a known API.
pub(crate) fn request(data: &[u8]) -> bool {
    let Some(frame) = framed(data) else { return false };
    let (_, body) = parse_header(&frame).expect("the header is right");
    assert_eq!(body, data[2..]);
    judge(frame).is_some()
}

/// The frame of an input as `request` takes it; `None` if there is no such API and version.
pub(crate) fn framed(data: &[u8]) -> Option<Bytes> {
    let (&[key, version], body) = data.split_first_chunk()?;
    let (api, version) = (ApiKey::try_from(i16::from(key)).ok()?, i16::from(version));
    is_decodable(api, version).then_some(())?;
    let mut frame = Vec::with_capacity(body.len() + 16);
    frame.extend_from_slice(&i16::from(key).to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(b"\0\0\0\x07\0\x02me");
    if api.request_header_version(version) >= 2 {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    Some(frame.into())
}

/// Reads a frame: header, verdict, body. The verdict must be what the decoder finds, at the price that it names; and what
/// was decoded must come back from its own encoding.
fn judge(frame: Bytes) -> Option<()> {
    let bytes = frame.len();
    let header = heap::within("a header", unread_bytes_max(bytes), || parse_header(&frame));
    let (RequestHeader { api_key, version, .. }, body) = header.ok()?;
    assert!(frame.ends_with(&body));
    let key = api_key as i16;
    let verdict = heap::within("a verdict", 4 << 10, || decoded_bytes(key, version, &body));
    let (decoded, peak) = heap::peak(|| decode_any(key, version, body));
    match (verdict, decoded) {
        (Ok(price), Ok(request)) => {
            assert!(peak <= price + 64, "{api_key:?} {version} took {peak} bytes of heap, and {price} were promised");
            let most = decoded_bytes_max(api_key, bytes);
            assert!(peak <= most, "{api_key:?} {version} of {bytes} bytes took {peak} of heap, more than {most}");
            request.check(version);
            Some(())
        }
        (Err(_), Err(_)) => None,
        (verdict, decoded) => panic!("{api_key:?} {version}: {verdict:?}, but decoding: {:?}", decoded.err()),
    }
}

/// A decoded request.
trait Checked {
    /// It comes back from its own encoding, and what is embedded in it can be read or refused.
    fn check(&self, version: i16);
}

/// Messages whose newest versions have a codec of ours, which is for reading only.
struct NewlyById<M>(M);

impl<M: Request + PartialEq + std::fmt::Debug + 'static> Checked for M {
    fn check(&self, version: i16) {
        let mut again = BytesMut::new();
        // Newer versions with the same layout are decoded as the newest that the message crate knows.
        let wire = version.min(M::VERSIONS.max);
        self.encode(&mut again, wire).unwrap_or_else(|e| panic!("{} {version} can't be encoded: {e}", M::KEY));
        let again = decode::<M>(version, again.freeze());
        // The message crate counts unknown tags of 2^31 and more, which are negative to it, but does not write them.
        if again.as_ref() != Ok(self) && format!("{self:?}").contains("unknown_tagged_fields: {-") {
            return embedded(self);
        }
        let again = again.unwrap_or_else(|e| panic!("{} {version}: {e}", M::KEY));
        assert!(again == *self, "{} {version} comes back as another:\n{self:?}\n{again:?}", M::KEY);
        embedded(self);
    }
}

impl<M: ById> Checked for NewlyById<M> {
    fn check(&self, version: i16) {
        assert!(version >= M::VERSIONS.min);
        let _ = &self.0;
    }
}

/// What stands inside requests in formats of its own.
fn embedded(request: &dyn std::any::Any) {
    if let Some(produce) = request.downcast_ref::<ProduceRequest>() {
        let partitions = produce.topic_data.iter().flat_map(|topic| &topic.partition_data);
        partitions.filter_map(|partition| partition.records.as_ref()).for_each(batches::produced);
    } else if let Some(join) = request.downcast_ref::<JoinGroupRequest>() {
        join.protocols.iter().for_each(|protocol| groups::subscription(&protocol.metadata));
    } else if let Some(sync) = request.downcast_ref::<SyncGroupRequest>() {
        sync.assignments.iter().for_each(|one| groups::assignment(&one.assignment));
    }
}

macro_rules! requests {
    ($($request:ident)*) => {
        fn decode_any(key: i16, version: i16, body: Bytes) -> Result<Box<dyn Checked>, FrameError> {
            match key {
                OffsetCommitRequest::KEY if version >= 10 => {
                    Ok(Box::new(NewlyById(decode_by_id::<OffsetCommitRequest>(version, body)?)))
                }
                OffsetFetchRequest::KEY if version >= 10 => {
                    Ok(Box::new(NewlyById(decode_by_id::<OffsetFetchRequest>(version, body)?)))
                }
                $($request::KEY => Ok(Box::new(decode::<$request>(version, body)?)),)*
                _ => panic!("API {key} is decodable, and this list does not have it"),
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
    AddRaftVoterRequest RemoveRaftVoterRequest DescribeShareGroupOffsetsRequest AlterShareGroupOffsetsRequest
    DeleteShareGroupOffsetsRequest FetchSnapshotRequest
}
