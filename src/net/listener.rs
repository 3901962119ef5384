//! Listeners: bound before anything is served, then a task each that accepts connections within the limits.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Limits, attach};
use crate::api::Context;
use crate::config::{Entrance, HostPort, Listener};
use crate::world::JoinHandle;

/// A listener that has its port.
pub struct Bound {
    pub address: SocketAddr,
    pub entrance: Entrance,
    socket: TcpListener,
}

/// Why a listener has no port.
#[derive(Debug, thiserror::Error)]
#[error("listener {name}: can't listen on {address}: {reason}{remedy}")]
pub struct ListenError {
    name: String,
    address: String,
    reason: std::io::Error,
    remedy: &'static str,
}

/// Binds a listener's address.
///
/// # Errors
/// If the address is taken or not of this machine.
pub async fn bind(listener: &Listener) -> Result<Bound, ListenError> {
    let failed = |reason: std::io::Error| {
        let remedy = match reason.kind() {
            std::io::ErrorKind::AddrInUse => "; stop the program that has the port, or choose another with --listen",
            _ => "",
        };
        ListenError { name: listener.name.clone(), address: listener.address.to_string(), reason, remedy }
    };
    let HostPort { host, port } = &listener.address;
    let socket = TcpListener::bind((host.as_str(), *port)).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let entrance = Entrance {
        listener: listener.name.clone(),
        advertised: listener.advertised_at(address.port()),
        zone: listener.zone.clone(),
    };
    Ok(Bound { address, entrance, socket })
}

/// Accepts connections until `stop`, and ends when the last of them is closed.
pub fn serve(ctx: Arc<Context>, limits: Limits, bound: Bound, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let world = ctx.world.clone();
    world.spawn("listener", accept(ctx, limits, bound, stop))
}

async fn accept(ctx: Arc<Context>, limits: Limits, bound: Bound, mut stop: watch::Receiver<bool>) {
    let open = Arc::new(Open::default());
    let entrance = Arc::new(bound.entrance);
    let (all_closed, mut closed) = tokio::sync::mpsc::channel::<()>(1);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = bound.socket.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files, mostly: wait until connections end.
                if !std::mem::replace(&mut failing, true) {
                    warn!(listener = entrance.listener, %error, "connections can't be accepted, trying on");
                }
                ctx.world.sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            info!(listener = entrance.listener, "connections are accepted again");
        }
        let Some(place) = open.enter(peer.ip(), &limits) else {
            ctx.metrics.net.closed("limit");
            continue;
        };
        spawn(&ctx, &limits, socket, &entrance, &stop, place, all_closed.clone());
    }
    drop((bound.socket, all_closed));
    // Every connection holds a sender; this ends when the last one is gone.
    let _ = closed.recv().await;
}

fn spawn(
    ctx: &Arc<Context>,
    limits: &Limits,
    socket: TcpStream,
    entrance: &Arc<Entrance>,
    stop: &watch::Receiver<bool>,
    place: Place,
    alive: tokio::sync::mpsc::Sender<()>,
) {
    ctx.metrics.net.accepted_connections.inc();
    ctx.metrics.net.connections.inc();
    // Small answers must not wait for the client's acknowledgements; failing to set it costs only latency.
    let _ = socket.set_nodelay(true);
    let peer = socket.peer_addr().ok().map(|peer| peer.ip());
    let (read, write) = socket.into_split();
    let run = attach(ctx.clone(), limits.clone(), read, write, peer, entrance.clone(), stop.clone());
    let ctx = ctx.clone();
    ctx.clone().world.spawn("connection", async move {
        run.await;
        ctx.metrics.net.connections.dec();
        drop((place, alive));
    });
}

/// Open connections, by address. A mutex, held for a map operation per connection.
#[derive(Default)]
struct Open(Mutex<BTreeMap<IpAddr, usize>>);

/// A connection's place among the open ones.
struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Open {
    fn enter(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = open.values().sum();
        let here = open.get(&address).copied().unwrap_or(0);
        if total >= limits.connections_max || here >= limits.connections_per_address_max {
            return None;
        }
        open.insert(address, here + 1);
        Some(Place { open: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}
