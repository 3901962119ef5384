//! One connection: a task that reads requests and hands them to `api`, and one that writes the answers in order.
use futures::future::BoxFuture;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tracing::debug;

use super::Limits;
use super::frame::{Ended, Frame, FrameReader};
use super::write::{Sink, WriteEnded, Writer};
use crate::api::{self, Answer, Call, Context, Reply};
use crate::config::Entrance;
use crate::protocol::{ApiKey, FrameError, parse_header, unsupported_api_versions};
use crate::telemetry::Metrics;
use crate::types::{ConnectionId, Incarnation, Piece};
use crate::world::Instant;

/// An answer in its place in the order.
struct Due {
    api_key: i16,
    received: Instant,
    reply: BoxFuture<'static, Option<Reply>>,
    _served: InFlight,
    /// The request's place in the pipeline; free again when its answer is written.
    _place: OwnedSemaphorePermit,
    /// The frame's share of the budget, where the API did not take it.
    _permit: Option<OwnedSemaphorePermit>,
}

/// Counts a request as being served until it is dropped.
struct InFlight(Arc<Metrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.net.requests_in_flight.dec();
    }
}

/// Serves a connection over any pair of byte streams until either side ends it; `stop` ends it after the answers that
/// are due. `peer` is the client's address, if it has one.
pub async fn attach(
    ctx: Arc<Context>,
    limits: Limits,
    read: impl AsyncRead + Unpin,
    write: impl Sink + 'static,
    peer: Option<IpAddr>,
    entrance: Arc<Entrance>,
    stop: watch::Receiver<bool>,
) {
    let id = ConnectionId(ctx.world.random_u64());
    let (due, answers) = mpsc::channel(limits.pipeline_depth_max);
    let writer = ctx.world.spawn("connection writer", write_answers(ctx.clone(), limits.clone(), write, answers));
    let reader = FrameReader::new(read, limits.clone(), ctx.world.clone());
    let pipeline = Arc::new(Semaphore::new(limits.pipeline_depth_max));
    let life = ctx.replica.identity().incarnation;
    let mut connection = Connection { ctx, limits, id, peer, life, entrance, reader, due, pipeline, stop };
    let ended = connection.serve().await;
    let Connection { ctx, due, .. } = connection;
    ctx.metrics.net.closed(ended);
    debug!(connection = id.0, ended, "connection ends");
    drop(due);
    // The writer ends when the last answer is written, or the client is gone.
    let _ = writer.await;
}

struct Connection<R> {
    ctx: Arc<Context>,
    limits: Limits,
    id: ConnectionId,
    peer: Option<IpAddr>,
    /// The broker's life in which the client connected.
    life: Incarnation,
    entrance: Arc<Entrance>,
    reader: FrameReader<R>,
    due: mpsc::Sender<Due>,
    /// A place per request that is being served.
    pipeline: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    /// Serves requests; gives the reason why no more are.
    async fn serve(&mut self) -> &'static str {
        loop {
            let Ok(place) = self.pipeline.clone().acquire_owned().await else { return "stop" };
            let frame = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return "stop",
                () = self.due.closed() => return "client",
                frame = self.reader.next() => frame,
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(Ended::Closed) => return "client",
                Err(Ended::Idle) => return "idle",
                Err(Ended::Stalled) => return "stalled",
                Err(Ended::NoMemory) => return "memory",
                Err(Ended::Size(_)) => {
                    self.ctx.metrics.net.refused_frame("size");
                    return "frame";
                }
            };
            // What lay here while the broker stood still was perhaps asked from another since: carried out now, it would
            // undo what came after it (H8).
            if self.ctx.replica.identity().incarnation != self.life {
                return "life";
            }
            if let Err(reason) = self.request(frame, place).await {
                return reason;
            }
        }
    }

    async fn request(&mut self, frame: Frame, place: OwnedSemaphorePermit) -> Result<(), &'static str> {
        let received = self.ctx.world.now();
        self.ctx.metrics.net.requests_in_flight.inc();
        let served = InFlight(self.ctx.metrics.clone());
        let frame_bytes = frame.bytes.len();
        let (header, body) = match parse_header(&frame.bytes) {
            Ok(parsed) => parsed,
            Err(error) => return self.unreadable(&error, received, served, place).await,
        };
        let api_key = header.api_key as i16;
        self.ctx.metrics.net.request(api_key, header.version, frame_bytes as u64);
        if header.client_id.as_ref().is_some_and(|id| id.len() > self.ctx.config.limits.client_id_bytes_max) {
            self.ctx.metrics.net.refused_frame("header");
            return Err("frame");
        }
        let overtakes = header.api_key == ApiKey::Produce;
        if !overtakes {
            self.wait_for_predecessors().await;
        }
        let mut call = Call {
            header,
            body,
            frame_bytes,
            permit: None,
            connection: self.id,
            peer: self.peer,
            entrance: self.entrance.clone(),
            received,
        };
        let mut permit = Some(frame.permit);
        if overtakes {
            call.permit = permit.take();
        }
        drop(frame.bytes);
        let ctx = self.ctx.clone();
        let answer = tokio::select! {
            biased;
            // A client that hung up while it waits for records needs no answer.
            () = self.due.closed(), if !overtakes => return Err("client"),
            // What waits for records or for other members would hold up a stop for as long as it wants to wait.
            _ = self.stop.wait_for(|stop| *stop), if waits(api_key) => return Err("stop"),
            answer = api::serve(&ctx, call) => answer,
        };
        let reply: BoxFuture<'static, Option<Reply>> = match answer {
            Answer::Now(reply) => Box::pin(std::future::ready(Some(reply))),
            Answer::Later(reply) => reply,
            Answer::Close(reason) => {
                debug!(connection = self.id.0, reason, "request refused");
                self.ctx.metrics.net.refused_frame("verifier");
                return Err("frame");
            }
        };
        self.answer(Due { api_key, received, reply, _served: served, _place: place, _permit: permit }).await
    }

    /// A header that can't be read closes the connection, but for ApiVersions of a version of the future.
    async fn unreadable(
        &mut self,
        error: &FrameError,
        received: Instant,
        served: InFlight,
        place: OwnedSemaphorePermit,
    ) -> Result<(), &'static str> {
        let api_key = ApiKey::ApiVersions as i16;
        if let FrameError::Unsupported { api_key: key, correlation_id, .. } = *error
            && key == api_key
        {
            let (first, last) = api::API_VERSIONS_RANGE;
            let frame = unsupported_api_versions(correlation_id, first, last).map_err(|_| "error")?;
            let reply = Box::pin(std::future::ready(Some(Reply::from(frame))));
            return self.answer(Due { api_key, received, reply, _served: served, _place: place, _permit: None }).await;
        }
        debug!(connection = self.id.0, %error, "frame refused");
        self.ctx.metrics.net.refused_frame("header");
        Err("frame")
    }

    async fn answer(&mut self, due: Due) -> Result<(), &'static str> {
        self.due.send(due).await.map_err(|_| "client")
    }

    /// Waits until every earlier request is answered: what follows may depend on it (create, then produce).
    async fn wait_for_predecessors(&self) {
        let others = u32::try_from(self.limits.pipeline_depth_max - 1).unwrap_or(u32::MAX);
        // All places but our own are free when nobody else is being served. It is never closed.
        let _ = self.pipeline.acquire_many(others).await;
    }
}

async fn write_answers(ctx: Arc<Context>, limits: Limits, mut sink: impl Sink, mut answers: mpsc::Receiver<Due>) {
    while let Some(due) = answers.recv().await {
        let Some(reply) = due.reply.await else { continue };
        let bytes: usize = reply.frame.iter().map(Piece::len).sum();
        let pressed = || ctx.answers.is_pressed();
        let mut writer = Writer { sink: &mut sink, world: &ctx.world, stall: limits.write_stall, pressed };
        let written = writer.write_all(reply.frame).await;
        let api = ctx.metrics.net.api(due.api_key);
        api.response_bytes.inc_by(bytes as u64);
        api.request_seconds.observe((ctx.world.now() - due.received).as_secs_f64());
        match written {
            Ok(()) => {}
            Err(WriteEnded::Closed) => return,
            Err(WriteEnded::Stalled) => {
                debug!("client does not read its answers");
                ctx.metrics.net.closed("stalled");
                return;
            }
        }
        drop((reply.holds, reply.reserved));
    }
}

/// Whether requests of this API may wait for something that others have to do.
fn waits(api_key: i16) -> bool {
    [ApiKey::Fetch, ApiKey::JoinGroup, ApiKey::SyncGroup].iter().any(|key| *key as i16 == api_key)
}
