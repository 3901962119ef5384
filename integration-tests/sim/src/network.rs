//! Connections between clients and brokers.
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strandline::config::HostPort;
use strandline::net;
use strandline::server::Broker;
use strandline::world::World;
use tokio::io::DuplexStream;
use tokio::sync::watch;

/// The network that all parties share; clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Inner>>);

struct Inner {
    /// Who listens, by host name.
    listeners: BTreeMap<String, Listener>,
}

/// A broker that takes connections.
pub(crate) struct Listener {
    pub(crate) broker: Arc<Broker>,
    pub(crate) world: World,
    pub(crate) address: Arc<HostPort>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Bytes that lie in a connection's buffers, each way.
const BUFFER_BYTES: usize = 64 << 10;

impl Network {
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner { listeners: BTreeMap::new() })))
    }

    pub(crate) fn listen(&self, listener: Listener) {
        self.inner().listeners.insert(listener.address.host.clone(), listener);
    }

    /// A connection of client `process` to whoever listens at `address`.
    ///
    /// # Errors
    /// As a socket's.
    pub async fn connect(&self, process: u32, address: &HostPort) -> io::Result<DuplexStream> {
        let _ = process;
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let (read, write) = tokio::io::split(theirs);
        let inner = self.inner();
        let Listener { broker, world, address, stop } =
            inner.listeners.get(&address.host).ok_or(io::ErrorKind::ConnectionRefused)?;
        let serve = net::attach(
            broker.context.clone(),
            broker.limits.clone(),
            read,
            write,
            None,
            address.clone(),
            stop.clone(),
        );
        world.spawn("connection", serve);
        Ok(ours)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}
