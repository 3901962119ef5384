//! A small Kafka client for the commands that ask a running broker: one request at a time, as any client would.
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use super::{EXIT_FAILED, print};
use crate::types::KafkaError;

/// How long a broker may take to connect, or to send something of an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer that is read: as large as Kafka's largest request.
const ANSWER_BYTES_MAX: usize = 100 << 20;

/// Why a command has no answer; as its user reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(pub(super) String);

/// Prints what was asked for, or why there is no answer, and gives the process's exit code.
pub(super) fn show(answer: Result<String, Failed>) -> ExitCode {
    match answer {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(failed) => {
            eprintln!("strandline: {failed}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Connections to the brokers of a cluster, each made when it is needed.
pub(super) struct Cluster {
    /// The broker that was named on the command line.
    server: String,
    brokers: BTreeMap<String, Connection>,
}

struct Connection {
    stream: TcpStream,
    correlation: i32,
    /// The highest version of each API.
    versions: BTreeMap<i16, i16>,
}

impl Cluster {
    /// The cluster that the broker at `server` (`HOST:PORT`) is part of.
    #[must_use]
    pub(super) fn new(server: &str) -> Self {
        Self { server: server.to_owned(), brokers: BTreeMap::new() }
    }

    /// Asks the broker that was named.
    ///
    /// # Errors
    /// If it is not there, or does not answer as a Kafka broker does.
    pub(super) fn ask<R: Request>(&mut self, version_max: i16, request: &R) -> Result<R::Response, Failed> {
        let server = self.server.clone();
        self.ask_at(&server, version_max, request)
    }

    /// Asks the broker at `address`, in the highest version that it knows, up to `version_max`.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub(super) fn ask_at<R: Request>(
        &mut self,
        address: &str,
        version_max: i16,
        request: &R,
    ) -> Result<R::Response, Failed> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Failed(format!("{address} does not answer within {} s", PATIENCE.as_secs()))
            }
            _ => Failed(format!("{address} does not answer as a Kafka broker does: {e}")),
        };
        if !self.brokers.contains_key(address) {
            let mut connection = connect(address)?;
            connection.learn_versions().map_err(failed)?;
            self.brokers.insert(address.to_owned(), connection);
        }
        let Some(connection) = self.brokers.get_mut(address) else { return Err(Failed(address.to_owned())) };
        let version = connection.versions.get(&R::KEY).copied().unwrap_or(-1).min(version_max);
        if version < 0 {
            return Err(Failed(format!("{address} does not offer the request with key {}", R::KEY)));
        }
        connection.call(version, request).map_err(failed)
    }

    /// Whether the broker that was named offers this request; asked after it answered anything.
    #[must_use]
    pub(super) fn offers<R: Request>(&self) -> bool {
        self.brokers.get(&self.server).is_some_and(|c| c.versions.contains_key(&R::KEY))
    }
}

fn connect(address: &str) -> Result<Connection, Failed> {
    let absent =
        |e: io::Error| Failed(format!("no broker answers at {address}: {e}; name one with --server HOST:PORT"));
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for socket in address.to_socket_addrs().map_err(absent)? {
        match TcpStream::connect_timeout(&socket, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).map_err(absent)?;
                stream.set_write_timeout(Some(PATIENCE)).map_err(absent)?;
                return Ok(Connection { stream, correlation: 0, versions: BTreeMap::new() });
            }
            Err(error) => last = error,
        }
    }
    Err(absent(last))
}

impl Connection {
    fn learn_versions(&mut self) -> io::Result<()> {
        let response = self.call(0, &ApiVersionsRequest::default())?;
        self.versions = response.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect();
        Ok(())
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("strandline-cli")));
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(invalid)?;
        request.encode(&mut frame, version).map_err(invalid)?;
        let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        let mut answer = self.read()?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(invalid)?;
        if header.correlation_id != self.correlation {
            return Err(invalid("an answer to something else"));
        }
        R::Response::decode(&mut answer, version).map_err(invalid)
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            return Err(invalid(format!("an answer of {length} bytes")));
        }
        let mut answer = Vec::new();
        (&mut self.stream).take(length as u64).read_to_end(&mut answer)?;
        if answer.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer.into())
    }
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// A failure where `code` is one of Kafka's errors.
///
/// # Errors
/// With the error's name.
pub(super) fn check(what: &str, code: i16) -> Result<(), Failed> {
    match KafkaError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(Failed(format!("{what}: {error}"))),
    }
}
