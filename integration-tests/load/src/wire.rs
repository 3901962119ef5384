//! One connection to a broker: frames out, frames in. The small requests go through the message crate; Produce, where
//! the bytes are, is framed by hand in `frame.rs`.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What we call ourselves in every request header.
pub const CLIENT_ID: &str = "strandline-load";

/// The largest answer that is believed; a fetch asks for far less.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// A connection that sends one request at a time.
pub struct Wire {
    stream: TcpStream,
    inbox: BytesMut,
    correlation: i32,
}

impl Wire {
    /// Connects with Nagle's algorithm off, as Kafka's clients do.
    pub async fn connect(address: &str) -> Result<Self> {
        let connect = TcpStream::connect(address);
        let stream = tokio::time::timeout(Duration::from_secs(5), connect)
            .await
            .with_context(|| format!("connecting to {address} took over 5 s"))?
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: BytesMut::new(), correlation: 0 })
    }

    /// Sends one request and waits for its answer.
    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.correlation = self.correlation.wrapping_add(1);
        let frame = encode_request(request, version, self.correlation)?;
        self.stream.write_all(&frame).await?;
        let answer = read_frame(&mut self.stream, &mut self.inbox).await?;
        let (correlation, response) = decode_response::<R>(answer, version)?;
        if correlation != self.correlation {
            bail!("answer {correlation} to request {}", self.correlation);
        }
        Ok(response)
    }

    /// Sends bytes that are a whole frame already.
    pub async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame).await
    }

    /// The next answer, without its length.
    pub async fn receive(&mut self) -> io::Result<Bytes> {
        read_frame(&mut self.stream, &mut self.inbox).await
    }

    /// The socket, for a reader and a writer that work at the same time.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// A whole request frame, its length included.
pub fn encode_request<R: Request>(request: &R, version: i16, correlation: i32) -> Result<BytesMut> {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)))
        .encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// The correlation id and the answer in a frame that `read_frame` gave. Record bytes stay slices of the frame.
pub fn decode_response<R: Request>(mut frame: Bytes, version: i16) -> Result<(i32, R::Response)> {
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version))?;
    let response = R::Response::decode(&mut frame, version)?;
    Ok((header.correlation_id, response))
}

/// Reads one frame and returns it without its length. The buffer is used again once the frame before was dropped, so
/// that a stream of large answers costs no fresh pages. Dropping this before it is done loses nothing: what came stays in
/// the buffer.
pub async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S, inbox: &mut BytesMut) -> io::Result<Bytes> {
    while inbox.len() < 4 {
        inbox.reserve(64 << 10);
        fill(stream, inbox).await?;
    }
    let length = usize::try_from((&inbox[..]).get_i32()).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of more than 256 MiB"));
    }
    let whole = 4 + length;
    if inbox.len() < whole {
        inbox.reserve(whole - inbox.len());
    }
    while inbox.len() < whole {
        fill(stream, inbox).await?;
    }
    let mut frame = inbox.split_to(whole).freeze();
    frame.advance(4);
    Ok(frame)
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, inbox: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(inbox).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")),
        _ => Ok(()),
    }
}
