//! The admin port: `/metrics`, `/livez`, `/readyz`. Plain HTTP, reads only, no body is ever read; connections are
//! bounded in number and in time, so that whoever can reach it can't take memory or files from the clients.
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Health, Metrics};
use crate::world::World;

/// Open admin connections; scrapers and probes need a handful, the rest wait in the listen queue.
const CONNECTIONS_MAX: usize = 32;
/// How long one admin connection may last, busy or not; scrapers open another one.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// A pause after a failed accept (too many open files), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Shared {
    world: World,
    metrics: Arc<Metrics>,
    health: Health,
}

/// Serves the admin port until `stop` resolves; answers begun are finished.
///
/// # Errors
/// If the listener can't be served at all.
pub async fn serve(
    listener: TcpListener,
    world: World,
    metrics: Arc<Metrics>,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = Bounded { listener, world: world.clone(), permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    axum::serve(listener, router(Shared { world, metrics, health })).with_graceful_shutdown(stop).await
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "this port has /metrics, /livez and /readyz\n") })
        .with_state(shared)
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shared.metrics.render(shared.world.wall_ms()))
}

async fn ready(State(shared): State<Shared>) -> Response {
    match shared.health.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

/// A listener that accepts at most [`CONNECTIONS_MAX`] at a time and ends each after [`CONNECTION_LIFE`].
struct Bounded {
    listener: TcpListener,
    world: World,
    permits: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let permit = match Arc::clone(&self.permits).acquire_owned().await {
                Ok(permit) => permit,
                Err(_closed) => std::future::pending().await,
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let world = self.world.clone();
                    let end = Box::pin(async move { world.sleep(CONNECTION_LIFE).await });
                    return (Connection { stream, end, over: false, _permit: permit }, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an admin connection failed; trying again");
                    self.world.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Connection {
    stream: TcpStream,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// An error once the connection's time is over; wakes the task when it comes.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.over = self.over || self.end.as_mut().poll(cx).is_ready();
        if self.over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TimestampMs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_admin_port_answers_in_every_state() {
        let world = World::real().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::starting();
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = serve(listener, world.clone(), metrics, health.clone(), async {
            let _ = stopped.await;
        });
        let task = world.spawn("admin", served);
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: start: the broker is starting\n"));
        health.clear("start");
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("strandline_net_connections 0\n"));
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }
}
