//! The one request that a broker makes of another, over a connection that is used for one at a time.
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_snapshot_request::{PartitionSnapshot, SnapshotId, TopicSnapshot};
use kafka_protocol::messages::{ApiKey, BrokerId as Id, FetchSnapshotRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use std::io::{self, Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;
use crate::metadata::JOURNAL_TOPIC;
use crate::protocol::records_of;
use crate::segment::ObjectName;
use crate::types::{BrokerId, Hint};

const VERSION: i16 = 1;

/// An answer's bytes beside the object.
const AROUND_MAX: usize = 1024;

pub(super) struct Connection {
    stream: Box<dyn Stream>,
    correlation_id: i32,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, correlation_id: 0 }
    }

    /// The object, if the broker has it or can have it. A connection that was given up in between is of no more use.
    pub(super) async fn object(
        &mut self,
        cluster_id: &str,
        me: BrokerId,
        name: ObjectName,
        bytes: u32,
    ) -> io::Result<Option<Bytes>> {
        let asked = request(cluster_id, me, name.key(), PartitionSnapshot::default());
        let asked = asked.with_max_bytes(i32::try_from(bytes).map_err(Error::other)?);
        let answer = self.call(&asked, bytes as usize + AROUND_MAX).await?;
        let records = records_of(ApiKey::FetchSnapshot, VERSION, self.correlation_id, &answer);
        Ok(records.filter(|records| records.len() == bytes as usize))
    }

    /// Tells that `me` has appended; an error of the other broker is as good as an answer. A connection that was given up in
    /// between is of no more use.
    pub(super) async fn hint(&mut self, cluster_id: &str, me: BrokerId, hint: Hint) -> io::Result<()> {
        let end = SnapshotId::default().with_end_offset(hint.position.0.cast_signed());
        let partition =
            PartitionSnapshot::default().with_snapshot_id(end).with_position(hint.incarnation.0.cast_signed());
        let told = request(cluster_id, me, JOURNAL_TOPIC.to_owned(), partition);
        self.call(&told, AROUND_MAX).await.map(drop)
    }

    async fn call(&mut self, request: &FetchSnapshotRequest, answer_max: usize) -> io::Result<Bytes> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        self.stream.write_all(&framed(self.correlation_id, request)?).await?;
        let size = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
        if size > answer_max {
            return Err(Error::new(ErrorKind::InvalidData, format!("an answer of {size} bytes")));
        }
        let mut answer = BytesMut::with_capacity(size);
        let mut rest = (&mut self.stream).take(size as u64);
        while rest.read_buf(&mut answer).await? > 0 {}
        let answer = answer.freeze();
        if answer.len() < size {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !answer.starts_with(&self.correlation_id.to_be_bytes()) {
            return Err(Error::new(ErrorKind::InvalidData, "no answer of a broker"));
        }
        Ok(answer)
    }
}

fn request(cluster_id: &str, me: BrokerId, name: String, partition: PartitionSnapshot) -> FetchSnapshotRequest {
    let topic = TopicSnapshot::default().with_name(StrBytes::from(name).into()).with_partitions(vec![partition]);
    let cluster_id = Some(cluster_id.to_owned().into());
    FetchSnapshotRequest::default().with_cluster_id(cluster_id).with_replica_id(Id(me.0)).with_topics(vec![topic])
}

fn framed(correlation_id: i32, request: &FetchSnapshotRequest) -> io::Result<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::FetchSnapshot as i16)
        .with_request_api_version(VERSION)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("strandline")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, FetchSnapshotRequest::header_version(VERSION)).map_err(Error::other)?;
    request.encode(&mut frame, VERSION).map_err(Error::other)?;
    let size = i32::try_from(frame.len() - 4).map_err(Error::other)?;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    Ok(frame)
}
