//! One connection to a broker: requests go out without waiting for each other, answers come back in their order. What
//! a broker sends that no Kafka client could read is written down as an operation that failed.
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strandline::config::HostPort;
use strandline_history::{End, What};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::Site;

/// Why a request has no answer.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Bytes of it went out, so that the broker may have done it.
    pub(super) sent: bool,
    pub(super) why: String,
}

impl Fault {
    fn unsent(why: impl Into<String>) -> Self {
        Self { sent: false, why: why.into() }
    }

    fn sent(why: impl Into<String>) -> Self {
        Self { sent: true, why: why.into() }
    }
}

/// How a client uses its connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// Which versions it speaks: 0 is the newest of all, other numbers mix them.
    pub(super) versions: u64,
    /// It begins with ApiVersions 5, as Java 4.4 does.
    pub(super) ahead: bool,
}

/// A connection; when it is dropped it is closed.
pub(super) struct Connection {
    site: Site,
    habits: Habits,
    shared: Arc<Shared>,
    offered: BTreeMap<i16, (i16, i16)>,
    tasks: [AbortHandle; 2],
}

/// A mutex, since requests are queued without awaiting: their order is that of the calls.
struct Shared {
    pending: Mutex<Pending>,
}

struct Pending {
    next: i32,
    waiting: VecDeque<(i32, oneshot::Sender<Bytes>)>,
    /// Frames for the writer; `None` once the connection is closed.
    out: Option<mpsc::Sender<Bytes>>,
}

/// An answer that is due.
pub(super) struct Due<R> {
    connection: Arc<Connection>,
    version: i16,
    bytes: oneshot::Receiver<Bytes>,
    answer: PhantomData<R>,
}

/// Frames that wait for the writer: more than any client keeps in flight.
const FRAMES_MAX: usize = 64;
/// A length that no answer here can have.
const FRAME_BYTES_MAX: usize = 64 << 20;

impl Connection {
    /// Connects, and asks which versions the broker offers.
    pub(super) async fn open(site: &Site, address: &HostPort, habits: Habits) -> Result<Arc<Self>, Fault> {
        let opening = async {
            let stream = site.network.connect(site.process, address).await;
            let stream = stream.map_err(|e| Fault::unsent(format!("connect: {e}")))?;
            let mut connection = Self::over(site, stream, habits);
            connection.offered = connection.shake_hands().await?;
            Ok(Arc::new(connection))
        };
        let opened = site.world.timeout(habits.connect_timeout, opening).await;
        // Nothing that matters has been sent yet, whatever became of the handshake.
        opened.unwrap_or_else(|| Err(Fault::unsent("connect: timed out"))).map_err(|f| Fault::unsent(f.why))
    }

    fn over<S: AsyncRead + AsyncWrite + Send + 'static>(site: &Site, stream: S, habits: Habits) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (out, frames) = mpsc::channel(FRAMES_MAX);
        let shared =
            Arc::new(Shared { pending: Mutex::new(Pending { next: 0, waiting: VecDeque::new(), out: Some(out) }) });
        let (reading, writing, notes) = (shared.clone(), shared.clone(), site.clone());
        let reader = site.world.spawn("reader", async move {
            if let Err(Wrong::Protocol(what)) = read_answers(read, &reading).await {
                note(&notes, &what);
            }
            reading.close();
        });
        let writer = site.world.spawn("writer", async move {
            drop(write_frames(write, frames).await);
            writing.close();
        });
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        Self { site: site.clone(), habits, shared, offered: BTreeMap::new(), tasks }
    }

    async fn shake_hands(&self) -> Result<BTreeMap<i16, (i16, i16)>, Fault> {
        let request = || {
            ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("sim"))
                .with_client_software_version(StrBytes::from_static_str("1"))
        };
        let mut version = if self.habits.ahead { 5 } else { 4 - i16::try_from(self.habits.versions % 2).unwrap_or(0) };
        loop {
            let body = encode(&request(), version.min(4));
            let bytes = self.queue::<ApiVersionsRequest>(version, body, true)?.ok_or_else(closed)?;
            let bytes = bytes.await.map_err(|_| closed())?;
            // A version that the broker does not know is answered with version 0 (KIP-511).
            let read = if version == 5 { 0 } else { version };
            let answer: ApiVersionsResponse = self.decode(bytes, read)?;
            match answer.error_code {
                0 => return Ok(answer.api_keys.iter().map(|a| (a.api_key, (a.min_version, a.max_version))).collect()),
                UNSUPPORTED_VERSION if version == 5 => version = 4,
                code => return Err(Fault::unsent(format!("ApiVersions: error {code}"))),
            }
        }
    }

    /// The version of `R` that this client uses here, of those in `usable`.
    pub(super) fn version<R: Request>(&self, usable: RangeInclusive<i16>) -> Option<i16> {
        let (offered_min, offered_max) = *self.offered.get(&R::KEY)?;
        let known = <R as Message>::VERSIONS;
        let min = offered_min.max(known.min).max(*usable.start());
        let max = offered_max.min(known.max).min(*usable.end());
        let spread = u64::try_from(max.checked_sub(min)? + 1).ok().filter(|spread| *spread > 0)?;
        if self.habits.versions == 0 {
            return Some(max);
        }
        // Always the same one of an API, as with real clients, but another for another API.
        let drawn =
            self.habits.versions.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::from(R::KEY.unsigned_abs()));
        Some(min + i16::try_from(drawn % spread).unwrap_or(0))
    }

    /// Queues a request; it goes out behind those that were queued before.
    pub(super) fn send<R: Request>(self: &Arc<Self>, version: i16, request: &R) -> Result<Due<R::Response>, Fault> {
        let bytes = self.queue::<R>(version, encode(request, version), true)?.ok_or_else(closed)?;
        Ok(Due { connection: self.clone(), version, bytes, answer: PhantomData })
    }

    /// Queues a request that has no answer.
    pub(super) fn send_blindly<R: Request>(&self, version: i16, request: &R) -> Result<(), Fault> {
        self.queue::<R>(version, encode(request, version), false).map(drop)
    }

    /// Asks and waits for the answer; `make` builds the request for the version that was chosen.
    pub(super) async fn ask<R>(
        self: &Arc<Self>,
        usable: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Fault>
    where
        R: Request,
        R::Response: Decodable + HeaderVersion,
    {
        self.ask_long(usable, self.habits.request_timeout, make).await
    }

    /// As [`Connection::ask`], for what may take longer than other requests.
    pub(super) async fn ask_long<R>(
        self: &Arc<Self>,
        usable: RangeInclusive<i16>,
        patience: Duration,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Fault>
    where
        R: Request,
        R::Response: Decodable + HeaderVersion,
    {
        let Some(version) = self.version::<R>(usable) else {
            return Err(Fault::unsent(format!("API {} is not offered in a usable version", R::KEY)));
        };
        self.send(version, &make(version))?.answer(patience).await
    }

    pub(super) fn is_open(&self) -> bool {
        self.shared.pending().out.is_some()
    }

    fn queue<R: Request>(
        &self,
        version: i16,
        body: BytesMut,
        answered: bool,
    ) -> Result<Option<oneshot::Receiver<Bytes>>, Fault> {
        let mut pending = self.shared.pending();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(pending.next)
            .with_client_id(Some(StrBytes::from_string(format!("client-{}", self.site.process))));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, R::header_version(version.min(<R as Message>::VERSIONS.max))).expect("it is right");
        frame.extend_from_slice(&body);
        let length = i32::try_from(frame.len() - 4).expect("requests here are small");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let out = pending.out.as_ref().ok_or_else(|| Fault::unsent("the connection is closed"))?;
        out.try_send(frame.freeze()).map_err(|_| Fault::unsent("too many requests wait"))?;
        let id = pending.next;
        pending.next = pending.next.wrapping_add(1);
        if !answered {
            return Ok(None);
        }
        let (answer, bytes) = oneshot::channel();
        pending.waiting.push_back((id, answer));
        Ok(Some(bytes))
    }

    fn decode<R: Decodable + HeaderVersion>(&self, mut bytes: Bytes, version: i16) -> Result<R, Fault> {
        let decoded = ResponseHeader::decode(&mut bytes, R::header_version(version))
            .and_then(|_| R::decode(&mut bytes, version))
            .map_err(|e| e.to_string());
        let decoded = match decoded {
            Ok(_) if !bytes.is_empty() => Err(format!("{} bytes stand behind an answer", bytes.len())),
            decoded => decoded,
        };
        decoded.map_err(|why| {
            let what = format!("{} version {version}: {why}", std::any::type_name::<R>());
            note(&self.site, &what);
            self.shared.close();
            Fault::sent(what)
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl<R: Decodable + HeaderVersion> Due<R> {
    /// Waits for it. When it does not come in time the connection is closed, as Java does.
    pub(super) async fn answer(self, patience: Duration) -> Result<R, Fault> {
        let Self { connection, version, bytes, .. } = self;
        match connection.site.world.timeout(patience, bytes).await {
            Some(Ok(bytes)) => connection.decode(bytes, version),
            Some(Err(_)) => Err(Fault::sent("the connection was lost")),
            None => {
                connection.shared.close();
                Err(Fault::sent("the request timed out"))
            }
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is sent any more, and what was asked has no answer.
    fn close(&self) {
        let mut pending = self.pending();
        (pending.out, pending.waiting) = (None, VecDeque::new());
    }
}

const UNSUPPORTED_VERSION: i16 = 35;

fn closed() -> Fault {
    Fault::sent("the connection was lost")
}

enum Wrong {
    Lost,
    Protocol(String),
}

impl From<io::Error> for Wrong {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

async fn read_answers(mut read: impl AsyncRead + Unpin, shared: &Shared) -> Result<(), Wrong> {
    loop {
        let length = read.read_i32().await?;
        let bytes = usize::try_from(length).ok().filter(|length| (4..FRAME_BYTES_MAX).contains(length));
        let mut frame = BytesMut::zeroed(bytes.ok_or_else(|| Wrong::Protocol(format!("an answer of {length} bytes")))?);
        read.read_exact(&mut frame).await?;
        let id = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        let mut pending = shared.pending();
        if pending.out.is_none() {
            return Err(Wrong::Lost);
        }
        match pending.waiting.pop_front() {
            Some((due, answer)) if due == id => drop(answer.send(frame.freeze())),
            Some((due, _)) => return Err(Wrong::Protocol(format!("an answer to {id}, where {due} is the next"))),
            None => return Err(Wrong::Protocol(format!("an answer to {id}, and nothing was asked"))),
        }
    }
}

async fn write_frames(mut write: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        write.write_all(&frame).await?;
        write.flush().await?;
    }
    Ok(())
}

fn encode<R: Encodable>(request: &R, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    let encoded = request.encode(&mut body, version);
    encoded.unwrap_or_else(|e| panic!("{} version {version}: {e}", std::any::type_name::<R>()));
    body
}

/// Writes down that a broker broke the protocol.
pub(super) fn note(site: &Site, what: &str) {
    let what = What::Note(format!("protocol: {what}"));
    let begun = site.recorder.begin(site.process, what.clone());
    site.recorder.end(begun, None, End::Fail("the broker broke the protocol".into()), what);
}
