//! What brokers ask and tell each other directly: objects, and that the journal has grown ([`Hints`]). In each zone an object
//! has one broker whose part it is to read it from the bucket; the others ask that one, so that a zone reads each object about
//! once, however many of its brokers want it. It promises that an object takes at most [`PATIENCE`] longer than from the
//! bucket, and that a broker which does not answer is left alone for a while. What comes is unchecked: `cache` looks at it as
//! at what the bucket gives. Tests: with whole brokers, `server/tests/neighbours.rs` and `trio.rs`.
mod hints;
mod wire;

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::{debug, info};

pub use hints::Hints;
use wire::Connection;

use crate::cache::Neighbours;
use crate::cluster::Membership;
use crate::config::HostPort;
use crate::metadata::Replica;
use crate::segment::ObjectName;
use crate::telemetry::Metrics;
use crate::types::BrokerId;
use crate::world::{Instant, World};

/// For an object to be there: a read of the bucket that is slow, and the way here. The bucket itself may be asked after it.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A broker that did not answer is not asked again for this long.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// Connections to one broker that are kept for the next objects.
const IDLE_MAX: usize = 4;

/// What carries a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The way to other brokers.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A connection to the broker at `address`.
    ///
    /// # Errors
    /// As a socket's.
    async fn dial(&self, address: &HostPort) -> io::Result<Box<dyn Stream>>;
}

/// The way over the network.
pub struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, address: &HostPort) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// See the module.
pub struct Peers {
    pub world: World,
    pub metrics: Arc<Metrics>,
    pub replica: Replica,
    pub membership: Membership,
    pub dial: Arc<dyn Dial>,
    /// The name of the listener at which other brokers are asked; their first one where they have none of that name.
    pub listener: String,
    pub known: Known,
}

/// What is remembered of the brokers that were asked. A mutex, held for map operations only.
#[derive(Default)]
pub struct Known(Mutex<BTreeMap<BrokerId, Peer>>);

#[derive(Default)]
struct Peer {
    idle: Vec<(HostPort, Connection)>,
    left_alone_until: Option<Instant>,
}

impl Known {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Neighbours for Peers {
    fn are_to_read(&self, name: ObjectName) -> bool {
        self.membership.now().reader(name.ulid, &self.listener).is_some_and(|(id, _)| !self.is_left_alone(id))
    }

    async fn object(&self, name: ObjectName, bytes: u32) -> Option<Bytes> {
        let (id, address) = self.membership.now().reader(name.ulid, &self.listener)?;
        let cluster_id = self.replica.state().cluster_id()?.to_string();
        let asked = self.ask(id, &address, &cluster_id, name, bytes);
        let given = match self.world.timeout(PATIENCE, asked).await {
            Some(Ok(given)) => given,
            Some(Err(error)) => self.leave_alone(id, &address, &error.to_string()),
            None => self.leave_alone(id, &address, "no answer in time"),
        };
        if given.is_none() {
            self.metrics.cache.asked_in_vain.inc();
        }
        given
    }
}

impl Peers {
    async fn ask(
        &self,
        id: BrokerId,
        address: &HostPort,
        cluster_id: &str,
        name: ObjectName,
        bytes: u32,
    ) -> io::Result<Option<Bytes>> {
        // Whoever is at the other end may have closed a connection that was idle.
        if let Some(mut idle) = self.take_idle(id, address)
            && let Ok(given) = idle.object(cluster_id, self.membership.me(), name, bytes).await
        {
            self.keep(id, address, idle);
            return Ok(given);
        }
        let mut fresh = Connection::new(self.dial.dial(address).await?);
        let given = fresh.object(cluster_id, self.membership.me(), name, bytes).await?;
        self.keep(id, address, fresh);
        Ok(given)
    }

    fn take_idle(&self, id: BrokerId, address: &HostPort) -> Option<Connection> {
        let mut peers = self.known.peers();
        let idle = &mut peers.entry(id).or_default().idle;
        idle.retain(|(to, _)| to == address);
        idle.pop().map(|(_, connection)| connection)
    }

    fn keep(&self, id: BrokerId, address: &HostPort, connection: Connection) {
        let mut peers = self.known.peers();
        let peer = peers.entry(id).or_default();
        peer.left_alone_until = None;
        if peer.idle.len() < IDLE_MAX {
            peer.idle.push((address.clone(), connection));
        }
    }

    fn is_left_alone(&self, id: BrokerId) -> bool {
        let now = self.world.now();
        self.known.peers().get(&id).is_some_and(|peer| peer.left_alone_until.is_some_and(|until| now < until))
    }

    /// Says once for each time of silence why objects are read from the bucket.
    fn leave_alone(&self, id: BrokerId, address: &HostPort, reason: &str) -> Option<Bytes> {
        let until = self.world.now() + LEFT_ALONE;
        let before = {
            let mut peers = self.known.peers();
            let peer = peers.entry(id).or_default();
            peer.idle.clear();
            peer.left_alone_until.replace(until)
        };
        if before.is_none() {
            info!(broker = id.0, %address, reason, "a broker of this zone gives no objects, they are read from the bucket");
        } else {
            debug!(broker = id.0, %address, reason, "still no objects from a broker of this zone");
        }
        None
    }
}
