//! One client's connection: requests go out without waiting, answers come back in their order, and each is recorded.
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::marker::PhantomData;
use strandline::protocol::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use xxhash_rust::xxh3::xxh3_64;

use super::Harbour;

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

pub(crate) struct Wire {
    client: usize,
    stream: DuplexStream,
    harbour: Harbour,
    sent: i32,
    received: i32,
}

/// An answer that is due.
pub(crate) struct Due<R> {
    version: i16,
    api_key: ApiKey,
    answer: PhantomData<R>,
}

impl Wire {
    pub(crate) fn new(client: usize, stream: DuplexStream, harbour: Harbour) -> Self {
        Self { client, stream, harbour, sent: 0, received: 0 }
    }

    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: R) -> Due<R::Response> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_string(format!("client {}", self.client))));
        self.sent += 1;
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        self.stream.write_all(&(frame.len() as i32).to_be_bytes()).await.unwrap();
        self.stream.write_all(&frame).await.unwrap();
        Due { version, api_key: ApiKey::try_from(R::KEY).unwrap(), answer: PhantomData }
    }

    pub(crate) async fn answer<R: Decodable + HeaderVersion>(&mut self, due: Due<R>) -> R {
        let length = self.stream.read_i32().await.unwrap();
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.stream.read_exact(&mut frame).await.unwrap();
        let mut frame: Bytes = frame.freeze();
        let what = format!("{:?} {} {}", due.api_key, due.version, frame.len());
        self.harbour.record(self.client, what, hash(&frame));
        let header = ResponseHeader::decode(&mut frame, R::header_version(due.version)).unwrap();
        assert_eq!(header.correlation_id, self.received, "answers come in the order of their requests");
        self.received += 1;
        let answer = R::decode(&mut frame, due.version).unwrap();
        assert!(frame.is_empty(), "nothing stands behind an answer");
        answer
    }

    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response
    where
        R::Response: Decodable + HeaderVersion,
    {
        let due = self.send(version, request).await;
        self.answer(due).await
    }
}
