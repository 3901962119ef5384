//! What lies between the parties: connections whose bytes are late, held up, swallowed or cut, and links that a fault
//! blocks. Everything that passes is noted in the trace.
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strandline::api::Context;
use strandline::config::{Entrance, HostPort};
use strandline::net;
use strandline::peers::{Dial, Stream};
use strandline::world::{Instant, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::faults::{Fault, Faults};

/// A way between two parties that a fault may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Between a client, by its number, and a broker.
    Client(u32, i32),
    Journal(i32),
    Bucket(i32),
}

/// The network that all parties share; clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    world: World,
    faults: Faults,
    start: Instant,
    /// How long a chunk of bytes travels at most, in ms.
    delay_ms: u64,
    state: Mutex<State>,
    /// Told when what is blocked has changed. It wakes in the order of waiting; a watch channel with several receivers
    /// would draw that order.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Who listens, by host name.
    listeners: BTreeMap<String, Listener>,
    /// Hosts that answer nothing at all.
    dark: BTreeSet<String>,
    /// How often each is blocked at the moment.
    blocked: BTreeMap<Link, usize>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    trace: u64,
    events: u64,
}

/// A broker that takes connections.
pub(crate) struct Listener {
    pub(crate) context: Arc<Context>,
    pub(crate) limits: net::Limits,
    pub(crate) id: i32,
    /// The machine it runs on.
    pub(crate) world: World,
    pub(crate) entrance: Arc<Entrance>,
}

/// The way from one broker to the others; to them it is a client whose number is far from the others'.
pub(crate) struct FromBroker {
    pub(crate) network: Network,
    pub(crate) id: i32,
}

const FIRST_BROKER: u32 = 1_000_000;

#[async_trait]
impl Dial for FromBroker {
    async fn dial(&self, address: &HostPort) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.network.connect(FIRST_BROKER + self.id.unsigned_abs(), address).await?))
    }
}

/// A connection as the network knows it.
struct Connection {
    broker: i32,
    /// One for each direction: several receivers of one would be woken in an order of chance.
    fates: [watch::Sender<Fate>; 2],
    /// Tells the broker's side that the broker stops.
    stop: watch::Sender<bool>,
}

impl Connection {
    fn fate(&self) -> Fate {
        *self.fates[0].borrow()
    }

    fn meet(&self, fate: Fate) {
        for told in &self.fates {
            told.send_replace(fate);
        }
    }
}

/// What becomes of what is sent over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// The broker's bytes vanish.
    AnswersVanish,
    /// Everybody's bytes vanish.
    AllVanishes,
    Cut,
}

/// Bytes that lie in a connection's buffers, each way.
const BUFFER_BYTES: usize = 64 << 10;

impl Network {
    #[must_use]
    pub fn new(world: &World, faults: &Faults, delay_ms: u64) -> Self {
        let (world, faults) = (world.clone(), faults.clone());
        let start = world.now();
        let state = Mutex::default();
        Self(Arc::new(Inner { world, faults, start, delay_ms, state, changed: Notify::new() }))
    }

    pub(crate) fn listen(&self, listener: Listener) {
        let mut state = self.state();
        let host = listener.entrance.advertised.host.clone();
        state.dark.remove(&host);
        state.listeners.insert(host, listener);
    }

    /// Nobody listens at `host` any more. `dark`: who tries to connect is not even refused, and connections that there
    /// are stay open without a word.
    pub(crate) fn leave(&self, host: &str, dark: bool) {
        let mut state = self.state();
        let gone = state.listeners.remove(host);
        if dark {
            state.dark.insert(host.to_owned());
            let gone = gone.map(|listener| listener.id);
            for connection in state.connections.values().filter(|c| Some(c.broker) == gone) {
                connection.meet(Fate::AllVanishes);
            }
        }
    }

    /// Lets go of all brokers. They hold the network too, so nothing of a run would ever be freed.
    pub(crate) fn close(&self) {
        let State { listeners, connections, .. } = std::mem::take(&mut *self.state());
        // Freed after the lock, which their ends may want.
        drop((listeners, connections));
    }

    /// Tells the connections of broker `id` that it stops.
    pub(crate) fn stop(&self, id: i32) {
        for connection in self.state().connections.values().filter(|connection| connection.broker == id) {
            connection.stop.send_replace(true);
        }
    }

    /// Blocks a link, or lets it pass again.
    pub fn block(&self, link: Link, blocked: bool) {
        let mut state = self.state();
        if blocked {
            *state.blocked.entry(link).or_default() += 1;
        } else if let Some(times) = state.blocked.get_mut(&link).filter(|times| **times > 1) {
            *times -= 1;
        } else {
            state.blocked.remove(&link);
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Resolves when nothing blocks `link`.
    pub async fn passable(&self, link: Link) {
        loop {
            let changed = self.0.changed.notified();
            if !self.state().blocked.contains_key(&link) {
                return;
            }
            changed.await;
        }
    }

    /// Ends all faults of the network: what was held up passes, what was silent is cut.
    pub fn heal(&self) {
        let mut state = self.state();
        state.blocked.clear();
        state.dark.clear();
        for connection in state.connections.values() {
            if connection.fate() != Fate::Passes {
                connection.meet(Fate::Cut);
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Writes down something that happened, so that two runs can be compared.
    pub fn note(&self, what: &str, name: &str, bytes: &[u8]) {
        let at = (self.0.world.now() - self.0.start).as_micros() as u64;
        let mut state = self.state();
        let mut hash = xxh3_64_with_seed(bytes, state.trace ^ at);
        hash = xxh3_64_with_seed(name.as_bytes(), hash);
        state.trace = xxh3_64_with_seed(what.as_bytes(), hash);
        state.events += 1;
        tracing::trace!(at, what, name, bytes = bytes.len(), hash = state.trace);
    }

    /// The hash over all that was noted, and how much it was.
    #[must_use]
    pub fn trace(&self) -> (u64, u64) {
        let state = self.state();
        (state.trace, state.events)
    }

    /// A connection of client `process` to whoever listens at `address`.
    ///
    /// # Errors
    /// As a socket's.
    pub async fn connect(&self, process: u32, address: &HostPort) -> io::Result<DuplexStream> {
        let Inner { world, faults, .. } = &*self.0;
        self.travel().await;
        if self.state().dark.contains(&address.host) || faults.happens(Fault::ConnectHangs) {
            std::future::pending::<()>().await;
        }
        let id = self.state().listeners.get(&address.host).map(|l| l.id).ok_or(io::ErrorKind::ConnectionRefused)?;
        let link = Link::Client(process, id);
        self.passable(link).await;
        self.travel().await;
        let (client, ours) = tokio::io::duplex(BUFFER_BYTES);
        let (theirs, broker) = tokio::io::duplex(BUFFER_BYTES);
        let (number, [fate_there, fate_back]) = self.accept(address, broker)?;
        let (from_client, to_client) = tokio::io::split(ours);
        let (from_broker, to_broker) = tokio::io::split(theirs);
        let there = self.clone().pump((number, fate_there), link, true, from_client, to_broker);
        let back = self.clone().pump((number, fate_back), link, false, from_broker, to_client);
        let network = self.clone();
        world.spawn("connection's bytes", async move {
            tokio::join!(there, back);
            network.state().connections.remove(&number);
        });
        Ok(client)
    }

    fn accept(&self, address: &HostPort, stream: DuplexStream) -> io::Result<(u64, [watch::Receiver<Fate>; 2])> {
        let mut state = self.state();
        let listener = state.listeners.get(&address.host).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (read, write) = tokio::io::split(stream);
        let Listener { context, limits, id, world, entrance } = listener;
        let (stop, stopping) = watch::channel(false);
        let (context, limits) = (context.clone(), limits.clone());
        let serve = net::attach(context, limits, read, write, None, entrance.clone(), stopping);
        world.spawn("connection", serve);
        let ((there, fate_there), (back, fate_back)) = (watch::channel(Fate::Passes), watch::channel(Fate::Passes));
        let connection = Connection { broker: *id, fates: [there, back], stop };
        state.next += 1;
        let number = state.next;
        state.connections.insert(number, connection);
        Ok((number, [fate_there, fate_back]))
    }

    /// Carries one direction of a connection until it ends or is cut.
    async fn pump(
        self,
        (number, mut fate): (u64, watch::Receiver<Fate>),
        link: Link,
        request: bool,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
    ) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = tokio::select! {
                biased;
                _ = fate.wait_for(|fate| *fate == Fate::Cut) => break,
                read = from.read(&mut buffer) => read.unwrap_or(0),
            };
            if read == 0 {
                break;
            }
            let bytes = &buffer[..read];
            self.travel().await;
            let passable = self.passable(link);
            tokio::select! {
                biased;
                _ = fate.wait_for(|fate| *fate == Fate::Cut) => break,
                () = passable => {}
            }
            self.strike(number);
            let now = *fate.borrow();
            match now {
                Fate::Cut => break,
                Fate::AllVanishes => continue,
                Fate::AnswersVanish if !request => continue,
                Fate::Passes | Fate::AnswersVanish => {}
            }
            self.note(if request { "request" } else { "answer" }, &format!("{link:?}"), bytes);
            if to.write_all(bytes).await.is_err() {
                break;
            }
        }
        // The other side may be gone.
        let _ = to.shutdown().await;
    }

    /// Perhaps something befalls the connection that carries bytes just now.
    fn strike(&self, number: u64) {
        let faults = &self.0.faults;
        let new = match faults.first_of(&[Fault::ConnectionCut, Fault::HalfOpen]) {
            Some(Fault::ConnectionCut) => Fate::Cut,
            Some(_) if self.0.world.random_below(2) == 0 => Fate::AnswersVanish,
            Some(_) => Fate::AllVanishes,
            None => return,
        };
        if let Some(connection) = self.state().connections.get(&number) {
            connection.meet(new);
        }
    }

    async fn travel(&self) {
        let delay = self.0.world.random_below(self.0.delay_ms.saturating_mul(1000).max(1));
        self.0.world.sleep(Duration::from_micros(delay)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
