//! Tells the other brokers of each entry that this one has appended, where the journal can't: fetches that wait there are
//! woken by it and not by the next look. Only hints, that may be lost: an entry that nobody tells of is found all the
//! same. To each broker one is on its way at a time, and what comes meanwhile is told with the next.
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::debug;

use super::Dial;
use super::wire::Connection;
use crate::cluster::Membership;
use crate::config::HostPort;
use crate::metadata::Replica;
use crate::types::{BrokerId, Hint};
use crate::world::World;

/// For a hint to be taken; there are others.
const PATIENCE: Duration = Duration::from_secs(2);

/// A broker that did not take one is told nothing for this long.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Hints {
    pub world: World,
    pub replica: Replica,
    pub membership: Membership,
    pub dial: Arc<dyn Dial>,
    /// As in [`super::Peers`].
    pub listener: String,
}

/// The way to one broker, which ends with this.
struct Line {
    address: HostPort,
    hint: watch::Sender<Hint>,
}

impl Hints {
    /// Tells them until nothing can be appended any more.
    pub fn start(self) {
        self.world.clone().spawn("hints", self.run());
    }

    async fn run(self) {
        let mut appended = self.replica.appended();
        let mut lines: BTreeMap<BrokerId, Line> = BTreeMap::new();
        // The first entry of this life is news as well.
        appended.mark_changed();
        while appended.changed().await.is_ok() && !self.replica.has_stopped() {
            let hint = *appended.borrow_and_update();
            let others: BTreeMap<BrokerId, HostPort> = self.membership.now().others(&self.listener).collect();
            lines.retain(|id, line| others.get(id) == Some(&line.address));
            for (id, address) in others {
                if let Some(line) = lines.get(&id) {
                    line.hint.send_replace(hint);
                } else {
                    lines.insert(id, self.open(id, address, hint));
                }
            }
        }
    }

    fn open(&self, id: BrokerId, address: HostPort, first: Hint) -> Line {
        let (hint, mut told) = watch::channel(first);
        told.mark_changed();
        let teller = Teller {
            world: self.world.clone(),
            replica: self.replica.clone(),
            dial: self.dial.clone(),
            me: self.membership.me(),
            address: address.clone(),
            connection: None,
        };
        self.world.spawn("hints to a broker", teller.run(id, told));
        Line { address, hint }
    }
}

/// Tells one broker.
struct Teller {
    world: World,
    replica: Replica,
    dial: Arc<dyn Dial>,
    me: BrokerId,
    address: HostPort,
    connection: Option<Connection>,
}

impl Teller {
    async fn run(mut self, id: BrokerId, mut told: watch::Receiver<Hint>) {
        while told.changed().await.is_ok() {
            let hint = *told.borrow_and_update();
            let world = self.world.clone();
            let taken = match world.timeout(PATIENCE, self.tell(hint)).await {
                Some(taken) => taken,
                None => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = taken {
                debug!(broker = id.0, address = %self.address, %error, "a broker is not told of entries for a moment");
                self.connection = None;
                self.world.sleep(LEFT_ALONE).await;
            }
        }
    }

    async fn tell(&mut self, hint: Hint) -> io::Result<()> {
        let Some(cluster_id) = self.replica.state().cluster_id().map(ToString::to_string) else { return Ok(()) };
        // Whoever is at the other end may have closed a connection that was idle.
        if let Some(mut idle) = self.connection.take()
            && idle.hint(&cluster_id, self.me, hint).await.is_ok()
        {
            self.connection = Some(idle);
            return Ok(());
        }
        let mut fresh = Connection::new(self.dial.dial(&self.address).await?);
        fresh.hint(&cluster_id, self.me, hint).await?;
        self.connection = Some(fresh);
        Ok(())
    }
}
