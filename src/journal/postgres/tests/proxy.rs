//! Between a broker and its server: loses answers, or holds everything up.
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{JoinHandle, World};

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    Pass,
    /// What the server answers next is lost, and with it the connection.
    LoseAnswers,
    /// What the broker sends next is lost, and with it the connection.
    LoseCalls,
    /// Nothing arrives, either way, and nobody is told.
    Hold,
}

pub(super) struct Proxy {
    pub port: u16,
    mode: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(0));
        let task = World::real().unwrap().spawn("proxy", accept(listener, port, mode.clone()));
        Self { port: own, mode, task }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, mode: Arc<AtomicU8>) {
    let world = World::real().unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let (mode, world) = (mode.clone(), world.clone());
        let serve = async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            // Whole packets are lost, not what the kernel joined.
            server.set_nodelay(true).unwrap();
            client.set_nodelay(true).unwrap();
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let calls = copy(from_client, to_server, &mode, Mode::LoseCalls);
            let answers = copy(from_server, to_client, &mode, Mode::LoseAnswers);
            // Whichever ends first ends both.
            futures::future::select(std::pin::pin!(calls), std::pin::pin!(answers)).await;
        };
        drop(world.clone().spawn("proxied", serve));
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: &AtomicU8, loses: Mode) {
    let world = World::real().unwrap();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let Ok(count) = from.read(&mut bytes).await else { return };
        while mode.load(Ordering::SeqCst) == Mode::Hold as u8 {
            world.sleep(Duration::from_millis(5)).await;
        }
        if count == 0 || mode.load(Ordering::SeqCst) == loses as u8 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
